//! Tests several contracts in one namespace.

use super::load_texts;
use crate::contract::room_name::RoomNameError;

#[test]
fn contracts_that_agree_share_a_namespace() {
    let a = "name = 'a'\n[rooms.job]\nname = 'job:{id}'\njoin = 'owner(room) == user.id'\n[client.a]\njoin = 'job'\n";
    let b = "name = 'b'\n[rooms.job]\nname = 'job:{jobId}'\njoin = 'owner(room)   ==   user.id'\n[client.b]\njoin = 'job'\n";
    let namespaces = load_texts(&[a, b]).unwrap();
    assert_eq!(namespaces.len(), 1);
    let namespace = &namespaces[0];
    let mut events: Vec<_> = namespace.client.keys().map(String::as_str).collect();
    events.sort_unstable();
    assert_eq!(events, ["a", "b"]);
    for contract in &namespace.contracts {
        assert_eq!(namespace.check_taken(&contract.rooms["job"], "job:1"), Ok(()));
    }
}

#[test]
fn clash_names_both_files_and_lines() {
    let a = "name = 'x'\n[rooms.job]\nname = 'job:{id}'\njoin = 'true'\n[client.e]\njoin = 'job'\n";
    let b = "name = 'x'\n[auth]\nmode = 'optional'\n[rooms.job]\nname = 'job:{jobId}'\n[client.e]\njoin = 'job'\n";
    let told = load_texts(&[a, b]).unwrap_err();
    let expected = [
        ("1.toml:1: name: ", "0.toml:1"),
        ("1.toml:3: auth.mode: ", "0.toml"),
        ("1.toml:4: rooms.job: ", "0.toml:2"),
        ("1.toml:6: client.e: ", "0.toml:5"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for ((start, other), mistake) in expected.into_iter().zip(&told) {
        assert!(mistake.starts_with(start) && mistake.contains(other), "{mistake}");
    }
    // In different namespaces, contracts need only different names.
    let apart = b.replacen("'x'", "'y'\nnamespace = '/y'", 1);
    assert_eq!(load_texts(&[a, &apart]).unwrap().len(), 2);
}

#[test]
fn rules_that_name_variables_differently_are_other_rules() {
    let a = "name = 'a'\n[rooms.u]\nname = 'u:{a}:{b}'\njoin = 'vars.a == user.id'\n";
    let b = "name = 'b'\n[rooms.u]\nname = 'u:{b}:{a}'\njoin = 'vars.a == user.id'\n";
    assert_eq!(load_texts(&[a, b]).unwrap_err().len(), 1);
}

#[test]
fn name_that_two_families_make_belongs_to_neither() {
    let text = "name = 'x'\n[rooms.a]\nname = 'a-{x}'\n[rooms.b]\nname = '{x}-b'\n[rooms.any]\nname = '{room}'\nchars = ':'\n[rooms.one]\nname = 'a-fixed'\n";
    let namespace = &load_texts(&[text]).unwrap()[0];
    let rooms = &namespace.contracts[0].rooms;
    assert_eq!(namespace.check_taken(&rooms["a"], "a-b"), Err(RoomNameError::Taken));
    assert_eq!(namespace.check_taken(&rooms["b"], "a-b"), Err(RoomNameError::Taken));
    assert_eq!(namespace.check_taken(&rooms["any"], "a-b"), Err(RoomNameError::Taken));
    assert_eq!(namespace.check_taken(&rooms["a"], "a-c"), Ok(()));
    assert_eq!(namespace.check_taken(&rooms["a"], "a-fixed"), Err(RoomNameError::Taken));
    assert_eq!(namespace.check_taken(&rooms["one"], "a-fixed"), Ok(()));
    assert_eq!(namespace.room_of("a-fixed").unwrap().0.key, "one");
    assert_eq!(namespace.room_of("a-c").unwrap().0.key, "a");
    assert_eq!(namespace.room_of("x:y").unwrap().0.key, "any");
    assert_eq!(namespace.room_of("x/y").unwrap().0.key, "any");
    assert!(namespace.room_of("x y").is_none());
}
