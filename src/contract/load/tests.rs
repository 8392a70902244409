//! Tests whole contracts: the shipped ones, wrong ones, and several in one namespace.

mod any;
mod expiry;
mod files;
mod literal;
mod members;
mod namespaces;

use super::*;

/// Loads texts as files named `0.toml`, `1.toml` …
fn load_texts(texts: &[&str]) -> Result<Vec<Namespace>, Vec<String>> {
    let source = |(at, text): (usize, &&str)| Source { name: format!("{at}.toml"), text: (*text).to_owned() };
    load_sources(texts.iter().enumerate().map(source).collect())
        .map_err(|report| report.diagnostics.iter().map(ToString::to_string).collect())
}

/// A contract that contains many mistakes. Each line with a mistake ends with `#!` and a part of the expected report.
const BAD: &str = r##"
name      = "bad contract"                                      #! name: "bad contract" is not a name
namespace = "jobs"                                              #! write "/jobs"
sumary    = "misspelt"                                          #! did you mean `summary`?

[auth]
mode   = "requird"                                              #! did you mean "required"?
tokens = ["auth.token", "cookies.x"]                            #! "cookies.x" is not a source of tokens
reject = "event"                                                #! auth.reject: no error event is set

[errors]
payload = { text = "{error.text}" }                             #! errors.payload.text: `error.text` is an unknown path #! no error event is set that could carry it
codes   = { INVALID_PAYLOD = "X" }                              #! there is no code INVALID_PAYLOD
messages = { NO = "x", INVALID_ROOM = "no {room}" }             #! there is no code NO #! "no {room}" is taken as it stands

[connect]
join = "user"                                                   #! write with = { userId = "user.id" }

[limits]
connections_per_ip = "10 a minute"                              #! is not a rate; write for example

[rooms.job]
name  = "job:{jobId"                                            #! an unmatched `{`
allow = "true"                                                  #! `allow` is called `join`

[rooms.user]
name    = "user:{userId}"
linger  = "5m"
join    = "usr.id == vars.userID"                               #! rooms.user.join: there is no variable `usr`; did you mean `user`?
history = { events = 0, ttl = "24", key = "h:{id}" }            #! 0 is out of range; write a number from 1 #! "24" is not a time #! has no variable `id` #! without `{userId}` several rooms share one key

[rooms.idle]
name = "idle"
idle = "5m"                                                     #! `idle` ends a history, and this room has none

[rooms.twin]
name = "user:{id}"                                              #! rooms.user on line 26 has the same names
join = "vars.idd == user.id && owner(room) =="                  #! this is not CEL

[client."a:b"]
payload = { schema = { type = "objekt" } }                      #! this is not a JSON Schema
join    = ["jobs", { room = "user", with = { userId = "user.id" }, all = true }] #! there is no room "jobs"; did you mean "job"? #! `all` belongs to `leave`
relay   = [
  { room = "user", to = "payload.to" },                         #! client."a:b".relay[0]: it has several recipients
  { everyone = true, data = "{params.x}", add = { a = 1 } },    #! `data` and `add` cannot be combined
  { shared = true, member = true, data = "{params.x}" },        #! only a room has members #! `{params.x}` has no value here: only backends give params
  { everyone = true, data = 1, args = [1] },                    #! `data` and `args` cannot be combined
  { everyone = true, args = [1], add = { a = 1 } },             #! `args` and `add` cannot be combined
  { everyone = true, args = [1, "{payload.x", "{params.y}"] },  #! relay[5].args[1]: #! `{params.y}` has no value here
]
leave    = [{ room = "user", all = true, with = { userId = "user.id" } }, { room = "user", with = { userId = "user.id" } }] #! `all` leaves every room of the family
ack      = true
ack_args = [true]                                               #! `ack` and `ack_args` cannot be combined
on_ok    = { publish = "a:c" }                                  #! no hook is called #! did you mean "a:d"? #! the published event has no `data`
undo     = "a:x"                                                #! there is no client event "a:x"; did you mean "a:b"?
throttle = { every = "1s", keep = "last" }                      #! write "first"

[client."a:c"]
undo     = "a:d"                                                #! there is no client event "a:d" #! `undo` applies only to relays to a room
throttle = "1s"                                                 #! `throttle` applies only to relays to a room

[client."a:e"]
relay = { room = "user" }
undo  = "a:c"                                                   #! the event that `undo` names has no `relay`

[client.disconnect]                                             #! an event that Socket.IO reserves

[server."a:d"]
rooms    = [{ room = "user", with = { user = "params.u" } }]    #! `user:{userId}` has no variable `user`; write `userId`
fill     = { by = "{user.id}", n = 1 }                          #! server."a:d".fill.by: `{user.id}` has no value here
throttle = "0s"                                                 #! "0s" is not a time
terminal = "yes"                                                #! write true or false

[server.nowhere]                                                #! `rooms` is missing; add `rooms`
"##;

#[test]
fn every_mistake_is_told_with_its_line() {
    let told = load_texts(&[BAD]).unwrap_err();
    let mut expected = 0;
    for (at, line) in BAD.lines().enumerate() {
        let key_path = format!("0.toml:{}: ", at + 1);
        let here: Vec<&String> = told.iter().filter(|mistake| mistake.starts_with(&key_path)).collect();
        for part in line.split("#!").skip(1).map(str::trim) {
            expected += 1;
            assert!(here.iter().any(|mistake| mistake.contains(part)), "{key_path}{part}: {here:#?}");
        }
    }
    assert_eq!(told.len(), expected, "{told:#?}");
    assert!(expected > 35);
}

#[test]
fn one_mistake_is_told_once_and_not_by_what_follows_from_it() {
    let told = load_texts(&["name = 'x'\n[rooms.a]\nname = 'a:{b'\n[client.e]\njoin = 'a'\n[server.f]\nrooms = 'a'\n"]);
    let told = told.unwrap_err();
    assert_eq!(told.len(), 1, "{told:#?}");
    let told = load_texts(&["name = 'x'\nsummary = \n[rooms.a]\nname = 'a'\n"]).unwrap_err();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with("0.toml:2: this is not TOML"), "{told:#?}");
}

#[test]
fn empty_contract_needs_only_a_name() {
    assert!(load_texts(&["name = 'x'"]).is_ok());
    assert_eq!(
        load_texts(&[""]).unwrap_err(),
        ["0.toml: `name` is missing; add `name`: The contract's name, unique among the loaded contracts"]
    );
    assert!(load_texts(&[]).unwrap().is_empty());
}

#[test]
fn anything_is_read_without_a_panic() {
    use proptest::prelude::*;
    let pieces = proptest::collection::vec(
        proptest::sample::select(BAD.split_inclusive(['\n', ' ', '=', '"']).collect::<Vec<_>>()),
        0..60,
    );
    proptest!(ProptestConfig::with_cases(64), |(pieces in pieces)| {
        let _ = load_texts(&[&pieces.concat()]);
    });
    proptest!(ProptestConfig::with_cases(64), |(text in "\\PC{0,200}")| {
        let _ = load_texts(&[&text]);
    });
}

#[test]
fn deep_file_is_refused_and_not_followed_to_the_end_of_the_stack() {
    let deep = 50_000;
    for text in [
        format!("name = 'x'\na = {}1{}", "[".repeat(deep), "]".repeat(deep)),
        format!("name = 'x'\na = {}", "{ a = ".repeat(deep)),
        format!("name = 'x'\n{} = 1", vec!["a"; deep].join(".")),
        format!("name = 'x'\n[{}]\n", vec!["a"; deep].join(".")),
    ] {
        assert!(load_texts(&[&text]).is_err());
    }
}
