//! The parameters of a request, and the few things of the Engine.IO protocol that the edge has to know.

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, Uri};

/// The parameters of a request.
pub struct Query<'a> {
    /// The session that the request belongs to; `None`: it opens one.
    pub sid: Option<&'a str>,
    /// The transport that is asked for.
    pub transport: Option<&'a str>,
    /// The version of the protocol.
    pub version: Option<&'a str>,
    /// The client wants its answers as a script (JSONP).
    pub jsonp: bool,
    /// Something is said twice: two readers could take it for different things.
    pub ambiguous: bool,
}

impl<'a> Query<'a> {
    /// Reads them.
    pub fn read(uri: &'a Uri) -> Self {
        let pairs = || uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
        let find = |name: &str| pairs().find(|(key, _)| *key == name).map(|(_, value)| value);
        let twice = |name: &str| pairs().filter(|(key, _)| *key == name).count() > 1;
        Self {
            sid: find("sid"),
            transport: find("transport"),
            version: find("EIO"),
            jsonp: find("j").is_some(),
            ambiguous: ["sid", "transport", "EIO"].into_iter().any(twice),
        }
    }
}

/// Tells a polling client that its transport was closed.
pub(super) fn close_packet(method: &Method) -> Response<Body> {
    let text = if method == Method::GET { "1" } else { "ok" };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_tells_a_handshake_from_a_session() {
        let read = |text: &'static str| text.parse::<Uri>().unwrap();
        assert!(Query::read(&read("/socket.io/?EIO=4&transport=polling")).sid.is_none());
        let uri = read("/socket.io/?EIO=4&transport=websocket&sid=abc&j=0");
        let query = Query::read(&uri);
        assert_eq!((query.sid, query.transport, query.version), (Some("abc"), Some("websocket"), Some("4")));
        assert!(query.jsonp && !query.ambiguous);
        let nothing = read("/socket.io/");
        assert!(Query::read(&nothing).transport.is_none());
        for twice in ["/socket.io/?sid=a&sid=b", "/socket.io/?EIO=4&transport=a&transport=b"] {
            assert!(Query::read(&read(twice)).ambiguous);
        }
    }
}
