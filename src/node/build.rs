//! Builds every part of a node, in the order of the rows in `lib.rs`.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::auth::Authenticator;
use crate::auth::api_keys::ApiKeys;
use crate::cluster::{Cluster, ClusterRevoker, EndSession, SlowestConnections};
use crate::config::{self, Config};
use crate::contract::load::load;
use crate::contract::model::{Contract, Namespace};
use crate::drain::Drain;
use crate::engine::{Broadcaster, Engine, EngineContext};
use crate::forward::Forwarding;
use crate::gateway::{self, Gateway};
use crate::history::History;
use crate::hooks::{Hooks, Notices};
use crate::http::publisher::ApiPublisher;
use crate::http::{self, ApiLimits, ApiState};
use crate::idempotency::Idempotency;
use crate::limits::Limits;
use crate::mirror::Mirror;
use crate::owners::Owners;
use crate::presence::{self, Policies, Presence, PresenceRecorder};
use crate::publish::{self, Publisher};
use crate::recovery::{MovedSession, Recovery};
use crate::redis::Redis;
use crate::room::Rooms;
use crate::session::{Close, Session};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::version;
use crate::throttle::Throttles;

use super::leaving;
use super::measure::measure;
use super::ready::NodeStatus;
use super::requirements::check_requirements;

/// The topic of the messages by which nodes tell each other that a session has moved.
const MOVED: &str = "moved";

/// All parts of a node that is ready to listen.
pub(super) struct NodeParts {
    pub(super) id: String,
    pub(super) namespaces: Vec<Arc<Namespace>>,
    pub(super) redis: Option<Redis>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) engine: Engine<Gateway>,
    pub(super) api: Arc<ApiState>,
    pub(super) ready: Arc<NodeStatus>,
    pub(super) drain: Arc<Drain>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) forwarding: Forwarding,
}

/// The parts that most other parts need.
struct BaseParts<'a> {
    config: &'a Config,
    id: String,
    namespaces: Vec<Arc<Namespace>>,
    contracts: Vec<Arc<Contract>>,
    redis: Option<Redis>,
    metrics: Arc<Metrics>,
}

/// Builds a node that does not serve yet. `address` is the address at which other nodes connect to this node, if they
/// do. Redis need not be reachable.
pub(super) async fn build(config: &Config, address: Option<String>) -> anyhow::Result<Arc<NodeParts>> {
    let ground = base_parts(config)?;
    let forwarding = Forwarding::new(config, address, &ground.metrics)?;
    let auth = Authenticator::new(&config.auth, ground.metrics.clone()).await?;
    let hooks = Arc::new(hooks(&ground)?);
    let recorder = recorder(&ground);
    let rooms = rooms(&ground, &recorder);
    let cluster = cluster(&ground, rooms.clone(), &forwarding);
    let history = Arc::new(ground.by_redis(History::in_redis, History::in_memory));
    let publisher = publisher(&ground, Broadcaster::new(rooms.clone(), &cluster, &ground.metrics), &history);
    let announcer = publisher.clone();
    let presence = recorder.start(rooms.clone(), move |change| announcer.announce(change));
    let shared = SharedParts {
        publisher,
        owners: Arc::new(ground.by_redis(Owners::in_redis, Owners::in_memory)),
        limits: Arc::new(Limits::new(&config.limits, &ground.contracts, ground.metrics.clone())),
        auth,
        presence,
        rooms,
        history,
    };
    measure(&ground.metrics, config, &cluster, &shared.history, &shared.limits);
    follow_moved_sessions(&cluster, &shared.rooms);
    let recovery = recovery(&ground, &shared.history, &cluster);
    let gateway = gateway(&ground, &shared, hooks, recovery);
    attach_gateway(&gateway, &cluster, &shared);
    let ending = gateway.clone();
    let end: EndSession = Arc::new(move |session| ending.end_revoked(session));
    let redis = ground.redis.clone();
    let revoker = ClusterRevoker::start(&cluster, shared.auth.revocations(), &shared.rooms, redis.clone(), end);
    let forwarder = &forwarding.forwarder;
    let context =
        EngineContext::new(shared.limits.clone(), &ground.namespaces, forwarder.clone(), ground.metrics.clone());
    let paths = ground.namespaces.iter().map(|namespace| &namespace.path);
    let engine = Engine::new(&config.server, &context, paths, &gateway);
    let drain = Drain::new(&config.drain, ground.metrics.clone());
    leaving::start(&drain, engine.hub(), forwarder.tunnels(), &cluster, config.server.max_connections);
    let when_away = config.redis.when_away;
    let (rooms, of_drain) = (shared.rooms.clone(), drain.clone());
    let ready = Arc::new(NodeStatus::new(&ground.id, rooms, cluster.clone(), redis, of_drain, when_away));
    let api = api(&ground, &shared, &cluster, revoker, (ready.clone(), drain.clone()));
    let SharedParts { presence, publisher, .. } = shared;
    let BaseParts { id, namespaces, redis, metrics, .. } = ground;
    Ok(Arc::new(NodeParts {
        id,
        namespaces,
        redis,
        presence,
        cluster,
        gateway,
        engine,
        api,
        ready,
        drain,
        publisher,
        metrics,
        forwarding,
    }))
}

