//! `[cluster]`

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::SectionCheck;
use super::{Period, Secret};

/// Minimum length of `cluster.secret`, in bytes.
const SHORTEST_SECRET: usize = 32;

/// Maximum of `max_forwarded` and `max_forwarded_per_node`.
const MOST_FORWARDED: usize = 1_000_000;

/// How nodes forward requests of long-polling sessions to the node that has the session, so that no proxy must be
/// sticky.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cluster")]
pub struct ClusterSettings {
    /// The address where this node receives forwarded requests of its sessions from other nodes, as `ADDRESS:PORT`.
    /// Only nodes may reach it. Port 0 takes any free port. Not set: nothing is forwarded, and the proxy must be
    /// sticky.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// The address of this listener that the node tells the other nodes, as `HOST:PORT`. Not set: `cluster.listen`, or,
    /// if that is `0.0.0.0` or `[::]`, the address to which the machine's own host name resolves.
    pub advertise: Option<String>,
    /// The shared secret with which nodes sign requests to each other. It is the same on all nodes; at least 32
    /// characters.
    pub secret: Option<Secret>,
    /// The secret before the last change of `secret`; nodes still accept it. Requests that are signed with it are still
    /// accepted.
    pub previous_secret: Option<Secret>,
    /// How long the node may take to connect to another node.
    pub connect_timeout: Period,
    /// How many forwarded requests and tunnels may be open to all other nodes, and how many may be open from them. Each
    /// waiting poll counts as one.
    pub max_forwarded: usize,
    /// How many forwarded requests and tunnels may be open to one node.
    pub max_forwarded_per_node: usize,
    /// Certificates with which the nodes check each other. Without them, requests between nodes are signed but not
    /// encrypted.
    pub tls: Option<ClusterTlsSettings>,
}

/// Certificates with which the nodes check each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ClusterTls")]
pub struct ClusterTlsSettings {
    /// PEM file of the authority that signed the certificates of all nodes.
    #[schemars(with = "String")]
    pub ca_file: PathBuf,
    /// PEM file of this node's certificate, for servers and clients.
    #[schemars(with = "String")]
    pub cert_file: PathBuf,
    /// PEM file of the private key of this node's certificate.
    #[schemars(with = "String")]
    pub key_file: PathBuf,
    /// The name that the certificate of every node contains. Not set: the host of that node's `cluster.advertise`.
    pub server_name: Option<String>,
}

impl Default for ClusterSettings {
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

impl ClusterSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        if self.listen.is_some() && self.secret.is_none() {
            check.refuse(
                "secret",
                "is missing",
                "nodes that forward requests must share a secret: set it beside `listen`",
            );
        }
        for (key, secret) in [("secret", &self.secret), ("previous_secret", &self.previous_secret)] {
            let Some(secret) = secret else { continue };
            check.secret(key, secret, SHORTEST_SECRET);
            if self.listen.is_none() {
                check.refuse(key, "has no effect without `listen`", "set `listen`, or remove the secret");
            }
        }
        if self.previous_secret.is_some() && self.secret.is_none() {
            check.refuse("previous_secret", "is set, but `secret` is not", "set `secret`");
        }
        if let Some(address) = &self.advertise
            && !is_address(address)
        {
            check.refuse(
                "advertise",
                "must be HOST:PORT",
                "write an address or a name of this node that the other nodes can reach",
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

impl ClusterTlsSettings {
    fn check(&self, check: &mut SectionCheck<'_>) {
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
