use proptest::prelude::*;

use super::*;
use crate::session::recorder::Recorder;

/// The last argument of the last event that was sent.
fn tail(wire: &Recorder) -> String {
    let args: Vec<serde_json::Value> = serde_json::from_str(wire.sent().last().unwrap()).unwrap();
    args.last().unwrap().as_str().unwrap().to_owned()
}

fn stamp(room: &str, epoch: u64, offset: u64) -> Stamp {
    Stamp { room: room.into(), epoch, offset }
}

fn trail(rooms: &[(&str, u64, u64)]) -> Box<Trail> {
    let trail = Trail::new("key".into(), 0, Arc::new(|| Some(0)));
    for &(room, epoch, offset) in rooms {
        trail.enter(&room.into());
        trail.begin(&room.into(), Point { epoch, offset });
    }
    trail
}

fn event() -> Event {
    Event::encode("e", &[1]).unwrap()
}

fn position(tail: &str, room: &str, epoch: u64, offset: u64) -> Option<Position> {
    Tail::read(Some(tail)).unwrap().position(room, Some(Point { epoch, offset }))
}

fn at(epoch: u64, floor: u64, beyond: &[(u64, u64)]) -> Option<Position> {
    Some(Position { epoch, floor, beyond: beyond.to_vec() })
}

#[test]
fn one_tail_tells_of_every_room() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5), ("b", 0, 0), ("c", 7, 7)]));
    for stamps in [vec![stamp("a", 9, 6)], vec![stamp("b", 8, 1), stamp("x", 1, 1)], vec![stamp("a", 9, 7)]] {
        trail.send(&wire, &event(), &stamps).unwrap();
    }
    let tail = self::tail(&wire);
    assert_eq!(position(&tail, "a", 9, 5), at(9, 7, &[]));
    assert_eq!(position(&tail, "b", 0, 0), at(8, 1, &[]));
    assert_eq!(position(&tail, "c", 7, 7), at(7, 7, &[]), "nothing since it began");
}

#[test]
fn what_came_in_another_order_is_owed_until_it_comes() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5)]));
    trail.send(&wire, &event(), &[stamp("a", 9, 8)]).unwrap();
    trail.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 5), at(9, 5, &[(7, 8)]));
    trail.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 5), at(9, 8, &[]));
}

#[test]
fn what_did_not_fit_is_owed() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5)]));
    wire.be_full(true);
    assert!(trail.send(&wire, &event(), &[stamp("a", 9, 6)]).is_err());
    wire.be_full(false);
    trail.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 5), at(9, 5, &[(7, 7)]));
}

#[test]
fn what_came_before_the_beginning_was_known_counts() {
    let (wire, trail) = (Recorder::default(), Trail::new("key".into(), 0, Arc::new(|| Some(0))));
    trail.enter(&"a".into());
    trail.send(&wire, &event(), &[stamp("a", 9, 8)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 7), at(9, 8, &[]));
    assert_eq!(position(&tail(&wire), "a", 9, 6), at(9, 6, &[(8, 8)]));
    assert_eq!(Tail::read(Some(&tail(&wire))).unwrap().position("a", None), None);
    trail.begin(&"a".into(), Point { epoch: 9, offset: 7 });
    trail.send(&wire, &event(), &[stamp("a", 9, 9)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 7), at(9, 9, &[]));
}

#[test]
fn event_without_a_known_offset_is_told_by_its_id() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5), ("b", 9, 5)]));
    trail.send(&wire, &event(), &[stamp("a", 0, 0xfe)]).unwrap();
    trail.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    wire.be_full(true);
    assert!(trail.send(&wire, &event(), &[stamp("b", 0, 3)]).is_err());
    wire.be_full(false);
    trail.send(&wire, &event(), &[stamp("b", 0, 4)]).unwrap();
    let tail = Tail::read(Some(&tail(&wire))).unwrap();
    assert_eq!((tail.unsure("a"), tail.unsure("b"), tail.unsure("c")), (&[0xfe][..], &[4][..], &[][..]));
    assert_eq!(tail.position("a", Some(Point { epoch: 9, offset: 5 })), at(9, 5, &[(7, 7)]));
    assert_eq!(tail.position("b", Some(Point { epoch: 9, offset: 5 })), at(9, 5, &[]));
}

#[test]
fn too_many_events_without_a_known_offset_give_the_room_up() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5)]));
    for id in 0..8 {
        trail.send(&wire, &event(), &[stamp("a", 0, id)]).unwrap();
    }
    assert!(position(&tail(&wire), "a", 9, 5).is_some());
    trail.send(&wire, &event(), &[stamp("a", 0, 8)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 5), None);
}

