//! Reads the head of the first request on a new connection, decides whether the request opens a WebSocket session of
//! the native engine, and builds the answer.

use std::mem::MaybeUninit;

use crate::contract::handshake::HandshakePart;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sha1::{Digest, Sha1};

use super::deflate;

/// The maximum length of a head in bytes. A longer head is left to the HTTP server.
pub use crate::engine::listener::MAX_HEAD;

const MAX_HEADERS: usize = 64;

/// The value that is appended to a WebSocket key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The maximum length of the header names that are compared.
const MAX_NAME: usize = "sec-websocket-extensions".len();

/// The length of a SHA-1 digest of 20 bytes as base64.
const SHA1_AS_BASE64: usize = 28;

/// The length of a WebSocket key: 16 bytes as base64 (RFC 6455, 4.1).
const KEY: usize = 24;

/// The result of reading the first bytes of a connection.
pub enum FirstRequest {
    /// The head is not complete yet.
    Partial,
    /// The request is not a handshake for the native engine. The HTTP server answers the request.
    Other,
    /// A handshake that opens a WebSocket session.
    Open(Box<WebSocketHandshake>),
}

/// A handshake that opens a WebSocket session.
#[derive(Debug)]
pub struct WebSocketHandshake {
    /// The length of the head in bytes.
    pub length: usize,
    /// The query without its question mark.
    pub query: String,
    /// The headers that the edge needs. All others are dropped.
    pub headers: HeaderMap,
    key: WebSocketKey,
    /// The WebSocket extensions that the client offers.
    offers: Vec<String>,
    /// The first of the subprotocols that the client offers.
    subprotocol: Option<HeaderValue>,
}

impl FirstRequest {
    /// Reads the head of a request from the first bytes of a connection. `path` is `server.path`, and `named` are the
    /// parts that contracts use.
    pub fn read(bytes: &[u8], path: &str, named: &[HandshakePart]) -> Self {
        // The array is left uninitialized, because most heads have only about a dozen headers.
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Complete(length)) => {
                opening(&request, length, path, named).map_or(Self::Other, |opening| Self::Open(Box::new(opening)))
            }
            // Only a GET can be a handshake, so other requests are not read further.
            Ok(httparse::Status::Partial) if request.method.is_none_or(|method| method == "GET") => Self::Partial,
            _ => Self::Other,
        }
    }
}

fn opening(
    request: &httparse::Request<'_, '_>,
    length: usize,
    path: &str,
    named: &[HandshakePart],
) -> Option<WebSocketHandshake> {
    let (own, query) = request.path?.split_once('?')?;
    if request.method != Some("GET") || request.version != Some(1) || own != path || !is_handshake(query) {
        return None;
    }
    let mut fields = HandshakeHeaders::default();
    for header in &*request.headers {
        fields.take(header)?;
        fields.keep_named(header, named)?;
    }
    let HandshakeHeaders {
        upgrades: true,
        connects: true,
        speaks_13: true,
        key: Some(key),
        headers,
        offers,
        subprotocol,
    } = fields
    else {
        return None;
    };
    Some(WebSocketHandshake { offers, subprotocol, length, query: query.to_owned(), headers, key: WebSocketKey(key) })
}

/// The values of the headers that a handshake needs, collected in one pass.
#[derive(Default)]
struct HandshakeHeaders {
    upgrades: bool,
    connects: bool,
    speaks_13: bool,
    key: Option<[u8; KEY]>,
    headers: HeaderMap,
    offers: Vec<String>,
    subprotocol: Option<HeaderValue>,
}

