//! An API with stand-ins for its components, which record their calls.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::auth::api_keys::ApiKeys;
use crate::config;
use crate::contract::load::{Source, load_sources};
use crate::contract::model::Namespace;
use crate::directory::*;
use crate::drain::Drain;
use crate::error::{Code, Refusal};
use crate::event::Args;
use crate::history::History;
use crate::http::publishing::{BackendPublished, Publishing};
use crate::http::{ApiLimits, ApiParts, ApiState, NodeState, ReadySource, api_router};
use crate::owners::Owners;
use crate::publish::{ContractPublish, PlainEmit, Published, RemoteFailure, RemoteOutcome};
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;

/// Records publishes. Some event names make it fail.
#[derive(Default)]
pub struct FakePublisher(pub Mutex<Vec<String>>);

impl Publishing for FakePublisher {
    fn contract_event(
        &self,
        publish: ContractPublish,
        id: Option<String>,
    ) -> BoxFuture<'_, Result<BackendPublished, Refusal>> {
        let data = publish.args.first().map_or("-", |data| data.get());
        let line = format!("{}/{} {data} {} {:?}", publish.contract, publish.event, publish.params, id);
        self.0.lock().unwrap().push(line);
        async move {
            match publish.event.as_str() {
                "panics" => panic!("as the test asked"),
                "hangs" => std::future::pending().await,
                "slow" => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    self.0.lock().unwrap().push("slow is done".into());
                    Ok(published(publish.event, RemoteOutcome::Carried))
                }
                "unknown" => Err(Refusal::new(Code::UnknownEvent, "no such event")),
                "often" => Err(Refusal::new(Code::RateLimitExceeded, "wait").retry_after(Duration::from_secs(7))),
                "away" => Ok(published(publish.event, RemoteOutcome::NotCarried(RemoteFailure::Away))),
                _ => Ok(published(publish.event, RemoteOutcome::Carried)),
            }
        }
        .boxed()
    }

    fn plain(&self, emit: PlainEmit) -> BoxFuture<'_, Result<BackendPublished, Refusal>> {
        self.0.lock().unwrap().push(format!("{emit:?}"));
        async move { Ok(published(emit.event, RemoteOutcome::Alone)) }.boxed()
    }
}

fn published(event: String, remote: RemoteOutcome) -> BackendPublished {
    Published { event, rooms: vec!["room".into()], local: 2, dropped: 1, remote, held: false }.into()
}

/// A directory with one connection, one room and one user; `away` stands for Redis being away.
pub struct FakeDirectory;

fn connection() -> ConnectionInfo {
    ConnectionInfo {
        socket_id: "s1".into(),
        user_id: Some("ada".into()),
        namespace: "/".into(),
        node: "n1".into(),
        transport: "websocket".into(),
        connected_at: SystemTime::UNIX_EPOCH,
        rooms: vec!["r".into()],
        metadata: serde_json::Map::from_iter([("k".to_owned(), Value::from(1))]),
        pace: None,
    }
}

fn room(namespace: &str) -> RoomInfo {
    RoomInfo {
        name: "r".into(),
        namespace: namespace.into(),
        member_count: 1,
        members: vec![member()],
        created_at: None,
        partial: false,
        missing_nodes: Vec::new(),
    }
}

fn member() -> MemberInfo {
    MemberInfo { socket_id: "s1".into(), user_id: None, node: "n1".into() }
}

fn user() -> UserInfo {
    UserInfo { user_id: "ada".into(), namespace: "/".into(), connections: 1, status: Some("away".into()) }
}

fn page<T>(item: T, asked: PageRequest) -> Result<Page<T>, DirectoryError> {
    match asked.cursor.as_deref() {
        None => Ok(Page { next: Some("next".into()), ..Page::complete(vec![item]) }),
        Some("next") => Ok(Page { partial: true, missing_nodes: vec!["n2".into()], ..Page::complete(Vec::new()) }),
        Some("away") => Err(DirectoryError::Unavailable),
        Some(_) => Err(DirectoryError::Cursor),
    }
}

fn ready<'a, T: Send + 'a>(answer: Result<T, DirectoryError>) -> DirectoryFuture<'a, T> {
    async move { answer }.boxed()
}

impl Survey for FakeDirectory {
    fn slowest_connections<'a>(
        &'a self,
        _: &'a str,
        _: Slowness,
        _: usize,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ready(Ok(Page::complete(vec![connection()])))
    }
}

