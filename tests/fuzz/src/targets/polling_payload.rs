//! Bodies of POST requests and payloads of polls: no message is lost, whatever the bytes are.

use bytes::{Bytes, BytesMut};
use roomcast::engine::native::frame;
use roomcast::engine::native::packet::{EngineMessage, Packet};
use roomcast::engine::native::payload::{Posted, from_polling, payload, to_polling};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let messages: Vec<Bytes> = Posted::new(Bytes::copy_from_slice(bytes)).collect();
    assert_eq!(messages.join(&0x1e), bytes);
    for message in &messages {
        if let Ok(text) = std::str::from_utf8(message)
            && let Ok(EngineMessage::Packet(text)) = EngineMessage::read(text)
        {
            let _ = Packet::read(text);
        }
    }
    // The messages are also written as the attachments of one packet of the node.
    let mut packet = BytesMut::new();
    frame::put_message(&mut packet, true, &[b"451-[]"], None);
    messages.iter().for_each(|message| frame::put_message(&mut packet, false, &[message], None));
    let packet = packet.freeze();
    assert_eq!(from_polling(&to_polling(&packet)), packet);
    let told = payload(&[to_polling(&packet)]);
    assert_eq!(told, payload(std::slice::from_ref(&packet)));
    let back: Vec<Bytes> = Posted::new(told).skip(1).collect();
    assert_eq!(back.len(), messages.len());
    for (text, message) in back.iter().zip(&messages) {
        let text = std::str::from_utf8(text).expect("base64 is text");
        assert_eq!(EngineMessage::read(text), Ok(EngineMessage::Binary(message.to_vec())));
    }
    // The functions that walk over frames must also accept bytes that are not frames.
    frame::messages(bytes).count();
    let _ = frame::only_text(&Bytes::copy_from_slice(bytes));
}
