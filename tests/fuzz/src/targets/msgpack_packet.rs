//! Packets of `socket.io-msgpack-parser`: read or refused; what is read is JSON, and is written and read again the
//! same.

use bytes::Bytes;
use roomcast::engine::native::frame;
use roomcast::engine::native::msgpack_packet::{MsgpackPacket, refusal};
use roomcast::engine::native::packet::{self, PacketKind, Parser};
use roomcast::engine::validate::validate;
use roomcast::event::Event;
use roomcast::protocol::MAX_ATTACHMENTS;

const MAX_BYTES: usize = 1 << 16;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let Ok(packet) = MsgpackPacket::read(Bytes::copy_from_slice(bytes)) else { return };
    let (text, attachments) = match packet.json(MAX_BYTES) {
        Ok(json) => json,
        Err(unreadable) => {
            assert!(!refusal(unreadable, MAX_BYTES).message.is_empty());
            let _ = packet.bare_event();
            return;
        }
    };
    assert!(text.len() <= MAX_BYTES && attachments.len() <= MAX_ATTACHMENTS);
    if packet.kind != PacketKind::Event {
        return;
    }
    let Ok(event) = Event::from_wire(text, attachments) else { return };
    assert_eq!(packet.bare_event().expect("it has a name").name(), event.name());
    // A placeholder that the client made up may name no attachment.
    if validate(event.text(), event.attachments().len()).is_err() {
        return;
    }
    let written = packet::event(Parser::MessagePack, &packet.namespace, &event, None);
    let (is_text, message) = frame::messages(&written).next().expect("one message");
    assert!(!is_text);
    let again = MsgpackPacket::read(Bytes::copy_from_slice(message)).expect("what a node writes");
    assert_eq!((again.kind, &again.namespace), (packet.kind, &packet.namespace));
    let (text, attachments) = again.json(usize::MAX).expect("what a node writes");
    // Fractions may differ in their last digit, and made up placeholders in what they stand for.
    let has_exponent = event.text().as_bytes().windows(2).any(|two| two[0].is_ascii_digit() && two[1] == b'e');
    if !event.text().contains('.') && !has_exponent && attachments == event.attachments() {
        assert_eq!(&text, event.text());
    }
}
