//! The errors of a hook, and the refusals that clients get for these errors.

use std::time::Duration;

use super::request::HookKind;
use crate::error::{Code, Refusal};

/// Why a call of a hook has no positive answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The configuration has no hook with this name.
    #[error("the node has no hook with the name {0}")]
    Unknown(String),
    /// The backend refused.
    #[error("the backend refused: {0}")]
    Refused(Denial),
    /// The backend did not answer within the time-out.
    #[error("the backend did not answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The backend could not be reached, or the connection broke.
    #[error("the backend cannot be reached")]
    Unreachable,
    /// The backend answered with a status that neither agrees nor refuses.
    #[error("the backend answered {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The backend's `Retry-After`, if it is a number of seconds.
        retry_after: Option<Duration>,
    },
    /// The backend's answer cannot be understood.
    #[error("the backend's answer is invalid: {0}")]
    BadAnswer(String),
    /// The queue of waiting calls is full, so this call was not made.
    #[error("the hook's queue is full: {waiting} calls wait")]
    Overloaded {
        /// The bound of the queue, in calls.
        waiting: usize,
    },
    /// The circuit breaker is open, so the backend was not called.
    #[error("the backend has failed too often; the next call is possible in {}", humantime::format_duration(*.0))]
    Open(Duration),
}

/// A backend's refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", .code.as_deref().unwrap_or_default(), if .code.is_some() { ": " } else { "" })]
pub struct Denial {
    /// The backend's code, if it gave one: at most 64 letters, digits, `_`, `-` and `.`.
    pub code: Option<String>,
    /// The backend's message for people, at most 512 bytes; may be empty.
    pub message: String,
    /// How long the backend allows the refusal to be remembered.
    pub ttl: Option<Duration>,
}

/// The time after which a client should try again when the hook's queue was full.
const AFTER_OVERLOAD: Duration = Duration::from_secs(1);

impl HookError {
    /// The label in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::Refused(_) => "refused",
            Self::Timeout(_) => "timeout",
            Self::Unreachable => "unreachable",
            Self::Status { .. } => "status",
            Self::BadAnswer(_) => "bad_answer",
            Self::Overloaded { .. } => "overloaded",
            Self::Open(_) => "open",
        }
    }

    /// Gives the refusal of a connection or a join the code `AUTHORIZATION_FAILED`, unless the backend gave a code.
    pub(super) fn about(self, kind: HookKind) -> Self {
        match (self, kind) {
            (Self::Refused(denial), HookKind::Connect | HookKind::Join) if denial.code.is_none() => {
                Self::Refused(Denial { code: Some(Code::AuthorizationFailed.as_str().to_owned()), ..denial })
            }
            (error, _) => error,
        }
    }

    /// Whether the same request may be sent again: the backend failed, and may work the next time.
    pub(super) const fn is_repeatable(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable => true,
            Self::Status { status, .. } => *status >= 500 || matches!(*status, 408 | 425 | 429),
            Self::Unknown(_) | Self::Refused(_) | Self::BadAnswer(_) | Self::Overloaded { .. } | Self::Open(_) => false,
        }
    }

    /// Whether the backend will never accept this request, so that repeating it cannot help.
    pub(super) const fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Status { status, .. } => matches!(*status, 400 | 410 | 413 | 415 | 422),
            _ => false,
        }
    }

    /// How long the backend asks callers to wait.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the error counts as a failure of the backend for the circuit breaker.
    pub(super) const fn is_illness(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

// The refusal that clients see never contains addresses or status lines of backends.
impl From<HookError> for Refusal {
    fn from(error: HookError) -> Self {
        match error {
            HookError::Refused(denial) => denial.into(),
            HookError::Timeout(_) => Self::new(Code::CallFailed, "the backend did not answer in time"),
            HookError::Unreachable => Self::new(Code::CallFailed, "the backend cannot be reached"),
            HookError::Status { status: 429, retry_after } => {
                let refusal = Self::new(Code::Overloaded, "the backend has too much to do; try again later");
                refusal.retry_after(retry_after.unwrap_or(AFTER_OVERLOAD))
            }
            HookError::Status { status: 503, retry_after: Some(wait) } => {
                Self::new(Code::Unavailable, "the backend is away; try again later").retry_after(wait)
            }
            HookError::Status { .. } | HookError::BadAnswer(_) | HookError::Unknown(_) => {
                Self::new(Code::CallFailed, "the backend failed")
            }
            HookError::Overloaded { .. } => {
                Self::new(Code::Overloaded, "too many calls wait for the backend; try again later")
                    .retry_after(AFTER_OVERLOAD)
            }
            HookError::Open(wait) => {
                Self::new(Code::Unavailable, "the backend is away; try again later").retry_after(wait)
            }
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let message = if denial.message.is_empty() { "the backend refused".to_owned() } else { denial.message };
        match denial.code {
            None => Self::new(Code::CallFailed, message),
            Some(code) => match Code::parse(&code) {
                Some(known) => Self::new(known, message),
                None => Self::new(Code::CallFailed, message).known_as(code),
            },
        }
    }
}

/// Why the hooks of a configuration cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("hooks.{hook}.{key}: {problem}")]
pub struct HooksSetupError {
    /// The hook's name.
    pub hook: String,
    /// The key in the hook's section.
    pub key: &'static str,
    /// The problem and its remedy.
    pub problem: String,
    /// The underlying error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Option<&str>, message: &str) -> Refusal {
        HookError::Refused(Denial { code: code.map(Into::into), message: message.into(), ttl: None }).into()
    }

    #[test]
    fn a_code_of_the_catalogue_stays_itself() {
        let refusal = refused(Some("NOT_FOUND"), "no such job");
        assert_eq!((refusal.code, refusal.shown_code()), (Code::NotFound, "NOT_FOUND"));
        assert_eq!(refusal.message, "no such job");
    }

    #[test]
    fn a_code_of_the_backend_is_shown_to_clients() {
        let refusal = refused(Some("TOO_LATE"), "the song is finished");
        assert_eq!((refusal.code, refusal.shown_code()), (Code::CallFailed, "TOO_LATE"));
    }

    #[test]
    fn a_refusal_without_words_still_has_some() {
        let refusal = refused(None, "");
        assert_eq!((refusal.code, refusal.message.as_str()), (Code::CallFailed, "the backend refused"));
    }

    #[test]
    fn overload_and_an_open_breaker_say_when_to_return() {
        let overloaded: Refusal = HookError::Overloaded { waiting: 1 }.into();
        assert_eq!((overloaded.code, overloaded.retry_after), (Code::Overloaded, Some(AFTER_OVERLOAD)));
        let open: Refusal = HookError::Open(Duration::from_secs(3)).into();
        assert_eq!((open.code, open.retry_after), (Code::Unavailable, Some(Duration::from_secs(3))));
    }

    #[test]
    fn clients_learn_nothing_of_the_backends_inside() {
        for error in [
            HookError::BadAnswer("unknown field `password`".into()),
            HookError::Status { status: 500, retry_after: None },
            HookError::Unknown("internal-billing".into()),
        ] {
            assert_eq!(Refusal::from(error).message, "the backend failed");
        }
    }
}