impl Directory for FakeDirectory {
    fn connections<'a>(&'a self, _: &'a str, asked: PageRequest) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ready(page(connection(), asked))
    }

    fn slowest_here(&self, _: &str, _: Slowness, _: usize) -> Vec<ConnectionInfo> {
        vec![connection()]
    }

    fn connection<'a>(&'a self, _: &'a str, id: &'a str) -> DirectoryFuture<'a, Option<ConnectionInfo>> {
        ready(Ok((id == "s1").then(connection)))
    }

    fn rooms<'a>(&'a self, namespace: &'a str, asked: PageRequest) -> DirectoryFuture<'a, Page<RoomInfo>> {
        ready(page(room(namespace), asked))
    }

    fn room<'a>(&'a self, namespace: &'a str, name: &'a str) -> DirectoryFuture<'a, Option<RoomInfo>> {
        ready(Ok((name == "r").then(|| room(namespace))))
    }

    fn members<'a>(&'a self, _: &'a str, _: &'a str, asked: PageRequest) -> DirectoryFuture<'a, Page<MemberInfo>> {
        ready(page(member(), asked))
    }

    fn users<'a>(&'a self, _: &'a str, asked: PageRequest) -> DirectoryFuture<'a, Page<UserInfo>> {
        ready(page(user(), asked))
    }

    fn user<'a>(&'a self, _: &'a str, id: &'a str) -> DirectoryFuture<'a, Option<UserInfo>> {
        ready(Ok((id == "ada").then(user)))
    }

    fn user_connections<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        asked: PageRequest,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ready(page(connection(), asked))
    }

    fn count<'a>(&'a self, _: &'a str, of: CountOf<'a>) -> DirectoryFuture<'a, Count> {
        let all = (of == CountOf::Namespace).then_some(1);
        ready(Ok(Count { connections: 1, rooms: all, users: all, partial: false, missing_nodes: Vec::new() }))
    }
}

/// Acts on one client of this node, without effect; sockets named `away` stand for Redis being away.
pub struct FakeActions;

impl FakeActions {
    fn act(selection: &Selection) -> DirectoryFuture<'static, ActionResult> {
        let away = selection.sockets.iter().any(|socket| socket == "away");
        let remote = if away { SendOutcome::NotCarried("away") } else { SendOutcome::Carried };
        ready(Ok(ActionResult { local: 1, remote }))
    }
}

impl Actions for FakeActions {
    fn join<'a>(&'a self, selection: &'a Selection, _: &'a str) -> DirectoryFuture<'a, ActionResult> {
        Self::act(selection)
    }

    fn leave<'a>(&'a self, selection: &'a Selection, _: &'a str) -> DirectoryFuture<'a, ActionResult> {
        Self::act(selection)
    }

    fn disconnect<'a>(&'a self, selection: &'a Selection, _: bool) -> DirectoryFuture<'a, ActionResult> {
        Self::act(selection)
    }

    /// One client answers.
    fn ask<'a>(&'a self, question: AckQuestion) -> DirectoryFuture<'a, Acknowledged> {
        let args = Args::from_wire(format!("[{}]", question.event.text()).into(), vec![Bytes::from_static(b"b")]);
        let remote = Self::act(&question.selection).now_or_never().unwrap().unwrap().remote;
        let said = vec![Acknowledgement { socket_id: Some("s".into()), args }];
        let missing_nodes = vec!["c".into()];
        let done =
            Acknowledged { asked: 3, not_asked: 2, too_large: 1, said, remote, missing_nodes, missing_servers: 4 };
        ready(Ok(done))
    }
}

/// Revokes nothing; sockets named `away` stand for Redis being away.
pub struct FakeRevoker;

impl Revoker for FakeRevoker {
    fn revoke<'a>(&'a self, subjects: Vec<Subject>, _: Revocation) -> DirectoryFuture<'a, Revoked> {
        let remote = if subjects.contains(&Subject::Socket("away".into())) {
            SendOutcome::NotCarried("away")
        } else {
            SendOutcome::Carried
        };
        let full = subjects.contains(&Subject::User("one too many".into()));
        let done = Revoked { changed: subjects.len(), local: 1, remote };
        ready(if full { Err(DirectoryError::Full) } else { Ok(done) })
    }

    fn lift<'a>(&'a self, subjects: Vec<Subject>) -> DirectoryFuture<'a, Revoked> {
        ready(Ok(Revoked { changed: subjects.len(), local: 0, remote: SendOutcome::Alone }))
    }

    fn revocations<'a>(&'a self, asked: PageRequest) -> DirectoryFuture<'a, Page<RevocationInfo>> {
        let revocation = Revocation { since: 0, until: 1000, spares_newer: false };
        ready(page((Subject::User("ada".into()), revocation).into(), asked))
    }
}

