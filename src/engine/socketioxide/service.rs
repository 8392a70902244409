//! The library's service behind the edge. The library uses Socket.IO ids as session ids, and other clients may see
//! these. So requests carry a secret id instead, and this service translates between the two. It also copies what a
//! handshake needs, so that a connection keeps little memory. For clients of Engine.IO 3 it translates what
//! [`super::protocol3`] describes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use bytes::Bytes;
use http::header::{self, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use socketioxide::service::SocketIoService;
use tower::{Service as _, ServiceExt as _};

use super::Adapter;
use super::connection::{Closer, LibraryConnection, end_with};
use super::protocol3::{self, Translated};
use crate::engine::edge::{
    AdmittedHandshake, EngineQuery, EngineSession, RequestRefusal, ResponseFuture, SessionService, ready,
};
use crate::engine::listener::RequestConnection;
use crate::engine::native::head::first_subprotocol;
use crate::engine::native::http::{switch, upgrade_of};
use crate::engine::queue_estimate::WriteQueueLimits;
use crate::telemetry::metrics::Metrics;

/// The handshake headers that are kept as long as the connection lives. The others are dropped, because each would
/// keep alive the whole buffer that it was read into. [`EngineSession`] keeps the headers that may hold a token.
const KEPT: [HeaderName; 5] =
    [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION, header::HOST];

/// The maximum length of the answer to a polling handshake, in bytes.
const MAX_OPEN_PACKET: usize = 4096;

/// The packet by which a client closes its session.
const CLOSE: &[u8] = b"1";

type Service = SocketIoService<Router, Adapter>;

/// The library as a [`SessionService`].
#[derive(Clone)]
pub struct LibraryService {
    service: Service,
    closer: Closer,
    limits: ClientLimits,
    metrics: Arc<Metrics>,
}

/// The limits that the library does not apply to a client itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientLimits {
    /// Limits the packets and bytes that wait for the client.
    pub(super) bounds: WriteQueueLimits,
    /// The maximum length of a body, in bytes.
    pub(super) max_payload: usize,
    /// How long a client may take to connect to a namespace.
    pub(super) connect_timeout: Duration,
}

impl LibraryService {
    /// Wraps the library's service for `path`.
    pub(super) fn new(service: Service, path: &str, limits: ClientLimits, metrics: Arc<Metrics>) -> Self {
        let (closing, path) = (service.clone(), path.to_owned());
        let closer: Closer = Arc::new(move |sid, protocol| {
            let (closing, request) = (closing.clone(), close_request(&path, sid, protocol));
            Box::pin(async move {
                let _ = closing.oneshot(request).await;
            })
        });
        Self { service, closer, limits, metrics }
    }
}

impl SessionService for LibraryService {
    fn open(&self, request: Request<Body>, opening: AdmittedHandshake) -> ResponseFuture {
        let AdmittedHandshake { session, fingerprint, arrival } = opening;
        let websocket = session.peer().transport == "websocket";
        let is_protocol3 = session.peer().protocol == 3;
        let kill = arrival.filter(|_| websocket).map(|arrival| arrival.kill);
        let connection = LibraryConnection::new(self.closer.clone(), self.limits.bounds, kill.as_ref());
        session.serve_by(connection.clone());
        if is_protocol3 {
            // The library has no time limit for clients of Engine.IO 3, because it connects them to `/` itself.
            connection.must_join_within(self.limits.connect_timeout, &session);
        }
        let response = match (websocket, is_protocol3) {
            (true, true) => self.translated_websocket(request, |request| copy_request(request, &session)),
            _ => self.pass_slim(request, &session),
        };
        Box::pin(async move {
            let response = response.await;
            if let (StatusCode::SWITCHING_PROTOCOLS, Some(kill)) = (response.status(), kill) {
                end_with(&kill, &session);
                return response;
            }
            if websocket || response.status() != StatusCode::OK {
                return response;
            }
            let name = |inner: &str| {
                connection.set_inner(inner);
                session.assign_sid(fingerprint).to_owned()
            };
            exchange_sid(response, is_protocol3, name).await
        })
    }

    fn serve(
        &self,
        mut request: Request<Body>,
        session: Arc<EngineSession>,
        arrival: Option<RequestConnection>,
    ) -> ResponseFuture {
        let Some(connection) = session.connection_as::<LibraryConnection>() else {
            return ready(RequestRefusal::UnknownSession.answer());
        };
        let Some(uri) = connection.inner().and_then(|inner| with_sid(request.uri(), inner)) else {
            return ready(RequestRefusal::UnknownSession.answer());
        };
        *request.uri_mut() = uri;
        let is_protocol3 = session.peer().protocol == 3;
        match (EngineQuery::read(request.uri()).transport, request.method()) {
            (Some("websocket"), _) => {
                let answer = if is_protocol3 {
                    self.translated_websocket(request, |request| Some(request.map(|_| Body::empty())))
                } else {
                    self.pass_websocket(request)
                };
                self.upgrade(answer, connection, session, arrival)
            }
            (_, &Method::GET) => self.poll(request, connection, is_protocol3),
            (_, &Method::POST) if is_protocol3 => self.post3(request, session),
            (_, &Method::POST) => self.post(request, session),
            _ => Box::pin(pass(self.service.clone(), request)),
        }
    }
}

