//! Limits: how often an address may connect, how often a socket, a user and all clients of the node may send events,
//! and how many connections there may be at a time.
//!
//! Rate limits are GCRA buckets (`governor`). Each node counts alone: behind a load balancer that spreads one address
//! over n nodes, the address gets up to n times the rate. No limit waits, and all memory is bounded.

mod bounded;
mod clock;
mod concurrent;
mod connections;
mod events;
mod shape;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;

pub use bounded::OVERFLOW_BUCKETS;
pub use clock::LimitClock;
pub use connections::{ConnectionLimits, MAX_ADDRESSES};
pub use events::{EventLimits, Limited, MAX_USERS, SessionLimits};
pub use shape::{Shape, deeper_than};

use crate::config::limits::LimitsSettings as Config;
use crate::contract::model::Contract;
use crate::error::{Code, Refusal};
use crate::rate::Rate;
use crate::telemetry::metrics::Metrics;

/// All limits of the node.
#[derive(Clone)]
pub struct Limits {
    connections: Arc<ConnectionLimits>,
    events: Arc<EventLimits>,
    shape: Shape,
    most_pending: usize,
    metrics: Arc<Metrics>,
}

impl Limits {
    /// Creates the limits from the configuration and the contracts.
    pub fn new(config: &Config, contracts: &[Arc<Contract>], metrics: Arc<Metrics>) -> Self {
        Self::with_clock(config, contracts, metrics, LimitClock::monotonic())
    }

    /// Creates the limits like [`Limits::new`], with the caller's clock.
    pub fn with_clock(config: &Config, contracts: &[Arc<Contract>], metrics: Arc<Metrics>, clock: LimitClock) -> Self {
        Self {
            connections: Arc::new(ConnectionLimits::new(config, contracts, &clock)),
            events: Arc::new(EventLimits::new(config, clock)),
            shape: Shape::from(config),
            most_pending: config.max_pending_connections,
            metrics,
        }
    }

    /// Counts a new connection of an address, before any session exists. After `Ok`, the caller must call
    /// [`Limits::left`] once.
    ///
    /// # Errors
    /// Returns `TOO_MANY_CONNECTIONS` (`limits.max_connections_per_ip`) or `RATE_LIMIT_EXCEEDED`
    /// (`limits.connections_per_ip`), with the time to wait.
    pub fn arrive(&self, ip: IpAddr) -> Result<(), Refusal> {
        self.connections.arrive(ip)
    }

    /// The limits on the size of events and on the number of rooms.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Maximum number of connections without a session (`limits.max_pending_connections`); 0 for no limit.
    pub fn most_pending(&self) -> usize {
        self.most_pending
    }

    /// Removes a closed connection, which [`Limits::arrive`] counted, from the count.
    pub fn left(&self, ip: IpAddr) {
        self.connections.left(ip);
    }

    /// Counts a refused connection in the metrics, if its code is `RATE_LIMIT_EXCEEDED`.
    pub fn count_refused(&self, code: Code) {
        if code == Code::RateLimitExceeded {
            self.count("ip");
        }
    }

    /// Counts a client of this address that connects to a namespace.
    ///
    /// # Errors
    /// Returns `RATE_LIMIT_EXCEEDED` with the time to wait, when a contract's `connections_per_ip` limit is exceeded.
    pub fn check_connection(&self, namespace: &str, ip: IpAddr) -> Result<(), Refusal> {
        self.connections.check(namespace, ip).inspect_err(|_| self.count("ip"))
    }

    /// Creates the limits of one session. Keep them exactly as long as the session. An empty id stands for an anonymous
    /// user.
    ///
    /// # Errors
    /// Returns `TOO_MANY_CONNECTIONS` when the user has `limits.max_sockets_per_user` sockets already.
    pub fn session(&self, user_id: &str) -> Result<SessionLimits, Refusal> {
        SessionLimits::new(self.events.clone(), self.metrics.clone(), user_id)
    }

    /// Returns the number of addresses and of users that have a bucket now.
    pub fn tracked(&self) -> (usize, usize) {
        (self.connections.tracked(), self.events.tracked())
    }

    /// The number of addresses that have connections now, and of users that have sockets. Each is 0 where that number
    /// is not limited.
    pub fn present(&self) -> (usize, usize) {
        (self.connections.present(), self.events.present())
    }

    fn count(&self, scope: &str) {
        self.metrics.rate_limited_total.with_label_values(&[scope]).inc();
    }
}

/// Returns the number by which an address is counted: the whole IPv4 address, or the /64 of an IPv6 address.
pub fn address_id(ip: IpAddr) -> u64 {
    connections::address_key(ip).id
}

/// Converts a rate to a quota. A burst that would take more than a year to refill is cut to a year.
fn quota(rate: Rate) -> Quota {
    const YEAR_NANOS: u128 = 365 * 24 * 60 * 60 * 1_000_000_000;
    let each = (rate.per / rate.count.max(1)).max(Duration::from_nanos(1));
    let most = (YEAR_NANOS / each.as_nanos()).clamp(1, u128::from(u32::MAX));
    let burst = u128::from(rate.burst.max(1)).min(most);
    let burst = u32::try_from(burst).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(each).expect("a nanosecond at least").allow_burst(burst)
}

/// Creates a `RATE_LIMIT_EXCEEDED` refusal with the limit and the time to wait.
fn refusal(subject: &str, rate: Rate, wait: Duration) -> Refusal {
    let message = format!("{subject}: the rate limit is {rate}; try again in {} ms", wait.as_millis().max(1));
    Refusal { retry_after: Some(wait.max(Duration::from_millis(1))), ..Refusal::new(Code::RateLimitExceeded, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_rates_do_not_overflow() {
        for text in ["1/24h burst 4294967295", "4294967295/1ms burst 4294967295", "1/1ms burst 4294967295"] {
            let clock = LimitClock::fake();
            let limiter = events::SingleLimit::new(text.parse().unwrap(), &clock);
            for _ in 0..10 {
                assert!(limiter.check().is_ok(), "{text}");
            }
        }
    }
}
