use proptest::prelude::*;

use super::*;
use crate::formats::{OFFSET, frozen};
use crate::session::recorder::Recorder;

/// The last argument of the last event that was sent.
fn client_offset(wire: &Recorder) -> String {
    let args: Vec<serde_json::Value> = serde_json::from_str(wire.events().last().unwrap()).unwrap();
    args.last().unwrap().as_str().unwrap().to_owned()
}

fn stamp(room: &str, epoch: u64, offset: u64) -> Stamp {
    Stamp { room: room.into(), epoch, offset }
}

fn session_offsets(rooms: &[(&str, u64, u64)]) -> Box<SessionOffsets> {
    let session_offsets = SessionOffsets::new("key".into(), 0, Arc::new(|| Some(0)));
    for &(room, epoch, offset) in rooms {
        session_offsets.enter(&room.into());
        session_offsets.begin(&room.into(), HistoryPoint { epoch, offset });
    }
    session_offsets
}

fn event() -> Event {
    Event::encode("e", [1]).unwrap()
}

fn position(client_offset: &str, room: &str, epoch: u64, offset: u64) -> Option<RoomPosition> {
    ClientOffset::read(Some(client_offset)).unwrap().position(room, Some(HistoryPoint { epoch, offset }))
}

fn at(epoch: u64, floor: u64, beyond: &[(u64, u64)]) -> Option<RoomPosition> {
    Some(RoomPosition { epoch, floor, beyond: beyond.to_vec() })
}

#[test]
fn one_tail_tells_of_every_room() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5), ("b", 0, 0), ("c", 7, 7)]));
    for stamps in [vec![stamp("a", 9, 6)], vec![stamp("b", 8, 1), stamp("x", 1, 1)], vec![stamp("a", 9, 7)]] {
        session_offsets.send(&wire, &event(), &stamps).unwrap();
    }
    let client_offset = self::client_offset(&wire);
    assert_eq!(position(&client_offset, "a", 9, 5), at(9, 7, &[]));
    assert_eq!(position(&client_offset, "b", 0, 0), at(8, 1, &[]));
    assert_eq!(position(&client_offset, "c", 7, 7), at(7, 7, &[]), "nothing since it began");
}

#[test]
fn text_for_the_client_is_the_frozen_one() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5), ("b", 0, 0)]));
    for stamps in [vec![stamp("a", 9, 8)], vec![stamp("b", 8, 1)], vec![stamp("a", 9, 7)]] {
        session_offsets.send(&wire, &event(), &stamps).unwrap();
    }
    let frozen = String::from_utf8(frozen::check(&OFFSET, "offset", client_offset(&wire).as_bytes())).unwrap();
    assert_eq!(position(&frozen, "a", 9, 5), at(9, 5, &[(7, 8)]));
    assert_eq!(position(&frozen, "b", 0, 0), at(8, 1, &[]));
}

#[test]
fn what_came_in_another_order_is_owed_until_it_comes() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5)]));
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 8)]).unwrap();
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 5), at(9, 5, &[(7, 8)]));
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 5), at(9, 8, &[]));
}

#[test]
fn what_did_not_fit_is_owed() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5)]));
    wire.set_space(0);
    assert!(session_offsets.send(&wire, &event(), &[stamp("a", 9, 6)]).is_err());
    wire.set_space(usize::MAX);
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 5), at(9, 5, &[(7, 7)]));
}

#[test]
fn what_came_before_the_beginning_was_known_counts() {
    let (wire, session_offsets) = (Recorder::default(), SessionOffsets::new("key".into(), 0, Arc::new(|| Some(0))));
    session_offsets.enter(&"a".into());
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 8)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 7), at(9, 8, &[]));
    assert_eq!(position(&client_offset(&wire), "a", 9, 6), at(9, 6, &[(8, 8)]));
    assert_eq!(ClientOffset::read(Some(&client_offset(&wire))).unwrap().position("a", None), None);
    session_offsets.begin(&"a".into(), HistoryPoint { epoch: 9, offset: 7 });
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 9)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 7), at(9, 9, &[]));
}

#[test]
fn event_without_a_known_offset_is_told_by_its_id() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5), ("b", 9, 5)]));
    session_offsets.send(&wire, &event(), &[stamp("a", 0, 0xfe)]).unwrap();
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    wire.set_space(0);
    assert!(session_offsets.send(&wire, &event(), &[stamp("b", 0, 3)]).is_err());
    wire.set_space(usize::MAX);
    session_offsets.send(&wire, &event(), &[stamp("b", 0, 4)]).unwrap();
    let client_offset = ClientOffset::read(Some(&client_offset(&wire))).unwrap();
    assert_eq!(
        (client_offset.unsure("a"), client_offset.unsure("b"), client_offset.unsure("c")),
        (&[0xfe][..], &[4][..], &[][..])
    );
    assert_eq!(client_offset.position("a", Some(HistoryPoint { epoch: 9, offset: 5 })), at(9, 5, &[(7, 7)]));
    assert_eq!(client_offset.position("b", Some(HistoryPoint { epoch: 9, offset: 5 })), at(9, 5, &[]));
}

