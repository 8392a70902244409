//! The library's service behind the edge. The library uses Socket.IO ids as session ids, and other clients may see
//! these. So requests carry a secret id instead, and this service translates between the two. It also copies what a
//! handshake needs, so that a connection keeps little memory.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use bytes::Bytes;
use http::header::{self, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use socketioxide::service::SocketIoService;
use tower::ServiceExt as _;

use super::Adapter;
use super::connection::{Closer, LibraryConnection, end_with};
use crate::engine::edge::{
    AdmittedHandshake, EngineQuery, EngineSession, RequestRefusal, ResponseFuture, SessionService, ready,
};
use crate::engine::listener::RequestConnection;
use crate::engine::native::head::first_subprotocol;
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
    bounds: WriteQueueLimits,
    metrics: Arc<Metrics>,
}

impl LibraryService {
    /// Wraps the library's service for `path`. `bounds` limits what may wait for each client.
    pub(super) fn new(service: Service, path: &str, bounds: WriteQueueLimits, metrics: Arc<Metrics>) -> Self {
        let (closing, path) = (service.clone(), path.to_owned());
        let closer: Closer = Arc::new(move |sid| {
            let (closing, request) = (closing.clone(), close_request(&path, sid));
            Box::pin(async move {
                let _ = closing.oneshot(request).await;
            })
        });
        Self { service, closer, bounds, metrics }
    }
}

impl SessionService for LibraryService {
    fn open(&self, request: Request<Body>, opening: AdmittedHandshake) -> ResponseFuture {
        let AdmittedHandshake { session, fingerprint, arrival } = opening;
        let websocket = EngineQuery::read(request.uri()).transport == Some("websocket");
        let kill = arrival.filter(|_| websocket).map(|arrival| arrival.kill);
        let connection = LibraryConnection::new(self.closer.clone(), self.bounds, kill.as_ref());
        session.serve_by(connection.clone());
        let subprotocol = subprotocol(&request);
        let Some(slim) = copy_request(request, &session) else { return ready(RequestRefusal::Malformed.answer()) };
        let service = self.service.clone();
        Box::pin(async move {
            let response = pass(service, slim).await;
            if let (StatusCode::SWITCHING_PROTOCOLS, Some(kill)) = (response.status(), kill) {
                end_with(&kill, &session);
                return with_subprotocol(response, subprotocol);
            }
            if websocket || response.status() != StatusCode::OK {
                return response;
            }
            let name = |inner: &str| {
                connection.set_inner(inner);
                session.assign_sid(fingerprint).to_owned()
            };
            exchange_sid(response, name).await
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
        let subprotocol = subprotocol(&request);
        let websocket = EngineQuery::read(request.uri()).transport == Some("websocket");
        let polls = !websocket && request.method() == Method::GET;
        let (service, metrics) = (self.service.clone(), self.metrics.clone());
        let closes = request.method() == Method::POST
            && request.headers().get(CONTENT_LENGTH).is_some_and(|length| length == "1");
        Box::pin(async move {
            let polling = polls.then(|| connection.polling());
            let response = if closes {
                let (parts, body) = request.into_parts();
                let packet = to_bytes(body, 1).await.unwrap_or_default();
                if &packet[..] == CLOSE {
                    // End the session here, because the library keeps one that is in no namespace until
                    // `server.connect_timeout`.
                    session.end();
                }
                pass(service, Request::from_parts(parts, Body::from(packet))).await
            } else {
                pass(service, request).await
            };
            drop(polling);
            match (response.status(), arrival) {
                (StatusCode::OK, _) if polls => connection.fetched(response.body().size_hint().exact()),
                // Note the upgrade only now, when the WebSocket is open.
                (StatusCode::SWITCHING_PROTOCOLS, Some(arrival)) => {
                    connection.upgrading(&arrival.kill, &session);
                    metrics.transport_upgrades_total.with_label_values::<&str>(&[]).inc();
                    return with_subprotocol(response, subprotocol);
                }
                _ => {}
            }
            response
        })
    }
}

/// The subprotocol to answer a WebSocket handshake with. The library does not choose one.
fn subprotocol(request: &Request<Body>) -> Option<HeaderValue> {
    first_subprotocol(request.headers().get(header::SEC_WEBSOCKET_PROTOCOL)?.as_bytes())
}

fn with_subprotocol(mut response: Response<Body>, subprotocol: Option<HeaderValue>) -> Response<Body> {
    if let Some(subprotocol) = subprotocol {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

async fn pass(service: Service, request: Request<Body>) -> Response<Body> {
    let Ok(response) = service.oneshot(request).await;
    response.map(Body::new)
}

/// Copies the needed parts of a request, so that it no longer holds the buffers that it was read into.
fn copy_request(request: Request<Body>, session: &Arc<EngineSession>) -> Option<Request<Body>> {
    let (mut parts, _) = request.into_parts();
    let mut slim = Request::new(Body::empty());
    *slim.method_mut() = parts.method;
    let EngineQuery { transport, version, .. } = EngineQuery::read(&parts.uri);
    let address = format!("{}?EIO={}&transport={}", parts.uri.path(), version.unwrap_or(""), transport.unwrap_or(""));
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

/// A request that closes a polling session as its own client would, with a POST of a close packet.
fn close_request(path: &str, sid: &str) -> Request<Body> {
    Request::post(format!("{path}?EIO=4&transport=polling&sid={sid}"))
        .header(CONTENT_TYPE, "text/plain;charset=UTF-8")
        .body(Body::from("1"))
        .expect("the path and a session id have only characters of a URL")
}

/// Replaces the session's id in the answer to a polling handshake with the one that `exchange` returns.
async fn exchange_sid(response: Response<Body>, exchange: impl FnOnce(&str) -> String) -> Response<Body> {
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
