//! CEL rules: a rule is compiled or refused, and gives a result for every payload.
use std::time::SystemTime;

use super::texts;
use roomcast::contract::rule::{MAX_RULE_BYTES, Rule};
use roomcast::contract::scope::Scope;
use roomcast::user::User;
use serde_json::Value;

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some([text, payload]) = texts(input) else { return };
    let Ok(rule) = Rule::compile(text) else { return };
    assert!(text.len() <= MAX_RULE_BYTES);
    let payload: Value = serde_json::from_str(payload).unwrap_or(Value::Null);
    let user = User::anonymous();
    let scope = Scope {
        room: Some("room-1"),
        rooms: &["room-1".to_owned()],
        owner: Some("ada"),
        ..Scope::new(&user, &payload, SystemTime::UNIX_EPOCH)
    };
    assert_eq!(rule.holds(&scope), rule.holds(&scope));
}
