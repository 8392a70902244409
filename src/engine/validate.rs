//! Checks whether other clients can parse an event. The node may pass an event on unchanged, and the official client
//! disconnects when it gets a packet that it cannot decode.
//!
//! The check is one pass over the text that builds no values. The text must be JSON; without attachments it must be an
//! array. Every placeholder of a binary attachment must name an attachment that exists (Socket.IO protocol v5, "Packet
//! encoding").

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Checks an event's text against the number of its attachments.
///
/// # Errors
///
/// The JSON is malformed, or a placeholder names no attachment.
pub fn validate(text: &str, attachments: usize) -> Result<(), serde_json::Error> {
    // The official client can parse lone surrogates, so they may be passed on.
    crate::json::with_whole_strings(text, |text| check(text, attachments))
}

fn check(text: &str, attachments: usize) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_seq(Array { attachments })?;
    json.end()
}

/// The arguments of an event or of an acknowledgement.
struct Array {
    attachments: usize,
}

impl<'de> Visitor<'de> for Array {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.attachments == 0 {
            // Without attachments, an object that looks like a placeholder is ordinary data.
            while items.next_element::<IgnoredAny>()?.is_some() {}
        } else {
            while items.next_element_seed(Check { attachments: self.attachments })?.is_some() {}
        }
        Ok(())
    }
}

/// Checks a value. The result lets the object around the value recognize a placeholder.
#[derive(Clone, Copy)]
struct Check {
    attachments: usize,
}

enum Found {
    True,
    Number(u64),
    Other,
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(if value { Found::True } else { Found::Other })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        Ok(Found::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found, A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(Found::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let (mut placeholder, mut number) = (false, None);
        while let Some(name) = members.next_key::<Name>()? {
            let found = members.next_value_seed(self)?;
            match (name, found) {
                (Name::Placeholder, found) => placeholder = matches!(found, Found::True),
                (Name::Number, Found::Number(value)) => number = Some(value),
                (Name::Number, _) => number = None,
                _ => {}
            }
        }
        let fits = |number: u64| usize::try_from(number).is_ok_and(|number| number < self.attachments);
        if placeholder && !number.is_some_and(fits) {
            return Err(A::Error::custom("a placeholder names no attachment"));
        }
        Ok(Found::Other)
    }
}

enum Name {
    Placeholder,
    Number,
    Other,
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(match name {
                    "_placeholder" => Name::Placeholder,
                    "num" => Name::Number,
                    _ => Name::Other,
                })
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_clients_can_read_passes() {
        for (text, attachments) in [
            (r#"["e"]"#, 0),
            (r#"["e",{"a":[1,-2,3.5e300,null,true,"é"]}]"#, 0),
            (r#"["e",{"_placeholder":true,"num":9}]"#, 0),
            (r#"["e",{"_placeholder":true,"num":0},[{"num":1,"_placeholder":true}]]"#, 2),
            (r#"["e",{"_placeholder":false,"num":7},{"num":"x"}]"#, 1),
            (r#"["nice \ud83d",{"_placeholder":true,"num":0,"\udc4d":"\ud83d"}]"#, 1),
            (r#"["nice \ud83d","\ud83d"]"#, 0),
        ] {
            assert!(validate(text, attachments).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_would_disconnect_other_clients_does_not() {
        for (text, attachments) in [
            ("", 0),
            (r#"["e""#, 0),
            (r#"["e",{bad]"#, 0),
            (r#"["e"]x"#, 0),
            (r#"{"a":1}"#, 0),
            (r#"{"a":1}"#, 1),
            (r#"{"_placeholder":true,"num":0}"#, 1),
            ("7", 1),
            (r#"["e",{"_placeholder":true,"num":1}]"#, 1),
            (r#"["e",{"_placeholder":true,"num":-1}]"#, 1),
            (r#"["e",{"_placeholder":true,"num":"0"}]"#, 1),
            (r#"["e",[{"x":{"_placeholder":true}}]]"#, 1),
        ] {
            assert!(validate(text, attachments).is_err(), "{text}");
        }
        assert!(validate(&"[".repeat(100_000), 0).is_err());
        assert!(validate(&"[".repeat(100_000), 1).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in ".{0,64}", attachments in 0usize..3) {
            let _ = validate(&text, attachments);
        }
    }
}
