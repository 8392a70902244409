//! Serves the HTTP requests of native sessions: handshakes, polls, posted bodies, and upgrades.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::upgrade::OnUpgrade;

use super::candidate::{attempt, refuse, tcp_of};
use super::head::{WebSocketKey, first_subprotocol};
use super::inbox::Inbox;
use super::member::new_id;
use super::polling::{Fault, Fetched};
use super::session::Session;
use super::wire::Wire;
use super::{Shared, deflate};
use crate::engine::Gate;
use crate::engine::conn::KillSwitch;
use crate::engine::edge::{Answering, EngineSession, Opening, Query, SessionService, TurnedAway, ready};
use crate::engine::listener::Arrival;

/// The native engine as a [`SessionService`].
pub(super) struct NativeService<G>(pub(super) Arc<Shared<G>>);

/// Why a request cannot be served. The answers have the error codes of Engine.IO's own server.
#[derive(Clone, Copy)]
enum Bad {
    Transport,
    Method,
    Request,
    Version,
    Jsonp,
}

impl Bad {
    fn answer(self) -> Response<Body> {
        let body = match self {
            Self::Transport => r#"{"code":0,"message":"Transport unknown"}"#,
            Self::Method => r#"{"code":2,"message":"Bad handshake method"}"#,
            Self::Request => r#"{"code":3,"message":"Bad request"}"#,
            Self::Version => r#"{"code":5,"message":"Unsupported protocol version"}"#,
            Self::Jsonp => r#"{"code":3,"message":"JSONP polling is not supported; use XHR or fetch, or a WebSocket"}"#,
        };
        answer(StatusCode::BAD_REQUEST, "application/json", Bytes::from_static(body.as_bytes()))
    }
}

impl<G: Gate> SessionService for NativeService<G> {
    fn open(&self, request: Request<Body>, opening: Opening) -> Answering {
        let query = Query::read(request.uri());
        match query.transport {
            Some("polling" | "websocket") => {}
            _ => return ready(Bad::Transport.answer()),
        }
        if request.method() != Method::GET {
            return ready(Bad::Method.answer());
        }
        if query.version != Some("4") {
            return ready(Bad::Version.answer());
        }
        if query.jsonp {
            return ready(Bad::Jsonp.answer());
        }
        if query.transport == Some("polling") {
            return ready(self.open_polling(opening));
        }
        ready(self.open_websocket(request, opening))
    }

    fn serve(&self, request: Request<Body>, session: Arc<EngineSession>, _: Option<Arrival>) -> Answering {
        let query = Query::read(request.uri());
        let Some(wire) = session.connection_as::<Wire>() else {
            return ready(TurnedAway::UnknownSession.answer());
        };
        if query.jsonp {
            return ready(Bad::Jsonp.answer());
        }
        match (query.transport, request.method()) {
            (Some("websocket"), &Method::GET) => ready(self.upgrade(request, &wire)),
            (Some("polling"), &Method::GET) => self.poll(&wire),
            (Some("polling"), &Method::POST) => self.post(request, wire),
            _ => ready(Bad::Request.answer()),
        }
    }
}

impl<G: Gate> NativeService<G> {
    fn open_polling(&self, opening: Opening) -> Response<Body> {
        let shared = &self.0;
        let wire = Wire::polling(shared.bounds, shared.deflate, shared.turns.clone(), Arc::default());
        opening.session.serve_by(wire.clone());
        let open = shared.greeting.polled(opening.session.assign_sid(opening.mark));
        let inbox = Inbox::new(shared.clone(), wire.clone(), opening.session.clone());
        tokio::spawn(Session::polling(shared.clone(), wire, inbox, opening.session));
        payload(open.into())
    }

