//! Finds an example in the contracts: an event with which a client joins a room, and an event for that room.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::sample::sample;
use super::{Example, TRYING_ROLES, TRYING_USER};
use crate::contract::embedded;
use crate::contract::model::{ANY_EVENT, ClientEvent, Contract, Namespace, RoomRef, ServerEvent};
use crate::contract::scope::Scope;
use crate::user::User;

/// The first example that the contracts accept from development mode's user. A plain emit if there is none.
pub fn example(namespaces: &[Arc<Namespace>]) -> Example {
    let found = namespaces.iter().find_map(|namespace| {
        namespace.contracts.iter().find_map(|contract| Trial::new(namespace, contract).example())
    });
    found.unwrap_or_else(|| {
        let namespace = namespaces.first().map_or("/", |namespace| &namespace.path).to_owned();
        let request = json!({ "namespace": namespace, "event": "hello", "args": [{ "from": "curl" }] });
        Example { namespace, subscribe: None, route: "/api/v1/emit", request }
    })
}

/// One contract, and the user of the example.
struct Trial<'c> {
    namespace: &'c Namespace,
    contract: &'c Contract,
    /// The contract's file as written, because compiled schemas do not contain their source.
    file: Value,
    user: User,
    now: SystemTime,
}

impl<'c> Trial<'c> {
    fn new(namespace: &'c Namespace, contract: &'c Contract) -> Self {
        let user = User { roles: TRYING_ROLES.map(str::to_owned).into(), ..User::named(TRYING_USER) };
        Self { namespace, contract, file: file(contract), user, now: SystemTime::now() }
    }

    fn example(&self) -> Option<Example> {
        self.contract.client.values().find_map(|event| {
            let (room, payload) = self.joins(event)?;
            let (server, data) =
                self.contract.server.values().find_map(|server| Some((server, self.reaches(server, &room)?)))?;
            let request = json!({ "contract": &*self.contract.name, "event": server.name, "data": data });
            Some(Example {
                namespace: self.contract.namespace.to_string(),
                subscribe: Some((event.name.clone(), payload)),
                route: "/api/v1/events",
                request,
            })
        })
    }

    fn scope<'s>(&'s self, payload: &'s Value) -> Scope<'s> {
        Scope::new(&self.user, payload, self.now)
    }

    /// The room that the user joins with this event alone, and the payload for it.
    fn joins(&self, event: &ClientEvent) -> Option<(String, Value)> {
        if event.name == ANY_EVENT || event.call.is_some() || !event.payload.args.is_empty() {
            return None;
        }
        let sent = self.sample(&["client", &event.name, "payload", "schema"]).unwrap_or_default();
        let raw = to_raw_value(&sent).ok()?;
        let payload = event.payload.payload(&if sent.is_null() { Vec::new() } else { vec![&*raw] }).ok()?;
        let scope = self.scope(&payload);
        let mut applying = event.join.iter().filter(|room| room.when.as_ref().is_none_or(|rule| rule.holds(&scope)));
        let (Some(room), None) = (applying.next(), applying.next()) else { return None };
        let (name, vars) = self.name(room, &scope).filter(|_| room.room.call.is_none())?;
        let scope = Scope { room: Some(&name), vars: &vars, ..scope.clone() };
        let permits = [&event.require, &room.room.join].into_iter().flatten().all(|rule| rule.holds(&scope));
        permits.then_some((name, sent))
    }

    /// The payload with which a backend's event reaches the room.
    fn reaches(&self, event: &ServerEvent, room: &str) -> Option<Value> {
        let data = self.sample(&["server", &event.name, "schema"])?;
        let filled = event.accept(data.clone(), &self.scope(&data)).ok()?.payload;
        let scope = self.scope(&filled);
        event.rooms.iter().filter_map(|room| self.name(room, &scope)).any(|(name, _)| name == room).then_some(data)
    }

    fn name(&self, room: &RoomRef, scope: &Scope<'_>) -> Option<(String, Vec<(String, String)>)> {
        if room.when.as_ref().is_some_and(|rule| !rule.holds(scope)) {
            return None;
        }
        let (name, vars) = room.room.name.render(&room.with, scope).ok()?;
        self.namespace.check_taken(&room.room, &name).ok()?;
        Some((name, vars))
    }

    /// A value for the schema at this key path of the file. `None` without a schema.
    fn sample(&self, place: &[&str]) -> Option<Value> {
        place.iter().try_fold(&self.file, |value, key| value.get(key)).map(sample)
    }
}

fn file(contract: &Contract) -> Value {
    let text = match contract.source.strip_prefix("embedded:") {
        Some(name) => embedded::text(name).map(str::to_owned),
        None => std::fs::read_to_string(&contract.source).ok(),
    };
    text.and_then(|text| toml::from_str(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::load::{Source, load, load_sources};

    fn of(text: &str) -> Example {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let source = Source { name: file.to_str().unwrap().into(), text: text.into() };
        let namespaces = load_sources(vec![source]).unwrap_or_else(|report| panic!("{report}"));
        example(&namespaces.into_iter().map(Arc::new).collect::<Vec<_>>())
    }

    const HEAD: &str = "name = \"t\"\nnamespace = \"/t\"\nsummary = \"t\"\n";

    #[test]
    fn every_contract_of_the_binary_offers_something_to_try() {
        for (name, _) in embedded::CONTRACTS {
            let namespaces = load(&[format!("embedded:{name}")]).unwrap_or_else(|report| panic!("{report}"));
            let found = example(&namespaces.into_iter().map(Arc::new).collect::<Vec<_>>());
            assert_eq!((found.route, found.subscribe.is_some()), ("/api/v1/events", true), "{name}: {found:?}");
        }
    }

    #[test]
    fn example_is_of_a_room_that_the_user_may_join() {
        let text = format!(
            "{HEAD}[auth]\nmode = \"required\"\n[rooms.closed]\nname = \"closed\"\njoin = \"false\"\n[rooms.item]\nname = \"item:{{id}}\"\n\
             [client.enter]\njoin = \"closed\"\n\
             [client.watch]\npayload = {{ shorthand = \"id\", schema = {{ type = \"object\", required = [\"id\"], properties = {{ id = {{ type = \"string\" }} }} }} }}\njoin = \"item\"\n\
             [server.shut]\nrooms = [\"closed\"]\n\
             [server.moved]\nrooms = [\"item\"]\nschema = {{ type = \"object\", required = [\"id\", \"n\"], properties = {{ id = {{ type = \"string\" }}, n = {{ type = \"integer\", minimum = 3 }} }} }}\n"
        );
        let example = of(&text);
        assert_eq!(example.subscribe, Some(("watch".into(), json!({ "id": "demo" }))));
        assert_eq!(example.request, json!({ "contract": "t", "event": "moved", "data": { "id": "demo", "n": 3 } }));
        assert_eq!(example.namespace, "/t");
    }

    #[test]
    fn contract_without_rooms_is_tried_with_a_plain_emit() {
        let example = of(&format!("{HEAD}[client.ping]\nreply = {{ event = \"pong\" }}\n"));
        assert_eq!((example.route, example.subscribe), ("/api/v1/emit", None));
        assert_eq!(example.request["namespace"], "/t");
        assert_eq!(super::example(&[]).namespace, "/");
    }
}
