//! Which node publishes what every node hears and one must publish: the holder of a lease.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fred::types::Value;

use crate::redis::Redis;
use crate::redis::script::Script;

/// How long the lease lasts; so long nobody publishes after its holder was killed.
const LEASE: Duration = Duration::from_secs(3);

/// How often it is renewed, or tried.
const RENEW: Duration = Duration::from_secs(1);

/// How often a node looks whether the lease is to be asked for.
const LOOK: Duration = Duration::from_millis(50);

/// The lease, as this node sees it.
pub(super) struct Scribe {
    redis: Redis,
    /// Names this run of the node.
    name: String,
    script: Script,
    lease: Mutex<Option<Lease>>,
    /// Told when this node gets the lease, and when it has lost it.
    change: Box<dyn Fn(bool) + Send + Sync>,
}

/// A lease that Redis has given.
#[derive(Clone, Copy)]
struct Lease {
    /// Larger than that of every earlier holder.
    number: u64,
    until: Instant,
    /// The subscriptions with which it was asked for. A Redis that was restarted may have lost the lease, so what is heard after a
    /// reconnection is published only when Redis has been asked again.
    subscriptions: u64,
}

impl Scribe {
    /// Begins to try for the lease.
    pub(super) fn start(redis: Redis, name: String, change: impl Fn(bool) + Send + Sync + 'static) -> Arc<Self> {
        let script = Script::new(include_str!("scribe.lua"));
        let scribe = Arc::new(Self { redis, name, script, lease: Mutex::default(), change: Box::new(change) });
        tokio::spawn(keep(Arc::downgrade(&scribe)));
        scribe
    }

    /// The number of the lease, while this node holds it and may publish.
    pub(super) fn number(&self) -> Option<u64> {
        let subscriptions = self.redis.subscriber().generation();
        self.held().filter(|lease| lease.subscriptions == subscriptions).map(|lease| lease.number)
    }

    /// Gives the lease to others.
    pub(super) async fn resign(&self) {
        self.set(None);
        (self.change)(false);
        let _ = self.ask(Duration::ZERO).await;
    }

    fn held(&self) -> Option<Lease> {
        self.lease.lock().expect("no panic while held").filter(|lease| Instant::now() < lease.until)
    }

    fn set(&self, lease: Option<Lease>) {
        *self.lease.lock().expect("no panic while held") = lease;
    }

    /// Takes or renews the lease. When Redis says that another has it, it is lost at once; without an answer it lasts
    /// until its end.
    async fn renew(&self) {
        // Both from before the question: the lease never ends earlier in Redis than here.
        let (until, subscriptions) = (Instant::now() + LEASE, self.redis.subscriber().generation());
        match self.ask(LEASE).await {
            Some(0) => self.set(None),
            Some(number) => self.set(Some(Lease { number, until, subscriptions })),
            None => {}
        }
    }

    /// The lease's number, 0 when it is another's; `None` without an answer.
    async fn ask(&self, lease: Duration) -> Option<u64> {
        let millis = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let keys = vec![self.redis.keys().scribe()];
        let args = vec![Value::from(self.name.as_str()), Value::from(millis)];
        self.script.run(&self.redis, keys, args).await.ok()?.as_u64()
    }
}

async fn keep(scribe: std::sync::Weak<Scribe>) {
    let mut ours = false;
    let mut asked = None;
    loop {
        let Some(scribe) = scribe.upgrade().filter(|scribe| !scribe.redis.is_closed()) else { return };
        let held = scribe.held();
        // A holder that listens anew asks at once: until then nobody publishes.
        let doubtful = held.is_some() && scribe.number().is_none();
        let due = doubtful || asked.is_none_or(|at: Instant| at.elapsed() >= RENEW);
        // A node that does not hear the emitters must not hold the lease.
        if due && scribe.redis.is_up() && scribe.redis.hearing().is_some() {
            asked = Some(Instant::now());
            scribe.renew().await;
        }
        if scribe.held().is_some() != ours {
            ours = !ours;
            (scribe.change)(ours);
        }
        drop(scribe);
        tokio::time::sleep(LOOK).await;
    }
}