fn keys() -> ApiKeys {
    let key = |secret: &str, contracts: &str| config::ApiKeySettings {
        name: "test".into(),
        secret: config::Secret::new(secret),
        contracts: vec![contracts.into()],
    };
    ApiKeys::new(&[key("admin", "*"), key("orders", "orders")])
}

struct FakeReady;

impl ReadySource for FakeReady {
    fn since_turn(&self) -> Duration {
        Duration::ZERO
    }

    fn status(&self) -> NodeState {
        NodeState {
            node: "n1".into(),
            connections: 1,
            rooms: 1,
            uptime: Duration::from_secs(1),
            redis: None,
            cluster: None,
            draining: false,
            reasons: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// An API whose components are stand-ins.
pub struct ApiFixture {
    pub publisher: Arc<FakePublisher>,
    pub api: Arc<ApiState>,
    pub router: Router,
}

const ORDERS: &str = r#"
name = "orders"
namespace = "/"
[auth]
mode = "none"
[rooms.order]
name = "order:{id}"
history = { events = 10, ttl = "1h", replay = "none" }
[rooms.lobby]
name = "lobby"
[server.status]
rooms = ["order"]
"#;

const JOBS: &str = r#"
name = "jobs"
namespace = "/jobs"
[auth]
mode = "none"
[rooms.job]
name = "job:{id}"
[server.status]
rooms = ["job"]
"#;

fn contracts() -> Vec<Arc<Namespace>> {
    let sources = [ORDERS, JOBS].map(|text| Source { name: "test".into(), text: text.into() });
    let loaded = load_sources(sources.into()).unwrap_or_else(|report| panic!("{report}"));
    loaded.into_iter().map(Arc::new).collect()
}

impl ApiFixture {
    pub fn new() -> Self {
        Self::with_limits(ApiLimits { max_body: 100_000, max_batch: 3 })
    }

    pub fn with_limits(limits: ApiLimits) -> Self {
        let metrics = Arc::new(Metrics::new());
        let publisher = Arc::new(FakePublisher::default());
        let contracts = contracts();
        let api = ApiState::new(ApiParts {
            publisher: publisher.clone(),
            owners: Arc::new(Owners::in_memory(metrics.clone())),
            directory: Arc::new(FakeDirectory),
            survey: Arc::new(FakeDirectory),
            actions: Arc::new(FakeActions),
            revoker: Arc::new(FakeRevoker),
            history: Arc::new(History::in_memory(metrics.clone())),
            rooms: Arc::new(Rooms::new(contracts.iter().map(|namespace| namespace.path.clone()))),
            contracts,
            keys: Arc::new(keys()),
            ready: Arc::new(FakeReady),
            drain: Drain::new(&config::DrainSettings::default(), metrics.clone()),
            metrics,
            limits,
        });
        Self { publisher, router: api_router(api.clone()), api }
    }

    /// Sends a request with the key for everything.
    pub async fn send(&self, method: &str, uri: &str, body: impl Into<Body>) -> TestResponse {
        self.send_with(method, uri, &[("authorization", "Bearer admin"), ("content-type", "application/json")], body)
            .await
    }

    /// Sends a request with these headers.
    pub async fn send_with(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> TestResponse {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send_request(request.body(body.into()).unwrap()).await
    }

    /// Sends a request.
    pub async fn send_request(&self, request: Request<Body>) -> TestResponse {
        TestResponse::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// Returns the publishes so far.
    pub fn published(&self) -> Vec<String> {
        std::mem::take(&mut self.publisher.0.lock().unwrap())
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct TestResponse {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl TestResponse {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// Returns the answer's body, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Returns the code of the error envelope.
    #[track_caller]
    pub fn code(&self) -> String {
        self.assert_envelope();
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }

    /// Checks that a failure is in the error envelope, and says when to try again if that helps.
    #[track_caller]
    pub fn assert_envelope(&self) {
        assert!(self.status >= 400, "{self:?}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json", "{self:?}");
        let json = self.json();
        let error = json["error"].as_object().unwrap_or_else(|| panic!("{self:?}"));
        assert_eq!(json.as_object().unwrap().len(), 1);
        assert!(Code::ALL.iter().any(|code| error["code"] == code.as_str()), "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        let status = StatusCode::from_u16(self.status).unwrap();
        let wait = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(wait, self.headers.contains_key(header::RETRY_AFTER), "{self:?}");
        assert_eq!(status == StatusCode::UNAUTHORIZED, self.headers.contains_key(header::WWW_AUTHENTICATE), "{self:?}");
    }
}
