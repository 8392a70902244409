//! Merges the contracts of one namespace: checks that they agree, and finds the family that a room's name belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use super::document::{Document, KeyPath};
use super::handshake::HandshakePart;
use super::model::{AuthPolicy, ClientEvent, Contract, Namespace, RecoveryPolicy, RoomDef};
use super::report::ContractReport;
use super::room_name::{RoomNameError, Variables};
use super::rule::Rule;

/// The families of rooms of a namespace, the most specific first.
#[derive(Debug, Default)]
pub struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    def: Arc<RoomDef>,
    /// Families with room names that this family must not make.
    rivals: Vec<Arc<RoomDef>>,
}

impl Families {
    fn new(contracts: &[Arc<Contract>]) -> Self {
        let mut families: Vec<Family> = Vec::new();
        for def in contracts.iter().flat_map(|contract| contract.rooms.values()) {
            // Several contracts may declare the same family, if they agree on its rules.
            if !families.iter().any(|family| family.def.name.shape() == def.name.shape()) {
                families.push(Family { def: def.clone(), rivals: Vec::new() });
            }
        }
        let all: Vec<Arc<RoomDef>> = families.iter().map(|family| family.def.clone()).collect();
        for family in &mut families {
            let rival = |other: &&Arc<RoomDef>| {
                other.name.shape() != family.def.name.shape() && !other.name.is_more_general_than(&family.def.name)
            };
            family.rivals = all.iter().filter(rival).cloned().collect();
        }
        families.sort_by_key(|family| {
            (family.def.name.variables().count() > 0, std::cmp::Reverse(family.def.name.literal_bytes()))
        });
        Self(families)
    }
}

impl Namespace {
    /// Merges contracts that agree with each other, as [`super::load`] checks. Where two contracts disagree, the first
    /// one wins.
    pub fn new(path: impl Into<Arc<str>>, contracts: Vec<Arc<Contract>>) -> Self {
        let mut client: HashMap<String, (Arc<Contract>, Arc<ClientEvent>)> = HashMap::new();
        for contract in &contracts {
            for (name, event) in &contract.client {
                client.entry(name.clone()).or_insert_with(|| (contract.clone(), event.clone()));
            }
        }
        Self { path: path.into(), families: Families::new(&contracts), client, contracts }
    }

    /// The authentication settings, which all contracts of the namespace share.
    pub fn auth(&self) -> &AuthPolicy {
        &self.contracts[0].auth
    }

    /// The parts of the handshake that the contracts use.
    pub fn handshake(&self) -> impl Iterator<Item = &HandshakePart> {
        self.contracts.iter().flat_map(|contract| &contract.handshake)
    }

    /// Refuses a name that a general template made and that belongs to rooms with their own rules. For example, a
    /// client that may join `{room}` cannot name `job:1` if there is a family `job:{jobId}`.
    ///
    /// # Errors
    /// [`RoomNameError::Taken`].
    pub fn check_taken(&self, def: &RoomDef, name: &str) -> Result<(), RoomNameError> {
        let shape = def.name.shape();
        let Some(family) = self.families.0.iter().find(|family| family.def.name.shape() == shape) else {
            return Ok(());
        };
        match family.rivals.iter().find(|rival| rival.name.matches(name).is_some()) {
            Some(_) => Err(RoomNameError::Taken),
            None => Ok(()),
        }
    }

    /// The recovery settings of the namespace: the longest window and the largest number of events that its contracts
    /// set.
    pub fn recovery(&self) -> Option<RecoveryPolicy> {
        let policies = self.contracts.iter().filter_map(|contract| contract.recovery);
        policies.reduce(|a, b| RecoveryPolicy { window: a.window.max(b.window), events: a.events.max(b.events) })
    }

    /// The most specific family that a room's name belongs to, and the values of its template's variables.
    pub fn room_of(&self, name: &str) -> Option<(&Arc<RoomDef>, Variables)> {
        self.families.0.iter().find_map(|family| Some((&family.def, family.def.name.matches(name)?)))
    }

    /// Merges the contracts of one namespace. Disagreements are reported.
    pub(super) fn merge(parts: Vec<(Arc<Contract>, Arc<Document>)>, report: &mut ContractReport) -> Self {
        for (at, (contract, document)) in parts.iter().enumerate() {
            let earlier = &parts[..at];
            check_auth(contract, document, earlier, report);
            check_events(contract, document, earlier, report);
            check_rooms(contract, document, earlier, report);
            check_trust(contract, document, &parts, report);
        }
        let path = parts.first().map_or_else(|| "/".into(), |(contract, _)| contract.namespace.clone());
        Self::new(path, parts.into_iter().map(|(contract, _)| contract).collect())
    }
}

type RoomNamePart = (Arc<Contract>, Arc<Document>);

