//! The scripts of presence, and the parts of their answers.

use fred::types::Value;

use crate::redis::script::Script;

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("lib.lua"), include_str!($file)))
    };
}

/// All scripts. Each begins with the text of `lib.lua`.
pub(super) struct PresenceScripts {
    pub(super) apply: Script,
    pub(super) lease: Script,
    pub(super) reap: Script,
    pub(super) count: Script,
    pub(super) members: Script,
    pub(super) connections: Script,
    pub(super) connection: Script,
    pub(super) names: Script,
    pub(super) roster: Script,
    pub(super) shared: Script,
    pub(super) status: Script,
}

impl PresenceScripts {
    pub(super) fn new() -> Self {
        Self {
            apply: script!("apply.lua"),
            lease: script!("lease.lua"),
            reap: script!("reap.lua"),
            count: script!("count.lua"),
            members: script!("members.lua"),
            connections: script!("connections.lua"),
            connection: script!("connection.lua"),
            names: script!("names.lua"),
            roster: script!("roster.lua"),
            shared: script!("shared.lua"),
            status: script!("status.lua"),
        }
    }
}

/// An answer of a script, read from its start. An unexpected value is read as empty; the scripts are part of this
/// program, so it does not occur.
pub(super) struct ScriptReply(std::vec::IntoIter<Value>);

impl ScriptReply {
    /// Whether the whole answer has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn of(value: Value) -> Self {
        Self(match value {
            Value::Array(values) => values.into_iter(),
            _ => Vec::new().into_iter(),
        })
    }

    pub(super) fn text(&mut self) -> String {
        self.0.next().and_then(Value::into_string).unwrap_or_default()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0.next().and_then(|value| value.as_u64()).unwrap_or_default()
    }

    /// A time in ms of Unix time, without its fraction.
    pub(super) fn millis(&mut self) -> u64 {
        self.text().split('.').next().and_then(|millis| millis.parse().ok()).unwrap_or_default()
    }

    pub(super) fn list(&mut self) -> Self {
        self.0.next().map_or_else(|| Self(Vec::new().into_iter()), Self::of)
    }

    pub(super) fn texts(self) -> Vec<String> {
        self.0.map(|value| value.into_string().unwrap_or_default()).collect()
    }

    /// Reads each element as a separate answer.
    pub(super) fn each<T>(self, read: impl FnMut(Self) -> T) -> Vec<T> {
        self.0.map(Self::of).map(read).collect()
    }
}

/// The first part of each answer to a read.
#[derive(Debug, Default)]
pub(super) struct ReplyHeader {
    /// Incarnations whose lease has not ended.
    pub(super) live: Vec<String>,
    /// Incarnations that are being written.
    pub(super) staged: Vec<String>,
    /// The number of incarnations whose lease has ended and whose data is not removed yet.
    pub(super) expired: u64,
}

impl ReplyHeader {
    pub(super) fn of(mut reply: ScriptReply) -> Self {
        Self { live: reply.list().texts(), staged: reply.list().texts(), expired: reply.number() }
    }

    /// The nodes of the incarnations whose lease has not ended.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.live.iter().map(|incarnation| node_of(incarnation))
    }
}

/// The node's id in an incarnation `<node>~<random>`.
pub(super) fn node_of(incarnation: &str) -> &str {
    incarnation.rsplit_once('~').map_or(incarnation, |(node, _)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_may_hold_the_separator() {
        assert_eq!(node_of("a~b~0123"), "a~b");
        assert_eq!(node_of("plain"), "plain");
    }

    #[test]
    fn answers_that_are_not_as_expected_read_as_empty() {
        let mut reply = ScriptReply::of(Value::Null);
        assert_eq!((reply.text(), reply.number()), (String::new(), 0));
        assert!(reply.list().texts().is_empty());
    }
}
