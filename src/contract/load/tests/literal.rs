//! Tests texts that look like placeholders or patterns where they are used literally.

use super::load_texts;

const LITERAL: &str = r#"
name      = "literal"
namespace = "/{tenant}"                                          #! namespace

[auth]
tokens = ["cookie.session-{room}"]                               #! auth.tokens[0]
user   = "{sub}"                                                 #! auth.user
[auth.expiry]
warn_event = "{user.id}:warn"                                    #! auth.expiry.warn_event
refresh    = "refresh:*"                                         #! auth.expiry.refresh

[errors]
event = "error:{error.code}"                                     #! errors.event
codes = { INVALID_ROOM = "ROOM_{room}" }                         #! errors.codes.INVALID_ROOM

[connect]
greet = { event = "hello:{user.id}" }                            #! connect.greet.event
call  = "hooks-{user.id}"                                        #! connect.call

[rooms.any]
name = "any:*"                                                   #! rooms.any.name
[rooms.job]
name     = "job:{jobId}"
join     = 'room == "job:{payload.jobId}"'                       #! rooms.job.join
presence = { joined = "joined:{room}", left = "left:{room}" }    #! rooms.job.presence.joined #! rooms.job.presence.left

[client."a*"]                                                     #! client."a*"
[client."job:{id}"]                                              #! client."job:{id}"
[client.position]
payload  = { shorthand = "{x}", default = { at = "{now}" } }     #! client.position.payload.shorthand #! client.position.payload.default.at
metadata = "payload.*.metadata"                                  #! client.position.metadata
require  = '"{user.id}" == payload.id'                           #! client.position.require
relay    = { room = "job", event = "position/{payload.*}" }      #! client.position.relay.event
reply    = ["said:*"]                                            #! client.position.reply[0]
ack      = { "{payload.id}" = 1 }                                #! client.position.ack."{payload.id}"
call     = { hook = "backend-{user.id}" }                        #! client.position.call.hook
on_error = { reply = "no:{error.code}", data = [{ "{now}" = 1 }] } #! client.position.on_error.reply #! client.position.on_error.data[0]."{now}"

[server."job:*"]                                                 #! server."job:*"
rooms = "*"
[server.done]
rooms = { room = "job", with = { jobId = ["payload.{id}", "payload.id"] } } #! server.done.rooms.with.jobId[0]
fill  = { "{now}" = 1 }                                          #! server.done.fill."{now}"
"#;

