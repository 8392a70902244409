//! Every code that a client or a backend can see, once.

use serde::Serialize;

/// A stable code. Contracts may rename it for their clients (`errors.codes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// No token, or one that does not hold.
    AuthenticationFailed,
    /// The rules say no.
    AuthorizationFailed,
    /// More often than the limit permits.
    RateLimitExceeded,
    /// An address or a user has as many connections as it may have at a time.
    TooManyConnections,
    /// The room's name cannot be made, or is not one of the contract's.
    InvalidRoom,
    /// The payload is not what the contract asks for.
    InvalidPayload,
    /// No contract of the namespace knows the event.
    UnknownEvent,
    /// Larger than the limit permits.
    TooLarge,
    /// The node has too much to do; trying again later is right.
    Overloaded,
    /// Something the request needs (Redis, a backend) is away.
    Unavailable,
    /// The backend refused or failed the call.
    CallFailed,
    /// The thing asked for does not exist.
    NotFound,
    /// A fault of the node.
    InternalError,
}

impl Code {
    /// All codes, for documents and tests.
    pub const ALL: [Self; 13] = [
        Self::AuthenticationFailed,
        Self::AuthorizationFailed,
        Self::RateLimitExceeded,
        Self::TooManyConnections,
        Self::InvalidRoom,
        Self::InvalidPayload,
        Self::UnknownEvent,
        Self::TooLarge,
        Self::Overloaded,
        Self::Unavailable,
        Self::CallFailed,
        Self::NotFound,
        Self::InternalError,
    ];

    /// The code as it is sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthenticationFailed => "AUTHENTICATION_FAILED",
            Self::AuthorizationFailed => "AUTHORIZATION_FAILED",
            Self::RateLimitExceeded => "RATE_LIMIT_EXCEEDED",
            Self::TooManyConnections => "TOO_MANY_CONNECTIONS",
            Self::InvalidRoom => "INVALID_ROOM",
            Self::InvalidPayload => "INVALID_PAYLOAD",
            Self::UnknownEvent => "UNKNOWN_EVENT",
            Self::TooLarge => "TOO_LARGE",
            Self::Overloaded => "OVERLOADED",
            Self::Unavailable => "UNAVAILABLE",
            Self::CallFailed => "CALL_FAILED",
            Self::NotFound => "NOT_FOUND",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// The code that is spelled so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// Whether the same request may succeed later.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::RateLimitExceeded | Self::TooManyConnections | Self::Overloaded | Self::Unavailable)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: what a client or backend is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.shown_code())]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// The code as the contract's clients know it, where that is another.
    pub alias: Option<String>,
    /// A sentence for people: the subject, the limit, the remedy. Never a secret.
    pub message: String,
    /// How long to wait before trying again, where that is known.
    pub retry_after: Option<std::time::Duration>,
}

impl Refusal {
    /// A refusal with a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, alias: None, message: message.into(), retry_after: None }
    }

    /// The same refusal under the code that the contract's clients know.
    #[must_use]
    pub fn known_as(mut self, code: impl Into<String>) -> Self {
        self.alias = Some(code.into());
        self
    }

    /// The same refusal under the name that a contract gives its code, unless it has an alias already.
    #[must_use]
    pub fn shown_by(mut self, name: impl FnOnce(Code) -> String) -> Self {
        self.alias.get_or_insert_with(|| name(self.code));
        self
    }

    /// The same refusal with the time to wait before trying again.
    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The code to show.
    pub fn shown_code(&self) -> &str {
        self.alias.as_deref().unwrap_or(self.code.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_spelled_alike_in_json_and_text() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
    }
}