/// The parts that both the gateway and the API use.
struct SharedParts {
    publisher: Arc<Publisher>,
    owners: Arc<Owners>,
    limits: Arc<Limits>,
    auth: Arc<Authenticator>,
    presence: Arc<dyn Presence>,
    rooms: Arc<Rooms>,
    history: Arc<History>,
}

fn publisher(ground: &BaseParts<'_>, broadcaster: Arc<Broadcaster>, history: &Arc<History>) -> Arc<Publisher> {
    Publisher::new(publish::PublisherParts {
        namespaces: ground.namespaces.clone(),
        delivery: broadcaster,
        throttles: Throttles::new(ground.redis.clone(), ground.metrics.clone()),
        history: history.clone(),
        metrics: ground.metrics.clone(),
    })
}

fn gateway(ground: &BaseParts<'_>, shared: &SharedParts, hooks: Arc<Hooks>, recovery: Arc<Recovery>) -> Arc<Gateway> {
    let limits = &ground.config.limits;
    Gateway::new(gateway::GatewayParts {
        namespaces: ground.namespaces.clone(),
        rooms: shared.rooms.clone(),
        publisher: shared.publisher.clone(),
        auth: shared.auth.clone(),
        limits: shared.limits.clone(),
        history: shared.history.clone(),
        notices: notices(ground, &hooks),
        hooks,
        owners: shared.owners.clone(),
        presence: shared.presence.clone(),
        recovery,
        metrics: ground.metrics.clone(),
        pending: gateway::PendingBounds {
            events: limits.max_pending_events,
            bytes: limits.max_pending_bytes.as_usize(),
            node_bytes: limits.max_pending_bytes_per_node.as_usize(),
        },
    })
}

/// Lets the cluster take sessions out of rooms, and starts to act on requests of other nodes.
fn attach_gateway(gateway: &Arc<Gateway>, cluster: &Arc<Cluster>, shared: &SharedParts) {
    gateway.keep_time();
    let (rooms, publisher) = (shared.rooms.clone(), shared.publisher.clone());
    cluster.leave_by(move |session, room| publisher.take_out(&rooms, session, room));
    cluster.obey();
    if let Some(wire) = cluster.wire() {
        wire.bridge(shared.publisher.clone());
    }
}

fn api(
    ground: &BaseParts<'_>,
    shared: &SharedParts,
    cluster: &Arc<Cluster>,
    revoker: Arc<ClusterRevoker>,
    (ready, drain): (Arc<NodeStatus>, Arc<Drain>),
) -> Arc<ApiState> {
    ApiState::new(http::ApiParts {
        publisher: Arc::new(ApiPublisher::new(shared.publisher.clone(), ids(ground))),
        owners: shared.owners.clone(),
        directory: shared.presence.clone(),
        survey: SlowestConnections::start(cluster, shared.presence.clone()),
        actions: cluster.clone(),
        revoker,
        history: shared.history.clone(),
        contracts: ground.namespaces.clone(),
        keys: Arc::new(ApiKeys::new(&ground.config.api.keys)),
        ready,
        drain,
        rooms: shared.rooms.clone(),
        metrics: ground.metrics.clone(),
        limits: ApiLimits::from(&ground.config.api),
    })
}

fn base_parts(config: &Config) -> anyhow::Result<BaseParts<'_>> {
    let metrics = Arc::new(Metrics::new());
    let namespaces: Vec<_> = load(&config.contracts.files)?.into_iter().map(Arc::new).collect();
    let contracts: Vec<_> = namespaces.iter().flat_map(|namespace| namespace.contracts.iter().cloned()).collect();
    metrics.begin("nsp", &namespaces.iter().map(|namespace| &*namespace.path).collect::<Vec<_>>());
    metrics.begin("hook", &config.hooks.keys().map(String::as_str).collect::<Vec<_>>());
    let id = config.node.id_or_random();
    log_start(config, &id, &contracts);
    check_requirements(config, &contracts)?;
    let redis = match config.redis.url {
        Some(_) => Some(Redis::connect(&config.redis, &id, metrics.clone())?),
        None => None,
    };
    Ok(BaseParts { config, id, namespaces, contracts, redis, metrics })
}

/// Logs the first record of a node: its id, version and contracts.
fn log_start(config: &Config, id: &str, contracts: &[Arc<Contract>]) {
    let contracts: Vec<&str> = contracts.iter().map(|contract| &*contract.name).collect();
    tracing::info!(
        version = version::VERSION,
        commit = version::COMMIT,
        features = version::FEATURES,
        node = id,
        engine = config.server.engine.as_str(),
        redis = config.redis.mode(),
        contracts = contracts.join(","),
        "the node starts"
    );
    if config.server.engine == config::EngineKind::Socketioxide {
        tracing::info!(
            "socketioxide disconnects clients whose event names are numbers or need JSON escapes, and clients with socket.io-msgpack-parser, \
             and the node cannot count them; use server.engine = \"native\" for such clients (docs/engines.md)"
        );
    }
}

