//! Converts the arguments of an event to its payload, and the payload of a backend to what clients get.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::json_object::JsonObject;
use super::model::{PayloadShape, RoomRef, ServerEvent};
use super::scope::Scope;
use super::template::Template;
use crate::error::{Code, Refusal};

impl PayloadShape {
    /// Returns the payload of an event: the arguments under their names, or the first argument. A bare value becomes an
    /// object with the shorthand's member. A missing payload becomes the default, or `Null`.
    ///
    /// # Errors
    /// Returns `INVALID_PAYLOAD`, with a message that names the position in the payload and never the value.
    pub fn payload(&self, args: &[&RawValue]) -> Result<Value, Refusal> {
        let payload = if self.args.is_empty() { self.first(args)? } else { self.named(args)? };
        if let Some(schema) = &self.schema {
            schema.check(&payload).map_err(|problem| refuse(&payload, problem))?;
        }
        Ok(payload)
    }

    /// Returns the payload as JSON text, with the members that [`PayloadShape::payload`] returns. The client's values
    /// are copied as text, so that numbers keep their digits. `payload` is the decoded payload, used if the client sent
    /// none.
    pub fn raw(&self, args: &[&RawValue], payload: &Value) -> Option<Box<RawValue>> {
        if self.args.is_empty() {
            return match (args.first().filter(|arg| arg.get() != "null"), &self.shorthand) {
                (None, _) => to_raw_value(payload).ok(),
                (Some(arg), Some(name)) if !arg.get().starts_with(['{', '[']) => {
                    let mut members = JsonObject::default();
                    members.set_raw(name, arg);
                    members.to_raw()
                }
                (Some(arg), _) => Some((*arg).to_owned()),
            };
        }
        let default = self.default.as_ref().and_then(Value::as_object);
        let mut members = JsonObject::of(default.into_iter().flatten());
        for (name, arg) in self.args.iter().zip(args) {
            members.set_raw(name, arg);
        }
        members.to_raw()
    }

    fn first(&self, args: &[&RawValue]) -> Result<Value, Refusal> {
        let payload = args.first().map_or(Ok(Value::Null), |arg| decode(arg))?;
        Ok(match (payload, &self.shorthand) {
            (Value::Null, _) => self.default.clone().unwrap_or(Value::Null),
            (bare @ (Value::String(_) | Value::Number(_) | Value::Bool(_)), Some(name)) => {
                Value::Object(Map::from_iter([(name.clone(), bare)]))
            }
            (payload, _) => payload,
        })
    }

    fn named(&self, args: &[&RawValue]) -> Result<Value, Refusal> {
        let mut members = match &self.default {
            Some(Value::Object(members)) => members.clone(),
            _ => Map::new(),
        };
        for (name, arg) in self.args.iter().zip(args) {
            members.insert(name.clone(), decode(arg)?);
        }
        Ok(Value::Object(members))
    }
}

fn decode(arg: &RawValue) -> Result<Value, Refusal> {
    // The text is known to be JSON. Only its depth can still be an error.
    crate::json::read(arg.get())
        .map_err(|_| Refusal::new(Code::InvalidPayload, "the payload is nested too deeply or not JSON"))
}

fn refuse(payload: &Value, problem: String) -> Refusal {
    let problem = if payload.is_null() { "the payload is missing".to_owned() } else { problem };
    Refusal::new(Code::InvalidPayload, problem)
}

/// A backend's payload as clients get it.
#[derive(Debug, Default)]
pub struct Accepted {
    /// The payload.
    pub payload: Value,
    /// The text of the payload, if members were filled in. The backend's own members keep their text.
    pub text: Option<Box<RawValue>>,
}

impl ServerEvent {
    /// The payload as clients get it: fills in the members that the backend left out, then checks the schema.
    ///
    /// Placeholders of the fill-ins see `data` as the payload. `scope.text` is the text of `data`. Everything else
    /// comes from `scope`.
    ///
    /// # Errors
    /// Returns `INVALID_PAYLOAD`, with a message that names the position in the payload and never the value.
    pub fn accept(&self, data: Value, scope: &Scope<'_>) -> Result<Accepted, Refusal> {
        let accepted = match &self.fill {
            Some(fill) => fill_in(data, fill, scope)?,
            None => Accepted { payload: data, text: None },
        };
        if let Some(schema) = &self.schema {
            schema.check(&accepted.payload).map_err(|problem| refuse(&accepted.payload, problem))?;
        }
        Ok(accepted)
    }

    /// Whether any rule, schema or template reads the payload. If not, its bytes may be passed on unchanged.
    pub fn reads_payload(&self) -> bool {
        self.schema.is_some() || self.fill.is_some() || self.rooms.iter().any(RoomRef::reads_payload)
    }

    /// Whether the event goes to all clients in the namespace. That is so only if the contract names no rooms. If it
    /// names rooms and all of them were left out, the event is not sent to everyone.
    pub fn to_everyone(&self) -> bool {
        self.rooms.is_empty()
    }
}

