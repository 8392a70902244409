//! Limits how often clients may send events: for each event name of a socket, each socket, each user, and the node.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};

use super::bounded::{KeyedLimit, LimitKey};
use super::concurrent::Concurrent;
use super::connections::too_many;
use super::{Config, LimitClock, quota, refusal};
use crate::contract::model::ClientEvent;
use crate::error::Refusal;
use crate::rate::Rate;
use crate::telemetry::metrics::Metrics;

/// Maximum number of users that have a bucket of their own. They take at most 3 MB.
pub const MAX_USERS: usize = 16 * 7_168;

/// A rate limit with a single bucket.
pub(super) struct SingleLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, LimitClock, NoOpMiddleware<Nanos>>,
    rate: Rate,
}

impl SingleLimit {
    /// Creates a full token bucket.
    pub(super) fn new(rate: Rate, clock: &LimitClock) -> Self {
        Self { limiter: RateLimiter::new(quota(rate), InMemoryState::default(), clock.clone()), rate }
    }

    /// Counts one event.
    ///
    /// # Errors
    /// Returns the time to wait, when the limit is exceeded.
    pub(super) fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }
}

/// The limits that all sessions share: the buckets of users and of the node.
pub struct EventLimits {
    socket: Option<Rate>,
    users: Option<KeyedLimit>,
    present: Concurrent,
    node: Option<SingleLimit>,
    strikes: u32,
    hasher: RandomState,
    clock: LimitClock,
}

impl EventLimits {
    pub(super) fn new(config: &Config, clock: LimitClock) -> Self {
        Self {
            socket: config.events_per_socket,
            users: config.events_per_user.map(|rate| KeyedLimit::new(rate, MAX_USERS, &clock)),
            present: Concurrent::new(config.max_sockets_per_user),
            node: config.events_per_node.map(|rate| SingleLimit::new(rate, &clock)),
            strikes: config.strikes,
            hasher: RandomState::new(),
            clock,
        }
    }

    /// The number of users that have a bucket now.
    pub(super) fn tracked(&self) -> usize {
        self.users.as_ref().map_or(0, KeyedLimit::tracked)
    }

    /// The number of users that have sockets now; 0 where the number of sockets is not limited.
    pub(super) fn present(&self) -> usize {
        self.present.tracked()
    }
}

/// The refusal of an event that exceeds a rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The refusal for the client: `RATE_LIMIT_EXCEEDED` and the time to wait.
    pub refusal: Refusal,
    /// Whether to disconnect the client, because `limits.strikes` events in a row were refused.
    pub disconnect: bool,
}

/// The buckets of one session, and its share in the count of its user's sockets. Dropping this value frees both.
///
/// A session whose events have no limit holds no bucket.
pub struct SessionLimits {
    shared: Arc<EventLimits>,
    metrics: Arc<Metrics>,
    /// The user's number; `None` for an anonymous user, or when no limit counts users.
    user: Option<u64>,
    // The bucket of the session; created by its first event, because a bucket is full until then. Empty when sockets
    // have no limit.
    socket: OnceLock<Box<SingleLimit>>,
    // One bucket for each limited event that the client has sent. The contracts bound their number.
    events: Mutex<Vec<(Arc<ClientEvent>, SingleLimit)>>,
    refused_in_a_row: AtomicU32,
}

impl SessionLimits {
    /// Creates the limits of a session. An empty id stands for an anonymous user, who is not counted as a user.
    pub(super) fn new(shared: Arc<EventLimits>, metrics: Arc<Metrics>, user_id: &str) -> Result<Self, Refusal> {
        let counted = (shared.users.is_some() || shared.present.most() > 0) && !user_id.is_empty();
        let user = counted.then(|| shared.hasher.hash_one(user_id));
        if user.is_some_and(|user| !shared.present.take(user)) {
            return Err(too_many("this user", shared.present.most()));
        }
        let (socket, events, refused_in_a_row) = (OnceLock::new(), Mutex::default(), AtomicU32::new(0));
        Ok(Self { shared, metrics, user, socket, events, refused_in_a_row })
    }

