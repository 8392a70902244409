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
use super::namespace::new_id;
use super::polling::{PollAnswer, PollingFault};
use super::sender::ConnectionSender;
use super::session::ConnectionTask;
use super::{EngineState, deflate};
use crate::engine::Gate;
use crate::engine::closable_stream::KillSwitch;
use crate::engine::edge::{
    AdmittedHandshake, EngineQuery, EngineSession, RequestRefusal, ResponseFuture, SessionService, ready,
};
use crate::engine::listener::RequestConnection;

/// The native engine as a [`SessionService`].
pub(super) struct NativeService<G>(pub(super) Arc<EngineState<G>>);

/// Why a request cannot be served. The answers have the error codes of Engine.IO's own server.
#[derive(Clone, Copy)]
enum BadRequest {
    Method,
    Request,
}

impl BadRequest {
    fn answer(self) -> Response<Body> {
        let body = match self {
            Self::Method => r#"{"code":2,"message":"Bad handshake method"}"#,
            Self::Request => r#"{"code":3,"message":"Bad request"}"#,
        };
        answer(StatusCode::BAD_REQUEST, "application/json", Bytes::from_static(body.as_bytes()))
    }
}

impl<G: Gate> SessionService for NativeService<G> {
    fn open(&self, request: Request<Body>, opening: AdmittedHandshake) -> ResponseFuture {
        if request.method() != Method::GET {
            return ready(BadRequest::Method.answer());
        }
        if opening.session.peer().transport == "polling" {
            return ready(self.open_polling(opening));
        }
        ready(self.open_websocket(request, opening))
    }

    fn serve(
        &self,
        request: Request<Body>,
        session: Arc<EngineSession>,
        _: Option<RequestConnection>,
    ) -> ResponseFuture {
        let Some(sender) = session.connection_as::<ConnectionSender>() else {
            return ready(RequestRefusal::UnknownSession.answer());
        };
        match (EngineQuery::read(request.uri()).transport, request.method()) {
            (Some("websocket"), &Method::GET) => ready(self.upgrade(request, &sender)),
            (Some("polling"), &Method::GET) => self.poll(&sender),
            (Some("polling"), &Method::POST) => self.post(request, sender),
            _ => ready(BadRequest::Request.answer()),
        }
    }
}

impl<G: Gate> NativeService<G> {
    fn open_polling(&self, opening: AdmittedHandshake) -> Response<Body> {
        let shared = &self.0;
        let sender = ConnectionSender::polling(shared.bounds, shared.deflate, shared.scheduler.clone(), Arc::default());
        opening.session.serve_by(sender.clone());
        let open = shared.greeting.polled(opening.session.assign_sid(opening.fingerprint));
        let inbox = Inbox::new(shared.clone(), sender.clone(), opening.session.clone());
        tokio::spawn(ConnectionTask::polling(shared.clone(), sender, inbox, opening.session));
        payload(open.into())
    }

    /// Opens a session for a WebSocket handshake that came through HTTP.
    fn open_websocket(&self, mut request: Request<Body>, opening: AdmittedHandshake) -> Response<Body> {
        let Some((key, upgrade)) = upgrade_of(&mut request) else { return BadRequest::Request.answer() };
        let shared = self.0.clone();
        let (extensions, deflates) = self.extensions(request.headers());
        let answer = switch(&key, extensions, request.headers());
        tokio::spawn(async move {
            // If the upgrade fails, dropping the session removes it from the node's connections.
            let AdmittedHandshake { session, .. } = opening;
            let Some((stream, read)) = tcp_of(upgrade).await else { return };
            let (reader, writer) = stream.into_split();
            let kill = Arc::new(KillSwitch::default());
            let deflate = shared.deflate.filter(|_| deflates);
            let sender = ConnectionSender::websocket(writer, shared.bounds, deflate, shared.scheduler.clone(), kill);
            session.serve_by(sender.clone());
            let mut open = BytesMut::new();
            shared.greeting.put(&mut open, &new_id());
            sender.control(open.freeze());
            let inbox = Inbox::new(shared.clone(), sender.clone(), session);
            // The session runs in a new task, so that the task that lives on is no larger than the session.
            tokio::spawn(ConnectionTask::new(shared, reader, sender, inbox, read));
        });
        answer
    }

    fn poll(&self, sender: &Arc<ConnectionSender>) -> ResponseFuture {
        let Some(fetch) = sender.begin_poll(self.0.max_payload) else { return ready(BadRequest::Request.answer()) };
        Box::pin(async move {
            match fetch.await {
                PollAnswer::Payload(bytes) => payload(bytes),
                PollAnswer::Gone => RequestRefusal::UnknownSession.answer(),
            }
        })
    }

    fn post(&self, request: Request<Body>, sender: Arc<ConnectionSender>) -> ResponseFuture {
        let most = self.0.max_payload;
        if request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream") {
            sender.fail(PollingFault::Misused);
            return ready(BadRequest::Request.answer());
        }
        if !sender.polls() {
            return ready(BadRequest::Request.answer());
        }
        let body = Limited::new(request.into_body(), most);
        Box::pin(async move {
            let mut posting = ReceivingBody { sender, whole: false };
            let bytes = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    posting.whole = true;
                    return answer(StatusCode::PAYLOAD_TOO_LARGE, TEXT, Bytes::new());
                }
                Err(_) => return BadRequest::Request.answer(),
            };
            posting.whole = true;
            let Some(taken) = posting.sender.post(bytes) else { return BadRequest::Request.answer() };
            match taken.await {
                Ok(true) => answer(StatusCode::OK, "text/html", Bytes::from_static(b"ok")),
                Ok(false) => BadRequest::Request.answer(),
                Err(_) => RequestRefusal::UnknownSession.answer(),
            }
        })
    }

    fn upgrade(&self, mut request: Request<Body>, sender: &Arc<ConnectionSender>) -> Response<Body> {
        let Some((key, upgrade)) = upgrade_of(&mut request) else { return BadRequest::Request.answer() };
        let (extensions, deflates) = self.extensions(request.headers());
        match sender.claim() {
            Some(claim) => drop(tokio::spawn(attempt(claim, upgrade, deflates, self.0.metrics.clone()))),
            // Like the Node.js server, the node closes the second WebSocket of a session. The session goes on.
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
struct ReceivingBody {
    sender: Arc<ConnectionSender>,
    whole: bool,
}

impl Drop for ReceivingBody {
    fn drop(&mut self) {
        if !self.whole {
            self.sender.fail(PollingFault::Lost);
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

/// Returns the key of a WebSocket handshake, and the future of its raw connection.
pub(in crate::engine) fn upgrade_of(request: &mut Request<Body>) -> Option<(WebSocketKey, OnUpgrade)> {
    let key = WebSocketKey::of(request.headers())?;
    Some((key, request.extensions_mut().remove()?))
}

/// Returns the answer to a WebSocket handshake.
pub(in crate::engine) fn switch(
    key: &WebSocketKey,
    extensions: Option<HeaderValue>,
    asked: &HeaderMap,
) -> Response<Body> {
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
