//! Writes into tensors: in the op stream, copied onto the lane, or from the caller's own memory.
//!
//! The record is appended at call time, so that its place in the total order is the caller's (INV-1); the bytes may
//! come later. The subtle case is an interrupted blocking upload: the call may only return once nothing reads the
//! caller's memory any more, so it cancels the upload and waits for the last part to go.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::gather::{self, End, Gather};
use super::pending::Sink;
use super::session::ClientSession;
use super::stream::Stream;
use crate::abi::SKY_CALL_PROBE;
use crate::codec::{Part, TemplateKind};
use crate::error::{Code, Result, WireError};
use crate::hooks;
use crate::lane::target::SendTarget;
use crate::lane::upload::Cancel;
use crate::lane::{Admission, Job, Payload, lend};
use crate::limits;
use prost::Message as _;

/// How often a blocking upload looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(100);
/// How long a cancelled upload may take to let go before its connection is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(250);

/// What is written.
pub(crate) enum Source<'a> {
    /// Copied if it is small; otherwise the call blocks, reading from it.
    Blocking(&'a [u8]),
    /// Held by reference until its owner is dropped.
    Held(Bytes),
}

impl ClientSession {
    /// Write into a tensor; see the C ABI for when it returns.
    pub(crate) fn write(
        &self,
        mut stream: MutexGuard<'_, Stream>,
        slot: u32,
        storage: u64,
        source: Source<'_>,
    ) -> Result<()> {
        let data: &[u8] = match &source {
            Source::Blocking(data) => data,
            Source::Held(data) => data,
        };
        let bytes = data.len() as u64;
        let checked = stream.transfer_bytes(slot, TemplateKind::Write).and_then(|expected| match expected == bytes {
            true => Ok(()),
            false => Err(WireError::argument(format!("a write of {bytes} bytes into a tensor of {expected}"))),
        });
        if checked.is_err() || bytes <= limits::INLINE_WRITE_BYTES {
            let result = checked.and_then(|()| stream.write(&self.link, slot, storage, data));
            self.unlock(stream);
            return result;
        }
        let transfer = match stream.write_lane(&self.link, slot, storage) {
            Ok(transfer) => transfer,
            Err(error) => {
                self.unlock(stream);
                return Err(error);
            }
        };
        self.unlock_and_flush(stream);
        match source {
            Source::Held(data) => self.push(transfer, data.into(), false, Arc::default(), |_| {}),
            Source::Blocking(data) if bytes <= limits::LANE_COPY_BYTES => {
                self.push(transfer, Bytes::copy_from_slice(data).into(), true, Arc::default(), |_| {});
            }
            Source::Blocking(data) => return self.upload_blocking(transfer, data),
        }
        Ok(())
    }

    fn push(
        &self,
        transfer: u64,
        data: Payload,
        copied: bool,
        cancel: Arc<Cancel>,
        done: impl FnOnce(&Result<()>) + Send + 'static,
    ) {
        let ticket = self.admission(transfer).ticket(data.bytes());
        let link = self.link.clone();
        let done = Box::new(move |result: Result<()>| {
            done(&result);
            match result {
                // A session that has ended admits no upload: its goodbye is on the way and says how it went.
                Err(error) if error.code == Code::Unauthenticated && link.is_closing() => link.notify(),
                // The op stream waits for these bytes. Without the lane, or without a transfer, they will never come.
                Err(error) if matches!(error.code, Code::ConnectionLost | Code::Unauthenticated) => link.fail(error),
                // Any other refusal poisons the tensor on the server, where the next read finds it.
                _ => link.notify(),
            }
        });
        self.link.lane.push(Job::new(ticket, data, copied, cancel, done));
    }

    fn upload_blocking(&self, transfer: u64, data: &[u8]) -> Result<()> {
        let outcome = Arc::new(Mutex::new(None));
        let report = outcome.clone();
        let cancel = Arc::new(Cancel::default());
        let mut interrupted: Option<Instant> = None;
        {
            let _outside = hooks::Outside::enter();
            let done = move |result: &Result<()>| *report.lock() = Some(result.clone());
            lend(
                &[data],
                |bytes| self.push(transfer, bytes, false, cancel.clone(), done),
                |loan| {
                    loan.wait(TICK);
                    match interrupted {
                        _ if loan.is_over() => {}
                        None if hooks::interrupted() => {
                            interrupted = Some(Instant::now());
                            cancel.cancel();
                            self.link.lane.poke();
                        }
                        // The server takes nothing: what HTTP/2 holds goes with the connection.
                        Some(since) if since.elapsed() > CANCEL_TIMEOUT => {
                            interrupted = Some(Instant::now());
                            self.link.lane.break_off();
                        }
                        _ => {}
                    }
                },
            );
        }
        let outcome = outcome.lock().take();
        match outcome {
            Some(Ok(())) => Ok(()),
            _ if interrupted.is_some() => {
                Err(WireError::new(Code::Interrupted, "interrupted during an upload; the tensor's value is lost"))
            }
            Some(Err(error)) => Err(error),
            None => Err(self.link.failure()),
        }
    }

