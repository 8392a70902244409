//! The data with which a client asks for recovery: parsed or refused.

use roomcast::session::offsets::{ClientOffset, HistoryPoint};

/// Runs the target.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = text.split('\n').map(|text| ClientOffset::read(Some(text))).map(check).count();
}

fn check(tail: Option<ClientOffset>) {
    let Some(tail) = tail else { return };
    for room in ["room", ""] {
        let Some(position) = tail.position(room, Some(HistoryPoint { epoch: 1, offset: 7 })) else { continue };
        // A client must never be sent events from before its session began.
        assert!(position.has(position.floor) && (position.epoch != 1 || position.has(7)), "{position:?}");
    }
}
