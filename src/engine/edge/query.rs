//! The query parameters of a request, and the part of the Engine.IO protocol that the edge needs.

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, Uri};

/// The query parameters of an Engine.IO request.
pub struct EngineQuery<'a> {
    /// The session that the request belongs to. `None`: the request opens a session.
    pub sid: Option<&'a str>,
    /// The requested transport.
    pub transport: Option<&'a str>,
    /// The version of the Engine.IO protocol.
    pub version: Option<&'a str>,
    /// Whether the client wants answers as a script (JSONP).
    pub jsonp: bool,
    /// Whether a parameter is given twice, so that two readers of the request could understand it differently.
    pub ambiguous: bool,
}

impl<'a> EngineQuery<'a> {
    /// Reads the query parameters of a request's URI.
    pub fn read(uri: &'a Uri) -> Self {
        let pairs = || crate::query::pairs(uri.query().unwrap_or(""));
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

    /// The version of Engine.IO as a number. 0: any other version than 3 and 4, or none.
    pub fn protocol(&self) -> u8 {
        match self.version {
            Some("4") => 4,
            Some("3") => 3,
            _ => 0,
        }
    }
}

/// The answer that tells a polling client that its session is closed. A POST is answered with `ok`.
pub(super) fn close_packet(method: &Method, protocol: u8) -> Response<Body> {
    let text = match (method, protocol) {
        // Engine.IO 3 writes a packet's length before it.
        (&Method::GET, 3) => "1:1",
        (&Method::GET, _) => "1",
        _ => "ok",
    };
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
        assert!(EngineQuery::read(&read("/socket.io/?EIO=4&transport=polling")).sid.is_none());
        let uri = read("/socket.io/?EIO=4&transport=websocket&sid=abc&j=0");
        let query = EngineQuery::read(&uri);
        assert_eq!((query.sid, query.transport, query.version), (Some("abc"), Some("websocket"), Some("4")));
        assert!(query.jsonp && !query.ambiguous);
        let nothing = read("/socket.io/");
        assert!(EngineQuery::read(&nothing).transport.is_none());
        for twice in ["/socket.io/?sid=a&sid=b", "/socket.io/?EIO=4&transport=a&transport=b"] {
            assert!(EngineQuery::read(&read(twice)).ambiguous);
        }
    }
}