    /// Opens a session for a WebSocket handshake that came through HTTP.
    fn open_websocket(&self, mut request: Request<Body>, opening: Opening) -> Response<Body> {
        let Some((key, upgrade)) = upgrade_of(&mut request) else { return Bad::Request.answer() };
        let shared = self.0.clone();
        let (extensions, deflates) = self.extensions(request.headers());
        let answer = switch(&key, extensions, request.headers());
        tokio::spawn(async move {
            // If the upgrade fails, dropping the session removes it from the node's connections.
            let Opening { session, .. } = opening;
            let Some((stream, read)) = tcp_of(upgrade).await else { return };
            let (reader, writer) = stream.into_split();
            let kill = Arc::new(KillSwitch::default());
            let deflate = shared.deflate.filter(|_| deflates);
            let wire = Wire::websocket(writer, shared.bounds, deflate, shared.turns.clone(), kill);
            session.serve_by(wire.clone());
            let mut open = BytesMut::new();
            shared.greeting.put(&mut open, &new_id());
            wire.control(open.freeze());
            let inbox = Inbox::new(shared.clone(), wire.clone(), session);
            // Run the session in a new task, so that the task that lives on is no larger than the session.
            tokio::spawn(Session::new(shared, reader, wire, inbox, read));
        });
        answer
    }

    fn poll(&self, wire: &Arc<Wire>) -> Answering {
        let Some(fetch) = wire.begin_poll(self.0.max_payload) else { return ready(Bad::Request.answer()) };
        Box::pin(async move {
            match fetch.await {
                Fetched::Payload(bytes) => payload(bytes),
                Fetched::Gone => TurnedAway::UnknownSession.answer(),
            }
        })
    }

    fn post(&self, request: Request<Body>, wire: Arc<Wire>) -> Answering {
        let most = self.0.max_payload;
        if request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream") {
            wire.fail(Fault::Misused);
            return ready(Bad::Request.answer());
        }
        if !wire.polls() {
            return ready(Bad::Request.answer());
        }
        let body = Limited::new(request.into_body(), most);
        Box::pin(async move {
            let mut posting = Posting { wire, whole: false };
            let bytes = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    posting.whole = true;
                    return answer(StatusCode::PAYLOAD_TOO_LARGE, TEXT, Bytes::new());
                }
                Err(_) => return Bad::Request.answer(),
            };
            posting.whole = true;
            let Some(taken) = posting.wire.post(bytes) else { return Bad::Request.answer() };
            match taken.await {
                Ok(true) => answer(StatusCode::OK, "text/html", Bytes::from_static(b"ok")),
                Ok(false) => Bad::Request.answer(),
                Err(_) => TurnedAway::UnknownSession.answer(),
            }
        })
    }

    fn upgrade(&self, mut request: Request<Body>, wire: &Arc<Wire>) -> Response<Body> {
        let Some((key, upgrade)) = upgrade_of(&mut request) else { return Bad::Request.answer() };
        let (extensions, deflates) = self.extensions(request.headers());
        match wire.claim() {
            Some(claim) => drop(tokio::spawn(attempt(claim, upgrade, deflates, self.0.metrics.clone()))),
            // Like the Node.js server, close the second WebSocket. The session goes on.
            None => drop(tokio::spawn(refuse(upgrade))),
        }
        switch(&key, extensions, request.headers())
    }

    /// The answer to the extensions that a client offers, and whether compression was negotiated.
    fn extensions(&self, headers: &HeaderMap) -> (Option<HeaderValue>, bool) {
        let offers = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|offer| offer.to_str().ok());
        let agreed = self.0.deflate.and_then(|_| deflate::negotiate(offers)).and_then(|text| text.parse().ok());
        let deflates = agreed.is_some();
        (agreed, deflates)
    }
}

/// A guard that exists while a body is being received. If the guard is dropped before the body is complete, the session
/// ends, because the client is gone.
struct Posting {
    wire: Arc<Wire>,
    whole: bool,
}

impl Drop for Posting {
    fn drop(&mut self) {
        if !self.whole {
            self.wire.fail(Fault::Lost);
        }
    }
}

const TEXT: &str = "text/plain; charset=UTF-8";

fn payload(bytes: Bytes) -> Response<Body> {
    answer(StatusCode::OK, TEXT, bytes)
}

fn answer(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The key of a WebSocket handshake, and the future of its raw connection.
fn upgrade_of(request: &mut Request<Body>) -> Option<(WebSocketKey, OnUpgrade)> {
    let key = WebSocketKey::of(request.headers())?;
    Some((key, request.extensions_mut().remove()?))
}

fn switch(key: &WebSocketKey, extensions: Option<HeaderValue>, asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key.accept());
    if let Some(extensions) = extensions {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, extensions);
    }
    let offered = asked.get(header::SEC_WEBSOCKET_PROTOCOL);
    if let Some(chosen) = offered.and_then(|offered| first_subprotocol(offered.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    response
}
