//! Tests the table for events that no other table names, and notices.

use super::load_texts;

/// Each line with a mistake ends with `#!` and a part of the expected report.
const ANY: &str = r##"
name = "any"
[connect]
notify = "backend-{user.id}"                                      #! connect.notify: "backend-{user.id}" is taken as it stands
greet  = { event = "hello", data = "{event.name}" }               #! `{event.name}` has no value here: no client sends an event here
[rooms.room]
name = "{room}"
[client."*"]
relay    = [{ room = "room" }, { room = "room", event = "said/{event.name}" }]
reply    = { event = "error:{event.name}" }                       #! client."*".reply: clients can make the name of the event "error:late", which the node sends
notify   = "backend"
throttle = "1s"                                                   #! client."*".throttle: `throttle` needs one event, and "*" stands for many
undo     = "stop"                                                 #! client."*".undo: `undo` needs one event
[client.start]
relay  = { room = "room" }
undo   = "*"                                                      #! there is no client event "*"
notify = ["a", "b"]                                               #! client.start.notify
[client.free]
relay = { room = "room" }
undo  = "limited"                                                 #! client.free.undo: clients choose the whole name of this event with `payload.k`
[client.limited]
payload = { schema = { properties = { k = { enum = ["up"] } } } }
relay   = { room = "room", event = "{payload.k}" }
[client.stop]
relay = { room = "room", event = "{event.name}" }
ack   = { name = "{event.name}" }
[server."error:late"]
rooms = "*"
[server.done]
rooms = "*"
fill  = { by = "{event.name}" }                                   #! no client sends an event here
"##;

#[test]
fn mistakes_are_told() {
    let told = load_texts(&[ANY]).unwrap_err();
    let mut expected = 0;
    for (at, line) in ANY.lines().enumerate() {
        let position = format!("0.toml:{}: ", at + 1);
        for part in line.split("#!").skip(1).map(str::trim) {
            expected += 1;
            let found = told.iter().any(|mistake| mistake.starts_with(&position) && mistake.contains(part));
            assert!(found, "{position}{part} in {told:#?}");
        }
    }
    assert_eq!(told.len(), expected, "{told:#?}");
}

#[test]
fn only_one_contract_of_a_namespace_takes_what_no_table_names() {
    let text = |name: &str| format!("name = \"{name}\"\nauth = {{ mode = \"none\" }}\n[client.\"*\"]\nreply = \"x\"\n");
    let told = load_texts(&[&text("a"), &text("b")]).unwrap_err();
    assert!(told.len() == 1 && told[0].contains("0.toml:3 has the same event"), "{told:?}");
}
