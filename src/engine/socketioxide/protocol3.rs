//! Translates between clients of Engine.IO 3 (such as socket.io-client 2) and the library.
//!
//! The library speaks Engine.IO 3, but differs from the Node.js server in three ways that these clients notice:
//!
//! A client of Engine.IO 3 connects to a namespace with the packet `0/chat?token=abc,`. The library takes all of this
//! for the
//!   namespace's name. In Node.js the query is the handshake's `auth`.
//! - A refused client gets an ERROR packet with an object. In Node.js it gets a text.
//! - Over polling, an attachment is written `b<base64>`, but Engine.IO 3 has `b4<base64>`.
//!
//! The bytes to translate stand at the beginning of a packet, so only a few packets are copied. All others pass as they
//! are.

mod packet;
mod payload;
mod stream;

use axum::body::{Body, Bytes};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

pub(super) use payload::with_length;
pub(super) use stream::Translated;

use crate::engine::edge::RequestRefusal;

/// The close packet as a payload with text framing.
pub(super) const CLOSE: &str = "1:1";

/// The close packet as a payload with binary framing.
const CLOSE_FRAMED: &[u8] = b"\x00\x01\xff1";

/// Whether a client's payload is the close packet alone.
pub(super) fn is_close(payload: &[u8]) -> bool {
    payload == CLOSE.as_bytes() || payload == CLOSE_FRAMED
}

/// Reads the body that a client sends, of at most `max` bytes, and translates its packets for the library.
pub(super) async fn posted(body: Body, framed: bool, max: usize) -> Result<Bytes, RequestRefusal> {
    match Limited::new(body, max).collect().await {
        Ok(body) if framed => Ok(payload::from_client_framed(body.to_bytes())),
        Ok(body) => Ok(payload::from_client(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(RequestRefusal::TooLarge),
        Err(_) => Err(RequestRefusal::Malformed),
    }
}

/// Whether a body with this content type has binary framing.
pub(super) fn is_framed(content_type: Option<&http::HeaderValue>) -> bool {
    content_type.is_some_and(|kind| kind == "application/octet-stream")
}

/// Translates the answer to a poll for the client.
pub(super) async fn fetched(response: Response<Body>) -> Response<Body> {
    if response.status() != StatusCode::OK || is_framed(response.headers().get(CONTENT_TYPE)) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The library has the whole body in memory already.
    let Ok(body) = body.collect().await else { return RequestRefusal::UnknownSession.answer() };
    let body = payload::to_client(body.to_bytes());
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    Response::from_parts(parts, Body::from(body))
}
