//! Answers to API requests: JSON, or an error in the common envelope.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use crate::directory::DirectoryError;
use crate::error::{Code, Refusal};
use crate::telemetry::log_limit::log_seldom;

/// Maximum number of details in an error. Further details are left out.
pub const MAX_DETAILS: usize = 20;

/// A success.
#[derive(Debug)]
pub struct ApiResponse {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

/// A failed API request, which is answered in the error envelope.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: Code,
    message: String,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
}

/// `{ "error": { … } }`: the answer to every failed request.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct ErrorResponse {
    /// The failure.
    pub error: ErrorBody,
}

/// A failure.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// A stable code.
    #[schemars(extend("enum" = codes()))]
    pub code: &'static str,
    /// A sentence for people: the subject, the limit, the remedy.
    pub message: String,
    /// Every mistake of the request, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub details: Vec<Detail>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Detail {
    /// Where the mistake is: a member (`rooms[2]`), a parameter (`?limit`), or a position in the text (`line 3, column
    /// 7`).
    pub at: String,
    /// The problem of the mistake, without the value itself.
    pub problem: String,
}

fn codes() -> Vec<&'static str> {
    Code::ALL.iter().map(|code| code.as_str()).collect()
}

/// Returns the HTTP status of an error code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::AuthenticationFailed => StatusCode::UNAUTHORIZED,
        Code::AuthorizationFailed => StatusCode::FORBIDDEN,
        Code::RateLimitExceeded | Code::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
        Code::InvalidRoom | Code::InvalidPayload => StatusCode::UNPROCESSABLE_ENTITY,
        Code::UnknownEvent | Code::NotFound => StatusCode::NOT_FOUND,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Overloaded | Code::Unavailable | Code::CallFailed => StatusCode::SERVICE_UNAVAILABLE,
        Code::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

// === impl Answer ===

impl ApiResponse {
    /// 200 with JSON.
    pub fn ok<T: Serialize>(value: &T) -> Result<Self, ApiError> {
        Self::json(StatusCode::OK, value)
    }

    /// 202 with JSON.
    pub fn accepted<T: Serialize>(value: &T) -> Result<Self, ApiError> {
        Self::json(StatusCode::ACCEPTED, value)
    }

    /// Makes an answer of JSON with a status.
    pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(|error| {
            log_seldom!(error, %error, "an answer of the API cannot be written as JSON");
            ApiError::new(Code::InternalError, "the answer cannot be written")
        })?;
        Ok(Self { status, content_type: "application/json", body: body.into() })
    }

    /// Makes an answer with this content type.
    pub fn text(content_type: &'static str, text: String) -> Self {
        Self { status: StatusCode::OK, content_type, body: text.into() }
    }

    /// 204.
    pub fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: "", body: Bytes::new() }
    }
}

impl IntoResponse for ApiResponse {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        if !self.content_type.is_empty() {
            set(&mut response, header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        set(&mut response, header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

// === impl Detail ===

impl Detail {
    /// Creates a mistake at this place.
    pub fn new(at: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { at: at.into(), problem: problem.into() }
    }
}

// === impl ApiError ===

impl ApiError {
    /// Creates a failure with the status of its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { status: status(code), code, message: message.into(), details: Vec::new(), retry_after: None }
    }

    /// Replaces the status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds mistakes.
    #[must_use]
    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.details = details;
        self.details.truncate(MAX_DETAILS);
        self
    }

    /// Adds one mistake.
    #[must_use]
    pub fn at(self, at: impl Into<String>, problem: impl Into<String>) -> Self {
        self.with_details(vec![Detail::new(at, problem)])
    }

    /// Creates the error 404: the requested thing does not exist.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(Code::NotFound, what)
    }

    /// The HTTP status.
    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the contents of the error envelope.
    pub fn body(self) -> ErrorBody {
        ErrorBody { code: self.code.as_str(), message: self.message, details: self.details }
    }
}

impl From<Refusal> for ApiError {
    // A backend gets the stable error code, not the contract's own name. Other names (`errors.codes`) are for the
    // contract's clients.
    fn from(refusal: Refusal) -> Self {
        Self { retry_after: refusal.retry_after, ..Self::new(refusal.code, refusal.message) }
    }
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Unavailable => Self::new(Code::Unavailable, error.to_string()),
            DirectoryError::Full => Self::new(Code::Overloaded, error.to_string()),
            DirectoryError::Cursor => {
                Self::new(Code::InvalidPayload, "a parameter cannot be used").at("?cursor", error.to_string())
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after, refused) = (self.status, self.retry_after, self.code == Code::AuthenticationFailed);
        let envelope = ErrorResponse { error: self.body() };
        // The error envelope contains only strings, so encoding it cannot fail.
        let body = serde_json::to_vec(&envelope).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        set(&mut response, header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        set(&mut response, header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            set(&mut response, header::RETRY_AFTER, seconds(retry_after).into());
        }
        if refused {
            set(&mut response, header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Returns the name, cut to a length that an error can show.
pub fn cut(name: &str) -> String {
    const SHOWN: usize = 64;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// The seconds of `Retry-After` are rounded up to whole seconds, at least 1.
fn seconds(wait: Option<Duration>) -> u64 {
    wait.map_or(1, |wait| wait.as_millis().div_ceil(1000).clamp(1, 3600) as u64)
}

fn set(response: &mut Response, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_characters() {
        assert_eq!(cut(&"é".repeat(100)).chars().count(), 65);
    }

    #[test]
    fn every_code_has_a_status_that_clients_understand() {
        for code in Code::ALL {
            let status = status(code);
            assert!(status.is_client_error() || status.is_server_error(), "{code}");
            assert_eq!(code.retryable(), matches!(status.as_u16(), 429 | 503) && code != Code::CallFailed, "{code}");
        }
    }

    #[test]
    fn whoever_shall_come_back_is_told_when() {
        let refusal = Refusal::new(Code::RateLimitExceeded, "slow").retry_after(Duration::from_millis(1200));
        let response = ApiError::from(refusal).into_response();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &HeaderValue::from(2)));
        let response = ApiError::new(Code::Unavailable, "away").into_response();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &HeaderValue::from(1)));
    }
}
