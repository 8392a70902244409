//! JSON templates: compiling any template, and filling it from any values, never panics.
use std::time::SystemTime;

use super::texts;
use roomcast::contract::scope::{Scope, SocketScope};
use roomcast::contract::template::Template;
use roomcast::user::User;
use serde_json::Value;

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some([template, payload]) = texts(input) else { return };
    let Ok(template) = serde_json::from_str(template) else { return };
    let Ok(template) = Template::compile(template) else { return };
    let payload: Value = serde_json::from_str(payload).unwrap_or(Value::Null);
    let user = User::anonymous();
    let now = SystemTime::UNIX_EPOCH;
    let scope = Scope {
        params: &payload,
        socket: Some(SocketScope { id: "socket", connected_at: now, state: None }),
        room: Some("room"),
        ..Scope::new(&user, &payload, now)
    };
    let written = || serde_json::to_string(&template.render(&scope)).unwrap();
    assert_eq!(written(), written());
    assert!(template.paths().iter().all(|(_, path)| !path.text().is_empty()));
}
