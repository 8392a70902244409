//! What happens to a request before an engine sees it: who the client is, whether it may connect at all, and how much of
//! the request is kept for the life of its connection.

mod hub;
mod origin;
mod query;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use tower::{Service, ServiceExt};

pub use hub::{Backlog, EngineSession, Hub};
use origin::Origins;
use query::Query;

use super::conn::KillSwitch;
use super::listener::Arrival;
use crate::config;
use crate::error::{Code, Refusal};
use crate::session::Peer;
use crate::telemetry::audit::{self, Kind, Record};
use crate::telemetry::metrics::Metrics;

/// The client's address as far as trusted proxies say; among the extensions of requests that go to the routes.
#[derive(Debug, Clone, Copy)]
pub struct ClientIp(pub IpAddr);

/// What is kept of a handshake's headers for as long as its connection lives. All others are dropped: each would hold
/// the whole buffer that it was read into.
const KEPT: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::USER_AGENT,
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::HOST,
];

/// The longest `User-Agent` that is kept, in bytes.
const MAX_USER_AGENT: usize = 256;

/// How long a client that found no place should wait, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// The door in front of an engine and the other routes of the public listener.
#[derive(Clone)]
pub struct Edge<S> {
    shared: Arc<Shared>,
    engine: S,
    routes: Router,
}

struct Shared {
    path: String,
    origins: Origins,
    trusted: Vec<config::Network>,
    max_connections: u64,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

/// Why a handshake finds no place.
enum TurnedAway {
    Origin,
    Leaving,
    Crowded,
}

impl TurnedAway {
    /// The label in metrics.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Leaving => "leaving",
            Self::Crowded => "crowded",
        }
    }

    fn answer(&self) -> Response<Body> {
        match self {
            Self::Origin => {
                let text = "this origin may not connect; server.cors_origins names those that may";
                refuse(StatusCode::FORBIDDEN, &Refusal::new(Code::AuthorizationFailed, text))
            }
            Self::Leaving => unavailable(Code::Unavailable, "the node is draining; another one will answer"),
            Self::Crowded => unavailable(Code::Overloaded, "the node has as many connections as it may have"),
        }
    }
}

impl Shared {
    /// Gives a client a place among the connections, if its handshake may have one.
    fn admit(
        &self,
        headers: &HeaderMap,
        ip: IpAddr,
        websocket: bool,
        kill: Option<Arc<KillSwitch>>,
    ) -> Result<Arc<EngineSession>, TurnedAway> {
        if !self.origins.permit(headers) {
            audit::record(Kind::OriginRefused, Record { ip: Some(ip), ..Record::default() });
            return Err(TurnedAway::Origin);
        }
        if !self.hub.accepts() {
            return Err(TurnedAway::Leaving);
        }
        let place = self.hub.take_place(self.max_connections).ok_or(TurnedAway::Crowded)?;
        let transport = if websocket { "websocket" } else { "polling" };
        let peer = Peer { ip, transport, user_agent: user_agent(headers) };
        Ok(EngineSession::new(peer, kill, place))
    }
}

/// The same door for handshakes of WebSockets that do not come through HTTP's hands.
#[derive(Clone)]
pub struct Entrance(Arc<Shared>);

impl Entrance {
    /// Gives a client a place among the connections. `None`: [`Edge`] can say why not.
    pub fn admit(&self, address: IpAddr, headers: &HeaderMap, kill: Arc<KillSwitch>) -> Option<Arc<EngineSession>> {
        let ip = client_ip(address, headers, &self.0.trusted);
        self.0.admit(headers, ip, true, Some(kill)).ok()
    }
}