    /// What admits a transfer of this session.
    fn admission(&self, transfer: u64) -> Admission {
        Admission { transfer, session_id: self.session_id, began: self.welcomed }
    }

    /// Append a copy from a tensor of `self` to one of `other`, server to server, or have it travel with the copies
    /// right before it. Both stream locks are held.
    pub(crate) fn send_between(
        &self,
        stream: &mut Stream,
        from: Part,
        other: &ClientSession,
        other_stream: &mut Stream,
        to: Part,
        bytes: u64,
    ) -> Result<()> {
        let reads = stream.transfer_bytes(from.slot, TemplateKind::Read)?;
        let writes = other_stream.transfer_bytes(to.slot, TemplateKind::Write)?;
        if reads != bytes || writes != bytes {
            return Err(WireError::argument(format!("a copy of {bytes} bytes between tensors of other sizes")));
        }
        if from.storage == 0 || to.storage == 0 {
            return Err(WireError::argument("a copy of storage 0: ids begin at 1"));
        }
        match (stream.gather(), other_stream.gather()) {
            (Some(ours), Some(theirs)) if ours.takes(theirs, bytes) => {
                ours.push(from, bytes);
                theirs.push(to, bytes);
            }
            _ => self.begin_gather(stream, from, other, other_stream, to, bytes)?,
        }
        stream.note_gathered();
        other_stream.note_gathered();
        Ok(())
    }

    fn begin_gather(
        &self,
        stream: &mut Stream,
        from: Part,
        other: &ClientSession,
        other_stream: &mut Stream,
        to: Part,
        bytes: u64,
    ) -> Result<()> {
        stream.close_gather(&self.link);
        other_stream.close_gather(&other.link);
        let tls = other.target.tls.clone().unwrap_or_default();
        let ca_pem = tls.ca_pem.map(|ca| ca.read("TLS CA").map(Cow::into_owned)).transpose()?;
        let mut target = SendTarget {
            address: other.peer.to_string(),
            // Any is as long as the one that is made when the size is known.
            ticket: other.admission(0).ticket(bytes),
            ca_pem: ca_pem.unwrap_or_default().into(),
            server_name: tls.server_name.unwrap_or_default(),
            checksum: other.options.bulk_checksum,
            request: u64::MAX,
        };
        let (n, limit) = (target.encoded_len(), limits::PAYLOAD_BYTES);
        if n > limit {
            return Err(WireError::limit(format!("send with a payload of {n} bytes: the limit is {limit}")));
        }
        // Numbers are for what goes: see `next_transfer`.
        let transfer = other_stream.next_transfer();
        let admission = other.admission(transfer);
        target.request = stream.next_request();
        // Whatever keeps the bytes from going, the other server must not wait for them.
        let lane = other.link.lane.clone();
        let tell = move |outcome: Result<()>| {
            if outcome.is_err() {
                lane.push(Job::abort(admission.ticket(0), Code::ConnectionLost));
            }
        };
        // Now, and not when the record is appended: the session may fail before that.
        self.link.pending.insert(target.request, u64::MAX, Sink::Tell(Box::new(tell)));
        let number = gather::next_number();
        stream.open_gather(Gather::new(number, End::Send(Box::new(target), admission), from, bytes));
        other_stream.open_gather(Gather::new(number, End::Write { transfer }, to, bytes));
        Ok(())
    }

    /// Whether this session's server can reach the other's. Asked until there was an answer, once per address.
    pub(crate) fn can_send(&self, other: &ClientSession) -> Result<bool> {
        let name = other.peer.to_string();
        if let Some(&known) = self.reachable.lock().get(&name) {
            return Ok(known);
        }
        let reply = self.ask(self.lock()?, SKY_CALL_PROBE, &[], name.as_bytes())?;
        let reachable = reply.values.first().is_some_and(|value| value.integer == 1);
        self.reachable.lock().insert(name, reachable);
        Ok(reachable)
    }
}
