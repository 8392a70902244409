//! The answers to requests that the edge does not serve. The official client retries after each of them, with its own
//! back-off. `Retry-After` is for clients that read it.

use axum::body::Body;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::error::{Code, Refusal};
use crate::forward::NotForwarded;

/// How long a client should wait before it tries again when the node cannot take it.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);

/// The reason why a request is not served.
#[derive(Debug, Clone)]
pub enum RequestRefusal {
    /// The web page's origin may not connect.
    Origin,
    /// The node is draining.
    Leaving,
    /// The node has as many connections as it may have, or too many requests are being forwarded.
    Crowded,
    /// The client's address has too many connections, or has opened too many in a short time.
    Limited(Refusal),
    /// The request is not a handshake that can be served.
    Malformed,
    /// A WebSocket handshake over HTTP/1.0, which has no upgrades (RFC 9110, 7.8).
    OldHttp,
    /// The client uses a version of Engine.IO that this node does not serve, or another version than its session.
    OtherVersion,
    /// The transport is neither polling nor WebSocket.
    OtherTransport,
    /// The client wants answers as a script (JSONP).
    Jsonp,
    /// No session has this id, or the session belongs to another client.
    UnknownSession,
    /// The client is still sending another body.
    Overlap,
    /// The client did not send the body within the time limit for bodies.
    SlowBody,
    /// The body is larger than `server.max_payload`.
    TooLarge,
}

impl From<NotForwarded> for RequestRefusal {
    fn from(why: NotForwarded) -> Self {
        match why {
            NotForwarded::Gone
            | NotForwarded::Unreachable
            | NotForwarded::Cut
            | NotForwarded::Timeout
            | NotForwarded::Silent
            | NotForwarded::Refused => Self::UnknownSession,
            NotForwarded::Busy => Self::Crowded,
            NotForwarded::TooLarge => Self::TooLarge,
            NotForwarded::SlowBody => Self::SlowBody,
            NotForwarded::Overlap => Self::Overlap,
        }
    }
}

impl RequestRefusal {
    /// The value of the label `reason` of `roomcast_handshakes_refused_total`.
    pub(in crate::engine) fn reason(&self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Leaving => "leaving",
            Self::Crowded => "crowded",
            Self::Limited(refusal) if refusal.code == Code::TooManyConnections => "ip_connections",
            Self::Limited(_) => "ip_rate",
            Self::Malformed | Self::OldHttp | Self::OtherVersion | Self::OtherTransport | Self::Jsonp => "malformed",
            Self::UnknownSession => "unknown_session",
            Self::Overlap => "overlap",
            Self::SlowBody => "slow_body",
            Self::TooLarge => "too_large",
        }
    }

    pub(in crate::engine) fn answer(self) -> Response<Body> {
        match self {
            Self::Origin => {
                let text = "this origin may not connect; server.cors_origins names those that may";
                refuse(StatusCode::FORBIDDEN, &Refusal::new(Code::AuthorizationFailed, text))
            }
            Self::Leaving => unavailable(Code::Unavailable, "the node is draining; another one will answer"),
            Self::Crowded => unavailable(Code::Overloaded, "the node has reached its maximum number of connections"),
            Self::Limited(refusal) => refuse(StatusCode::TOO_MANY_REQUESTS, &refusal),
            Self::Malformed => {
                let text = "the request's address or method cannot be served";
                refuse(StatusCode::BAD_REQUEST, &Refusal::new(Code::InvalidPayload, text))
            }
            Self::OldHttp => {
                let text = "a WebSocket needs HTTP/1.1; in nginx: proxy_http_version 1.1";
                refuse(StatusCode::BAD_REQUEST, &Refusal::new(Code::InvalidPayload, text))
            }
            Self::OtherVersion => {
                json(StatusCode::BAD_REQUEST, r#"{"code":5,"message":"Unsupported protocol version"}"#.into())
            }
            Self::OtherTransport => json(StatusCode::BAD_REQUEST, r#"{"code":0,"message":"Transport unknown"}"#.into()),
            Self::Jsonp => {
                let text = r#"{"code":3,"message":"JSONP polling is not supported; use XHR or fetch, or a WebSocket"}"#;
                json(StatusCode::BAD_REQUEST, text.into())
            }
            // The refusal has the same form as that of Engine.IO's own server. The answer does not show whether the id
            // belongs to another client.
            Self::UnknownSession => {
                json(StatusCode::BAD_REQUEST, r#"{"code":1,"message":"Session ID unknown"}"#.into())
            }
            Self::Overlap => json(StatusCode::BAD_REQUEST, r#"{"code":3,"message":"Bad request"}"#.into()),
            Self::TooLarge => json(StatusCode::PAYLOAD_TOO_LARGE, r#"{"code":3,"message":"Bad request"}"#.into()),
            Self::SlowBody => json(StatusCode::REQUEST_TIMEOUT, r#"{"code":3,"message":"Bad request"}"#.into()),
        }
    }
}

fn unavailable(code: Code, text: &str) -> Response<Body> {
    refuse(StatusCode::SERVICE_UNAVAILABLE, &Refusal::new(code, text).retry_after(RETRY_AFTER))
}

fn refuse(status: StatusCode, refusal: &Refusal) -> Response<Body> {
    let mut error = serde_json::json!({ "code": refusal.code, "message": refusal.message });
    let wait = refusal.retry_after.map(crate::time::millis);
    if let Some(wait) = wait {
        error["retryAfterMs"] = wait.into();
    }
    let mut response = json(status, serde_json::json!({ "error": error }).to_string());
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, wait.div_ceil(1000).max(1).into());
    }
    response
}

fn json(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
