//! The names of the events that the contracts of a namespace send. A client's event with such a name is never taken for
//! an event that no table names.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::document::{Document, KeyPath};
use super::event_name::EventName;
use super::model::{ClientEvent, Contract, Namespace};
use super::report::ContractReport;
use crate::protocol::RESERVED_EVENTS;

/// All names that the contracts of a namespace, the node itself or Socket.IO use.
#[derive(Debug)]
pub struct SentNames {
    fixed: HashSet<String>,
    /// Names with placeholders.
    made: Vec<EventName>,
}

impl SentNames {
    /// Collects the names of a namespace.
    pub fn of(namespace: &Namespace) -> Self {
        let contracts = || namespace.contracts.iter();
        let refresh = contracts().filter_map(|contract| contract.auth.expiry.refresh.as_deref());
        let fixed = contracts().flat_map(|contract| fixed_names(contract)).chain(RESERVED_EVENTS).chain(refresh);
        let events = contracts().flat_map(|contract| contract.client.values());
        let made = events.flat_map(|event| names_of(event)).filter(|name| name.fixed().is_none() && !name.is_own());
        Self { fixed: fixed.map(str::to_owned).collect(), made: made.cloned().collect() }
    }

    /// Whether an event with this name could be taken for one that the node sends.
    pub fn contains(&self, name: &str) -> bool {
        self.fixed.contains(name) || self.made.iter().any(|made| made.can_be(name, None))
    }
}

/// Checks that clients cannot make the name of another event that the node sends.
pub(super) fn check_names(contracts: &[(Arc<Contract>, Arc<Document>)], report: &mut ContractReport) {
    let sent: BTreeSet<&str> = contracts.iter().flat_map(|(contract, _)| fixed_names(contract)).collect();
    for (contract, document) in contracts {
        for event in contract.client.values() {
            let key_path = KeyPath::top("client").key(&event.name);
            let schema = event.payload.schema.as_ref();
            let relays = event.relay.iter().map(|relay| ("relay", &relay.event));
            let replies = event.reply.iter().map(|reply| ("reply", &reply.event));
            let follow = event.on_ok.iter().filter_map(|outcome| Some(("on_ok", &outcome.reply.as_ref()?.event)));
            // The undo event takes the values of its name from this event.
            let undone = contract.undone(event).map(|relay| ("undo", &relay.event));
            // `{event.name}` alone is safe: an event that no table names never has the name of an event that the node
            // sends.
            for (key, name) in relays.chain(replies).chain(follow).chain(undone).filter(|(_, name)| !name.is_own()) {
                if let Some(path) = name.unbounded(schema) {
                    let problem = format!("clients choose the whole name of this event with `{}`", path.text());
                    let remedy =
                        "begin the name with a fixed text, or give the member an `enum` or a `pattern` from ^ to $";
                    report.push(document.mistake(&key_path.key(key), problem, remedy));
                    continue;
                }
                if let Some(sent) = sent.iter().find(|sent| name.can_be(sent, schema)) {
                    let problem = format!("clients can make the name of the event \"{sent}\", which the node sends");
                    report.push(document.mistake(&key_path.key(key), problem, "write another fixed text in the name"));
                }
            }
        }
    }
}

/// The names without placeholders of the events that a contract sends.
fn fixed_names(contract: &Arc<Contract>) -> Vec<&str> {
    let mut names: Vec<&str> = contract.server.keys().chain(&contract.errors.event).map(String::as_str).collect();
    names.extend(contract.auth.expiry.warn.iter().map(|(_, name)| name.as_str()));
    for room in contract.rooms.values() {
        let presence = room.presence.iter().flat_map(|presence| [&presence.joined, &presence.left, &presence.changed]);
        names.extend(presence.flatten().filter_map(|reply| reply.event.fixed()));
        names.extend(room.history.as_ref().and_then(|history| history.incomplete.as_deref()));
    }
    let greeted = contract.connect.greet.iter().map(|greet| &greet.event);
    let sent = contract.client.values().flat_map(|event| names_of(event));
    names.extend(greeted.chain(sent).filter_map(EventName::fixed));
    names
}

/// The names of the events that the node sends because of a client's event.
fn names_of(event: &ClientEvent) -> impl Iterator<Item = &EventName> {
    let outcomes = event.on_ok.iter().chain(&event.on_error).filter_map(|outcome| outcome.reply.as_ref());
    let relays = event.relay.iter().map(|relay| &relay.event);
    relays.chain(event.reply.iter().chain(outcomes).map(|reply| &reply.event))
}