/// The position of the earlier of two conflicting entries, as `other.toml:7`.
fn position_of(document: &Document, key_path: &KeyPath) -> String {
    match document.line(key_path) {
        Some(line) => format!("{}:{line}", document.file),
        None => document.file.clone(),
    }
}

fn check_auth(contract: &Contract, document: &Document, earlier: &[RoomNamePart], report: &mut ContractReport) {
    let Some((first, other)) = earlier.first() else {
        return;
    };
    let (a, b) = (&contract.auth, &first.auth);
    let differs = [
        ("mode", a.mode != b.mode),
        ("tokens", a.tokens != b.tokens),
        ("reject", a.reject != b.reject),
        ("user", a.user != b.user),
        ("roles", a.roles != b.roles),
        ("expiry", a.expiry != b.expiry),
    ];
    for (key, _) in differs.into_iter().filter(|(_, differs)| *differs) {
        let key_path = KeyPath::top("auth").key(key);
        let problem = format!(
            "contracts of one namespace must have the same authentication, but {} has another one in namespace \"{}\"",
            position_of(other, &key_path),
            contract.namespace
        );
        report.push(document.mistake(
            &key_path,
            problem,
            "write the same in both, or give one of them another namespace",
        ));
    }
}

fn check_events(contract: &Contract, document: &Document, earlier: &[RoomNamePart], report: &mut ContractReport) {
    let refresh = contract.auth.expiry.refresh.as_ref();
    let twin = |(other, _): &&RoomNamePart| refresh.is_some_and(|name| other.client.contains_key(name));
    if let (Some(name), Some((_, other))) = (refresh, earlier.iter().find(twin)) {
        let at = position_of(other, &KeyPath::top("client").key(name));
        let problem = format!("{at} has the same event in namespace \"{}\"", contract.namespace);
        report.push(document.mistake(
            &KeyPath::top("auth").key("expiry").key("refresh"),
            problem,
            "rename one of them",
        ));
    }
    for name in contract.client.keys() {
        let Some((_, other)) = earlier.iter().find(|(other, _)| other.client.contains_key(name)) else {
            continue;
        };
        let key_path = KeyPath::top("client").key(name);
        let problem =
            format!("{} has the same event in namespace \"{}\"", position_of(other, &key_path), contract.namespace);
        report.push(document.mistake(&key_path, problem, "rename one of them, or give one contract another namespace"));
    }
}

fn check_rooms(contract: &Contract, document: &Document, earlier: &[RoomNamePart], report: &mut ContractReport) {
    for def in contract.rooms.values() {
        let twin = earlier.iter().find_map(|(other, document)| {
            let twin = other.rooms.values().find(|other| other.name.shape() == def.name.shape())?;
            Some((twin, document))
        });
        let Some((twin, other)) = twin.filter(|(twin, _)| !same_rules(def, twin)) else {
            continue;
        };
        let key_path = KeyPath::top("rooms").key(&def.key);
        let problem = format!(
            "{} has rooms of the same names with other rules in namespace \"{}\"",
            position_of(other, &KeyPath::top("rooms").key(&twin.key)),
            contract.namespace
        );
        report.push(document.mistake(&key_path, problem, "write the same rules in both, or other names"));
    }
}

/// Checks that no rule depends on metadata that a client chooses, unless the contract says that rules may.
fn check_trust(contract: &Contract, document: &Document, all: &[RoomNamePart], report: &mut ContractReport) {
    let joins = contract.rooms.values().map(|def| (KeyPath::top("rooms").key(&def.key).key("join"), def.join.as_ref()));
    let requires = contract
        .client
        .values()
        .map(|def| (KeyPath::top("client").key(&def.name).key("require"), def.require.as_ref()));
    for (key_path, rule) in joins.chain(requires) {
        for member in rule.into_iter().flat_map(Rule::metadata) {
            let chosen = all
                .iter()
                .flat_map(|(other, _)| other.client.values())
                .find(|event| event.metadata.as_ref().is_some_and(|metadata| metadata.is_chosen_by_client(member)));
            let Some(event) = chosen.filter(|_| !contract.client_metadata.contains(member)) else { continue };
            report.push(document.mistake(
                &key_path,
                format!(
                    "clients choose `metadata.{member}` with the event \"{}\", so the rule proves nothing",
                    event.name
                ),
                format!("let a hook set it, or write [metadata.{member}] trust = \"client\""),
            ));
        }
    }
}

/// Whether two families that make the same names have the same rules.
fn same_rules(a: &RoomDef, b: &RoomDef) -> bool {
    // If a rule uses the variables of a template, both templates must give their variables the same names.
    let named = |def: &RoomDef| def.join.as_ref().is_some_and(|rule| rule.room_variables().next().is_some());
    (a.name.text() == b.name.text() || !(named(a) || named(b)))
        && a.name.chars() == b.name.chars()
        && a.join == b.join
        && a.call == b.call
        && a.history == b.history
        && a.presence == b.presence
        && a.idle == b.idle
        && a.linger == b.linger
}
