//! Why a token is not valid. No variant holds any part of the token.

use crate::error::{Code, Refusal};

/// Why a client is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The contract requires a token, and no place where the contract looks for tokens has one.
    #[error("a token is required")]
    TokenMissing,
    /// The text is not a JWT.
    #[error("the token is not a JWT")]
    TokenMalformed,
    /// The token is longer than 8 KiB.
    #[error("the token is longer than 8 KiB")]
    TokenTooLong,
    /// `exp` has passed.
    #[error("the token has expired")]
    TokenExpired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    TokenNotYetValid,
    /// No key that could have signed the token has signed it.
    #[error("the signature of the token is invalid")]
    SignatureInvalid,
    /// `iss` is missing or not accepted.
    #[error("the issuer of the token is not accepted")]
    Issuer,
    /// `aud` is missing or not accepted.
    #[error("the token is meant for another audience")]
    Audience,
    /// The token names a key that the node does not know.
    #[error("the key that signed the token is not known")]
    KeyUnknown,
    /// The node has no key for the algorithm that the token names, such as `none`.
    #[error("the algorithm of the token is not accepted")]
    Algorithm,
    /// `exp`, the claim with the user's id, or another required claim is missing or of the wrong type.
    #[error("a claim of the token is missing or malformed: exp and the user's id are required")]
    Claim,
    /// The token is a one-room capability where a user's token is required, or the reverse.
    #[error("the token was made for another use")]
    WrongUse,
    /// The token, its user or its socket is revoked.
    #[error("the token was revoked")]
    Revoked,
}

impl AuthError {
    /// All variants, for documents and tests.
    pub const ALL: [Self; 13] = [
        Self::TokenMissing,
        Self::TokenMalformed,
        Self::TokenTooLong,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::SignatureInvalid,
        Self::Issuer,
        Self::Audience,
        Self::KeyUnknown,
        Self::Algorithm,
        Self::Claim,
        Self::WrongUse,
        Self::Revoked,
    ];

    /// The label in metrics and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenMalformed => "token_malformed",
            Self::TokenTooLong => "token_too_long",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::SignatureInvalid => "signature_invalid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::KeyUnknown => "key_unknown",
            Self::Algorithm => "algorithm",
            Self::Claim => "claim",
            Self::WrongUse => "wrong_use",
            Self::Revoked => "revoked",
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(Code::AuthenticationFailed, error.to_string())
    }
}

/// Why the configured keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// A key of the configuration cannot be used.
    #[error("auth.keys[{index}]: {problem}")]
    Key {
        /// The key's index in the list.
        index: usize,
        /// The problem. Never contains the key.
        problem: String,
    },
    /// The file of a key set cannot be used.
    #[error("auth.jwks.file: {0}")]
    File(String),
    /// The HTTP client that fetches a key set cannot be built.
    #[error("auth.jwks.url: the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}
