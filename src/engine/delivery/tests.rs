use super::*;
use crate::event::{Event, Stamp};
use crate::order::ConflationOrder;
use crate::session::offsets::{ClientOffset, HistoryPoint, RoomPosition, SessionOffsets};
use crate::session::recorder::{Recorder, peer};
use crate::session::{RoomName, Session};
use crate::user::User;

const EPOCH: u64 = 7;

fn progress(number: u64, offset: u64) -> Outgoing {
    let event = Event::encode("progress", [number]).unwrap();
    Outgoing {
        stamps: vec![Stamp { room: "r".into(), epoch: EPOCH, offset }],
        order: Some(ConflationOrder { scope: "/|r".into(), number, closes: false }),
        ..Outgoing::new("/".into(), event, vec!["r".into()])
    }
}

#[tokio::test]
async fn what_was_overtaken_is_not_owed_to_who_comes_back() {
    let (rooms, metrics) = (Arc::new(Rooms::new(["/".into()])), Arc::new(Metrics::new()));
    let cluster = Cluster::alone("n", rooms.clone());
    let delivery = Broadcaster::new(&rooms, &cluster, &[], &metrics);
    let kept = Recorder::default();
    let user = Arc::new(User::anonymous());
    let offsets = SessionOffsets::new("key".into(), 0, Arc::new(|| Some(0)));
    let session = Session::with_trail("s", "/".into(), user, peer(), Box::new(kept.clone()), Some(offsets));
    rooms.add(&session);
    let room: RoomName = "r".into();
    rooms.join(&session, &room);
    let offsets = session.offsets().unwrap();
    offsets.enter(&room);
    offsets.begin(&room, HistoryPoint { epoch: EPOCH, offset: 0 });
    // The second event is older than the first, and so is its offset.
    for (number, offset) in [(2, 2), (1, 1), (3, 3)] {
        delivery.broadcast(&progress(number, offset));
    }
    let sent = kept.events();
    assert_eq!(sent.len(), 2, "{sent:?}");
    let args: Vec<serde_json::Value> = serde_json::from_str(&sent[1]).unwrap();
    let client_offset = args.last().and_then(serde_json::Value::as_str);
    let position =
        ClientOffset::read(client_offset).unwrap().position("r", Some(HistoryPoint { epoch: EPOCH, offset: 0 }));
    assert_eq!(position, Some(RoomPosition { epoch: EPOCH, floor: 3, beyond: Vec::new() }));
    assert_eq!(metrics.deliveries_dropped_total.with_label_values(&["/", "overtaken"]).get(), 1);
}
