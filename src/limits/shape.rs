//! Limits on the shape of an event: its name, depth and attachments. The engine limits the total size as it reads.

use crate::config;
use crate::error::{Code, Refusal};
use crate::event::Event;

/// Limits on one event, and on the rooms of its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Maximum length of an event's name, in bytes.
    pub max_event_name: usize,
    /// Maximum nesting of arrays and objects, the event's own array included.
    pub max_depth: usize,
    /// Maximum number of binary attachments of one event.
    pub max_attachments: usize,
    /// Maximum size of one attachment, in bytes.
    pub max_attachment: usize,
    /// Maximum number of rooms of one socket, without the room that each socket has for itself.
    pub max_rooms: usize,
    /// Maximum length of a room's name, in bytes.
    pub max_room_name: usize,
}

impl From<&config::LimitsSettings> for Shape {
    fn from(config: &config::LimitsSettings) -> Self {
        Self {
            max_event_name: config.max_event_name,
            max_depth: config.max_depth,
            max_attachments: config.max_attachments,
            max_attachment: config.max_attachment.as_usize(),
            max_rooms: config.max_rooms_per_socket,
            max_room_name: config.max_room_name,
        }
    }
}

impl Shape {
    /// Checks an event without parsing it.
    ///
    /// # Errors
    /// Returns `TOO_LARGE`, with the limit.
    pub fn check(&self, event: &Event) -> Result<(), Refusal> {
        let too_large = |text: String| Err(Refusal::new(Code::TooLarge, text));
        if event.name().len() > self.max_event_name {
            return too_large(format!("the event's name is longer than {} bytes", self.max_event_name));
        }
        let attachments = event.attachments();
        if attachments.len() > self.max_attachments {
            return too_large(format!("the event has more than {} attachments", self.max_attachments));
        }
        if attachments.iter().any(|bytes| bytes.len() > self.max_attachment) {
            return too_large(format!("an attachment is longer than {} bytes", self.max_attachment));
        }
        if deeper_than(event.text(), self.max_depth) {
            return too_large(format!("the event's JSON is deeper than {} levels", self.max_depth));
        }
        Ok(())
    }

    /// Checks that a socket in `present` rooms may join `more` rooms.
    ///
    /// # Errors
    /// Returns `TOO_LARGE`, with the limit.
    pub fn check_rooms(&self, present: usize, more: usize) -> Result<(), Refusal> {
        if more == 0 || present + more <= self.max_rooms {
            return Ok(());
        }
        let text = format!("a socket may be in {} rooms; leave one first", self.max_rooms);
        Err(Refusal::new(Code::TooLarge, text))
    }
}

/// Whether the arrays and objects of a JSON text are nested deeper than `most` levels. For text that is not JSON the
/// answer has no meaning.
pub fn deeper_than(text: &str, most: usize) -> bool {
    // A text with at most `most` opening brackets cannot be nested deeper, and most events have few brackets.
    if memchr::memchr2_iter(b'[', b'{', text.as_bytes()).take(most + 1).count() <= most {
        return false;
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn shape() -> Shape {
        Shape { max_attachment: 100, ..Shape::from(&config::LimitsSettings::default()) }
    }

    fn event(text: &str) -> Event {
        Event::from_wire(text.into(), Vec::new()).unwrap()
    }

    fn nested(depth: usize) -> Event {
        event(&format!(r#"["e",{}1{}]"#, r#"{"a":"#.repeat(depth - 1), "}".repeat(depth - 1)))
    }

    fn refused(event: &Event) -> bool {
        match shape().check(event) {
            Ok(()) => false,
            Err(refusal) => {
                assert_eq!(refusal.code, Code::TooLarge);
                true
            }
        }
    }

    #[test]
    fn name_is_bounded() {
        let named = |length: usize| event(&format!(r#"["{}"]"#, "x".repeat(length)));
        let most = shape().max_event_name;
        assert_eq!((refused(&named(most)), refused(&named(most + 1))), (false, true));
    }

    #[test]
    fn depth_is_bounded_and_text_is_not_taken_for_it() {
        let most = shape().max_depth;
        assert_eq!((refused(&nested(most)), refused(&nested(most + 1))), (false, true));
        let text = format!(r#"["e","{}\"{}"]"#, "[".repeat(1000), "{".repeat(1000));
        assert!(!refused(&event(&text)));
        assert!(!refused(&event(&format!(r#"["e"{}]"#, ",[]".repeat(1000)))), "wide is not deep");
    }

    #[test]
    fn attachments_are_bounded_in_number_and_size() {
        let with =
            |count: usize, bytes: usize| event(r#"["e"]"#).with_attachments(vec![Bytes::from(vec![0; bytes]); count]);
        let most = shape().max_attachments;
        assert_eq!((refused(&with(most, 1)), refused(&with(most + 1, 1))), (false, true));
        assert_eq!((refused(&with(1, 100)), refused(&with(1, 101))), (false, true));
    }

    #[test]
    fn rooms_are_bounded() {
        let shape = shape();
        assert!(shape.check_rooms(shape.max_rooms - 2, 2).is_ok());
        assert!(shape.check_rooms(shape.max_rooms - 1, 2).is_err());
        assert!(shape.check_rooms(shape.max_rooms + 9, 0).is_ok());
    }

    proptest! {
        #[test]
        fn depth_is_that_of_the_parser(text in r#"[\[\]{}":,a\\1]{0,24}"#, most in 1usize..6) {
            fn depth(value: &serde_json::Value) -> usize {
                match value {
                    serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
                    serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
                    _ => 0,
                }
            }
            let judged = deeper_than(&text, most);
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(judged, depth(&value) > most);
            }
        }
    }
}