impl<S, B> Edge<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    B: axum::body::HttpBody<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    /// A door for requests to `server.path`; all others go to `routes`.
    pub fn new(config: &config::Server, hub: Arc<Hub>, metrics: Arc<Metrics>, engine: S, routes: Router) -> Self {
        let (closer, path) = (engine.clone(), config.path.clone());
        hub.close_polling_by(move |sid| {
            let (closer, request) = (closer.clone(), query::close_request(&path, sid));
            Box::pin(async move {
                let _ = closer.oneshot(request).await;
            })
        });
        let shared = Shared {
            path: config.path.clone(),
            origins: Origins::new(&config.cors_origins),
            trusted: config.trusted_proxies.clone(),
            max_connections: config.max_connections,
            hub,
            metrics,
        };
        Self { shared: Arc::new(shared), engine, routes }
    }

    /// The same door for those who do not come through HTTP's hands.
    pub fn entrance(&self) -> Entrance {
        Entrance(self.shared.clone())
    }

    async fn handle(self, mut request: Request<Body>) -> Response<Body> {
        let arrival = request.extensions_mut().remove::<Arrival>();
        let address = arrival.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |arrival| arrival.address.ip());
        let ip = client_ip(address, request.headers(), &self.shared.trusted);
        if !request.uri().path().starts_with(&self.shared.path) {
            request.extensions_mut().insert(ClientIp(ip));
            let Ok(response) = self.routes.oneshot(request).await;
            return response;
        }
        let query = Query::read(request.uri());
        match query.sid {
            None => self.handshake(request, arrival, ip, query.websocket).await,
            Some(sid) if query.websocket => {
                if let (Some(arrival), Some(session)) = (arrival, self.shared.hub.session(&sid)) {
                    session.upgrading(&arrival.kill);
                    self.shared.metrics.transport_upgrades_total.with_label_values::<&str>(&[]).inc();
                }
                self.pass(request).await
            }
            Some(sid) if self.shared.hub.was_closed(&sid, request.method() == Method::GET) => {
                query::close_packet(request.method())
            }
            Some(sid) => {
                let session = (request.method() == Method::GET).then(|| self.shared.hub.session(&sid)).flatten();
                let _polling = session.map(|session| session.polling());
                self.pass(request).await
            }
        }
    }

    /// A request without a session opens one.
    async fn handshake(
        self,
        request: Request<Body>,
        arrival: Option<Arrival>,
        ip: IpAddr,
        websocket: bool,
    ) -> Response<Body> {
        let shared = &self.shared;
        let kill = arrival.filter(|_| websocket).map(|arrival| arrival.kill);
        let session = match shared.admit(request.headers(), ip, websocket, kill) {
            Ok(session) => session,
            Err(turned) => {
                shared.metrics.handshakes_refused_total.with_label_values(&[turned.as_str()]).inc();
                return turned.answer();
            }
        };
        let hub = shared.hub.clone();
        let Some(slim) = slim(request, &session) else {
            let text = "the request's address cannot be read";
            return refuse(StatusCode::BAD_REQUEST, &Refusal::new(Code::InvalidPayload, text));
        };
        let response = self.pass(slim).await;
        if websocket || response.status() != StatusCode::OK {
            return response;
        }
        query::remember_sid(response, |sid| hub.remember(sid, &session)).await
    }

    async fn pass(self, request: Request<Body>) -> Response<Body> {
        let Ok(response) = self.engine.oneshot(request).await;
        response.map(Body::new)
    }
}

impl<S, B> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    B: axum::body::HttpBody<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let edge = self.clone();
        Box::pin(async move { Ok(edge.handle(request).await) })
    }
}

/// The last address of `X-Forwarded-For` that no trusted proxy has, if the request comes from a trusted proxy.
fn client_ip(address: IpAddr, headers: &HeaderMap, trusted: &[config::Network]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    let mut ip = address.to_canonical();
    if !is_trusted(ip) {
        return ip;
    }
    let values: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        // What cannot be read ends what can be believed.
        let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
        ip = hop.to_canonical();
        if !is_trusted(ip) {
            break;
        }
    }
    ip
}

fn user_agent(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    // A header is ASCII where `to_str` reads it, so any byte is a boundary.
    Some(text[..text.len().min(MAX_USER_AGENT)].into())
}

/// The same request without its buffers: copied, and only what is needed.
fn slim(request: Request<Body>, session: &Arc<EngineSession>) -> Option<Request<Body>> {
    let (mut parts, _) = request.into_parts();
    let mut slim = Request::new(Body::empty());
    *slim.method_mut() = parts.method;
    *slim.uri_mut() = parts.uri.path_and_query()?.as_str().to_owned().parse::<Uri>().ok()?;
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

fn unavailable(code: Code, text: &str) -> Response<Body> {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, &Refusal::new(code, text));
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

fn refuse(status: StatusCode, refusal: &Refusal) -> Response<Body> {
    let body = serde_json::json!({ "error": { "code": refusal.code, "message": refusal.message } });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip_of(address: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        let trusted: Vec<_> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_ip(address.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(ip_of("1.2.3.4", &["9.9.9.9"], &[]), "1.2.3.4");
        assert_eq!(ip_of("10.0.0.1", &["9.9.9.9"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(ip_of("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.7"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(ip_of("10.0.0.1", &["6.6.6.6", "9.9.9.9"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(ip_of("10.0.0.1", &["9.9.9.9, rubbish"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(ip_of("::ffff:10.0.0.1", &["fd00::1"], &["10.0.0.0/8"]), "fd00::1");
        assert_eq!(ip_of("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
    }
}
