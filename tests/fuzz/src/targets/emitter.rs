//! Messages of Socket.IO's emitters and servers over Redis: broadcasts and requests are parsed within limits, or
//! refused.

use bytes::Bytes;
use roomcast::cluster::socketio::{
    MAX_ATTACHMENTS, MAX_TARGETS, ReceivedBroadcast, UnusableMessage, decode, encode, parse,
};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = parse(&bytes);
    let Ok(sent) = decode(bytes.clone()) else { return };
    assert!(sent.rooms.len() + sent.except.len() <= MAX_TARGETS);
    assert!(sent.event.attachments().len() <= MAX_ATTACHMENTS);
    serde_json::from_str::<Vec<&serde_json::value::RawValue>>(sent.event.text()).expect("an array for clients");
    // A parsed message can be written for another server, and that server parses the same message.
    let uid = ReceivedBroadcast::open(bytes).expect("the same message").uid;
    let again = match encode(&uid, &sent) {
        Ok(again) => decode(again).expect("what a node writes"),
        // A placeholder that the sender invented refers to an attachment that does not exist.
        Err(refused) => return assert_eq!(refused, UnusableMessage::Malformed),
    };
    assert_eq!((&again.namespace, &again.rooms, &again.except), (&sent.namespace, &sent.rooms, &sent.except));
    assert_eq!((again.event.name(), again.volatile, &again.ours), (sent.event.name(), sent.volatile, &sent.ours));
    // Fractions may differ in their last digit, and invented placeholders in their value.
    if !sent.event.text().contains(['.', 'e']) {
        assert_eq!(again.event.text(), sent.event.text());
    }
}
