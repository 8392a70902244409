//! Every name that the node uses in Redis, once. `docs/redis.md` lists the same.
//!
//! All begin with `redis.prefix`. Keys that one script touches together share a hash tag (`{…}`), so that
//! they live on one node of a Redis Cluster.

use std::sync::Arc;

/// Makes names.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// Names under a prefix.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    // --- owners (written by `owners`) ---

    /// STRING: the user who owns a room, as the backend said. Expires as the backend said.
    pub fn owner(&self, namespace: &str, room: &str) -> String {
        format!("{}:owner:{}", self.prefix, tag(namespace, room))
    }

    // --- revocations (written by `cluster`) ---

    /// What is revoked (`part` is `entries`, a HASH, or `ends`, a ZSET of the same by their ends); at most 100,000. Expires
    /// a day after the last one.
    pub fn revocations(&self, part: &str) -> String {
        format!("{}:revocations:{{all}}:{part}", self.prefix)
    }

    // --- history (written by `history`) ---

    /// STREAM (`part` is `events`): a room's events, the ids are `<epoch>-<offset>`. At most as many as the contract
    /// says; expires after its `ttl`, `idle` or `linger`, whatever is shortest.
    pub fn history(&self, namespace: &str, room: &str, part: &str) -> String {
        format!("{}:history:{}:{part}", self.prefix, tag(namespace, room))
    }

    // --- recovery (written by `recovery` and `history`) ---

    /// HASH: a session that can be recovered. Expires when the client may no longer come back.
    pub fn recovery_session(&self, session: &str) -> String {
        format!("{}:recovery:session:{session}", self.prefix)
    }

    /// STRING: the node was there within the longest window. Expires that long after its last sign of life.
    pub fn recovery_node(&self, incarnation: &str) -> String {
        format!("{}:recovery:node:{incarnation}", self.prefix)
    }

    /// STRING: the namespace's histories may lack an event. Expires when nobody can come back from before it.
    pub fn recovery_unrecorded(&self, namespace: &str) -> String {
        format!("{}:recovery:unrecorded:{namespace}", self.prefix)
    }

    // --- presence (written by `presence`) ---

    /// What every key of a namespace's presence begins with; all of a namespace share a slot. The scripts of `presence`
    /// append the rest: `docs/redis.md` lists it.
    pub fn presence(&self, namespace: &str) -> String {
        format!("{}:presence:{{{namespace}}}", self.prefix)
    }

    // --- conflation (written by `throttle`) ---

    /// STRING: while it exists, the event may not be sent to the room. Expires after the contract's `every`.
    pub fn throttle_gate(&self, scope: &str, event: &str) -> String {
        format!("{}:throttle:{{{scope}}}:{event}:gate", self.prefix)
    }

    /// STRING, MessagePack: the newest event that is held. Deleted when it is sent; expires after a minute (or twice
    /// `every`) if the node that would send it dies.
    pub fn throttle_held(&self, scope: &str, event: &str) -> String {
        format!("{}:throttle:{{{scope}}}:{event}:held", self.prefix)
    }

    /// STRING: the last number given to a conflated event of the room. Expires after a minute.
    pub fn throttle_number(&self, scope: &str) -> String {
        format!("{}:throttle:{{{scope}}}:number", self.prefix)
    }

    // --- publishing and hooks ---

    /// STRING: a publish with this id was taken. Expires after the configured time.
    pub fn publish_id(&self, contract: &str, id: &str) -> String {
        format!("{}:publish:{contract}:{id}", self.prefix)
    }

    /// LIST: notices for a hook that wait for its backend, oldest first, at most 100,000. Expires a week after the
    /// last change.
    pub fn hook_notices(&self, hook: &str) -> String {
        format!("{}:hook:{{{hook}}}:notices", self.prefix)
    }

    /// STRING: the node that delivers the notices of a hook now. Expires a little after the longest call.
    pub fn hook_lease(&self, hook: &str) -> String {
        format!("{}:hook:{{{hook}}}:lease", self.prefix)
    }

    /// STRING: the node that publishes what emitters send to rooms with rules. Expires after a few seconds.
    pub fn scribe(&self) -> String {
        format!("{}:scribe", self.prefix)
    }

    /// STRING: what the node's probe writes, which proves that Redis takes writes. Expires after ten seconds, or twice
    /// `redis.probe_interval`.
    pub fn probe_write(&self, node: &str) -> String {
        format!("{}:probe:{node}", self.prefix)
    }

    // --- channels (sharded pub/sub; nothing is stored) ---

    /// Only this node listens: proves that what is published arrives.
    pub fn probe_channel(&self, node: &str) -> String {
        format!("{}:probe:{node}", self.prefix)
    }

    /// What nodes tell each other, JSON: that they are there, and requests to all nodes.
    pub fn control_channel(&self) -> String {
        format!("{}:control", self.prefix)
    }

    /// Every node's canaries for the others, numbered.
    pub fn canary_channel(&self) -> String {
        format!("{}:canary", self.prefix)
    }

    /// Events of a namespace for the clients of other nodes, but those for one room.
    pub fn events_channel(&self, namespace: &str) -> String {
        format!("{}:events:{namespace}", self.prefix)
    }

    /// Events for one room: only nodes with members of it listen.
    pub fn room_channel(&self, namespace: &str, room: &str) -> String {
        format!("{}:events:{namespace}#{room}", self.prefix)
    }

    /// The names of Socket.IO's adapters below this cluster's own prefix.
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
    /// Names under a key.
    pub fn new(key: &str) -> Self {
        Self { key: key.into() }
    }

    /// What all of them begin with.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Broadcasts to everybody, or to several rooms.
    pub fn broadcast(&self, namespace: &str) -> String {
        format!("{}#{namespace}#", self.key)
    }

    /// Broadcasts to one room.
    pub fn room(&self, namespace: &str, room: &str) -> String {
        format!("{}#{namespace}#{room}#", self.key)
    }

    /// Requests to every server.
    pub fn requests(&self, namespace: &str) -> String {
        format!("{}-request#{namespace}#", self.key)
    }

    /// Their answers.
    pub fn responses(&self, namespace: &str) -> String {
        format!("{}-response#{namespace}#", self.key)
    }

    /// Their answers to one server.
    pub fn responses_to(&self, namespace: &str, uid: &str) -> String {
        format!("{}-response#{namespace}#{uid}#", self.key)
    }
}

/// One slot for everything of one room.
fn tag(namespace: &str, room: &str) -> String {
    format!("{{{namespace}#{room}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_begins_with_the_prefix_and_rooms_do_not_mix() {
        let keys = Keys::new("p");
        assert_eq!(keys.history("/a", "x", "meta"), "p:history:{/a#x}:meta");
        assert_ne!(keys.owner("/a", "x"), keys.owner("/", "ax"));
        for name in [keys.probe_channel("n"), keys.control_channel(), keys.events_channel("/")] {
            assert!(name.starts_with("p:"), "{name}");
        }
    }

    #[test]
    fn every_name_is_on_the_page() {
        let page = include_str!("../../docs/redis.md");
        let code = include_str!("keys.rs").split("#[cfg(test)]").next().unwrap();
        for name in code.split("format!(\"{}:").skip(1) {
            let part = name.split([':', '"']).next().unwrap();
            assert!(page.contains(&format!("`<prefix>:{part}")), "docs/redis.md does not list <prefix>:{part}");
        }
    }
}
