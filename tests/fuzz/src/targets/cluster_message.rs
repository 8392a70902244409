//! Messages on the nodes' channels, from another node or from a program that pretends to be one.
use std::sync::Arc;

use bytes::Bytes;
use roomcast::cluster::event;
use roomcast::cluster::frame::Frame;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let namespace: Arc<str> = Arc::from("/");
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(frame) = Frame::decode(bytes.clone()) {
        let again = Frame::encode(&frame.origin, frame.number, frame.sent_at_us, &frame.body);
        assert_eq!(Frame::decode(again).as_ref(), Ok(&frame));
        let _ = event::decode(&namespace, frame.body);
    }
    if let Ok(outgoing) = event::decode(&namespace, bytes) {
        assert!(event::decode(&namespace, event::encode(&outgoing).freeze()).is_ok());
    }
}
