//! Room names: a template recognises every name that it makes, with the same variables.
use std::time::SystemTime;

use super::texts;
use roomcast::contract::room_name::RoomTemplate;
use roomcast::contract::scope::Scope;
use roomcast::user::User;
use serde_json::{Map, Value};

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some([text, chars, name, values]) = texts(input) else { return };
    let Ok(template) = RoomTemplate::compile(text, chars) else { return };
    if let Some(vars) = template.matches(name) {
        assert_eq!(template.fill(&vars).as_deref(), Some(name));
    }
    let mut payload = Map::new();
    for (variable, value) in template.variables().zip(values.split('\n')) {
        payload.insert(variable.to_owned(), Value::from(value));
    }
    let (user, payload) = (User::anonymous(), Value::Object(payload));
    let scope = Scope::new(&user, &payload, SystemTime::UNIX_EPOCH);
    if let Ok((name, vars)) = template.render(&[], &scope) {
        assert_eq!(template.matches(&name), Some(vars), "{name:?} of {text:?}");
    }
}
