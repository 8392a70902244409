//! The parts that most other parts need, and the parts that can be built from them alone.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::requirements::check_requirements;
use crate::cluster::{Cluster, ClusterInbox, RedisLink};
use crate::config::{self, Config};
use crate::contract::load::load;
use crate::contract::model::{Contract, Namespace};
use crate::drain::Drain;
use crate::history::History;
use crate::hooks::{Hooks, Notices};
use crate::idempotency::Idempotency;
use crate::mirror::Mirror;
use crate::presence::{self, Policies, PresenceRecorder};
use crate::recovery::{MovedSession, Recovery};
use crate::redis::Redis;
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::version;

/// The topic of the messages by which nodes tell each other that a session has moved.
pub(super) const MOVED: &str = "moved";

/// The parts that most other parts need.
pub(super) struct BaseParts<'a> {
    pub(super) config: &'a Config,
    pub(super) id: String,
    pub(super) namespaces: Vec<Arc<Namespace>>,
    pub(super) contracts: Vec<Arc<Contract>>,
    pub(super) redis: Option<Redis>,
    pub(super) metrics: Arc<Metrics>,
}

impl<'a> BaseParts<'a> {
    /// Loads the contracts, and begins to connect to Redis if there is one.
    pub(super) fn new(config: &'a Config) -> anyhow::Result<Self> {
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
        Ok(Self { config, id, namespaces, contracts, redis, metrics })
    }

    /// The paths of all namespaces that the contracts have.
    pub(super) fn paths(&self) -> impl Iterator<Item = Arc<str>> {
        self.namespaces.iter().map(|namespace| namespace.path.clone())
    }

    /// Builds the part that shares its data through Redis if the node has Redis, else the part for a single node.
    pub(super) fn by_redis<T>(
        &self,
        shared: impl FnOnce(Redis, Arc<Metrics>) -> T,
        alone: impl FnOnce(Arc<Metrics>) -> T,
    ) -> T {
        match &self.redis {
            Some(redis) => shared(redis.clone(), self.metrics.clone()),
            None => alone(self.metrics.clone()),
        }
    }

    pub(super) fn hooks(&self) -> anyhow::Result<Arc<Hooks>> {
        Ok(Arc::new(Hooks::new(&self.id, &self.config.hooks, self.metrics.clone())?))
    }

    pub(super) fn notices(&self, hooks: &Arc<Hooks>) -> Notices {
        self.by_redis(|redis, _| Notices::in_redis(hooks.clone(), &redis), |_| Notices::in_memory(hooks.clone()))
    }

    /// The half of presence to which the index of rooms reports.
    pub(super) fn recorder(&self) -> PresenceRecorder {
        let (config, policies) = (&self.config.presence, Policies::new(&self.namespaces));
        self.by_redis(
            |redis, metrics| presence::in_redis(config, redis, &self.id, self.paths(), policies.clone(), metrics),
            |metrics| presence::in_memory(&self.id, policies.clone(), config.status_ttl.get(), metrics),
        )
    }

    /// The connections with the other nodes, if the node has Redis.
    pub(super) fn link(&self, drain: &Arc<Drain>) -> Option<(RedisLink, ClusterInbox)> {
        let redis = self.redis.clone()?;
        let digest = digest(&self.contracts);
        let (identity, metrics) = ((&*self.id, &*digest), self.metrics.clone());
        Some(RedisLink::new(identity, self.paths(), redis, drain.clone(), metrics, &self.config.redis))
    }

    /// The index of rooms, which reports to the recorder, and to the mirror if a contract asks for one.
    pub(super) fn rooms(&self, recorder: &PresenceRecorder, link: Option<&RedisLink>) -> Arc<Rooms> {
        let most = self.config.limits.max_rooms_per_socket;
        let rooms = Rooms::new(self.paths()).bounded(most, self.metrics.clone());
        let mut rooms = rooms.watched_by(recorder.watcher());
        if let Some(redis) = &self.redis
            && let Some(mirror) = Mirror::start(&self.contracts, redis.clone(), &self.id, self.metrics.clone())
        {
            rooms = rooms.watched_by(mirror);
        }
        if let Some(link) = link {
            rooms = rooms.subscribed_by(link.wire().clone());
        }
        Arc::new(rooms)
    }

    pub(super) fn recovery(&self, history: &Arc<History>, cluster: &Arc<Cluster>) -> Arc<Recovery> {
        let (config, metrics) = (&self.config.recovery, self.metrics.clone());
        let Some(redis) = self.redis.clone() else { return Recovery::in_memory(config, history.clone(), metrics) };
        let windows = self.namespaces.iter().filter_map(|namespace| Some(namespace.recovery()?.window));
        let longest = windows.max().unwrap_or_default();
        let cluster = cluster.clone();
        let tell = move |taken: MovedSession| {
            let cluster = cluster.clone();
            tokio::spawn(async move { cluster.tell(MOVED, &taken).await });
        };
        Recovery::in_redis(config, (redis, &self.id), longest, history.clone(), metrics, tell)
    }

    /// The answers to earlier publishes of backends.
    pub(super) fn idempotency(&self) -> Idempotency {
        let ttl = self.config.api.idempotency_ttl.get();
        self.by_redis(
            |redis, metrics| Idempotency::in_redis(redis, ttl, metrics),
            |metrics| Idempotency::in_memory(ttl, metrics),
        )
    }
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
    if config.server.allow_eio3 {
        tracing::info!(
            "clients of Socket.IO 2 (EIO=3) may connect; socketioxide serves them, without connection state recovery and `err.data` \
             (docs/engines.md)"
        );
    }
}

/// A digest of the contracts, which must be equal on all nodes of a cluster. The order of the files does not matter.
fn digest(contracts: &[Arc<Contract>]) -> String {
    let mut all: Vec<_> = contracts.iter().map(|contract| format!("{} {}", contract.name, contract.digest)).collect();
    all.sort();
    let digest = Sha256::digest(all.join("\n"));
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
