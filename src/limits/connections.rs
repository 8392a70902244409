//! Limits how often an address may connect, and how many connections it may have at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::bounded::{KeyedLimit, LimitKey};
use super::concurrent::Concurrent;
use super::{Config, LimitClock, refusal};
use crate::contract::model::Contract;
use crate::error::{Code, Refusal};

/// Maximum number of addresses that have a bucket of their own, over all limits of the node. They take at most 18 MB.
///
/// The buckets are stored in 16 tables of 65,536 slots of 17 bytes. Each table is filled to 7/8, beyond which it would
/// double.
pub const MAX_ADDRESSES: usize = 16 * 57_344;

/// The time after which a client should try again when there are too many connections. A fixed time, because nothing
/// shows when a connection will end.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The limits on connections.
pub struct ConnectionLimits {
    node: Option<KeyedLimit>,
    namespaces: HashMap<Arc<str>, Vec<KeyedLimit>>,
    addresses: Concurrent,
}

impl ConnectionLimits {
    /// Creates the node's limit and the limit of each contract.
    pub(super) fn new(config: &Config, contracts: &[Arc<Contract>], clock: &LimitClock) -> Self {
        let with_limit = contracts.iter().filter_map(|contract| Some((contract, contract.limits.connections_per_ip?)));
        let count = with_limit.clone().count() + usize::from(config.connections_per_ip.is_some());
        let most = MAX_ADDRESSES / count.max(1);
        let mut namespaces: HashMap<_, Vec<_>> = HashMap::new();
        for (contract, rate) in with_limit {
            namespaces.entry(contract.namespace.clone()).or_default().push(KeyedLimit::new(rate, most, clock));
        }
        Self {
            node: config.connections_per_ip.map(|rate| KeyedLimit::new(rate, most, clock)),
            namespaces,
            addresses: Concurrent::new(config.max_connections_per_ip),
        }
    }

    /// Counts a connection that is about to open. After `Ok` it counts until [`ConnectionLimits::left`].
    pub(super) fn arrive(&self, ip: IpAddr) -> Result<(), Refusal> {
        let key = address_key(ip);
        if !self.addresses.take(key.id) {
            return Err(too_many("this address", self.addresses.most()));
        }
        let Some((wait, limit)) = self.node.iter().find_map(|limit| Some((limit.check(key).err()?, limit))) else {
            return Ok(());
        };
        self.addresses.give_back(key.id);
        Err(refusal("connections of this address", limit.rate, wait))
    }

    /// Removes a closed connection, which [`ConnectionLimits::arrive`] counted, from the count.
    pub(super) fn left(&self, ip: IpAddr) {
        self.addresses.give_back(address_key(ip).id);
    }

    /// Counts a client that connects to a namespace. When several limits refuse it, the refusal has the longest wait.
    pub(super) fn check(&self, namespace: &str, ip: IpAddr) -> Result<(), Refusal> {
        let key = address_key(ip);
        let limits = self.namespaces.get(namespace).into_iter().flatten();
        let refused: Option<(Duration, &KeyedLimit)> =
            limits.filter_map(|limit| Some((limit.check(key).err()?, limit))).max_by_key(|(wait, _)| *wait);
        refused.map_or(Ok(()), |(wait, limit)| Err(refusal("connections of this address", limit.rate, wait)))
    }

    /// The number of addresses that have connections now; 0 where that number is not limited.
    pub(super) fn present(&self) -> usize {
        self.addresses.tracked()
    }

    /// The number of addresses that have a bucket now, summed over all limits.
    pub(super) fn tracked(&self) -> usize {
        self.node.iter().chain(self.namespaces.values().flatten()).map(KeyedLimit::tracked).sum()
    }
}

/// Creates a `TOO_MANY_CONNECTIONS` refusal with the limit.
pub(super) fn too_many(who: &str, most: u32) -> Refusal {
    let message = format!("{who} has {most} connections, which is the limit; close one, or try again later");
    Refusal::new(Code::TooManyConnections, message).retry_after(RETRY_AFTER)
}

