//! Engine.IO messages and Socket.IO packets are parsed or refused, with their events and attachments.
use super::parts;
use roomcast::engine::native::packet::{Assembly, EngineMessage, Packet};
use roomcast::event::Event;

/// Runs the target.
pub fn run(input: &[u8]) {
    let [text, attachments] = parts(input);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let _ = EngineMessage::read(text);
    let Ok(packet) = Packet::read(text) else { return };
    let mut pieces = Vec::new();
    if packet.attachments > 0 {
        let mut assembly = Assembly::of(&packet);
        for attachment in attachments.split(|byte| *byte == b'\n').take(packet.attachments) {
            match assembly.take(attachment, 1 << 16) {
                Ok(true) => pieces = std::mem::take(&mut assembly.attachments),
                Ok(false) => {}
                Err(_) => return,
            }
        }
    }
    if let Ok(event) = Event::from_wire(packet.data.into(), pieces) {
        assert!(event.size_bytes() >= event.text().len());
        let renamed = event.renamed("another");
        assert_eq!(renamed.name(), "another");
        // A name may contain text that is not valid JSON until the arguments are parsed. In that case the event is
        // refused.
        if let Ok(args) = event.args() {
            assert_eq!(renamed.args().map(|args| args.len()).ok(), Some(args.len()));
        }
    }
}
