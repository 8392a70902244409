//! The formats that nodes share: messages between nodes, values in Redis, and texts that a client carries from one node
//! to another.
//!
//! Each format has a version. While a cluster is upgraded, nodes of two releases work together: a node ignores and
//! counts a message of another version, and never sees a value of another version in Redis, because the name of the key
//! contains the version. `docs/versions.md` has this table, and says how to change a format. `tests/formats/` has
//! frozen samples of each version, which the tests of the files named here write and read.

#[cfg(test)]
pub(crate) mod frozen;

/// A format and its version.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedFormat {
    /// The name of the format in `docs/versions.md` and, for a value in Redis, in the name of the key.
    pub name: &'static str,
    /// The version of the format that this node writes and reads.
    pub version: u8,
    /// The release that first wrote this version of the format.
    pub since: &'static str,
    /// The place where a reader finds the version.
    pub carrier: Carrier,
    /// The content.
    pub content: &'static str,
    /// The file or folder that writes and reads the format.
    pub file: &'static str,
}

/// The place where a reader finds the version of a message or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The first bytes.
    Head,
    /// The version is in the name of the Redis key: `<prefix>:<name>:v<version>:…`.
    Key,
}

const fn format(name: &'static str, carrier: Carrier, file: &'static str, content: &'static str) -> SharedFormat {
    SharedFormat { name, version: 1, since: "0.2.0", carrier, content, file }
}

/// Every message between nodes over Redis.
pub const FRAME: SharedFormat = SharedFormat {
    version: 2,
    ..format(
        "frame",
        Carrier::Head,
        "src/cluster/",
        "messages between nodes over Redis: a header, and an event, canary or control message",
    )
};
/// A request that a node passes on to another node.
pub const FORWARDED: SharedFormat = format(
    "forwarded",
    Carrier::Head,
    "src/forward/stamp.rs",
    "the header `roomcast-forwarded` of requests to `cluster.listen`",
);
/// The offset that a client sends back when it returns.
pub const OFFSET: SharedFormat = format(
    "offset",
    Carrier::Head,
    "src/session/offsets/client.rs",
    "the text that tells which events a returning client has",
);
/// Events that rooms keep for clients that join or return late.
pub const HISTORY: SharedFormat =
    format("history", Carrier::Key, "src/history/redis.rs", "events of a room, and where events are missing");
/// Sessions that can be recovered.
pub const RECOVERY: SharedFormat =
    format("recovery", Carrier::Key, "src/recovery/", "sessions that can be recovered, and running nodes");
/// Ids of publishes.
pub const PUBLISH: SharedFormat =
    format("publish", Carrier::Key, "src/idempotency/redis.rs", "the fingerprint and the answer of a publish");
/// The users who own rooms.
pub const OWNER: SharedFormat = format("owner", Carrier::Key, "src/owners/redis.rs", "the user who owns a room");
/// Tokens and users that are revoked.
pub const REVOCATIONS: SharedFormat =
    format("revocations", Carrier::Key, "src/cluster/revocations/", "revocations, and when each ends");
/// Throttled events.
pub const THROTTLE: SharedFormat =
    format("throttle", Carrier::Key, "src/throttle/", "the event that a throttle holds back");
/// Who is connected and who is in which room.
pub const PRESENCE: SharedFormat =
    format("presence", Carrier::Key, "src/presence/redis/", "connections, members of rooms, and statuses");
/// Notices of hooks.
pub const HOOK: SharedFormat =
    format("hook", Carrier::Key, "src/hooks/outbox/", "notices that wait for a hook's backend");
/// The lease of the node that publishes the events of emitters.
pub const EMITTERS: SharedFormat =
    format("emitters", Carrier::Key, "src/cluster/emitter_lease.rs", "the node that publishes what emitters send");

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&SharedFormat; 12] = [
        &FRAME,
        &FORWARDED,
        &OFFSET,
        &HISTORY,
        &RECOVERY,
        &PUBLISH,
        &OWNER,
        &REVOCATIONS,
        &THROTTLE,
        &PRESENCE,
        &HOOK,
        &EMITTERS,
    ];

    fn row(SharedFormat { name, version, since, carrier, content, file }: &SharedFormat) -> String {
        let carrier = match carrier {
            Carrier::Head => "the first bytes".to_owned(),
            Carrier::Key => format!("the key, `<prefix>:{name}:v{version}:…`"),
        };
        format!("| `{name}` | {content} | {version} | {since} | {carrier} | `{file}` |")
    }

    #[test]
    fn page_lists_every_format_and_no_other() {
        let page = include_str!("../docs/versions.md");
        let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(listed, ALL.map(row));
    }

    #[test]
    fn every_format_has_frozen_samples_of_its_version_and_every_sample_is_tested() {
        for format in ALL {
            let folder = frozen::folder(format);
            assert!(folder.is_dir(), "{} has no samples in {}", format.name, folder.display());
            assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format.file).exists(), "{}", format.file);
        }
    }
}
