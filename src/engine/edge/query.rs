//! The few things of the Engine.IO protocol that the door has to know (protocol v4, "Transports").

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, Uri};

/// The answer to a handshake is shorter than this.
const MAX_OPEN_PACKET: usize = 4096;

/// The parameters of a request.
pub(super) struct Query {
    /// The session that the request belongs to; `None`: it opens one.
    pub(super) sid: Option<String>,
    /// Of two transports, the one that is asked for.
    pub(super) websocket: bool,
}

impl Query {
    pub(super) fn read(uri: &Uri) -> Self {
        let pairs = || uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
        let find = |name: &str| pairs().find(|(key, _)| *key == name).map(|(_, value)| value);
        Self { sid: find("sid").map(str::to_owned), websocket: find("transport") == Some("websocket") }
    }
}

/// What closes a polling session as its own client would: a POST of a close packet.
pub(super) fn close_request(path: &str, sid: &str) -> Request<Body> {
    Request::post(format!("{path}?EIO=4&transport=polling&sid={sid}"))
        .header(CONTENT_TYPE, "text/plain;charset=UTF-8")
        .body(Body::from("1"))
        .expect("the path and a session id have only characters of a URL")
}

/// Tells a polling client that its transport was closed.
pub(super) fn close_packet(method: &Method) -> Response<Body> {
    let text = if method == Method::GET { "1" } else { "ok" };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

/// Reads the session's id out of the answer to a polling handshake.
pub(super) async fn remember_sid(response: Response<Body>, remember: impl FnOnce(&str)) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_OPEN_PACKET).await else {
        return Response::from_parts(parts, Body::empty());
    };
    if let Some(sid) = sid(&bytes) {
        remember(sid);
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// The packet is `0{"sid":"…",…}`.
fn sid(packet: &Bytes) -> Option<&str> {
    let text = std::str::from_utf8(packet).ok()?;
    let (_, rest) = text.split_once(r#""sid":""#)?;
    rest.split_once('"').map(|(sid, _)| sid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_tells_a_handshake_from_a_session() {
        let read = |text: &str| Query::read(&text.parse().unwrap());
        assert!(read("/socket.io/?EIO=4&transport=polling").sid.is_none());
        let query = read("/socket.io/?EIO=4&transport=websocket&sid=abc");
        assert_eq!((query.sid.as_deref(), query.websocket), (Some("abc"), true));
        assert!(!read("/socket.io/").websocket);
    }

    #[test]
    fn sid_is_read_from_the_open_packet() {
        let packet = Bytes::from_static(br#"0{"sid":"AbC-_9","upgrades":["websocket"]}"#);
        assert_eq!(sid(&packet), Some("AbC-_9"));
        assert_eq!(sid(&Bytes::from_static(b"0{}")), None);
    }
}