#[test]
fn it_is_refused_with_its_line_and_a_remedy() {
    let told = load_texts(&[LITERAL]).unwrap_err();
    let mut expected = Vec::new();
    for (at, line) in LITERAL.lines().enumerate() {
        expected.extend(line.split("#!").skip(1).map(|key| format!("0.toml:{}: {}: ", at + 1, key.trim())));
    }
    for start in &expected {
        let found: Vec<_> = told.iter().filter(|mistake| mistake.starts_with(start)).collect();
        assert_eq!(found.len(), 1, "{start} in {told:#?}");
        let remedy = found[0].rsplit_once("; ").map(|(_, remedy)| remedy);
        assert!(remedy.is_some_and(|remedy| !remedy.is_empty()), "{}", found[0]);
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

#[test]
fn braces_and_stars_stay_where_they_mean_something_or_nothing_else() {
    let text = r#"
name = "right"
[rooms.braces]
name  = "{{{id}}}"
chars = "*"
join  = 'room.matches("^a{2}$") || {"a": user.id}.a == "*" || permitted(room, "job:*")'
[client.e]
payload = { default = { text = "{} {not a path} *" }, schema = { properties = { id = { pattern = "^x{2,}*$" } } } }
relay   = { everyone = true, data = "*" }
reply   = { event = "r", data = { text = "{{user.id}} *" } }
[server.s]
rooms = "*"
"#;
    assert_eq!(load_texts(&[text]).map(|_| ()), Ok(()));
}

#[test]
fn rule_does_not_trust_what_clients_choose() {
    let contract = |metadata: &str, more: &str| {
        format!(
            r#"
name = "trust"
auth = {{ mode = "none" }}
[rooms.staff]
name = "staff"
join = 'metadata.role == "staff"'
[client.hello]
metadata = {metadata}
[client.enter]
join    = "staff"
require = "has(metadata.role)"
{more}
"#
        )
    };
    for chosen in
        [r#""payload""#, r#""payload.me""#, r#"{ role = "{payload.role}" }"#, r#"{ role = "a {payload.role}" }"#]
    {
        let told = load_texts(&[&contract(chosen, "")]).unwrap_err();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("0.toml:6: rooms.staff.join: clients choose `metadata.role` with the event \"hello\""),
            "{told:?}"
        );
        assert!(told[1].contains("client.enter.require"), "{told:?}");
        load_texts(&[&contract(chosen, "[metadata.role]\ntrust = \"client\"")]).unwrap();
    }
    for own in [r#"{ name = "{payload.name}" }"#, r#"{ role = "{user.id}" }"#] {
        load_texts(&[&contract(own, "")]).unwrap();
    }
    // A client can choose the member in another contract of the namespace.
    let other = "name = \"other\"\nauth = { mode = \"none\" }\n[client.me]\nmetadata = \"payload\"\n";
    assert_eq!(load_texts(&[other, &contract(r#"{ role = "{user.id}" }"#, "")]).unwrap_err().len(), 2);
}

#[test]
fn client_cannot_make_the_name_of_a_server_event() {
    let contract = |name: &str, schema: &str| {
        let schema = if schema.is_empty() {
            String::new()
        } else {
            format!("payload = {{ schema = {{ properties = {{ x = {schema} }} }} }}")
        };
        format!(
            r#"
name = "names"
auth = {{ mode = "none" }}
[client.say]
{schema}
relay = {{ everyone = true, event = "{name}" }}
[server."news/all"]
rooms = "*"
"#
        )
    };
    for (name, schema, problem) in [
        ("{payload.x}", "", "clients choose the whole name of this event with `payload.x`"),
        ("{payload.x}/all", r#"{ pattern = "[a-z]+" }"#, "clients choose the whole name"),
        ("news/{payload.x}", "", "clients can make the name of the event \"news/all\", which the node sends"),
        ("{payload.x}/all", r#"{ enum = ["new", "news"] }"#, "clients can make the name"),
        ("{payload.x}", r#"{ pattern = "^[a-z]+/[a-z]+$" }"#, "clients can make the name"),
        ("n{room}", "", "the name of an event does not depend on a room"),
        ("n{metadata.x}", "", "the event may change it"),
        ("n*", "", "has no placeholders and no wildcards"),
    ] {
        let told = load_texts(&[&contract(name, schema)]).unwrap_err();
        assert!(told[0].contains(problem), "{name}: {told:?}");
    }
    for (name, schema) in [
        ("said/{payload.x}", ""),
        ("news/{payload.x}", r#"{ enum = ["one", "two"] }"#),
        ("{payload.x}", r#"{ pattern = "^client-[a-z]+$" }"#),
        ("{user.id}:{payload.x}", r#"{ enum = ["one"] }"#),
    ] {
        load_texts(&[&contract(name, schema)]).unwrap();
    }
}

#[test]
fn handshake_is_used_by_its_parts() {
    let contract =
        |path: &str| format!("name = \"h\"\n[connect]\ngreet = {{ event = \"e\", data = \"{{{path}}}\" }}\n");
    for path in
        ["handshake", "handshake.query", "handshake.headers.X-Tenant", "handshake.cookies.a", "handshake.query.a.b"]
    {
        let told = load_texts(&[&contract(path)]).unwrap_err();
        assert!(told[0].contains("is no part of a handshake"), "{path}: {told:?}");
    }
    for path in ["handshake.query.a", "handshake.headers.x-tenant", "handshake.auth", "handshake.auth.a.b"] {
        load_texts(&[&contract(path)]).unwrap();
    }
}
