//! Reads a request's body: limited in size, time and depth, and checked to be JSON.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::value::RawValue;

use super::answer::ApiError;
use crate::error::Code;

/// Maximum time until a body has arrived completely.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of bytes that are read of an unwanted body.
pub const MAX_DISCARDED: usize = 64 * 1024 * 1024;

/// Maximum time for which an unwanted body is read.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum depth of nested JSON, payloads included. It is the limit of serde_json.
pub const MAX_DEPTH: usize = 127;

/// Reads the whole body of a request.
///
/// # Errors
/// Returns 415 if the body's declared type is not JSON, 413 above `max` bytes, 408 after [`BODY_TIMEOUT`], and 400 if
/// the connection breaks.
pub async fn read(headers: &HeaderMap, body: &mut Body, max: usize) -> Result<Bytes, ApiError> {
    check_type(headers)?;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        return Err(too_large(max));
    }
    let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect());
    match whole.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(malformed("the body broke off")),
        Err(_) => Err(malformed(format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()))
            .with_status(StatusCode::REQUEST_TIMEOUT)),
    }
}

/// Reads and drops the rest of a body, because a client that still sends would otherwise see a reset connection instead
/// of the answer. Reads at most [`MAX_DISCARDED`] bytes for at most [`DISCARD_TIMEOUT`], and nothing if the client
/// asked first whether to send (`Expect: 100-continue`).
pub async fn discard(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let all = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > MAX_DISCARDED {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, all).await;
}

/// Checks that the bytes are JSON, without decoding them.
///
/// # Errors
/// Returns 400 with the position of the first mistake, never with the text itself.
pub fn parse(body: &[u8]) -> Result<&RawValue, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        malformed("the body is not UTF-8").at(format!("byte {}", error.valid_up_to()), "is not UTF-8")
    })?;
    if let Some(at) = too_deep(text.as_bytes()) {
        return Err(malformed("the body is nested too deep")
            .at(format!("byte {at}"), format!("is nested deeper than {MAX_DEPTH}")));
    }
    serde_json::from_str(text).map_err(|error| {
        // serde_json's messages for broken syntax quote no input. They end with the position, which is reported
        // separately.
        let place = format!("line {}, column {}", error.line(), error.column());
        let problem = error.to_string();
        let problem = problem.strip_suffix(&format!(" at {}", place.replace(',', ""))).unwrap_or(&problem);
        malformed("the body is not JSON").at(place, problem)
    })
}

/// Accepts JSON, and a body without a declared type.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json"
        || essence.strip_prefix("application/").is_some_and(|subtype| subtype.ends_with("+json"));
    if json {
        return Ok(());
    }
    Err(ApiError::new(Code::InvalidPayload, "the body must be sent as content-type: application/json")
        .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

/// Returns the position of the first byte that is nested deeper than [`MAX_DEPTH`].
fn too_deep(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(at);
                }
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn too_large(max: usize) -> ApiError {
    ApiError::new(
        Code::TooLarge,
        format!("the body is larger than {max} bytes; send less at a time, or raise api.max_body"),
    )
}

fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidPayload, message).with_status(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_is_placed_and_not_quoted() {
        let error = parse(b"{\n  \"pass\": hunter2 }").unwrap_err();
        assert_eq!(error.status(), 400);
        let body = error.body();
        assert_eq!(
            (body.details[0].at.as_str(), body.details[0].problem.as_str()),
            ("line 2, column 11", "expected value")
        );
        assert!(!format!("{body:?}").contains("hunter"));
    }

    #[test]
    fn anything_that_is_not_one_json_text_is_refused() {
        for text in
            [&b""[..], b" ", b"{", b"{}{}", b"\xff", b"[1,]", b"nul", b"\"\x01\"", b"\xef\xbb\xbf{}", b"{\"a\":}"]
        {
            assert_eq!(parse(text).unwrap_err().status(), 400, "{text:?}");
        }
    }

    #[test]
    fn depth_has_a_limit_that_brackets_in_strings_do_not_touch() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH)).is_ok());
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(parse(nested(1_000_000).as_bytes()).is_err());
        assert!(parse(format!("\"{}\\\"{}\"", "[".repeat(500), "{".repeat(500)).as_bytes()).is_ok());
    }

    #[test]
    fn only_json_is_taken() {
        let with = |value: &'static str| HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"] {
            assert!(check_type(&with(good)).is_ok(), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "", "json", "application/jsonx"] {
            assert_eq!(check_type(&with(bad)).unwrap_err().status(), 415, "{bad}");
        }
        assert!(check_type(&HeaderMap::new()).is_ok());
    }
}