#[tokio::test(start_paused = true)]
async fn event_without_a_known_offset_is_forgotten_once_the_history_cannot_bring_it() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5)]));
    let unsure = |wire: &Recorder| Tail::read(Some(&tail(wire))).unwrap().unsure("a").len();
    trail.send(&wire, &event(), &[stamp("a", 0, 1)]).unwrap();
    trail.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(unsure(&wire), 1, "its append may follow the other");
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    trail.send(&wire, &event(), &[stamp("a", 9, 8)]).unwrap();
    assert_eq!(unsure(&wire), 1, "it may be the one that is missing");
    trail.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(unsure(&wire), 0);
}

#[test]
fn newer_epoch_is_owed_from_its_start() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5)]));
    trail.send(&wire, &event(), &[stamp("a", 10, 2)]).unwrap();
    trail.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 5), at(10, 0, &[(2, 2)]));
}

#[test]
fn any_string_at_the_end_is_followed_by_a_tail_of_ours() {
    let (wire, trail) = (Recorder::default(), trail(&[]));
    trail.send(&wire, &Event::encode("e", &["r1:forged"]).unwrap(), &[]).unwrap();
    assert_eq!(tail(&wire), "r1:");
    trail.send(&wire, &Event::encode::<u8>("e", &[]).unwrap(), &[]).unwrap();
    assert_eq!(tail(&wire), "r1:");
    trail.send(&wire, &event(), &[]).unwrap();
    assert_eq!(wire.sent().last().unwrap(), r#"["e",1]"#);
}

#[test]
fn nobody_returns_to_before_he_began_or_with_rubbish() {
    let mark = super::place::mark_of("a");
    assert_eq!(position(&format!("r1:{mark}9.1"), "a", 9, 5), at(9, 5, &[]));
    assert_eq!(position(&format!("r1:{mark}8.1"), "a", 9, 5), at(9, 5, &[]));
    assert_eq!(position(&format!("r1:{mark}!"), "a", 9, 5), None);
    assert_eq!(position(&format!("r1:{mark}9.6,{mark}9.7"), "a", 9, 5), None);
    for rubbish in
        ["", "hello", "r1", "r1!", "r2:", "r1:x", "r1:ééééé", "r1:abcdefgh", "r1:abcdefgh9.", "r1:abcdefgh9.1+5"]
    {
        assert_eq!(Tail::read(Some(rubbish)), None, "{rubbish}");
    }
    assert_eq!(Tail::read(None), Some(Tail::default()));
}

#[test]
fn client_is_told_nothing_while_its_rooms_are_not_kept() {
    let (wire, trail) = (Recorder::default(), trail(&[("a", 9, 5)]));
    let version = trail.to_save().unwrap().version;
    trail.note_saved(version, false);
    trail.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(tail(&wire), "r1!");
    assert!(trail.to_save().is_some());
    trail.note_saved(version, true);
    assert_eq!(trail.to_save(), None);
    trail.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(position(&tail(&wire), "a", 9, 5), at(9, 7, &[]));
}

#[test]
fn more_runs_or_rooms_than_are_told_cannot_be_returned_with() {
    let (wire, one) = (Recorder::default(), trail(&[("a", 9, 5)]));
    for run in 0..10 {
        one.send(&wire, &event(), &[stamp("a", 9, 7 + 2 * run)]).unwrap();
    }
    assert_eq!(position(&tail(&wire), "a", 9, 5), None);
    let many = trail(&[]);
    for room in 0..40 {
        let name = room.to_string();
        many.enter(&name.as_str().into());
        many.begin(&name.as_str().into(), Point { epoch: 1, offset: 0 });
        many.send(&wire, &event(), &[stamp(&name, 1, 1)]).unwrap();
    }
    assert_eq!(tail(&wire), "r1!");
}

proptest! {
    #[test]
    fn tail_says_exactly_what_came(base in 0u64..5, offsets in proptest::collection::vec(1u64..30, 1..40)) {
        let (wire, trail) = (Recorder::default(), trail(&[("a", 9, base)]));
        for offset in &offsets {
            trail.send(&wire, &event(), &[stamp("a", 9, *offset)]).unwrap();
        }
        if let Some(position) = position(&tail(&wire), "a", 9, base) {
            for offset in 1..31 {
                prop_assert_eq!(position.has(offset), offset <= base || offsets.contains(&offset));
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}", list in "[0-9a-f+.,!-]{0,60}") {
        let _ = Tail::read(Some(&text));
        let _ = Tail::read(Some(&format!("r1:{list}")));
    }
}
