//! What is to be reconciled next. Everything that may matter to a Compute ends up here as its name: its own change, a
//! change of what it owns, an event, a reading. Names that wait already are not queued twice (kube's applier does it).

use futures_util::Stream;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::crd::Compute;

/// The end that is written to.
#[derive(Clone)]
pub(crate) struct Queue(UnboundedSender<ObjectRef<Compute>>);

impl Queue {
    /// Both ends.
    pub(crate) fn new() -> (Self, UnboundedReceiver<ObjectRef<Compute>>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Has a Compute reconciled. Once the operator stops, nothing is.
    pub(crate) fn push(&self, compute: ObjectRef<Compute>) {
        let _ = self.0.send(compute);
    }

    /// By namespace and name.
    pub(crate) fn push_name(&self, namespace: &str, name: &str) {
        self.push(ObjectRef::new(name).within(namespace));
    }
}

/// The end that is read.
pub(crate) fn stream(mut receiver: UnboundedReceiver<ObjectRef<Compute>>) -> impl Stream<Item = ObjectRef<Compute>> {
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}
