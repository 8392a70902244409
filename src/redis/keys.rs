//! The name of every key and channel that the node uses in Redis. `docs/redis.md` lists the same names.
//!
//! All names begin with `redis.prefix`, or with `redis.socketio_key`. Keys that one script uses together share a hash
//! tag (`{…}`), so that they are on one server of a Redis Cluster. The name of a key that several nodes use has the
//! version of its value's format, so that nodes never read values of another version.

use std::fmt::Display;
use std::sync::Arc;

use crate::formats::{self, SharedFormat};

/// Builds the names of keys and channels.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// Creates a builder of names with this prefix.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    fn key(&self, format: &SharedFormat, rest: impl Display) -> String {
        format!("{}:{}:v{}:{rest}", self.prefix, format.name, format.version)
    }

    // --- owners (written by `owners`) ---

    /// STRING: the id of the user who owns a room. The backend gives the owner and the time to live.
    pub fn owner(&self, namespace: &str, room: &str) -> String {
        self.key(&formats::OWNER, tag(namespace, room))
    }

    // --- revocations (written by `cluster`) ---

    /// Revocations, at most 100,000. `part` is `entries` (a HASH) or `ends` (a ZSET of the time at which each
    /// revocation ends). The keys expire a day after the last revocation ends.
    pub fn revocations(&self, part: &str) -> String {
        self.key(&formats::REVOCATIONS, format_args!("{{all}}:{part}"))
    }

    // --- history (written by `history`) ---

    /// STREAM (`part` is `events`): a room's events, with ids `<epoch>-<offset>`. The contract limits the number of
    /// events. Expires after its `ttl`, `idle` or `linger`, whichever is shortest.
    pub fn history(&self, namespace: &str, room: &str, part: &str) -> String {
        self.key(&formats::HISTORY, format_args!("{}:{part}", tag(namespace, room)))
    }

    // --- recovery (written by `recovery` and `history`) ---

    /// HASH: a session that can be recovered. Expires when its client can no longer recover it.
    pub fn recovery_session(&self, session: &str) -> String {
        self.key(&formats::RECOVERY, format_args!("session:{session}"))
    }

    /// STRING: exists if the node ran within the longest recovery window. Expires after the longest recovery window,
    /// unless the node renews the key.
    pub fn recovery_node(&self, incarnation: &str) -> String {
        self.key(&formats::RECOVERY, format_args!("node:{incarnation}"))
    }

    /// STRING: exists if the namespace's histories may lack an event. Expires when no client can recover from an offset
    /// before that event any more.
    pub fn recovery_unrecorded(&self, namespace: &str) -> String {
        self.key(&formats::RECOVERY, format_args!("unrecorded:{namespace}"))
    }

    // --- presence (written by `presence`) ---

    /// The prefix of every key of a namespace's presence. All keys of a namespace share a slot. The scripts of
    /// `presence` append the rest of each key; `docs/redis.md` lists the keys.
    pub fn presence(&self, namespace: &str) -> String {
        self.key(&formats::PRESENCE, format_args!("{{{namespace}}}"))
    }

    // --- conflation (written by `throttle`) ---

    /// STRING: the event may not be sent to the room while this key exists. Expires after the contract's `every`.
    pub fn throttle_gate(&self, scope: &str, event: &str) -> String {
        self.key(&formats::THROTTLE, format_args!("{{{scope}}}:{event}:gate"))
    }

    /// STRING, MessagePack: the newest event that is held back. Deleted when it is sent. Expires after a minute (or
    /// twice `every`) if the node that would send it dies.
    pub fn throttle_held(&self, scope: &str, event: &str) -> String {
        self.key(&formats::THROTTLE, format_args!("{{{scope}}}:{event}:held"))
    }

    /// STRING: the last number given to a conflated event of the room. Expires after a minute.
    pub fn throttle_number(&self, scope: &str) -> String {
        self.key(&formats::THROTTLE, format_args!("{{{scope}}}:number"))
    }

    // --- publishing and hooks ---

    /// STRING: exists if a publish with this id was accepted. Expires after the configured time.
    pub fn publish_id(&self, contract: &str, id: &str) -> String {
        self.key(&formats::PUBLISH, format_args!("{contract}:{id}"))
    }

    /// LIST: notices for a hook that wait for its backend, oldest first, at most 100,000. Expires a week after the
    /// last change.
    pub fn hook_notices(&self, hook: &str) -> String {
        self.key(&formats::HOOK, format_args!("{{{hook}}}:notices"))
    }

    /// STRING: the node that delivers a hook's notices at present. Expires a little after the longest call.
    pub fn hook_lease(&self, hook: &str) -> String {
        self.key(&formats::HOOK, format_args!("{{{hook}}}:lease"))
    }

    /// STRING: the lease of the node that publishes the events of emitters for which a contract has rules or a history.
    /// Expires after a few seconds.
    pub fn emitter_lease(&self) -> String {
        self.key(&formats::EMITTERS, "lease")
    }

    /// STRING: written by the node's probe to prove that Redis accepts writes. Expires after ten seconds, or after
    /// twice `redis.probe_interval` if that is longer.
    pub fn probe_write(&self, node: &str) -> String {
        format!("{}:probe:{node}", self.prefix)
    }

    // --- channels (sharded pub/sub; nothing is stored) ---

    /// The channel on which a node sends messages to itself, to prove that published messages arrive. Only this node
    /// subscribes to the channel.
    pub fn probe_channel(&self, node: &str) -> String {
        format!("{}:probe:{node}", self.prefix)
    }

    /// The channel of JSON messages between nodes: heartbeats, and requests to all nodes.
    pub fn control_channel(&self) -> String {
        format!("{}:control", self.prefix)
    }

    /// The channel of the numbered canaries that every node sends to the other nodes.
    pub fn canary_channel(&self) -> String {
        format!("{}:canary", self.prefix)
    }

    /// The channel of a namespace's events for the clients of other nodes, except events for a single room.
    pub fn events_channel(&self, namespace: &str) -> String {
        format!("{}:events:{namespace}", self.prefix)
    }

    /// The channel of events for one room. Only nodes with members of the room subscribe to the channel.
    pub fn room_channel(&self, namespace: &str, room: &str) -> String {
        format!("{}:events:{namespace}#{room}", self.prefix)
    }

    /// The names of the channels of Socket.IO's adapters, under this cluster's own prefix.
    pub fn socketio(&self) -> SocketIoKeys {
        SocketIoKeys { key: self.prefix.clone() }
    }
}

