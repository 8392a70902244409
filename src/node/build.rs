//! Builds every part of a node. Each part is complete when it is built, so a line that stands too early does not
//! compile. Messages of other nodes wait in the inbox until the last part exists.

use std::sync::Arc;

use crate::auth::Authenticator;
use crate::auth::api_keys::ApiKeys;
use crate::cluster::{
    Cluster, ClusterActions, ClusterInbox, ClusterRevoker, Inbound, MessageHandlers, SlowestConnections,
};
use crate::config::Config;
use crate::contract::model::Namespace;
use crate::drain::Drain;
use crate::engine::socketioxide::LibraryRequests;
use crate::engine::{Broadcaster, Engine, EngineContext};
use crate::forward::Forwarding;
use crate::gateway::{self, Gateway};
use crate::history::History;
use crate::hooks::Hooks;
use crate::http::publisher::ApiPublisher;
use crate::http::{self, ApiLimits, ApiState};
use crate::limits::Limits;
use crate::owners::Owners;
use crate::presence::Presence;
use crate::publish::{self, Publisher};
use crate::recovery::{MovedSession, Recovery};
use crate::redis::Redis;
use crate::room::Rooms;
use crate::session::{Close, Session};
use crate::telemetry::metrics::Metrics;
use crate::throttle::Throttles;

use super::ground::{BaseParts, MOVED};
use super::leaving;
use super::measure::measure;
use super::ready::NodeStatus;

/// All parts of a node that is ready to listen.
pub(super) struct NodeParts {
    pub(super) id: String,
    pub(super) namespaces: Vec<Arc<Namespace>>,
    pub(super) redis: Option<Redis>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) inbound: Option<Arc<Inbound>>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) engine: Engine<Gateway>,
    pub(super) api: Arc<ApiState>,
    pub(super) ready: Arc<NodeStatus>,
    pub(super) drain: Arc<Drain>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) forwarding: Forwarding,
}