impl LibraryService {
    /// Passes a handshake without the parts that the library does not need.
    fn pass_slim(&self, request: Request<Body>, session: &Arc<EngineSession>) -> ResponseFuture {
        let subprotocol = subprotocol(&request);
        let Some(slim) = copy_request(request, session) else { return ready(RequestRefusal::Malformed.answer()) };
        let passing = pass(self.service.clone(), slim);
        Box::pin(async move { with_subprotocol(passing.await, subprotocol) })
    }

    fn pass_websocket(&self, request: Request<Body>) -> ResponseFuture {
        let subprotocol = subprotocol(&request);
        let passing = pass(self.service.clone(), request);
        Box::pin(async move { with_subprotocol(passing.await, subprotocol) })
    }

    /// Opens a WebSocket whose packets are translated. `keep` returns what the library needs of the request.
    fn translated_websocket(
        &self,
        mut request: Request<Body>,
        keep: impl FnOnce(Request<Body>) -> Option<Request<Body>>,
    ) -> ResponseFuture {
        let refused = || ready(RequestRefusal::Malformed.answer());
        let Some((key, upgrade)) = upgrade_of(&mut request) else { return refused() };
        let answer = switch(&key, None, request.headers());
        let Some(kept) = keep(request) else { return refused() };
        let mut service = self.service.clone();
        tokio::spawn(async move {
            // If the upgrade fails, dropping the request ends a session that it opens.
            let Ok(upgraded) = upgrade.await else { return };
            // An error means that the library cannot read the query, which the edge has already read.
            let _ = service.call((Translated::new(TokioIo::new(upgraded)), kept.map(drop))).await;
        });
        ready(answer)
    }

    /// Answers an upgrade, and notes it when the WebSocket is open.
    fn upgrade(
        &self,
        answer: ResponseFuture,
        connection: Arc<LibraryConnection>,
        session: Arc<EngineSession>,
        arrival: Option<RequestConnection>,
    ) -> ResponseFuture {
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let response = answer.await;
            if let (StatusCode::SWITCHING_PROTOCOLS, Some(arrival)) = (response.status(), arrival) {
                connection.upgrading(&arrival.kill, &session);
                metrics.transport_upgrades_total.with_label_values::<&str>(&[]).inc();
            }
            response
        })
    }

    fn poll(&self, request: Request<Body>, connection: Arc<LibraryConnection>, is_protocol3: bool) -> ResponseFuture {
        let service = self.service.clone();
        Box::pin(async move {
            let polling = connection.polling();
            let response = pass(service, request).await;
            drop(polling);
            let response = if is_protocol3 { protocol3::fetched(response).await } else { response };
            if response.status() == StatusCode::OK {
                connection.fetched(response.body().size_hint().exact());
            }
            response
        })
    }

    fn post(&self, request: Request<Body>, session: Arc<EngineSession>) -> ResponseFuture {
        let service = self.service.clone();
        let closes = request.headers().get(CONTENT_LENGTH).is_some_and(|length| length == "1");
        Box::pin(async move {
            if !closes {
                return pass(service, request).await;
            }
            let (parts, body) = request.into_parts();
            let packet = to_bytes(body, 1).await.unwrap_or_default();
            if &packet[..] == CLOSE {
                // The session is ended here, because the library keeps a session in no namespace until
                // `server.connect_timeout`.
                session.end();
            }
            pass(service, Request::from_parts(parts, Body::from(packet))).await
        })
    }

    /// Passes a body of a client of Engine.IO 3.
    fn post3(&self, request: Request<Body>, session: Arc<EngineSession>) -> ResponseFuture {
        let (service, max) = (self.service.clone(), self.limits.max_payload);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let framed = protocol3::is_framed(parts.headers.get(CONTENT_TYPE));
            let payload = match protocol3::posted(body, framed, max).await {
                Ok(payload) => payload,
                Err(refusal) => return refusal.answer(),
            };
            if protocol3::is_close(&payload) {
                session.end();
            }
            parts.headers.remove(CONTENT_LENGTH);
            pass(service, Request::from_parts(parts, Body::from(payload))).await
        })
    }
}

/// The subprotocol to answer a WebSocket handshake with. The library does not choose one.
fn subprotocol(request: &Request<Body>) -> Option<HeaderValue> {
    first_subprotocol(request.headers().get(header::SEC_WEBSOCKET_PROTOCOL)?.as_bytes())
}

fn with_subprotocol(mut response: Response<Body>, subprotocol: Option<HeaderValue>) -> Response<Body> {
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(subprotocol)) = (response.status(), subprotocol) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