/// Adds members that are missing at the top level of an object. A missing payload becomes an object; every other
/// payload stays unchanged.
fn fill_in(data: Value, fill: &Template, scope: &Scope<'_>) -> Result<Accepted, Refusal> {
    let given = match &data {
        Value::Object(given) => Some(given),
        Value::Null => None,
        _ => return Ok(Accepted { payload: data, text: None }),
    };
    let mut missing = fill.members(&Scope { payload: &data, ..scope.clone() });
    missing.retain(|(name, _)| given.is_none_or(|given| !given.contains_key(*name)));
    if given.is_some() && missing.is_empty() {
        return Ok(Accepted { payload: data, text: None });
    }
    let sent = scope.text.filter(|_| given.is_some()).and_then(|text| JsonObject::read(text, &data));
    let mut members = sent.unwrap_or_else(|| JsonObject::of(given.into_iter().flatten()));
    missing.iter().for_each(|(name, value)| members.set_raw(name, value));
    let text = members.to_raw();
    let mut payload = match data {
        Value::Object(given) => given,
        _ => Map::new(),
    };
    for (name, value) in missing {
        payload.insert(name.to_owned(), decode(&value)?);
    }
    Ok(Accepted { payload: Value::Object(payload), text })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::contract::schema::Schema;
    use crate::time::iso8601;
    use crate::user::User;

    fn payload(shape: &PayloadShape, args: &[&str]) -> Result<Value, String> {
        let raw: Vec<Box<RawValue>> = args.iter().map(|a| RawValue::from_string((*a).to_owned()).unwrap()).collect();
        shape.payload(&raw.iter().map(AsRef::as_ref).collect::<Vec<_>>()).map_err(|refusal| refusal.to_string())
    }

    fn schema(value: Value) -> Option<Schema> {
        Some(Schema::compile(&value).unwrap())
    }

    #[test]
    fn bare_value_stands_for_an_object() {
        let shape = PayloadShape { shorthand: Some("id".into()), ..PayloadShape::default() };
        assert_eq!(payload(&shape, &[r#""x""#]), Ok(json!({ "id": "x" })));
        assert_eq!(payload(&shape, &["7"]), Ok(json!({ "id": 7 })));
        assert_eq!(payload(&shape, &[r#"{"id":"x","more":1}"#]), Ok(json!({ "id": "x", "more": 1 })));
        assert_eq!(payload(&shape, &["[1]"]), Ok(json!([1])));
        assert_eq!(payload(&shape, &[]), Ok(Value::Null));
    }

    #[test]
    fn default_stands_in_for_a_payload_that_is_missing() {
        let shape = PayloadShape { default: Some(json!({})), ..PayloadShape::default() };
        assert_eq!(payload(&shape, &[]), Ok(json!({})));
        assert_eq!(payload(&shape, &["null"]), Ok(json!({})));
    }

    #[test]
    fn arguments_get_their_names() {
        let shape = PayloadShape {
            args: vec!["room".into(), "text".into()],
            schema: schema(json!({ "required": ["room", "text"] })),
            ..PayloadShape::default()
        };
        assert_eq!(payload(&shape, &[r#""r""#, r#""hi""#, "1"]), Ok(json!({ "room": "r", "text": "hi" })));
        assert_eq!(payload(&shape, &[r#""r""#]), Err("INVALID_PAYLOAD: payload.text is missing".into()));
    }

    #[test]
    fn refusal_names_the_place_and_not_the_value() {
        let shape = PayloadShape {
            schema: schema(
                json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } } }),
            ),
            ..PayloadShape::default()
        };
        assert_eq!(payload(&shape, &[]), Err("INVALID_PAYLOAD: the payload is missing".into()));
        assert_eq!(
            payload(&shape, &[r#"{"id":31337}"#]),
            Err("INVALID_PAYLOAD: payload.id must be of type string".into())
        );
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert!(payload(&shape, &[&deep]).is_err());
    }

    fn event(fill: Option<Value>, schema: Option<Schema>) -> ServerEvent {
        ServerEvent {
            name: "e".into(),
            rooms: Vec::new(),
            schema,
            fill: fill.map(|fill| Template::compile(fill).unwrap()),
            throttle: None,
            flush: false,
            terminal: false,
            volatile: false,
            slow: Default::default(),
        }
    }

    #[test]
    fn only_what_is_missing_is_filled_in() {
        let event = event(
            Some(json!({ "status": "done", "timestamp": "{now}", "id": "{event.id}", "copy": "{payload.a}" })),
            schema(json!({ "required": ["status", "timestamp"] })),
        );
        let user = User::anonymous();
        let scope = Scope::new(&user, &Value::Null, SystemTime::UNIX_EPOCH);
        let accepted = event.accept(json!({ "a": 1, "timestamp": "then", "status": null }), &scope).unwrap().payload;
        assert_eq!(accepted, json!({ "a": 1, "timestamp": "then", "status": null, "id": scope.event_id(), "copy": 1 }));
        let filled = event.accept(Value::Null, &scope).unwrap().payload;
        assert_eq!(filled, json!({ "status": "done", "timestamp": iso8601(scope.now), "id": scope.event_id() }));
        let list = event.accept(json!([1]), &scope).unwrap();
        assert!(list.payload == json!([1]) && list.text.is_none());
        assert!(event.reads_payload());
    }

    #[test]
    fn members_that_are_filled_in_from_the_payload_keep_their_digits() {
        let event = event(Some(json!({ "copy": "{payload.price}", "note": "{payload.id}!", "price": 0 })), None);
        let sent: &RawValue =
            serde_json::from_str(r#"{"price": 1.50,"id":123456789012345678901234567890,"n":-0}"#).unwrap();
        let user = User::anonymous();
        let scope = Scope { text: Some(sent), ..Scope::new(&user, &Value::Null, SystemTime::UNIX_EPOCH) };
        let accepted = event.accept(crate::json::read(sent.get()).unwrap(), &scope).unwrap();
        assert_eq!(
            accepted.text.unwrap().get(),
            r#"{"price":1.50,"id":123456789012345678901234567890,"n":-0,"copy":1.50,"note":"123456789012345678901234567890!"}"#
        );
        assert_eq!(accepted.payload["copy"], json!(1.5));
    }

    #[test]
    fn event_that_asks_nothing_lets_the_bytes_pass() {
        assert!(!event(None, None).reads_payload());
        assert!(event(None, schema(json!({}))).reads_payload());
    }
}
