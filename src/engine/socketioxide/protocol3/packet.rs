//! Translates the packets that differ between Engine.IO 3 and the library. Each is an Engine.IO packet with its type,
//! as a text.

use serde_json::{Map, Value};

use crate::query;

/// The maximum length of a packet that connects or refuses a client, in bytes. A longer one is not translated: the
/// library then refuses the namespace, which has a query in its name.
pub(super) const MAX_TRANSLATED: usize = 16 * 1024;

/// The beginning of a packet that connects to a namespace with a name.
pub(super) const CONNECT: &str = "40/";

/// The beginning of a packet that refuses a client.
pub(super) const ERROR: &str = "44";

/// The beginning of an attachment in base64.
const ATTACHMENT: &str = "b";

/// The refusal that is an object in Node.js, too.
const INVALID_NAMESPACE: &str = "Invalid namespace";

/// Translates a packet of a client. `None`: it stays as it is.
pub(super) fn from_client(packet: &str) -> Option<String> {
    let rest = packet.strip_prefix(CONNECT).filter(|_| packet.len() <= MAX_TRANSLATED)?;
    let (name, _) = rest.split_once(',').unwrap_or((rest, ""));
    let (path, query) = name.split_once('?')?;
    let mut auth = Map::new();
    for (name, value) in query::pairs(query) {
        let value = Value::from(query::decode(value));
        match auth.entry(query::decode(name)) {
            serde_json::map::Entry::Vacant(entry) => drop(entry.insert(value)),
            serde_json::map::Entry::Occupied(mut entry) => repeat(entry.get_mut(), value),
        }
    }
    Some(format!("{CONNECT}{path},{}", Value::from(auth)))
}

/// Adds a value to a query parameter that has a value already. As in Node.js, the values become a list.
fn repeat(values: &mut Value, value: Value) {
    match values {
        Value::Array(values) => values.push(value),
        first => *first = Value::from(vec![first.take(), value]),
    }
}

/// Translates a packet of the library. `None`: it stays as it is.
pub(super) fn to_client(packet: &str) -> Option<String> {
    error(packet).or_else(|| attachment(packet))
}

/// An ERROR packet with its message as a text.
fn error(packet: &str) -> Option<String> {
    let object = packet.strip_prefix(ERROR)?.find('{')? + ERROR.len();
    let (head, object) = packet.split_at(object);
    let message: Message<'_> = serde_json::from_str(object).ok()?;
    (message.message != INVALID_NAMESPACE).then(|| format!("{head}{}", Value::from(message.message)))
}

/// The object with which the library refuses a client.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow)]
    message: std::borrow::Cow<'a, str>,
}

/// Translates an attachment: adds the type of its packet.
fn attachment(packet: &str) -> Option<String> {
    let base64 = packet.strip_prefix(ATTACHMENT)?;
    // The length of base64 is a multiple of four, unless the type stands before it already.
    base64.len().is_multiple_of(4).then(|| format!("{ATTACHMENT}4{base64}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_of_a_namespace_becomes_the_auth_of_its_packet() {
        for (packet, translated) in [
            ("40/chat?token=a.b-c&x=1,", r#"40/chat,{"token":"a.b-c","x":"1"}"#),
            ("40/chat?token=a", r#"40/chat,{"token":"a"}"#),
            ("40/chat?to%6ben=q%2Bx+%22&empty", r#"40/chat,{"token":"q+x \"","empty":""}"#),
            ("40/chat?a=1&a=2&a=3,", r#"40/chat,{"a":["1","2","3"]}"#),
            ("40/chat?,", "40/chat,{}"),
            ("40/?token=a,", r#"40/,{"token":"a"}"#),
        ] {
            assert_eq!(from_client(packet).as_deref(), Some(translated), "{packet}");
        }
        let long = format!("40/chat?{},", "a&".repeat(MAX_TRANSLATED / 2));
        assert_eq!(from_client(&long), None);
        for packet in ["40", "40/chat,", "40/chat", r#"42/chat,["a?b"]"#, "41/chat?x,", "2probe", "", "b4AAAA", "4é"] {
            assert_eq!(from_client(packet), None, "{packet}");
        }
    }

    #[test]
    fn refusal_becomes_a_text() {
        assert_eq!(to_client(r#"44{"message":"CODE: \"x\""}"#).as_deref(), Some(r#"44"CODE: \"x\"""#));
        assert_eq!(to_client(r#"44/chat,{"message":"é"}"#).as_deref(), Some(r#"44/chat,"é""#));
        for packet in [r#"44/chat,{"message":"Invalid namespace"}"#, "44", r#"44{"message":1}"#, "40", r#"42["44{"]"#] {
            assert_eq!(to_client(packet), None, "{packet}");
        }
    }

    #[test]
    fn attachment_gets_its_type() {
        assert_eq!(to_client("bAAH/").as_deref(), Some("b4AAH/"));
        assert_eq!(to_client("b4AAA").as_deref(), Some("b44AAA"));
        assert_eq!(to_client("b").as_deref(), Some("b4"), "an empty attachment");
        assert_eq!(to_client("b4AAH/"), None);
    }
}