async fn pass(service: Service, request: Request<Body>) -> Response<Body> {
    let Ok(response) = service.oneshot(request).await;
    response.map(Body::new)
}

/// Copies the needed parts of a request, so that the copy no longer holds the buffers that the request was read into.
fn copy_request(request: Request<Body>, session: &Arc<EngineSession>) -> Option<Request<Body>> {
    let (mut parts, _) = request.into_parts();
    let mut slim = Request::new(Body::empty());
    *slim.method_mut() = parts.method;
    let EngineQuery { transport, version, .. } = EngineQuery::read(&parts.uri);
    let (version, transport) = (version.unwrap_or(""), transport.unwrap_or(""));
    // With `b64` the library writes payloads as text, as it does for clients of Engine.IO 4. In binary framing, its
    // attachments would be written as text nevertheless.
    let address = format!("{}?EIO={version}&transport={transport}&b64=1", parts.uri.path());
    *slim.uri_mut() = address.parse().ok()?;
    *slim.version_mut() = parts.version;
    for name in KEPT {
        if let Some(value) = parts.headers.get(&name) {
            slim.headers_mut().insert(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
    }
    if let Some(upgrade) = parts.extensions.remove::<hyper::upgrade::OnUpgrade>() {
        slim.extensions_mut().insert(upgrade);
    }
    slim.extensions_mut().insert(session.clone());
    (slim.method() == Method::GET || slim.method() == Method::POST).then_some(slim)
}

/// Returns the URI with the session id replaced by the library's session id.
fn with_sid(uri: &Uri, sid: &str) -> Option<Uri> {
    let pairs = uri.query()?.split('&').map(|pair| match pair.split_once('=') {
        Some(("sid", _)) => format!("sid={sid}"),
        _ => pair.to_owned(),
    });
    format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&")).parse().ok()
}

/// Makes a request that closes a polling session as its own client would, with a POST of a close packet.
fn close_request(path: &str, sid: &str, protocol: u8) -> Request<Body> {
    let packet = if protocol == 3 { protocol3::CLOSE } else { "1" };
    Request::post(format!("{path}?EIO={protocol}&transport=polling&sid={sid}"))
        .header(CONTENT_TYPE, "text/plain;charset=UTF-8")
        .body(Body::from(packet))
        .expect("the path and a session id have only characters of a URL")
}

/// Replaces the session's id in the answer to a polling handshake with the one that `exchange` returns.
async fn exchange_sid(
    response: Response<Body>,
    is_protocol3: bool,
    exchange: impl FnOnce(&str) -> String,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_OPEN_PACKET).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let Some(inner) = sid(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    let outer = exchange(inner);
    let text = String::from_utf8_lossy(&bytes);
    let text = text.replacen(&format!(r#""sid":"{inner}""#), &format!(r#""sid":"{outer}""#), 1);
    let text = match text.split_once(':') {
        Some((_, packet)) if is_protocol3 => protocol3::with_length(packet),
        _ => text,
    };
    parts.headers.insert(CONTENT_LENGTH, text.len().into());
    Response::from_parts(parts, Body::from(text))
}

/// Finds the session id in a packet `0{"sid":"…",…}`.
fn sid(packet: &Bytes) -> Option<&str> {
    let text = std::str::from_utf8(packet).ok()?;
    let (_, rest) = text.split_once(r#""sid":""#)?;
    rest.split_once('"').map(|(sid, _)| sid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_is_exchanged_in_an_address() {
        let uri = "/socket.io/?EIO=4&x&t=sid&sid=outer&transport=polling".parse().unwrap();
        assert_eq!(with_sid(&uri, "inner").unwrap(), "/socket.io/?EIO=4&x&t=sid&sid=inner&transport=polling");
    }

    #[tokio::test]
    async fn id_is_exchanged_in_the_open_packet() {
        let open = Response::new(Body::from(r#"0{"sid":"AbC","upgrades":["websocket"]}"#));
        let answer = exchange_sid(open, false, |sid| format!("not {sid}")).await;
        assert_eq!(answer.headers()[CONTENT_LENGTH], "43");
        let body = to_bytes(answer.into_body(), 99).await.unwrap();
        assert_eq!(&body[..], br#"0{"sid":"not AbC","upgrades":["websocket"]}"#);
        let open = Response::new(Body::from(r#"14:0{"sid":"AbC"}"#));
        let answer = exchange_sid(open, true, |sid| format!("not {sid}")).await;
        let body = to_bytes(answer.into_body(), 99).await.unwrap();
        assert_eq!(&body[..], br#"18:0{"sid":"not AbC"}"#);
    }

    #[test]
    fn sid_is_read_from_the_open_packet() {
        let packet = Bytes::from_static(br#"0{"sid":"AbC-_9","upgrades":["websocket"]}"#);
        assert_eq!(sid(&packet), Some("AbC-_9"));
        assert_eq!(sid(&Bytes::from_static(b"0{}")), None);
    }
}