    /// Counts an event, before any of it is parsed. `None` stands for an event that no contract defines.
    ///
    /// The limits on events are checked in the order event, socket, user, node. The first exceeded limit refuses the
    /// event, although the limits before that one have already counted the event.
    ///
    /// # Errors
    /// Returns [`Limited`], with the time to wait.
    pub fn check(&self, event: Option<&Arc<ClientEvent>>) -> Result<(), Limited> {
        match self.first_refusal(event) {
            None => {
                self.refused_in_a_row.store(0, Ordering::Relaxed);
                Ok(())
            }
            Some((scope, refusal)) => {
                self.metrics.rate_limited_total.with_label_values(&[scope]).inc();
                let strikes = self.refused_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let disconnect = self.shared.strikes != 0 && strikes >= self.shared.strikes;
                Err(Limited { refusal, disconnect })
            }
        }
    }

    fn first_refusal(&self, event: Option<&Arc<ClientEvent>>) -> Option<(&'static str, Refusal)> {
        if let Some((event, rate)) = event.and_then(|event| Some((event, event.limit?)))
            && let Err(wait) = self.check_event(event, rate)
        {
            return Some(("event", refusal(&event.name, rate, wait)));
        }
        if let Some(rate) = self.shared.socket
            && let Err(wait) = self.socket.get_or_init(|| Box::new(SingleLimit::new(rate, &self.shared.clock))).check()
        {
            return Some(("socket", refusal("events of this socket", rate, wait)));
        }
        if let (Some(users), Some(user)) = (&self.shared.users, self.user)
            && let Err(wait) = users.check(LimitKey { id: user, neighbourhood: user })
        {
            return Some(("user", refusal("events of this user", users.rate, wait)));
        }
        let node = self.shared.node.as_ref()?;
        let wait = node.check().err()?;
        Some(("node", refusal("events of this node", node.rate, wait)))
    }

    fn check_event(&self, event: &Arc<ClientEvent>, rate: Rate) -> Result<(), Duration> {
        let mut events = self.events.lock().expect("no thread panics while it holds this lock");
        if let Some((_, bucket)) = events.iter().find(|(known, _)| Arc::ptr_eq(known, event)) {
            return bucket.check();
        }
        let bucket = SingleLimit::new(rate, &self.shared.clock);
        let answer = bucket.check();
        events.push((event.clone(), bucket));
        answer
    }
}

impl std::fmt::Debug for SessionLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionLimits").finish_non_exhaustive()
    }
}

