//! What is to be said about a Compute now: is it ready, will it become so by itself, and why.

use std::borrow::Cow;
use std::time::Duration;

/// `Ready` and `Progressing` with their reason. Neither is true: it will not become ready without a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// It serves.
    pub(crate) ready: bool,
    /// It is on its way to be ready, or to be suspended.
    pub(crate) progressing: bool,
    /// A word, such as `FailedScheduling`; Kubernetes' own where it has one.
    pub(crate) reason: Cow<'static, str>,
    /// A sentence for people.
    pub(crate) message: String,
    /// When the passage of time alone can change this verdict.
    pub(crate) look_again: Option<Duration>,
}

impl Verdict {
    /// It serves.
    pub(crate) fn ready(message: impl Into<String>) -> Self {
        Self { ready: true, progressing: false, reason: "Ready".into(), message: message.into(), look_again: None }
    }

    /// It is on its way.
    pub(crate) fn progressing(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { ready: false, progressing: true, reason: reason.into(), message: message.into(), look_again: None }
    }

    /// It starts, as it should.
    pub(crate) fn starting(message: impl Into<String>) -> Self {
        Self::progressing("Starting", message)
    }

    /// It stays as it is until somebody changes something.
    pub(crate) fn stuck(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { ready: false, progressing: false, reason: reason.into(), message: message.into(), look_again: None }
    }

    /// The same, to be looked at again after `delay` even if nothing happens.
    pub(crate) fn look_again(self, delay: Duration) -> Self {
        Self { look_again: Some(delay), ..self }
    }
}