/// Returns the key by which an address is counted. IPv4: the whole address, with its /16 as the neighbourhood. IPv6:
/// the /64, with its /32 as the neighbourhood.
///
/// An IPv4 address that is written as IPv6 counts as the IPv4 address. The two kinds of keys do not collide, because
/// IPv6 prefixes that begin with 32 zero bits are not routed.
pub(super) fn address_key(ip: IpAddr) -> LimitKey {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let id = u64::from(ip.to_bits());
            LimitKey { id, neighbourhood: id >> 16 }
        }
        IpAddr::V6(ip) => {
            let id = u64::try_from(ip.to_bits() >> 64).expect("64 bits are left");
            LimitKey { id, neighbourhood: id >> 32 << 16 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rate: &str) -> (ConnectionLimits, LimitClock) {
        let clock = LimitClock::fake();
        let config = Config { connections_per_ip: Some(rate.parse().unwrap()), ..Config::default() };
        (ConnectionLimits::new(&config, &[], &clock), clock)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn eleventh_connection_of_a_minute_is_refused_with_the_time_to_wait() {
        let (limits, clock) = limits("10/1m");
        for _ in 0..10 {
            assert!(limits.arrive(ip("192.0.2.1")).is_ok());
        }
        let refusal = limits.arrive(ip("192.0.2.1")).unwrap_err();
        assert_eq!(refusal.code, crate::error::Code::RateLimitExceeded);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(6)));
        assert!(limits.arrive(ip("192.0.2.2")).is_ok());
        clock.advance(Duration::from_secs(60));
        assert!(limits.arrive(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn ipv6_is_counted_by_64_and_mapped_ipv4_as_ipv4() {
        let (limits, _) = limits("1/1m");
        assert!(limits.arrive(ip("2001:db8:1:2::1")).is_ok());
        assert!(limits.arrive(ip("2001:db8:1:2:ffff::2")).is_err());
        assert!(limits.arrive(ip("2001:db8:1:3::1")).is_ok());
        assert!(limits.arrive(ip("::ffff:192.0.2.1")).is_ok());
        assert!(limits.arrive(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn address_has_so_many_connections_at_a_time_and_not_one_more() {
        let config = Config { max_connections_per_ip: 2, ..Config::default() };
        let limits = ConnectionLimits::new(&config, &[], &LimitClock::fake());
        let address = ip("2001:db8::1");
        assert!(limits.arrive(address).is_ok() && limits.arrive(ip("2001:db8::2")).is_ok(), "one /64");
        let refusal = limits.arrive(address).unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after), (Code::TooManyConnections, Some(RETRY_AFTER)));
        assert!(limits.arrive(ip("192.0.2.1")).is_ok());
        limits.left(address);
        assert!(limits.arrive(address).is_ok());
        [address, address, ip("192.0.2.1")].into_iter().for_each(|ip| limits.left(ip));
        assert_eq!(limits.present(), 0);
    }

    #[test]
    fn connection_that_came_too_soon_takes_no_place() {
        let rate = Some("1/1m".parse().unwrap());
        let config = Config { max_connections_per_ip: 9, connections_per_ip: rate, ..Config::default() };
        let limits = ConnectionLimits::new(&config, &[], &LimitClock::fake());
        assert!(limits.arrive(ip("192.0.2.1")).is_ok());
        assert!((0..100).all(|_| limits.arrive(ip("192.0.2.1")).is_err()));
        limits.left(ip("192.0.2.1"));
        assert_eq!(limits.present(), 0);
    }

    #[test]
    fn million_addresses_stay_within_the_bound() {
        let (limits, _) = limits("10/1m");
        for n in 0..1_100_000_u32 {
            let _ = limits.arrive(IpAddr::V4((0x0a00_0000 + n).into()));
        }
        assert!(limits.tracked() <= MAX_ADDRESSES);
        assert!(limits.tracked() > MAX_ADDRESSES * 9 / 10);
    }
}
