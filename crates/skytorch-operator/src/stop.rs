//! The wish that the process ends: SIGTERM, or Ctrl-C. Whoever waits for something waits for this beside it.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// See the module. Clones are of one wish.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for the signals from now on.
    pub(crate) fn on_signal() -> std::io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            let _ = sender.send(true);
        });
        Ok(Self(receiver))
    }

    /// Ends when the process is to end.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut wish = self.0.clone();
        async move {
            let _ = wish.wait_for(|stopping| *stopping).await;
        }
    }
}