impl HandshakeHeaders {
    /// Reads one header. Returns `None` if a handshake cannot have such a header.
    fn take(&mut self, header: &httparse::Header<'_>) -> Option<()> {
        let mut name = [0; MAX_NAME];
        let name = name.get_mut(..header.name.len());
        // A name that is too long for the buffer is equal to no header name that the node needs.
        let Some(name) = name else { return Some(()) };
        name.copy_from_slice(header.name.as_bytes());
        name.make_ascii_lowercase();
        match &*name {
            b"upgrade" => self.upgrades |= lists(header.value, b"websocket"),
            b"connection" => self.connects |= lists(header.value, b"upgrade"),
            b"sec-websocket-version" => self.speaks_13 |= lists(header.value, b"13"),
            b"sec-websocket-key" => return self.key.replace(key(header.value)?).is_none().then_some(()),
            b"sec-websocket-extensions" => {
                self.offers.extend(std::str::from_utf8(header.value).ok().map(str::to_owned));
            }
            b"sec-websocket-protocol" => {
                self.subprotocol = self.subprotocol.take().or_else(|| first_subprotocol(header.value))
            }
            // A WebSocket handshake has no body.
            b"content-length" if header.value.trim_ascii() != b"0" => return None,
            b"transfer-encoding" => return None,
            b"host" => self.keep(header::HOST, header.value)?,
            b"origin" => self.keep(header::ORIGIN, header.value)?,
            b"user-agent" => self.keep(header::USER_AGENT, header.value)?,
            b"authorization" => self.keep(header::AUTHORIZATION, header.value)?,
            b"cookie" => self.keep(header::COOKIE, header.value)?,
            b"x-forwarded-for" => self.keep(HeaderName::from_static("x-forwarded-for"), header.value)?,
            b"forwarded" => self.keep(header::FORWARDED, header.value)?,
            _ => {}
        }
        Some(())
    }

    /// Keeps a header that a contract uses, unless the node uses the header anyway.
    fn keep_named(&mut self, header: &httparse::Header<'_>, named: &[HandshakePart]) -> Option<()> {
        let is_own = |part: &HandshakePart| matches!(part, HandshakePart::Header(name) if name.eq_ignore_ascii_case(header.name));
        if !named.iter().any(is_own) {
            return Some(());
        }
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        if self.headers.contains_key(&name) { Some(()) } else { self.keep(name, header.value) }
    }

    fn keep(&mut self, name: HeaderName, value: &[u8]) -> Option<()> {
        self.headers.append(name, HeaderValue::from_bytes(value).ok()?);
        Some(())
    }
}

/// Whether a comma-separated list contains `wanted`, ignoring case.
fn lists(value: &[u8], wanted: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted))
}

fn key(value: &[u8]) -> Option<[u8; KEY]> {
    let key: [u8; KEY] = value.trim_ascii().try_into().ok()?;
    // The base64 decoder needs a buffer of 18 bytes for 24 characters. The last two characters are padding, so a key
    // decodes to 16 bytes.
    let mut decoded = [0; KEY / 4 * 3];
    (STANDARD.decode_slice(key, &mut decoded).ok()? == 16).then_some(key)
}

/// Returns the subprotocol for the answer: the first that the client offers. Like the Node.js server, this node knows
/// no subprotocols. But a client that offers some does not accept an answer without one (RFC 6455, 4.1).
pub fn first_subprotocol(offered: &[u8]) -> Option<HeaderValue> {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let first = offered.split(|byte| *byte == b',').next()?.trim_ascii();
    if first.is_empty() || !first.iter().all(is_token) {
        return None;
    }
    HeaderValue::from_bytes(first).ok()
}

/// Whether the query opens a session: Engine.IO 4, a WebSocket, and no session id.
fn is_handshake(query: &str) -> bool {
    let (mut version, mut transport) = (None, None);
    let opens = crate::query::pairs(query).all(|(key, value)| {
        match key {
            "EIO" => version = Some(value),
            "transport" => transport = Some(value),
            _ => {}
        }
        key != "sid"
    });
    opens && version == Some("4") && transport == Some("websocket")
}

impl WebSocketHandshake {
    /// The answer to the handshake. WebSocket frames can be appended to it.
    pub fn answer(&self, extensions: Option<&str>) -> BytesMut {
        let mut out = BytesMut::with_capacity(320);
        out.put_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ",
        );
        out.put_slice(&self.key.digest());
        if let Some(extensions) = extensions {
            out.put_slice(b"\r\nSec-WebSocket-Extensions: ");
            out.put_slice(extensions.as_bytes());
        }
        if let Some(subprotocol) = &self.subprotocol {
            out.put_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.put_slice(subprotocol.as_bytes());
        }
        out.put_slice(b"\r\n\r\n");
        out
    }

    /// The answer to the client's offers of compression, if one of them is acceptable.
    pub fn deflate(&self) -> Option<String> {
        deflate::negotiate(self.offers.iter().map(String::as_str))
    }
}

/// The `Sec-WebSocket-Key` of a handshake.
#[derive(Debug)]
pub struct WebSocketKey([u8; KEY]);

