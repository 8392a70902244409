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

/// How often a node that does not reach Redis looks whether it does again.
const LOOK: Duration = Duration::from_millis(50);

/// The lease, as this node sees it.
pub(super) struct Scribe {
    redis: Redis,
    /// Names this run of the node.
    name: String,
    script: Script,
    until: Mutex<Option<Instant>>,
    /// Told when this node becomes the one, and when it is so no more.
    change: Box<dyn Fn(bool) + Send + Sync>,
}

impl Scribe {
    /// Begins to try for the lease.
    pub(super) fn start(redis: Redis, name: String, change: impl Fn(bool) + Send + Sync + 'static) -> Arc<Self> {
        let script = Script::new(include_str!("scribe.lua"));
        let scribe = Arc::new(Self { redis, name, script, until: Mutex::default(), change: Box::new(change) });
        tokio::spawn(keep(Arc::downgrade(&scribe)));
        scribe
    }

    /// Whether this node holds the lease.
    pub(super) fn is_ours(&self) -> bool {
        self.until.lock().expect("no panic while held").is_some_and(|until| Instant::now() < until)
    }

    /// Gives the lease to others.
    pub(super) async fn resign(&self) {
        *self.until.lock().expect("no panic while held") = None;
        (self.change)(false);
        let _ = self.ask(Duration::ZERO).await;
    }

    async fn ask(&self, lease: Duration) -> bool {
        let millis = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let keys = vec![self.redis.keys().scribe()];
        let args = vec![Value::from(self.name.as_str()), Value::from(millis)];
        matches!(self.script.run(&self.redis, keys, args).await, Ok(answer) if answer.as_i64() == Some(1))
    }
}

async fn keep(scribe: std::sync::Weak<Scribe>) {
    let mut ours = false;
    loop {
        let Some(scribe) = scribe.upgrade().filter(|scribe| !scribe.redis.is_closed()) else { return };
        // Counted from before the question: the lease never ends earlier in Redis than here.
        let until = Instant::now() + LEASE;
        if scribe.redis.is_up() && scribe.ask(LEASE).await {
            *scribe.until.lock().expect("no panic while held") = Some(until);
        }
        if scribe.is_ours() != ours {
            ours = !ours;
            (scribe.change)(ours);
        }
        // At the start Redis is there a moment later: emitters are not to wait a whole second for somebody who publishes.
        let pause = if scribe.redis.is_up() { RENEW } else { LOOK };
        drop(scribe);
        tokio::time::sleep(pause).await;
    }
}
