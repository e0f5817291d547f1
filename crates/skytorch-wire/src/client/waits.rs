//! The calls that wait for the server's answer. Each takes the stream lock over and releases it before it waits.

use std::time::Instant;

use parking_lot::MutexGuard;

use super::destination_unsafe::Destination;
use super::pending::Sink;
use super::session::ClientSession;
use super::stream::Stream;
use crate::abi::SkyScalar;
use crate::codec::{Reply, TemplateKind};
use crate::error::{Code, Result, WireError};
use crate::net::http::stopped;

impl ClientSession {
    /// Read a tensor into `destination`.
    pub(crate) fn read(
        &self,
        stream: MutexGuard<'_, Stream>,
        slot: u32,
        storage: u64,
        destination: Destination,
    ) -> Result<()> {
        let bytes = destination.bytes();
        let expected = stream.transfer_bytes(slot, TemplateKind::Read);
        let sink = Sink::Memory(destination);
        match expected {
            Ok(expected) if expected == bytes => {
                self.request(stream, sink, None, |s, stream, request| stream.read(&s.link, slot, storage, request))?;
                Ok(())
            }
            Ok(expected) => {
                self.unlock(stream);
                Err(WireError::argument(format!("a read of {expected} bytes into a buffer of {bytes}")))
            }
            Err(error) => {
                self.unlock(stream);
                Err(error)
            }
        }
    }

    /// A CALL with an answer.
    pub(crate) fn ask(
        &self,
        stream: MutexGuard<'_, Stream>,
        method: u32,
        args: &[i64],
        payload: &[u8],
    ) -> Result<Reply> {
        self.ask_until(stream, None, method, args, payload)
    }

    /// The same; fails with `Timeout` at the deadline.
    pub(super) fn ask_until(
        &self,
        stream: MutexGuard<'_, Stream>,
        deadline: Option<Instant>,
        method: u32,
        args: &[i64],
        payload: &[u8],
    ) -> Result<Reply> {
        let sink = self.request(stream, Sink::Body(Vec::new()), deadline, |s, stream, request| {
            stream.call(&s.link, method, args, payload, request)
        })?;
        reply_of(sink)
    }

    /// An op whose outputs only the server knows.
    pub(crate) fn query(
        &self,
        stream: MutexGuard<'_, Stream>,
        slot: u32,
        storages: &[u64],
        n_outputs: u32,
        scalars: &[SkyScalar],
    ) -> Result<Reply> {
        let sink = self.request(stream, Sink::Body(Vec::new()), None, |s, stream, request| {
            stream.query(&s.link, slot, storages, n_outputs, scalars, request)
        })?;
        reply_of(sink)
    }

    /// Append a record that asks, flush, and drive the connection until the answer is there.
    fn request(
        &self,
        mut stream: MutexGuard<'_, Stream>,
        sink: Sink,
        deadline: Option<Instant>,
        append: impl FnOnce(&ClientSession, &mut Stream, u64) -> Result<()>,
    ) -> Result<Sink> {
        let pending = &self.link.pending;
        stream.close_gather(&self.link);
        let request = stream.next_request();
        pending.insert(request, stream.next_position(), sink);
        if let Err(error) = append(self, &mut stream, request) {
            pending.remove(request);
            self.unlock(stream);
            return Err(error);
        }
        stream.cut(&self.link);
        stream.take_queued();
        // Whatever was unacknowledged is done with once the answer is there.
        stream.caught_up();
        drop(stream);
        self.link.out.wake();
        if let Err(stop) = self.driver.wait(deadline, || pending.is_settled(request))
            && pending.abandon(request)
        {
            return Err(stopped(stop, "waiting for the server"));
        }
        let (outcome, sink) = pending.take(request);
        outcome.map(|()| sink)
    }
}

fn reply_of(sink: Sink) -> Result<Reply> {
    match sink {
        Sink::Body(body) => Reply::decode(&body),
        Sink::Memory(_) | Sink::Discard | Sink::Tell(_) => {
            Err(WireError::new(Code::Internal, "a reply without a body"))
        }
    }
}
