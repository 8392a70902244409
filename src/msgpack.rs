//! JSON with binary attachments as MessagePack, and back.
//!
//! MessagePack is used by clients with `socket.io-msgpack-parser`, and in Socket.IO's messages over Redis. Inside the
//! node, a payload is always JSON text with attachments.

mod read;
mod write;

pub use read::{Json, MsgpackReader, Token};
pub use write::{put_binary, put_count, put_json, put_map, put_names, put_text};

/// Maximum depth of nested arrays and maps that are read.
pub const MAX_DEPTH: usize = 120;

/// Why MessagePack or JSON cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The bytes are not MessagePack, or the text is not JSON.
    #[error("the message is malformed")]
    Malformed,
    /// The value is nested deeper than [`MAX_DEPTH`], has more than 1024 binary values, or its JSON is too long.
    #[error("the message is too long, is nested too deeply, or has too many attachments")]
    TooLarge,
    /// The message contains an extension type that has no equivalent in JSON.
    #[error("the message has an extension type that JSON does not have")]
    Extension,
    /// The message contains NaN or infinity, which JSON does not have.
    #[error("the message has a number that JSON does not have (NaN or infinity)")]
    NotANumber,
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// A test value: any JSON with placeholders of two attachments.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-100i64..100).prop_map(Value::from),
            // For fractions other than eighths, serde_json may read the last digit differently.
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            ".{0,40}".prop_map(Value::from),
            (0..2).prop_map(|number| serde_json::json!({ "_placeholder": true, "num": number })),
        ];
        leaf.prop_recursive(4, 40, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                proptest::collection::vec((".{0,12}", inner), 0..20).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    fn attachments() -> Vec<Bytes> {
        vec![Bytes::from_static(b"a"), Bytes::from(vec![7; 300])]
    }

    /// Returns the value with attachments instead of their placeholders, and with floats that have no fraction as
    /// integers.
    fn meant(value: &Value, attachments: &[Bytes]) -> Value {
        match value {
            Value::Object(map) if map.get("_placeholder") == Some(&Value::Bool(true)) => {
                let number = map["num"].as_u64().unwrap() as usize;
                Value::from(attachments[number].to_vec())
            }
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), meant(value, attachments))).collect(),
            Value::Array(items) => items.iter().map(|value| meant(value, attachments)).collect(),
            Value::Number(number) if number.is_f64() => {
                let float = number.as_f64().unwrap();
                // JavaScript writes an integer without a fraction.
                if float.fract() == 0.0 && float.abs() < 9e15 { Value::from(float as i64) } else { value.clone() }
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in value()) {
            let sent = attachments();
            let mut out = BytesMut::new();
            put_json(&mut out, &value.to_string(), &sent).unwrap();
            let mut reader = MsgpackReader::new(out.freeze());
            let mut json = Json::exact(usize::MAX);
            reader.json(&mut json, 0).unwrap();
            prop_assert!(reader.is_at_end());
            let (text, got) = json.finish();
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(meant(&read, &got), meant(&value, &sent));
        }

        #[test]
        fn what_is_written_is_read_by_the_reference(value in value()) {
            let mut out = BytesMut::new();
            // Without attachments, placeholders stay unchanged.
            put_json(&mut out, &value.to_string(), &[]).unwrap();
            let read: Value = rmp_serde::from_slice(&out).unwrap();
            prop_assert_eq!(read, value);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let skipped = MsgpackReader::new(bytes.clone()).skip();
            let mut json = Json::default();
            if MsgpackReader::new(bytes).json(&mut json, 0).is_ok() {
                prop_assert_eq!(skipped, Ok(()));
                prop_assert!(serde_json::from_str::<Value>(&json.finish().0).is_ok());
            }
        }

        #[test]
        fn any_text_is_written_or_refused(text in r#"[\[\]{}":,0-9e.\\uda-]{0,40}"#) {
            let mut out = BytesMut::new();
            if put_json(&mut out, &text, &[]).is_ok() {
                let mut reader = MsgpackReader::new(out.freeze());
                prop_assert_eq!(reader.skip(), Ok(()));
                prop_assert!(reader.is_at_end());
            }
        }
    }
}
