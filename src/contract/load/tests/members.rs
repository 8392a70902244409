//! Tests mistakes about the members of rooms.

use super::load_texts;

/// Each line with a mistake ends with `#!` and a part of the expected report.
const MEMBERS: &str = r##"
name = "members"

[rooms.plain]
name     = "plain:{id}"
presence = true
join     = "count < 3"                                            #! the room lists no members; give it a table `presence`
[rooms.bare]
name = "bare:{id}"
[rooms.board]
name = "board:{id}"
join = "count < 3 && size(members) < 3"
[rooms.board.presence]
each    = "sockets"                                               #! did you mean "socket"?
joined  = { event = "came", data = ["{member.id}", "{others}"] }  #! `{others}` has no value here: nobody sends this event
left    = { event = "went", data = { by = "{user.id}" } }         #! `{user.id}` has no value here
changed = { event = "list", data = "{member.id}", when = "owner(room) == 'x'" } #! it belongs to `joined`, `left` and `show` #! owners are not looked up here
show    = { n = "{count}", id = "{member.id}", room = "{room}" }  #! this describes one member
most    = 1001                                                    #! write a number from 1 to 1000
[rooms.less]
name     = "less:{id}"
presence = { every = "1s", others = true, changes = "x" }         #! `every` applies to `changed`, and there is none #! `others` applies to `joined`, and there is none #! did you mean `changed`?
[rooms.twice]
name     = "twice:{id}"
presence = { changed = "seen" }                                   #! the server event "seen" has the same name and a throttle
[rooms.star]
name     = "star:{id}"
presence = { joined = { event = "x", data = "*" } }               #! the sender's arguments are not available here

[client.good]
join  = "board"
relay = { room = "board", when = "count > 1", add = { n = "{count}" } }
reply = { event = "a", when = "count == 1", data = ["{members.0.id}", "{others}"] }
ack   = "{members}"
[client.about]
room    = "board"
require = "owner(room) == user.id && count > 1"
ack     = { n = "{count}" }
[client.plain]
join = "plain"
ack  = "{members}"                                                #! the room lists no members; give it a table `presence`
[client.none]
relay = { everyone = true, data = "{count}" }                     #! the event has no room; add `room`, `join` or `leave`
[client.nowhere]
reply    = { event = "x", data = ["{room}", "{vars.id}"] }        #! `{room}` has no value here: the event has no room #! `{vars.id}` has no value here: the event has no room
on_error = { reply = "y", data = "{vars.id}" }                    #! the variables of the room's name are not known here
[client.both]
join    = [{ room = "board", when = "count == 0" }, "bare"]       #! the event has not joined its rooms here
room    = "board"                                                 #! the event is about the rooms that it joins and leaves
require = "count > 1"                                             #! the room lists no members
[client.failing]
leave    = "board"
call     = "hook"
on_ok    = { publish = "list", data = { n = "{count}" } }         #! the event has not joined its rooms here
on_error = { reply = "no", data = "{members}" }                   #! the event has not joined its rooms here

[server.seen]
rooms    = ["board"]
throttle = "1s"
[server.list]
rooms = "*"
fill  = { n = "{count}" }                                         #! there is no room here
"##;

#[test]
fn mistakes_about_members_are_told_with_their_lines() {
    let told = load_texts(&[MEMBERS]).unwrap_err();
    let mut expected = Vec::new();
    for (at, line) in MEMBERS.lines().enumerate() {
        expected.extend(line.split("#!").skip(1).map(|part| (format!("0.toml:{}: ", at + 1), part.trim())));
    }
    for (place, part) in &expected {
        let found = told.iter().any(|mistake| mistake.starts_with(place) && mistake.contains(part));
        assert!(found, "{place}{part} in {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}
