//! What can go wrong in a reconcile, and which of it is the Compute's own fault. That goes into its status; the rest
//! (an API server that is away, a write that lost a race) is tried again and only logged.

use std::time::Duration;

use crate::verdict::Verdict;

/// Why a reconcile did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be asked.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was tried, such as `apply StatefulSet demo`.
        action: String,
        /// Its answer.
        #[source]
        source: kube::Error,
    },
    /// An object of that name is there and is somebody else's.
    #[error(
        "{kind} {name} is there already and belongs to {owner}: delete it, or choose another name for the compute"
    )]
    Conflict {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Who it belongs to.
        owner: String,
    },
    /// An object of that name is on its way out, most often an earlier Compute's.
    #[error("{kind} {name} of that name is still being deleted")]
    Leaving {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The Compute itself is gone, and its watch has not told so yet.
    #[error("compute {name} is gone")]
    Gone {
        /// Its name.
        name: String,
    },
    /// The override makes no pod template.
    #[error("the override makes no valid pod template: {0}")]
    Override(String),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The API server did not answer in time.
    #[error("the reconcile did not end within {} s", .0.as_secs())]
    Late(Duration),
}

impl Error {
    /// Names the action that the API server refused.
    pub(crate) fn api(action: String) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { action, source }
    }

    /// What to tell in the Compute's status; `None`: nothing, it is not its fault.
    pub(crate) fn verdict(&self, has_override: bool) -> Option<Verdict> {
        match self {
            Self::Conflict { .. } => Some(Verdict::stuck("Conflict", self.to_string())),
            Self::Leaving { .. } => Some(Verdict::starting(self.to_string())),
            Self::Override(_) => Some(Verdict::stuck("InvalidOverride", self.to_string())),
            Self::Api { action, source: kube::Error::Api(status) } => {
                let told = format!("cannot {action}: {}", status.message);
                let invalid = status.is_invalid()
                    || status.code == 400
                    // What is of the wrong type is answered with 500.
                    || status.message.contains("failed to create typed patch object");
                if status.is_forbidden() && status.message.contains("exceeded quota") {
                    Some(Verdict::stuck("QuotaExceeded", told))
                } else if status.is_forbidden() && !status.message.contains("being terminated") {
                    Some(Verdict::stuck("Forbidden", told))
                } else if invalid && has_override && action.contains("StatefulSet") {
                    Some(Verdict::stuck("InvalidOverride", told))
                } else if invalid {
                    Some(Verdict::stuck("InvalidSpec", told))
                } else {
                    None
                }
            }
            Self::Api { .. } | Self::Gone { .. } | Self::Certificate(_) | Self::Late(_) => None,
        }
    }

    /// Whether the object was not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.is_not_found())
    }

    /// A word for the metric.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Conflict { .. } => "conflict",
            Self::Leaving { .. } => "leaving",
            Self::Gone { .. } => "gone",
            Self::Override(_) => "override",
            Self::Certificate(_) => "certificate",
            Self::Late(_) => "late",
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::error::Status;

    use super::*;

    fn refused(action: &str, code: u16, reason: &str, message: &str) -> Error {
        let status = Status { code, ..Status::failure(message, reason) };
        Error::api(action.to_owned())(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn what_the_compute_is_to_blame_for_has_its_reason() {
        for (error, has_override, reason) in [
            (refused("apply StatefulSet x", 422, "Invalid", "spec.template: bad"), true, "InvalidOverride"),
            (refused("apply StatefulSet x", 422, "Invalid", "spec.template: bad"), false, "InvalidSpec"),
            (refused("apply Service x", 422, "Invalid", "metadata.name: bad"), true, "InvalidSpec"),
            (
                refused("apply StatefulSet x", 500, "", "failed to create typed patch object (a)"),
                true,
                "InvalidOverride",
            ),
            (refused("apply Secret x", 403, "Forbidden", "exceeded quota: q, requested: 1"), false, "QuotaExceeded"),
            (refused("apply Secret x", 403, "Forbidden", "user cannot patch"), false, "Forbidden"),
            (Error::Override("x".to_owned()), true, "InvalidOverride"),
        ] {
            let verdict = error.verdict(has_override).expect("a verdict");
            assert_eq!(
                (verdict.reason.as_ref(), verdict.ready, verdict.progressing),
                (reason, false, false),
                "{error}"
            );
        }
    }

    #[test]
    fn what_it_is_not_to_blame_for_is_not_told() {
        for error in [
            refused("apply Service x", 503, "ServiceUnavailable", "down"),
            refused("apply Service x", 409, "Conflict", "changed"),
            refused("apply Service x", 403, "Forbidden", "namespace n is being terminated"),
            Error::Late(Duration::from_secs(1)),
        ] {
            assert_eq!(error.verdict(true), None, "{error}");
        }
    }
}
