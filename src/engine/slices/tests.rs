use std::time::Duration;

use super::*;
use crate::cluster::Cluster;
use crate::engine::Broadcaster;
use crate::event::Event;
use crate::publish::{Delivery, DeliveryResult};
use crate::session::recorder::Recorder;
use crate::session::{RoomName, Session};
use crate::user::User;

struct Node {
    rooms: Arc<Rooms>,
    delivery: Arc<Broadcaster>,
    metrics: Arc<Metrics>,
    clients: Vec<(Recorder, Arc<Session>)>,
}

/// A node with `clients` clients in the room "crowd". The last of them is also in the room "few".
fn node(clients: usize) -> Node {
    let (rooms, metrics) = (Arc::new(Rooms::new(["/".into()])), Arc::new(Metrics::new()));
    let delivery = Broadcaster::new(&rooms, &Cluster::alone("n", rooms.clone()), &[], &metrics);
    let clients: Vec<_> = (0..clients)
        .map(|n| {
            let recorder = Recorder::default();
            let session = recorder.session("/", &n.to_string(), User::anonymous());
            rooms.add(&session);
            rooms.join(&session, &"crowd".into());
            (recorder, session)
        })
        .collect();
    rooms.join(&clients[clients.len() - 1].1, &"few".into());
    Node { rooms, delivery, metrics, clients }
}

impl Node {
    fn broadcast(&self, room: &str, number: usize) -> DeliveryResult {
        let rooms: Vec<RoomName> = vec![room.into()];
        let event = Event::encode("e", [number]).unwrap();
        self.delivery.broadcast(&Outgoing::new("/".into(), event, rooms))
    }

    fn waiting(&self) -> i64 {
        self.metrics.publish_waiting.with_label_values(&["/"]).get()
    }
}

/// Lets the task that serves slices end, because this task may have yielded after its last event.
async fn let_it_end() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

fn texts(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!(r#"["e",{number}]"#)).collect()
}

#[tokio::test]
async fn what_is_published_behind_a_large_audience_waits_its_turn() {
    let node = node(ONE_STEP + 1);
    let delivery_result: Vec<_> =
        (0..20).map(|n| node.broadcast(if n % 2 == 0 { "crowd" } else { "few" }, n)).collect();
    assert!(node.clients.iter().all(|(recorder, _)| recorder.events().is_empty()), "the publisher goes on at once");
    assert_eq!(node.waiting(), 20);
    for (n, delivery_result) in delivery_result.into_iter().enumerate() {
        let clients = if n % 2 == 0 { ONE_STEP + 1 } else { 1 };
        assert_eq!(delivery_result.local, clients, "so many are told before");
        let delivery_result = delivery_result.served().await;
        assert_eq!((delivery_result.local, delivery_result.dropped), (clients, 0));
    }
    let (last, others) = node.clients.split_last().unwrap();
    assert_eq!(last.0.events(), texts(0..20));
    assert!(others.iter().all(|(recorder, _)| recorder.events() == texts((0..20).step_by(2))));
    assert_eq!(node.waiting(), 0);
    let delivered = node.metrics.deliveries_total.with_label_values(&["/"]).get();
    assert_eq!(delivered, 10 * (ONE_STEP as u64 + 1) + 10);
    let_it_end().await;
    assert_eq!(node.broadcast("few", 20).served.map(|_| ()), None, "and then small rooms are served at once again");
    assert_eq!(last.0.events().len(), 21);
}

#[tokio::test]
async fn who_leaves_before_its_slice_gets_nothing_more_of_the_room() {
    let node = node(ONE_STEP * 2);
    let delivery_result = node.broadcast("crowd", 1);
    let (recorder, session) = &node.clients[7];
    node.rooms.leave(session, &"crowd".into());
    assert_eq!(delivery_result.served().await.local, ONE_STEP * 2 - 1);
    assert!(recorder.events().is_empty());
}

#[tokio::test]
async fn others_run_between_the_slices() {
    // Delivering an event to 60,000 clients takes much longer than 0.5 ms.
    let node = node(60_000);
    let delivery_result = node.broadcast("crowd", 1);
    let mut turns = 0;
    let mut served = std::pin::pin!(delivery_result.served());
    while futures_util::poll!(served.as_mut()).is_pending() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    assert!(turns > 2, "{turns}");
    assert!(node.metrics.delivery_turn_seconds.with_label_values::<&str>(&[]).get_sample_count() > 2);
}

#[tokio::test]
async fn the_line_is_bounded_in_events_and_bytes_and_what_is_refused_is_counted() {
    let node = node(ONE_STEP + 1);
    let refused = || node.metrics.deliveries_dropped_total.with_label_values(&["/", "publish_queue_full"]).get();
    let large = bytes::Bytes::from(vec![0; MAX_WAITING_BYTES / 2 + 1]);
    let publish = || {
        let event = Event::encode("e", [0]).unwrap().with_attachments(vec![large.clone()]);
        node.delivery.broadcast(&Outgoing::new("/".into(), event, vec!["crowd".into()]))
    };
    let first = publish();
    let second = publish();
    assert_eq!((second.local, second.dropped, refused()), (0, ONE_STEP + 1, ONE_STEP as u64 + 1), "too many bytes");
    assert_eq!(first.served().await.local, ONE_STEP + 1);
    let_it_end().await;
    let before = refused();
    for n in 0..MAX_WAITING {
        assert!(node.broadcast("few", n).served.is_none());
    }
    let _under_way = node.broadcast("crowd", 0);
    for n in 1..MAX_WAITING {
        assert!(node.broadcast("few", n).served.is_some());
    }
    let refused_one = node.broadcast("few", 0);
    assert_eq!((refused_one.local, refused_one.dropped, refused()), (0, 1, before + 1), "too many events");
    tokio::time::sleep(Duration::from_millis(1)).await;
    while node.waiting() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.clients.last().unwrap().0.events().len(), 1 + MAX_WAITING + MAX_WAITING);
}