impl WebSocketKey {
    /// The key of a handshake that came as an HTTP request. `None`: the request is not a valid handshake.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let all = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let has = |name, wanted| all(name).any(|value| lists(value, wanted));
        let is_handshake = has(header::UPGRADE, b"websocket".as_slice())
            && has(header::CONNECTION, b"upgrade")
            && has(header::SEC_WEBSOCKET_VERSION, b"13");
        let mut keys = all(header::SEC_WEBSOCKET_KEY);
        let key = keys.next().and_then(key).filter(|_| keys.next().is_none());
        key.filter(|_| is_handshake).map(Self)
    }

    /// The value of `Sec-WebSocket-Accept` (RFC 6455, 4.2.2).
    pub fn accept(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.digest()).unwrap_or_else(|_| unreachable!("base64 has only plain characters"))
    }

    fn digest(&self) -> [u8; SHA1_AS_BASE64] {
        let digest = Sha1::new().chain_update(self.0).chain_update(GUID).finalize();
        let mut accept = [0; SHA1_AS_BASE64];
        STANDARD.encode_slice(digest, &mut accept).unwrap_or_else(|_| unreachable!("20 bytes fit"));
        accept
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
        let FirstRequest::Open(opening) = FirstRequest::read(format!("{text}rest").as_bytes(), PATH, &[]) else {
            panic!()
        };
        assert_eq!((opening.length, &*opening.query), (text.len(), "EIO=4&transport=websocket&a=b"));
        assert_eq!(opening.headers[header::COOKIE], "a=1");
        assert_eq!(opening.headers.len(), 2);
        let answer = String::from_utf8(opening.answer(None).to_vec()).unwrap();
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
        for cut in 0..text.len() {
            assert!(matches!(FirstRequest::read(&text.as_bytes()[..cut], PATH, &[]), FirstRequest::Partial), "{cut}");
        }
    }

    #[test]
    fn the_first_subprotocol_that_is_offered_is_chosen() {
        for (offered, chosen) in [
            ("Sec-WebSocket-Protocol: v1", Some("v1")),
            ("Sec-WebSocket-Protocol:  my-protocol-v1 , other", Some("my-protocol-v1")),
            ("Sec-WebSocket-Protocol: a\r\nsec-websocket-protocol: b", Some("a")),
            ("Sec-WebSocket-Protocol: ,v1", None),
            ("Sec-WebSocket-Protocol: a b", None),
            ("X-Other: 1", None),
        ] {
            let text = request(LINE, &format!("{offered}\r\n"));
            let FirstRequest::Open(opening) = FirstRequest::read(text.as_bytes(), PATH, &[]) else {
                panic!("{offered}")
            };
            let answer = String::from_utf8(opening.answer(None).to_vec()).unwrap();
            let told = answer.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
            assert_eq!(told, chosen, "{offered}");
        }
    }

    #[test]
    fn a_cookie_that_is_not_ascii_hides_no_other() {
        let text = request(LINE, "Cookie: name=J\u{f6}rg; session=abc\r\n");
        let FirstRequest::Open(opening) = FirstRequest::read(text.as_bytes(), PATH, &[]) else { panic!() };
        assert_eq!(opening.headers[header::COOKIE].as_bytes(), "name=J\u{f6}rg; session=abc".as_bytes());
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
            request(LINE, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            request(LINE, "").replace("13", "8"),
            request(LINE, "").replace("dGhl", "dGh"),
            request(LINE, "").replace("WebSocket\r\n", "h2c\r\n"),
            "rubbish\r\n\r\n".to_owned(),
            "POST /".to_owned(),
        ] {
            assert!(matches!(FirstRequest::read(text.as_bytes(), PATH, &[]), FirstRequest::Other), "{text}");
        }
    }

    #[test]
    fn headers_are_found_by_their_names_in_any_case_and_others_do_not_matter() {
        let more = "COOKIE: a=1\r\ncookie: b=2\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 0\r\n\
                    Sec-WebSocket-Extensions: x\r\nSec-WebSocket-Extensions-And-More: y\r\nSec-WebSocket-Protocol: z\r\n";
        let FirstRequest::Open(opening) = FirstRequest::read(request(LINE, more).as_bytes(), PATH, &[]) else {
            panic!()
        };
        let cookies: Vec<_> = opening.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(
            (&opening.headers["host"], &opening.headers["x-forwarded-for"]),
            (&"x".parse().unwrap(), &"192.0.2.1".parse().unwrap())
        );
        assert_eq!((opening.headers.len(), opening.offers), (4, vec!["x".to_owned()]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            FirstRequest::read(&bytes, PATH, &[]);
        }
    }
}
