//! The few things of the Engine.IO protocol that the door has to know (protocol v4, "Transports").

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, Uri};

/// The answer to a handshake is shorter than this.
const MAX_OPEN_PACKET: usize = 4096;

/// The parameters of a request.
pub(super) struct Query {
    /// The session that the request belongs to; `None`: it opens one.
    pub(super) sid: Option<String>,
    /// Something is said twice: two readers could take it for different things.
    pub(super) ambiguous: bool,
    /// Of two transports, the one that is asked for.
    pub(super) websocket: bool,
}

impl Query {
    pub(super) fn read(uri: &Uri) -> Self {
        let pairs = || uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
        let find = |name: &str| pairs().find(|(key, _)| *key == name).map(|(_, value)| value);
        let twice = |name: &str| pairs().filter(|(key, _)| *key == name).count() > 1;
        Self {
            sid: find("sid").map(str::to_owned),
            ambiguous: ["sid", "transport", "EIO"].into_iter().any(twice),
            websocket: find("transport") == Some("websocket"),
        }
    }
}

/// The same address with the id that the engine knows the session by.
pub(super) fn with_sid(uri: &Uri, sid: &str) -> Option<Uri> {
    let pairs = uri.query()?.split('&').map(|pair| match pair.split_once('=') {
        Some(("sid", _)) => format!("sid={sid}"),
        _ => pair.to_owned(),
    });
    format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&")).parse().ok()
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

/// Exchanges the session's id in the answer to a polling handshake for the one that `exchange` gives.
pub(super) async fn exchange_sid(response: Response<Body>, exchange: impl FnOnce(&str) -> String) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_OPEN_PACKET).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let Some(inner) = sid(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    let outer = exchange(inner);
    let text =
        String::from_utf8_lossy(&bytes).replacen(&format!(r#""sid":"{inner}""#), &format!(r#""sid":"{outer}""#), 1);
    parts.headers.insert(CONTENT_LENGTH, text.len().into());
    Response::from_parts(parts, Body::from(text))
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
        assert!(
            read("/socket.io/?sid=a&sid=b").ambiguous && read("/socket.io/?EIO=4&transport=a&transport=b").ambiguous
        );
        assert!(!query.ambiguous);
    }

    #[test]
    fn only_the_id_is_exchanged_in_an_address() {
        let uri = "/socket.io/?EIO=4&x&t=sid&sid=outer&transport=polling".parse().unwrap();
        assert_eq!(with_sid(&uri, "inner").unwrap(), "/socket.io/?EIO=4&x&t=sid&sid=inner&transport=polling");
    }

    #[tokio::test]
    async fn id_is_exchanged_in_the_open_packet() {
        let open = Response::new(Body::from(r#"0{"sid":"AbC","upgrades":["websocket"]}"#));
        let answer = exchange_sid(open, |sid| format!("not {sid}")).await;
        assert_eq!(answer.headers()[CONTENT_LENGTH], "43");
        let body = to_bytes(answer.into_body(), 99).await.unwrap();
        assert_eq!(&body[..], br#"0{"sid":"not AbC","upgrades":["websocket"]}"#);
    }

    #[test]
    fn sid_is_read_from_the_open_packet() {
        let packet = Bytes::from_static(br#"0{"sid":"AbC-_9","upgrades":["websocket"]}"#);
        assert_eq!(sid(&packet), Some("AbC-_9"));
        assert_eq!(sid(&Bytes::from_static(b"0{}")), None);
    }
}