#[test]
fn too_many_events_without_a_known_offset_give_the_room_up() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5)]));
    for id in 0..8 {
        session_offsets.send(&wire, &event(), &[stamp("a", 0, id)]).unwrap();
    }
    assert!(position(&client_offset(&wire), "a", 9, 5).is_some());
    session_offsets.send(&wire, &event(), &[stamp("a", 0, 8)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 5), None);
}

#[tokio::test(start_paused = true)]
async fn event_without_a_known_offset_is_forgotten_once_the_history_cannot_bring_it() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5)]));
    let unsure = |wire: &Recorder| ClientOffset::read(Some(&client_offset(wire))).unwrap().unsure("a").len();
    session_offsets.send(&wire, &event(), &[stamp("a", 0, 1)]).unwrap();
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(unsure(&wire), 1, "its append may follow the other");
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 8)]).unwrap();
    assert_eq!(unsure(&wire), 1, "it may be the one that is missing");
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(unsure(&wire), 0);
}

#[test]
fn newer_epoch_is_owed_from_its_start() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5)]));
    session_offsets.send(&wire, &event(), &[stamp("a", 10, 2)]).unwrap();
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 5), at(10, 0, &[(2, 2)]));
}

#[test]
fn any_string_at_the_end_is_followed_by_a_tail_of_ours() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[]));
    session_offsets.send(&wire, &Event::encode("e", &["r1:forged"]).unwrap(), &[]).unwrap();
    assert_eq!(client_offset(&wire), "r1:");
    session_offsets.send(&wire, &Event::encode("e", [(); 0]).unwrap(), &[]).unwrap();
    assert_eq!(client_offset(&wire), "r1:");
    session_offsets.send(&wire, &event(), &[]).unwrap();
    assert_eq!(wire.events().last().unwrap(), r#"["e",1]"#);
}

#[test]
fn nobody_returns_to_before_he_began_or_with_rubbish() {
    let mark = super::room::mark_of("a");
    assert_eq!(position(&format!("r1:{mark}9.1"), "a", 9, 5), at(9, 5, &[]));
    assert_eq!(position(&format!("r1:{mark}8.1"), "a", 9, 5), at(9, 5, &[]));
    assert_eq!(position(&format!("r1:{mark}!"), "a", 9, 5), None);
    assert_eq!(position(&format!("r1:{mark}9.6,{mark}9.7"), "a", 9, 5), None);
    for rubbish in
        ["", "hello", "r1", "r1!", "r2:", "r1:x", "r1:ééééé", "r1:abcdefgh", "r1:abcdefgh9.", "r1:abcdefgh9.1+5"]
    {
        assert_eq!(ClientOffset::read(Some(rubbish)), None, "{rubbish}");
    }
    assert_eq!(ClientOffset::read(None), Some(ClientOffset::default()));
}

#[test]
fn client_is_told_nothing_while_its_rooms_are_not_kept() {
    let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, 5)]));
    let version = session_offsets.to_save().unwrap().version;
    session_offsets.note_saved(version, false);
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 6)]).unwrap();
    assert_eq!(client_offset(&wire), "r1!");
    assert!(session_offsets.to_save().is_some());
    session_offsets.note_saved(version, true);
    assert_eq!(session_offsets.to_save(), None);
    session_offsets.send(&wire, &event(), &[stamp("a", 9, 7)]).unwrap();
    assert_eq!(position(&client_offset(&wire), "a", 9, 5), at(9, 7, &[]));
}

#[test]
fn more_runs_or_rooms_than_are_told_cannot_be_returned_with() {
    let (wire, one) = (Recorder::default(), session_offsets(&[("a", 9, 5)]));
    for run in 0..10 {
        one.send(&wire, &event(), &[stamp("a", 9, 7 + 2 * run)]).unwrap();
    }
    assert_eq!(position(&client_offset(&wire), "a", 9, 5), None);
    let many = session_offsets(&[]);
    for room in 0..40 {
        let name = room.to_string();
        many.enter(&name.as_str().into());
        many.begin(&name.as_str().into(), HistoryPoint { epoch: 1, offset: 0 });
        many.send(&wire, &event(), &[stamp(&name, 1, 1)]).unwrap();
    }
    assert_eq!(client_offset(&wire), "r1!");
}

proptest! {
    #[test]
    fn tail_says_exactly_what_came(base in 0u64..5, offsets in proptest::collection::vec(1u64..30, 1..40)) {
        let (wire, session_offsets) = (Recorder::default(), session_offsets(&[("a", 9, base)]));
        for offset in &offsets {
            session_offsets.send(&wire, &event(), &[stamp("a", 9, *offset)]).unwrap();
        }
        if let Some(position) = position(&client_offset(&wire), "a", 9, base) {
            for offset in 1..31 {
                prop_assert_eq!(position.has(offset), offset <= base || offsets.contains(&offset));
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}", list in "[0-9a-f+.,!-]{0,60}") {
        let _ = ClientOffset::read(Some(&text));
        let _ = ClientOffset::read(Some(&format!("r1:{list}")));
    }
}
