//! The error codes that clients and backends can see, and the refusal that carries one.

use serde::Serialize;

/// A stable error code. Contracts can rename it for their clients (`errors.codes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The client gave no token, or an invalid one.
    AuthenticationFailed,
    /// A rule forbids the request.
    AuthorizationFailed,
    /// The request comes more often than a rate limit permits.
    RateLimitExceeded,
    /// The address or the user has the maximum number of connections.
    TooManyConnections,
    /// The room's name cannot be built, or the contract does not define such a room.
    InvalidRoom,
    /// The payload does not match the contract.
    InvalidPayload,
    /// No contract of the namespace defines the event.
    UnknownEvent,
    /// The request is larger than a limit permits.
    TooLarge,
    /// The node is overloaded; the client should try again later.
    Overloaded,
    /// A service that the request needs, such as Redis or a backend, is unavailable.
    Unavailable,
    /// The backend refused the call, or the call failed.
    CallFailed,
    /// The thing asked for does not exist.
    NotFound,
    /// The node has an internal fault.
    InternalError,
}

impl Code {
    /// Every code, for documents and tests.
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

    /// Returns the code as clients see it.
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

    /// Reads a code from its text form.
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

/// A refusal of a request, as it is sent to the client or backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.shown_code())]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// The contract's own name for the code, if it has one.
    pub alias: Option<String>,
    /// A sentence for people: the subject, the limit, the remedy. Never a secret.
    pub message: String,
    /// How long to wait before trying again, if the time is known.
    pub retry_after: Option<std::time::Duration>,
}

impl Refusal {
    /// Creates a refusal with a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, alias: None, message: message.into(), retry_after: None }
    }

    /// Returns the same refusal under this name for its code.
    #[must_use]
    pub fn known_as(mut self, code: impl Into<String>) -> Self {
        self.alias = Some(code.into());
        self
    }

    /// Returns the same refusal with the code and the message that the clients of a contract see.
    #[must_use]
    pub fn shown_as(self, code: String, message: String) -> Self {
        Self { alias: Some(code), message, ..self }
    }

    /// Returns the same refusal with the time to wait before trying again.
    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Returns the code that the client sees: the contract's own name if there is one, else the stable code.
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