impl Drop for SessionLimits {
    fn drop(&mut self) {
        if let Some(user) = self.user {
            self.shared.present.give_back(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::model::PayloadShape;
    use crate::limits::Limits;

    fn event(name: &str, limit: Option<&str>) -> Arc<ClientEvent> {
        Arc::new(ClientEvent {
            name: name.to_owned(),
            payload: PayloadShape::default(),
            require: None,
            join: Vec::new(),
            leave: Vec::new(),
            room: None,
            relay: Vec::new(),
            reply: Vec::new(),
            call: None,
            notify: None,
            on_ok: None,
            on_error: None,
            presence: None,
            metadata: None,
            ack: None,
            limit: limit.map(|text| text.parse().unwrap()),
            throttle: None,
            undo: None,
            reads_payload: false,
            room_use: Default::default(),
        })
    }

    fn limits(config: Config) -> (Limits, LimitClock) {
        let clock = LimitClock::fake();
        (Limits::with_clock(&config, &[], Arc::default(), clock.clone()), clock)
    }

    fn passes(session: &SessionLimits, event: &Arc<ClientEvent>, times: usize) -> usize {
        (0..times).filter(|_| session.check(Some(event)).is_ok()).count()
    }

    #[test]
    fn burst_passes_and_then_the_rate() {
        let (limits, clock) = limits(Config::default());
        let session = limits.session("ann").unwrap();
        let event = event("a", Some("10/s burst 20"));
        assert_eq!(passes(&session, &event, 100), 20);
        assert_eq!(
            session.check(Some(&event)).unwrap_err().refusal.retry_after,
            Some(Duration::from_millis(100)),
            "the time to the next token"
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(passes(&session, &event, 100), 10);
    }

    #[test]
    fn events_and_sockets_have_buckets_of_their_own() {
        let (limits, _) = limits(Config::default());
        let (one, two) = (limits.session("ann").unwrap(), limits.session("ann").unwrap());
        let (a, b, free) = (event("a", Some("1/s")), event("b", Some("2/s")), event("c", None));
        assert_eq!((passes(&one, &a, 9), passes(&one, &b, 9), passes(&one, &free, 9)), (1, 2, 9));
        assert_eq!(passes(&two, &a, 9), 1);
        assert_eq!(one.events.lock().unwrap().len(), 2, "an event without a limit needs no bucket");
    }

    #[test]
    fn user_shares_a_bucket_over_sockets_and_reconnections() {
        let config = Config { events_per_user: Some("5/1m".parse().unwrap()), ..Config::default() };
        let (limits, _) = limits(config);
        let event = event("a", None);
        assert_eq!(passes(&limits.session("ann").unwrap(), &event, 3), 3);
        assert_eq!(passes(&limits.session("ann").unwrap(), &event, 9), 2);
        assert_eq!(passes(&limits.session("bob").unwrap(), &event, 9), 5);
        assert_eq!(passes(&limits.session("").unwrap(), &event, 9), 9, "anonymous users are many");
    }

    #[test]
    fn node_and_socket_limits_count_unknown_events_too() {
        let rate = |text: &str| Some(text.parse().unwrap());
        let (socket, _) = limits(Config { events_per_socket: rate("3/s"), ..Config::default() });
        let session = socket.session("ann").unwrap();
        assert_eq!((0..9).filter(|_| session.check(None).is_ok()).count(), 3);
        let (node, _) = limits(Config { events_per_node: rate("4/s"), ..Config::default() });
        assert_eq!((0..9).filter(|_| node.session("").unwrap().check(None).is_ok()).count(), 4);
    }

    #[test]
    fn repeat_offender_is_disconnected_and_a_pass_forgives() {
        let (limits, clock) = limits(Config { strikes: 3, ..Config::default() });
        let session = limits.session("ann").unwrap();
        let event = event("a", Some("1/s"));
        let strike = || session.check(Some(&event)).unwrap_err().disconnect;
        assert!(session.check(Some(&event)).is_ok());
        assert_eq!([strike(), strike()], [false, false]);
        clock.advance(Duration::from_secs(1));
        assert!(session.check(Some(&event)).is_ok());
        assert_eq!([strike(), strike(), strike(), strike()], [false, false, true, true]);
    }

    #[test]
    fn user_has_so_many_sockets_at_a_time_and_not_one_more() {
        let (limits, _) = limits(Config { max_sockets_per_user: 2, ..Config::default() });
        let (one, _two) = (limits.session("ann").unwrap(), limits.session("ann").unwrap());
        let refusal = limits.session("ann").err().unwrap();
        assert_eq!(refusal.code, crate::error::Code::TooManyConnections);
        assert!(limits.session("bob").is_ok());
        assert!((0..9).map(|_| limits.session("")).collect::<Vec<_>>().iter().all(Result::is_ok), "anonymous");
        drop(one);
        assert!(limits.session("ann").is_ok());
        assert_eq!(limits.present(), (0, 1));
        drop(_two);
        assert_eq!(limits.present(), (0, 0));
    }

    #[test]
    fn idle_session_is_small() {
        assert!(size_of::<SessionLimits>() <= 120, "{}", size_of::<SessionLimits>());
    }
}
