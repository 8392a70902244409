use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::session::recorder::Recorder;
use crate::user::User;

const CLIENTS: usize = 400;

fn index() -> (Rooms, Vec<Arc<Session>>, RoomName) {
    let rooms = Rooms::new(["/".into()]);
    let clients: Vec<_> =
        (0..CLIENTS).map(|n| Recorder::default().session("/", &n.to_string(), User::anonymous())).collect();
    clients.iter().for_each(|client| rooms.add(client));
    (rooms, clients, "r".into())
}

fn join(rooms: &Rooms, clients: &[Arc<Session>], room: &RoomName) {
    clients.iter().for_each(|client| assert!(rooms.join(client, room)));
}

/// The ids of the sessions in the next block.
fn next(rooms: &Rooms, except: &[RoomName], recipient_blocks: &mut Recipients) -> Option<Vec<usize>> {
    rooms.visit_next("/", except, recipient_blocks, |sessions| {
        sessions.map(|session| session.id().parse().unwrap()).collect()
    })
}

fn all(rooms: &Rooms, except: &[RoomName], recipient_blocks: &mut Recipients) -> Vec<usize> {
    let mut all: Vec<_> = std::iter::from_fn(|| next(rooms, except, recipient_blocks)).flatten().collect();
    all.sort_unstable();
    all
}

#[test]
fn few_are_worked_on_at_once_and_of_many_the_number_is_told() {
    let (rooms, clients, room) = index();
    join(&rooms, &clients[..9], &room);
    let visit = |to: &[RoomName], most| rooms.visit_few("/", to, &[], most, |sessions| sessions.count());
    assert_eq!(visit(std::slice::from_ref(&room), 9), Some(Ok(9)));
    assert_eq!(visit(std::slice::from_ref(&room), 8), Some(Err(9)));
    assert_eq!(visit(&["nobody's".into()], 0), Some(Ok(0)));
    assert_eq!(visit(&[], CLIENTS - 1), Some(Err(CLIENTS)), "the whole namespace");
    assert!(rooms.visit_few("/other", &[], &[], 9, |_| ()).is_none());
}

#[test]
fn one_in_several_rooms_is_met_once_and_one_who_is_excepted_never() {
    let (rooms, clients, room) = index();
    let [other, quiet]: [RoomName; 2] = ["s".into(), "q".into()];
    for (n, client) in clients.iter().enumerate() {
        let wanted = [(&room, n < 300), (&other, n >= 100), (&quiet, n % 10 == 0)];
        for (room, _) in wanted.iter().filter(|(_, joins)| *joins) {
            rooms.join(client, room);
        }
    }
    let expected: Vec<_> = (0..CLIENTS).filter(|n| n % 10 != 0).collect();
    let mut recipient_blocks = rooms.recipient_blocks("/", &[room, other]);
    assert_eq!(all(&rooms, &[quiet], &mut recipient_blocks), expected);
    assert_eq!(
        all(&rooms, &[], &mut rooms.recipient_blocks("/", &[])),
        (0..CLIENTS).collect::<Vec<_>>(),
        "the namespace"
    );
}

#[test]
fn a_room_that_is_gone_and_made_anew_has_nobody_of_before() {
    let (rooms, clients, room) = index();
    join(&rooms, &clients, &room);
    let mut recipient_blocks = rooms.recipient_blocks("/", std::slice::from_ref(&room));
    clients.iter().for_each(|client| assert!(rooms.leave(client, &room)));
    join(&rooms, &clients[..3], &room);
    assert_eq!(all(&rooms, &[], &mut recipient_blocks), [0, 1, 2]);
}

proptest! {
    /// A session that stays is visited exactly once. A session that left before its block is not visited, and no
    /// session is visited twice.
    #[test]
    fn others_come_and_go_between_the_slices(
        everybody in any::<bool>(),
        steps in proptest::collection::vec(prop_oneof![
            1 => Just(None),
            6 => (any::<bool>(), 0..CLIENTS).prop_map(Some),
        ], 0..60),
    ) {
        let (rooms, clients, room) = index();
        let to = if everybody { vec![] } else { vec![room.clone()] };
        let away = CLIENTS - 50;
        join(&rooms, &clients[..away], &room);
        for client in clients[away..].iter().filter(|_| everybody) {
            rooms.remove(client);
        }
        let mut here: BTreeSet<usize> = (0..away).collect();
        let (at_first, mut recipient_blocks) = (here.clone(), rooms.recipient_blocks("/", &to));
        let mut met: BTreeMap<usize, usize> = BTreeMap::new();
        let mut ever_left = BTreeSet::new();
        let mut visit = |here: &BTreeSet<usize>, recipient_blocks: &mut Recipients| {
            let slice = next(&rooms, &[], recipient_blocks);
            for who in slice.iter().flatten() {
                prop_assert!(here.contains(who), "{} has left", who);
                *met.entry(*who).or_default() += 1;
            }
            Ok(slice.is_some())
        };
        for step in steps {
            match step {
                None => {
                    visit(&here, &mut recipient_blocks)?;
                }
                // When the audience is the whole namespace, a session that has left does not return.
                Some((comes, who)) if comes && !everybody => {
                    rooms.join(&clients[who], &room);
                    here.insert(who);
                }
                Some((_, who)) => {
                    if everybody {
                        rooms.remove(&clients[who]);
                    } else {
                        rooms.leave(&clients[who], &room);
                    }
                    here.remove(&who);
                    ever_left.insert(who);
                }
            }
        }
        while visit(&here, &mut recipient_blocks)? {}
        prop_assert!(met.values().all(|times| *times == 1), "{:?}", met);
        prop_assert!(met.keys().all(|who| at_first.contains(who)));
        prop_assert!(at_first.difference(&ever_left).all(|who| met.contains_key(who)));
    }
}