/// The channels of Socket.IO's own Redis adapter and emitter, under `redis.socketio_key` (plain pub/sub).
#[derive(Debug, Clone)]
pub struct SocketIoKeys {
    key: Arc<str>,
}

impl SocketIoKeys {
    /// Creates a builder of names that begin with this key.
    pub fn new(key: &str) -> Self {
        Self { key: key.into() }
    }

    /// The channel of broadcasts to every client, or to several rooms.
    pub fn broadcast(&self, namespace: &str) -> String {
        format!("{}#{namespace}#", self.key)
    }

    /// The channel of broadcasts to one room.
    pub fn room(&self, namespace: &str, room: &str) -> String {
        format!("{}#{namespace}#{room}#", self.key)
    }

    /// The channel of requests to every server.
    pub fn requests(&self, namespace: &str) -> String {
        format!("{}-request#{namespace}#", self.key)
    }

    /// The channel of answers to requests.
    pub fn responses(&self, namespace: &str) -> String {
        format!("{}-response#{namespace}#", self.key)
    }

    /// The channel of answers to the requests of one server.
    pub fn responses_to(&self, namespace: &str, uid: &str) -> String {
        format!("{}-response#{namespace}#{uid}#", self.key)
    }
}

/// A hash tag that puts all keys of one room into one slot.
fn tag(namespace: &str, room: &str) -> String {
    format!("{{{namespace}#{room}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_begins_with_the_prefix_and_rooms_do_not_mix() {
        let keys = Keys::new("p");
        assert_eq!(keys.history("/a", "x", "meta"), "p:history:v1:{/a#x}:meta");
        assert_ne!(keys.owner("/a", "x"), keys.owner("/", "ax"));
        for name in [keys.probe_channel("n"), keys.control_channel(), keys.events_channel("/")] {
            assert!(name.starts_with("p:"), "{name}");
        }
    }

    #[test]
    fn every_name_is_on_the_page() {
        let page = include_str!("../../docs/redis.md");
        let code = include_str!("keys.rs").split("#[cfg(test)]").next().unwrap();
        let plain = code.split("format!(\"{}:").skip(1).map(|name| name.split([':', '"']).next().unwrap().to_owned());
        let versioned =
            code.split("formats::").skip(1).map(|name| name.split(|c: char| !c.is_uppercase()).next().unwrap());
        let versioned = versioned.filter(|name| !name.is_empty()).map(|name| format!("{}:v", name.to_lowercase()));
        for part in plain.filter(|part| part != "{}").chain(versioned) {
            assert!(page.contains(&format!("`<prefix>:{part}")), "docs/redis.md does not list <prefix>:{part}");
        }
    }
}
