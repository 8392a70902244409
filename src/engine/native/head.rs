//! The head of a request: whether it opens a WebSocket session of ours, and the answer that does so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sha1::{Digest, Sha1};

use super::deflate;

/// A longer head is not ours to judge.
pub const MAX_HEAD: usize = 16 * 1024;

const MAX_HEADERS: usize = 64;

/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Headers that are looked at.
const READ: [HeaderName; 7] = [
    header::HOST,
    header::ORIGIN,
    header::USER_AGENT,
    header::AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("x-forwarded-for"),
    header::FORWARDED,
];

/// What the bytes of a connection say so far.
pub enum Head {
    /// More are needed.
    Partial,
    /// Not for us: HTTP answers.
    Other,
    /// A handshake of ours.
    Open(Box<Opening>),
}

/// The handshake of a WebSocket session.
#[derive(Debug)]
pub struct Opening {
    /// How many bytes it had.
    pub length: usize,
    /// The query, without its question mark.
    pub query: String,
    /// The few headers that matter.
    pub headers: HeaderMap,
    key: String,
    /// The extensions that it offers.
    offers: Vec<String>,
}

impl Head {
    /// Judges the first bytes of a connection.
    pub fn read(bytes: &[u8], path: &str) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => {
                opening(&request, length, path).map_or(Self::Other, |opening| Self::Open(Box::new(opening)))
            }
            // What is no GET of ours need not be waited for.
            Ok(httparse::Status::Partial) if request.method.is_none_or(|method| method == "GET") => Self::Partial,
            _ => Self::Other,
        }
    }
}

fn opening(request: &httparse::Request<'_, '_>, length: usize, path: &str) -> Option<Opening> {
    let (own, query) = request.path?.split_once('?')?;
    if request.method != Some("GET") || request.version != Some(1) || own != path || !is_handshake(query) {
        return None;
    }
    let has = |name: &str, wanted: &str| {
        values(request, name).any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)))
    };
    if !has("upgrade", "websocket") || !has("connection", "upgrade") || !has("sec-websocket-version", "13") {
        return None;
    }
    let body = values(request, "content-length").any(|length| length.trim() != "0")
        || values(request, "transfer-encoding").next().is_some();
    let mut keys = values(request, "sec-websocket-key");
    let key = keys.next()?.trim();
    if body || keys.next().is_some() || STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut headers = HeaderMap::new();
    for name in READ {
        for header in request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name.as_str())) {
            headers.append(&name, HeaderValue::from_bytes(header.value).ok()?);
        }
    }
    let offers = values(request, "sec-websocket-extensions").map(str::to_owned).collect();
    Some(Opening { offers, length, query: query.to_owned(), headers, key: key.to_owned() })
}

/// Protocol 4, a WebSocket from the start, no session yet.
fn is_handshake(query: &str) -> bool {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (mut version, mut transport) = (None, None);
    let opens = pairs.all(|(key, value)| {
        match key {
            "EIO" => version = Some(value),
            "transport" => transport = Some(value),
            _ => {}
        }
        key != "sid"
    });
    opens && version == Some("4") && transport == Some("websocket")
}

fn values<'a>(request: &'a httparse::Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    request
        .headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
}

impl Opening {
    /// The answer, to which frames can be appended.
    pub fn answer(&self, extensions: Option<&str>) -> BytesMut {
        let digest = Sha1::new().chain_update(&self.key).chain_update(GUID).finalize();
        let mut out = BytesMut::with_capacity(320);
        out.put_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ",
        );
        out.put_slice(STANDARD.encode(digest).as_bytes());
        if let Some(extensions) = extensions {
            out.put_slice(b"\r\nSec-WebSocket-Extensions: ");
            out.put_slice(extensions.as_bytes());
        }
        out.put_slice(b"\r\n\r\n");
        out
    }

    /// The answer to its offers, if they hold one of compression that can be accepted.
    pub fn deflate(&self) -> Option<String> {
        deflate::negotiate(self.offers.iter().map(String::as_str))
    }

    /// A header as text.
    pub fn header(&self, name: &HeaderName) -> Option<Box<str>> {
        Some(self.headers.get(name)?.to_str().ok()?.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATH: &str = "/socket.io/";

    fn request(line: &str, headers: &str) -> String {
        format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }

    const LINE: &str = "GET /socket.io/?EIO=4&transport=websocket&a=b";

    #[test]
    fn handshake_is_answered_as_the_standard_has_it() {
        let text = request(LINE, "Cookie: a=1\r\nX-Other: 1\r\n");
        let Head::Open(opening) = Head::read(format!("{text}rest").as_bytes(), PATH) else { panic!() };
        assert_eq!((opening.length, &*opening.query), (text.len(), "EIO=4&transport=websocket&a=b"));
        assert_eq!(opening.header(&header::COOKIE).as_deref(), Some("a=1"));
        assert_eq!(opening.headers.len(), 2);
        let answer = String::from_utf8(opening.answer(None).to_vec()).unwrap();
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
        for cut in 0..text.len() {
            assert!(matches!(Head::read(&text.as_bytes()[..cut], PATH), Head::Partial), "{cut}");
        }
    }

    #[test]
    fn everything_else_is_http() {
        for text in [
            request("GET /socket.io/?EIO=4&transport=websocket&sid=x", ""),
            request("GET /socket.io/?EIO=3&transport=websocket", ""),
            request("GET /socket.io/?EIO=4&transport=polling", ""),
            request("GET /socket.io/", ""),
            request("GET /live?EIO=4&transport=websocket", ""),
            request("POST /socket.io/?EIO=4&transport=websocket", ""),
            request(LINE, "Content-Length: 5\r\n"),
            request(LINE, "Transfer-Encoding: chunked\r\n"),
            request(LINE, "").replace("13", "8"),
            request(LINE, "").replace("dGhl", "dGh"),
            request(LINE, "").replace("WebSocket\r\n", "h2c\r\n"),
            "rubbish\r\n\r\n".to_owned(),
            "POST /".to_owned(),
        ] {
            assert!(matches!(Head::read(text.as_bytes(), PATH), Head::Other), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Head::read(&bytes, PATH);
        }
    }
}
