//! The lease in Redis to publish emitters' events: every node receives these events, but only the lease's holder may
//! publish them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fred::types::Value;

use crate::redis::Redis;
use crate::redis::script::Script;

/// How long the lease lasts. If the lease's holder is killed, no node publishes these events until the lease has ended
/// and another node has got the lease.
const LEASE: Duration = Duration::from_secs(3);

/// How often the holder renews the lease, and the other nodes try to get the lease.
const RENEW: Duration = Duration::from_secs(1);

/// How often a node checks whether a request for the lease is due.
const LOOK: Duration = Duration::from_millis(50);

/// Requests the lease for this node, and records whether this node holds the lease.
pub(super) struct EmitterLease {
    redis: Redis,
    /// Identifies this node since its last start.
    name: String,
    script: Script,
    lease: Mutex<Option<GrantedLease>>,
    /// Called with true when this node gets the lease, and with false when it has lost the lease.
    change: Box<dyn Fn(bool) + Send + Sync>,
}

/// A lease that Redis has granted.
#[derive(Clone, Copy)]
struct GrantedLease {
    /// The number of the lease, which is larger than the number of every earlier holder's lease.
    number: u64,
    until: Instant,
    /// The generation of this node's subscriptions when the lease was requested. A restarted Redis may have lost the
    /// lease, so events that arrive after a reconnection are published only once Redis has granted the lease again.
    subscriptions: u64,
}

impl EmitterLease {
    /// Starts to ask for the lease.
    pub(super) fn start(redis: Redis, name: String, change: impl Fn(bool) + Send + Sync + 'static) -> Arc<Self> {
        let script = Script::new(include_str!("scribe.lua"));
        let emitter_lease = Arc::new(Self { redis, name, script, lease: Mutex::default(), change: Box::new(change) });
        tokio::spawn(keep(Arc::downgrade(&emitter_lease)));
        emitter_lease
    }

    /// The number of the lease, while this node holds it and may publish.
    pub(super) fn number(&self) -> Option<u64> {
        let subscriptions = self.redis.subscriber().generation();
        self.held().filter(|lease| lease.subscriptions == subscriptions).map(|lease| lease.number)
    }

    /// Gives up the lease, so that another node can get the lease.
    pub(super) async fn resign(&self) {
        self.set(None);
        (self.change)(false);
        let _ = self.ask(Duration::ZERO).await;
    }

    fn held(&self) -> Option<GrantedLease> {
        self.lease
            .lock()
            .expect("no thread panics while it holds this lock")
            .filter(|lease| Instant::now() < lease.until)
    }

    fn set(&self, lease: Option<GrantedLease>) {
        *self.lease.lock().expect("no thread panics while it holds this lock") = lease;
    }

    /// Asks Redis to grant or renew the lease. If Redis answers that another node has the lease, this node loses the
    /// lease at once. Without an answer this node keeps the lease until it ends.
    async fn renew(&self) {
        // Both values are read before the request, so that the lease never ends earlier in Redis than on this node.
        let (until, subscriptions) = (Instant::now() + LEASE, self.redis.subscriber().generation());
        match self.ask(LEASE).await {
            Some(0) => self.set(None),
            Some(number) => self.set(Some(GrantedLease { number, until, subscriptions })),
            None => {}
        }
    }

    /// Asks Redis for the lease. Returns its number, 0 if another node holds it, or `None` without an answer.
    async fn ask(&self, lease: Duration) -> Option<u64> {
        let millis = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let keys = vec![self.redis.keys().emitter_lease()];
        let args = vec![Value::from(self.name.as_str()), Value::from(millis)];
        self.script.run(&self.redis, keys, args).await.ok()?.as_u64()
    }
}

async fn keep(emitter_lease: std::sync::Weak<EmitterLease>) {
    let mut ours = false;
    let mut asked = None;
    loop {
        let Some(emitter_lease) = emitter_lease.upgrade().filter(|emitter_lease| !emitter_lease.redis.is_closed())
        else {
            return;
        };
        let held = emitter_lease.held();
        // A holder that has subscribed again asks for the lease at once, because no node publishes until Redis has
        // answered the request.
        let doubtful = held.is_some() && emitter_lease.number().is_none();
        let due = doubtful || asked.is_none_or(|at: Instant| at.elapsed() >= RENEW);
        // A node that does not receive the events of emitters must not hold the lease.
        if due && emitter_lease.redis.is_up() && emitter_lease.redis.hearing().is_some() {
            asked = Some(Instant::now());
            emitter_lease.renew().await;
        }
        if emitter_lease.held().is_some() != ours {
            ours = !ours;
            (emitter_lease.change)(ours);
        }
        drop(emitter_lease);
        tokio::time::sleep(LOOK).await;
    }
}