impl BaseParts<'_> {
    /// Builds the part that shares its data through Redis if the node has Redis, else the part for a single node.
    fn by_redis<T>(&self, shared: impl FnOnce(Redis, Arc<Metrics>) -> T, alone: impl FnOnce(Arc<Metrics>) -> T) -> T {
        match &self.redis {
            Some(redis) => shared(redis.clone(), self.metrics.clone()),
            None => alone(self.metrics.clone()),
        }
    }
}

fn hooks(ground: &BaseParts<'_>) -> anyhow::Result<Hooks> {
    Ok(Hooks::new(&ground.id, &ground.config.hooks, ground.metrics.clone())?)
}

fn notices(ground: &BaseParts<'_>, hooks: &Arc<Hooks>) -> Notices {
    match &ground.redis {
        None => Notices::in_memory(hooks.clone()),
        Some(redis) => Notices::in_redis(hooks.clone(), redis),
    }
}

fn recorder(ground: &BaseParts<'_>) -> PresenceRecorder {
    let policies = Policies::new(&ground.contracts);
    let config = &ground.config.presence;
    match &ground.redis {
        None => presence::in_memory(&ground.id, policies, config.status_ttl.get(), ground.metrics.clone()),
        Some(redis) => {
            let paths = ground.namespaces.iter().map(|namespace| namespace.path.clone());
            let metrics = ground.metrics.clone();
            presence::in_redis(config, redis.clone(), &ground.id, paths, policies, metrics)
        }
    }
}

fn rooms(ground: &BaseParts<'_>, recorder: &PresenceRecorder) -> Arc<Rooms> {
    let paths = ground.namespaces.iter().map(|namespace| namespace.path.clone());
    let most = ground.config.limits.max_rooms_per_socket;
    let rooms = Rooms::new(paths).bounded(most, ground.metrics.clone());
    let mut rooms = rooms.minding(&ground.contracts).watched_by(recorder.watcher());
    if let Some(redis) = &ground.redis
        && let Some(mirror) = Mirror::start(&ground.contracts, redis.clone(), &ground.id, ground.metrics.clone())
    {
        rooms = rooms.watched_by(mirror);
    }
    Arc::new(rooms)
}

fn cluster(ground: &BaseParts<'_>, rooms: Arc<Rooms>, forwarding: &Forwarding) -> Arc<Cluster> {
    let Some(redis) = ground.redis.clone() else { return Cluster::alone(&ground.id, rooms) };
    let (digest, metrics) = (digest(&ground.contracts), ground.metrics.clone());
    let peers = forwarding.peers.clone();
    Cluster::join((&ground.id, &digest), rooms, redis, peers, metrics, &ground.config.redis)
}

/// A digest of the contracts, which must be equal on all nodes of a cluster. The order of the files does not matter.
fn digest(contracts: &[Arc<Contract>]) -> String {
    let mut all: Vec<_> = contracts.iter().map(|contract| format!("{} {}", contract.name, contract.digest)).collect();
    all.sort();
    let digest = Sha256::digest(all.join("\n"));
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

fn recovery(ground: &BaseParts<'_>, history: &Arc<History>, cluster: &Arc<Cluster>) -> Arc<Recovery> {
    let (config, metrics) = (&ground.config.recovery, ground.metrics.clone());
    let windows = ground.namespaces.iter().filter_map(|namespace| Some(namespace.recovery()?.window));
    match &ground.redis {
        None => Recovery::in_memory(config, history.clone(), metrics),
        Some(redis) => {
            let longest = windows.max().unwrap_or_default();
            let (store, cluster) = ((redis.clone(), &*ground.id), cluster.clone());
            let tell = move |taken: MovedSession| {
                let cluster = cluster.clone();
                tokio::spawn(async move { cluster.tell(MOVED, &taken).await });
            };
            Recovery::in_redis(config, store, longest, history.clone(), metrics, tell)
        }
    }
}

/// Ends the local session when another node reports that the session has moved to that node.
fn follow_moved_sessions(cluster: &Cluster, rooms: &Arc<Rooms>) {
    let rooms = rooms.clone();
    cluster.on(MOVED, move |_, data| {
        let Ok(taken) = serde_json::from_value::<MovedSession>(data) else { return };
        let session = rooms.session(&taken.namespace, &taken.id);
        if let Some(session) = session.filter(|session| is_older(session, &taken)) {
            session.close(Close::Transport);
        }
    });
}

fn is_older(session: &Session, taken: &MovedSession) -> bool {
    session.offsets().is_some_and(|offsets| offsets.generation() < taken.generation)
}

fn ids(ground: &BaseParts<'_>) -> Idempotency {
    let ttl = ground.config.api.idempotency_ttl.get();
    ground.by_redis(
        |redis, metrics| Idempotency::in_redis(redis, ttl, metrics),
        |metrics| Idempotency::in_memory(ttl, metrics),
    )
}