/// Builds a node that does not serve yet. `address` is the address at which other nodes connect to this node, if they
/// do. Redis need not be reachable.
pub(super) async fn build(config: &Config, address: Option<String>) -> anyhow::Result<Arc<NodeParts>> {
    let ground = BaseParts::new(config)?;
    let forwarding = Forwarding::new(config, address, &ground.metrics)?;
    let auth = Authenticator::new(&config.auth, ground.metrics.clone()).await?;
    let hooks = ground.hooks()?;
    let drain = Drain::new(&config.drain, ground.metrics.clone());
    let recorder = ground.recorder();
    let (link, inbox) = ground.link(&drain).unzip();
    let rooms = ground.rooms(&recorder, link.as_ref());
    let cluster = match link {
        Some(link) => Cluster::join(link, rooms.clone(), forwarding.peers.clone()),
        None => Cluster::alone(&ground.id, rooms.clone()),
    };
    let history = Arc::new(ground.by_redis(History::in_redis, History::in_memory));
    let (presence, changes) = recorder.start(rooms.clone());
    let broadcaster = Broadcaster::new(&rooms, &cluster, &ground.contracts, &ground.metrics);
    let publisher = publisher(&ground, broadcaster, &history, &presence);
    let announcer = publisher.clone();
    tokio::spawn(changes.announce(move |changes| announcer.clone().announce(changes)));
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
    let gateway = gateway(&ground, &shared, hooks, ground.recovery(&shared.history, &cluster));
    let acts = ActsEverywhere::new(&ground, &shared, &cluster, gateway.clone());
    let forwarder = &forwarding.forwarder;
    let context =
        EngineContext::new(shared.limits.clone(), &ground.namespaces, forwarder.clone(), ground.metrics.clone());
    let paths = ground.namespaces.iter().map(|namespace| &namespace.path);
    let engine = Engine::new(&config.server, &context, paths, &gateway);
    leaving::start(&drain, engine.hub(), forwarder.tunnels(), &cluster, config.server.max_connections);
    let (redis, when_away) = (ground.redis.clone(), config.redis.when_away);
    let of_status = (shared.rooms.clone(), cluster.clone(), drain.clone());
    let ready = Arc::new(NodeStatus::new(&ground.id, of_status, redis, when_away));
    let inbound = inbox.map(|inbox| receive(inbox, &cluster, &shared, acts.handlers()));
    let api = api(&ground, &shared, acts, (ready.clone(), drain.clone()));
    let SharedParts { presence, publisher, .. } = shared;
    let BaseParts { id, namespaces, redis, metrics, .. } = ground;
    Ok(Arc::new(NodeParts {
        id,
        namespaces,
        redis,
        presence,
        cluster,
        inbound,
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

/// The parts that act on every node: the API calls them, and they handle the messages of other nodes.
struct ActsEverywhere {
    actions: Arc<ClusterActions>,
    revoker: Arc<ClusterRevoker>,
    survey: Arc<SlowestConnections>,
}

impl ActsEverywhere {
    fn new(ground: &BaseParts<'_>, shared: &SharedParts, cluster: &Arc<Cluster>, gateway: Arc<Gateway>) -> Self {
        let end = Arc::new(move |session: &Arc<Session>| gateway.end_revoked(session));
        let revocations = shared.auth.revocations();
        Self {
            actions: ClusterActions::new(cluster, &shared.publisher),
            revoker: ClusterRevoker::start(cluster, revocations, &shared.rooms, ground.redis.clone(), end),
            survey: SlowestConnections::new(cluster, shared.presence.clone()),
        }
    }

    fn handlers(&self) -> MessageHandlers {
        MessageHandlers::of(&self.actions, &self.revoker, &self.survey)
    }
}

/// Begins to deliver the events of other nodes, and to act for other nodes.
fn receive(
    inbox: ClusterInbox,
    cluster: &Arc<Cluster>,
    shared: &SharedParts,
    handlers: MessageHandlers,
) -> Arc<Inbound> {
    let (rooms, publisher) = (shared.rooms.clone(), shared.publisher.clone());
    // Ends the local session when another node reports that the session has moved to that node.
    let handlers = handlers.on(MOVED, move |_, taken: MovedSession| {
        let session = rooms.session(&taken.namespace, &taken.id);
        if let Some(session) = session.filter(|session| is_older(session, &taken)) {
            session.close(Close::Transport);
        }
    });
    inbox.start(cluster, publisher, Arc::new(LibraryRequests::default()), handlers)
}

fn is_older(session: &Session, taken: &MovedSession) -> bool {
    session.offsets().is_some_and(|offsets| offsets.generation() < taken.generation)
}

fn publisher(
    ground: &BaseParts<'_>,
    broadcaster: Arc<Broadcaster>,
    history: &Arc<History>,
    presence: &Arc<dyn Presence>,
) -> Arc<Publisher> {
    Publisher::new(publish::PublisherParts {
        namespaces: ground.namespaces.clone(),
        delivery: broadcaster,
        throttles: ground.by_redis(Throttles::in_redis, Throttles::in_memory),
        history: history.clone(),
        presence: presence.clone(),
        metrics: ground.metrics.clone(),
    })
}

fn gateway(ground: &BaseParts<'_>, shared: &SharedParts, hooks: Arc<Hooks>, recovery: Arc<Recovery>) -> Arc<Gateway> {
    let limits = &ground.config.limits;
    let gateway = Gateway::new(gateway::GatewayParts {
        namespaces: ground.namespaces.clone(),
        rooms: shared.rooms.clone(),
        publisher: shared.publisher.clone(),
        auth: shared.auth.clone(),
        limits: shared.limits.clone(),
        history: shared.history.clone(),
        notices: ground.notices(&hooks),
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
    });
    gateway.keep_time();
    gateway
}

fn api(
    ground: &BaseParts<'_>,
    shared: &SharedParts,
    acts: ActsEverywhere,
    (ready, drain): (Arc<NodeStatus>, Arc<Drain>),
) -> Arc<ApiState> {
    ApiState::new(http::ApiParts {
        publisher: Arc::new(ApiPublisher::new(shared.publisher.clone(), ground.idempotency())),
        owners: shared.owners.clone(),
        directory: shared.presence.clone(),
        survey: acts.survey,
        actions: acts.actions,
        revoker: acts.revoker,
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
