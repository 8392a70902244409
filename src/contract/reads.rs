//! Finds out which parts of a contract read the payload, and which use the members of a room. A payload that no part
//! reads is passed on as bytes; members that no part uses are not looked up.

use super::model::{
    ClientEvent, ErrorShape, MetadataChange, Outcome, Relay, ReplayPolicy, Reply, RoomRef, RoomUse, SentArgs, Target,
};
use super::path::Path;
use super::rule::Rule;
use super::scope::MembersNeed;
use super::template::Template;

impl RoomRef {
    /// Whether resolving this reference reads the payload: for the room's name, or for `when`.
    pub fn reads_payload(&self) -> bool {
        let variable = |name: &str| match self.with.iter().find(|(variable, _)| variable == name) {
            Some((_, paths)) => paths.iter().any(Path::reads_payload),
            None => true,
        };
        (!self.all && self.room.name.variables().any(variable)) || self.when.as_ref().is_some_and(Rule::reads_payload)
    }

    /// Whether joining the room reads the payload: for its name, its rule, its hook, or the offset (`since`) from
    /// which the client wants the history.
    pub fn join_reads_payload(&self) -> bool {
        self.reads_payload()
            || self.room.join.as_ref().is_some_and(Rule::reads_payload)
            || self.room.call.is_some()
            || self
                .room
                .history
                .as_ref()
                .is_some_and(|history| matches!(history.replay, ReplayPolicy::Since | ReplayPolicy::All))
    }
}

impl Relay {
    fn reads_payload(&self) -> bool {
        let target = match &self.to {
            Target::Room(room) => room.reads_payload(),
            Target::Address(path) => path.reads_payload(),
            Target::Shared | Target::Everyone => false,
        };
        target
            || self.event.reads_payload()
            || self.args.reads_payload()
            || self.when.as_ref().is_some_and(Rule::reads_payload)
    }
}

impl SentArgs {
    fn reads_payload(&self) -> bool {
        match self {
            Self::Unchanged => false,
            Self::Payload(_) => true,
            Self::Values(templates) => templates.iter().any(Template::reads_payload),
        }
    }

    fn templates(&self) -> &[Template] {
        match self {
            Self::Unchanged => &[],
            Self::Payload(template) => std::slice::from_ref(template),
            Self::Values(templates) => templates,
        }
    }

    /// How much of the members of a room the arguments need.
    pub fn members_need(&self) -> MembersNeed {
        self.templates().iter().map(Template::members_need).max().unwrap_or_default()
    }
}

impl Reply {
    fn reads_payload(&self) -> bool {
        self.event.reads_payload() || self.args.reads_payload() || self.when.as_ref().is_some_and(Rule::reads_payload)
    }

    /// How much of the members of a room the event needs.
    pub fn members_need(&self) -> MembersNeed {
        self.args.members_need().max(need_of(&self.when))
    }
}

impl Outcome {
    fn reads_payload(&self) -> bool {
        self.publish.as_ref().is_some_and(|(_, args)| args.iter().any(Template::reads_payload))
            || self.reply.as_ref().is_some_and(Reply::reads_payload)
    }
}

impl MetadataChange {
    fn reads_payload(&self) -> bool {
        match self {
            Self::At(path) => path.reads_payload(),
            Self::Members(template) => template.reads_payload(),
        }
    }

    /// Whether a client chooses the value of this metadata member.
    pub(super) fn is_chosen_by_client(&self, member: &str) -> bool {
        match self {
            Self::At(path) => path.is_chosen_by_client(),
            Self::Members(template) => {
                let paths = template.paths();
                paths.iter().any(|(place, path)| place[0] == member && path.is_chosen_by_client())
            }
        }
    }
}

impl ErrorShape {
    fn reads_payload(&self) -> bool {
        self.payload.reads_payload() || self.ack.reads_payload()
    }
}

impl ClientEvent {
    /// Computes [`ClientEvent::reads_payload`] when the contract is compiled.
    pub(super) fn finds_payload_read(&self, errors: &ErrorShape) -> bool {
        self.payload.schema.is_some()
            || self.require.as_ref().is_some_and(Rule::reads_payload)
            || self.join.iter().any(RoomRef::join_reads_payload)
            || self.leave.iter().any(RoomRef::reads_payload)
            || self.room.as_ref().is_some_and(RoomRef::reads_payload)
            || self.relay.iter().any(Relay::reads_payload)
            || self.reply.iter().any(Reply::reads_payload)
            || self.call.is_some()
            || self.notify.is_some()
            || self.on_ok.as_ref().is_some_and(Outcome::reads_payload)
            || self.on_error.as_ref().is_some_and(Outcome::reads_payload)
            || self.presence.as_ref().is_some_and(Path::reads_payload)
            || self.metadata.as_ref().is_some_and(MetadataChange::reads_payload)
            || self.ack.as_ref().is_some_and(SentArgs::reads_payload)
            || errors.reads_payload()
    }

    /// Computes [`ClientEvent::room_use`] when the contract is compiled.
    pub(super) fn finds_room_used(&self) -> RoomUse {
        let follows = self.on_ok.as_ref().and_then(|outcome| outcome.reply.as_ref());
        let replies = || self.reply.iter().chain(follows);
        let sent =
            || self.relay.iter().map(|relay| &relay.args).chain(replies().map(|reply| &reply.args)).chain(&self.ack);
        let checks = self.relay.iter().map(|relay| need_of(&relay.when)).max().unwrap_or_default();
        RoomUse {
            // If the members are looked up for the relays, `require` uses the same members.
            checks: if checks == MembersNeed::None { checks } else { checks.max(need_of(&self.require)) },
            sends: sent()
                .map(SentArgs::members_need)
                .chain(replies().map(Reply::members_need))
                .max()
                .unwrap_or_default(),
            vars: sent().flat_map(SentArgs::templates).any(|template| template.uses(|path| path.variable().is_some())),
        }
    }
}

fn need_of(rule: &Option<Rule>) -> MembersNeed {
    rule.as_ref().map(Rule::members_need).unwrap_or_default()
}
