//! `[cluster]`

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{Period, Secret};

/// In bytes.
const SHORTEST_SECRET: usize = 32;

/// The most requests that may be on their way to other nodes.
const MOST_FORWARDED: usize = 1_000_000;

/// How nodes pass requests of long-polling sessions to the node that has the session, so that no proxy must be sticky.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Where other nodes bring requests of this node's sessions, as `ADDRESS:PORT`; for nodes only. Port 0 takes any free one. Not set: nothing is passed on, and a proxy must be sticky.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// What the other nodes know this listener by, as `HOST:PORT`. Not set: `cluster.listen`, or, where that is `0.0.0.0` or `[::]`, the address that the machine's own host name resolves to.
    pub advertise: Option<String>,
    /// What nodes know each other by, the same on all of them; at least 32 characters.
    pub secret: Option<Secret>,
    /// The secret before the last rotation, still taken.
    pub previous_secret: Option<Secret>,
    /// How long a connection to another node may take to be made.
    pub connect_timeout: Period,
    /// How many requests and tunnels may be on their way to all other nodes, and as many from them; each waiting poll is one.
    pub max_forwarded: usize,
    /// How many of these to one node.
    pub max_forwarded_per_node: usize,
    /// Certificates of the nodes, each checked by the other side; without it, requests between nodes are signed but not encrypted.
    pub tls: Option<ClusterTls>,
}

/// Certificates with which nodes know each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterTls {
    /// PEM file of the authority that signed the certificates of all nodes.
    #[schemars(with = "String")]
    pub ca_file: PathBuf,
    /// PEM file of this node's certificate, for servers and clients.
    #[schemars(with = "String")]
    pub cert_file: PathBuf,
    /// PEM file of its private key.
    #[schemars(with = "String")]
    pub key_file: PathBuf,
    /// The name that every node's certificate has. Not set: the host of its `cluster.advertise`.
    pub server_name: Option<String>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            listen: None,
            advertise: None,
            secret: None,
            previous_secret: None,
            connect_timeout: Period::from_secs(1),
            max_forwarded: 20_000,
            max_forwarded_per_node: 10_000,
            tls: None,
        }
    }
}

impl Cluster {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        if self.listen.is_some() && self.secret.is_none() {
            check.refuse(
                "secret",
                "is missing",
                "nodes that pass on requests must share a secret: set it beside `listen`",
            );
        }
        for (key, secret) in [("secret", &self.secret), ("previous_secret", &self.previous_secret)] {
            let Some(secret) = secret else { continue };
            check.secret(key, secret, SHORTEST_SECRET);
            if self.listen.is_none() {
                check.refuse(key, "does nothing without `listen`", "set `listen`, or remove the secret");
            }
        }
        if self.previous_secret.is_some() && self.secret.is_none() {
            check.refuse("previous_secret", "there is no newer one", "set `secret`");
        }
        if let Some(address) = &self.advertise
            && !is_address(address)
        {
            check.refuse(
                "advertise",
                "must be HOST:PORT",
                "write an address or a name of this node that the others reach",
            );
        }
        check.time("connect_timeout", *self.connect_timeout);
        let bounded = |number| (1..=MOST_FORWARDED).contains(&number);
        check.must(bounded(self.max_forwarded), "max_forwarded", "must be 1 to 1000000");
        check.must(bounded(self.max_forwarded_per_node), "max_forwarded_per_node", "must be 1 to 1000000");
        if let Some(tls) = &self.tls {
            check.within("tls", |check| tls.check(check));
        }
    }
}

impl ClusterTls {
    fn check(&self, check: &mut Check<'_>) {
        for (key, file) in [("ca_file", &self.ca_file), ("cert_file", &self.cert_file), ("key_file", &self.key_file)] {
            if file.as_os_str().is_empty() {
                check.refuse(key, "is missing", "name a PEM file: nodes check each other's certificates");
            } else {
                check.readable(key, Some(file));
            }
        }
    }
}

/// A host and a port that is not 0; an IPv6 address stands in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let named = !host.is_empty() && host.bytes().all(plain);
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let numbered = ipv6.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (named || numbered) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["10.0.0.1:3002", "node-1.rt.svc.cluster.local:3002", "[fd00::1]:3002", "a_b:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "10.0.0.1", ":3002", "fd00::1:3002", "[fd00::1]", "a b:1", "a:0", "a:x", "http://a:1", "[x]:1"]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
