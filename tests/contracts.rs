//! Tests that the embedded contracts behave as they describe, and that the example contracts in `docs/` load.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::json;

use roomcast::contract::load::{Source, check, load, load_sources};
use roomcast::contract::model::{
    AuthMode, Contract, Namespace, RejectPolicy, ReplayPolicy, SentArgs, ThrottleBy, TokenSource,
};
use roomcast::contract::room_name::RoomNameError;
use roomcast::contract::schema::Schema;
use roomcast::contract::scope::Scope;
use roomcast::contract::{embedded, file};
use roomcast::error::Code;
use roomcast::user::User;

fn namespaces() -> Vec<Namespace> {
    load(&["embedded:*".to_owned()]).map_err(|report| report.to_string()).unwrap()
}

fn namespace(path: &str) -> Namespace {
    namespaces().into_iter().find(|namespace| &*namespace.path == path).unwrap()
}

fn contract<'n>(namespace: &'n Namespace, name: &str) -> &'n Contract {
    namespace.contracts.iter().find(|contract| &*contract.name == name).unwrap()
}

#[test]
fn all_load_into_their_namespaces() {
    let summary = check(&["embedded:*".to_owned()]).unwrap();
    let found: BTreeMap<&str, (&str, usize, usize, usize)> = summary
        .contracts
        .iter()
        .map(|c| (c.name.as_str(), (c.namespace.as_str(), c.rooms, c.client_events, c.server_events)))
        .collect();
    let expected = BTreeMap::from([
        ("chat", ("/", 1, 7, 4)),
        ("harmonia-jobs", ("/", 3, 4, 4)),
        ("harmonia-songs", ("/", 1, 3, 9)),
        ("jobs-feed", ("/jobs", 3, 2, 4)),
        ("vendhub-realtime", ("/realtime", 3, 6, 7)),
    ]);
    assert_eq!(found, expected);
    assert_eq!(summary.contracts.len(), embedded::CONTRACTS.len());
}

#[test]
fn all_satisfy_the_schema_for_editors() {
    let schema = Schema::compile(&file::json_schema()).unwrap();
    for (name, text) in embedded::CONTRACTS {
        let tree: serde_json::Value = toml::from_str(text).unwrap();
        assert_eq!(schema.check(&tree), Ok(()), "{name}");
    }
}

#[test]
fn policies_are_as_written() {
    let root = namespace("/");
    assert_eq!(root.auth().mode, AuthMode::Required);
    assert_eq!(root.auth().tokens, [TokenSource::Auth("token".into()), TokenSource::Header]);
    assert_eq!((root.auth().user.as_str(), root.auth().roles.as_str()), ("sub", "roles"));
    assert_eq!(root.client.len(), 14);

    let realtime = namespace("/realtime");
    let query = TokenSource::Query("token".into());
    assert_eq!(realtime.auth().tokens, [TokenSource::Auth("token".into()), TokenSource::Header, query]);
    assert_eq!((realtime.auth().mode, realtime.auth().reject), (AuthMode::Optional, RejectPolicy::Event));
    let limit = contract(&realtime, "vendhub-realtime").limits.connections_per_ip.unwrap();
    assert_eq!((limit.count, limit.per, limit.burst), (10, Duration::from_secs(60), 10));
}

#[test]
fn history_and_throttle_are_as_written() {
    let root = namespace("/");
    let songs = contract(&root, "harmonia-songs");
    let history = songs.rooms["generation"].history.as_ref().unwrap();
    assert_eq!((history.events, history.ttl, history.replay), (100, Duration::from_secs(86_400), ReplayPolicy::Last));
    assert_eq!(songs.rooms["generation"].idle, Some(Duration::from_secs(1800)));
    let throttle = songs.server["audio-generation-progress"].throttle.unwrap();
    assert_eq!((throttle.every, throttle.per), (Duration::from_millis(100), ThrottleBy::Room));
    assert!(songs.server["audio-generation-complete"].terminal && songs.server["audio-generation-complete"].flush);
    assert!(songs.client["cancel-generation"].on_error.as_ref().unwrap().always);

    let jobs = namespace("/jobs");
    let history = contract(&jobs, "jobs-feed").rooms["job"].history.as_ref().unwrap();
    let key = history.key.as_ref().unwrap();
    assert_eq!(key.fill(&[("jobId".into(), "j1".into())]).as_deref(), Some("job-history:j1"));
}

#[test]
fn payloads_are_read_only_where_somebody_asks() {
    let root = namespace("/");
    let realtime = namespace("/realtime");
    let reads = |namespace: &Namespace, event: &str| namespace.client[event].1.reads_payload;
    for event in ["jobs:subscribe:user", "jobs:unsubscribe:user", "ping"] {
        assert!(!reads(&root, event), "{event}");
    }
    for event in ["job:subscribe", "join-generation", "room:join", "message", "cancel-generation"] {
        assert!(reads(&root, event), "{event}");
    }
    assert!(!reads(&realtime, "subscribe:queue") && reads(&realtime, "subscribe:contract"));
}

#[test]
fn bare_value_and_object_make_the_same_room() {
    let root = namespace("/");
    let (_, event) = &root.client["join-generation"];
    for text in [r#""g1""#, r#"{"generationId":"g1"}"#] {
        let raw = serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
        let payload = event.payload.payload(&[&raw]).unwrap();
        let user = User::named("u1");
        let scope = Scope::new(&user, &payload, SystemTime::now());
        let (name, _) = event.join[0].room.name.render(&event.join[0].with, &scope).unwrap();
        assert_eq!(name, "generation-g1");
    }
}

#[test]
fn fixed_members_are_filled_in() {
    let jobs = namespace("/jobs");
    let event = &contract(&jobs, "jobs-feed").server["job:progress"];
    let user = User::anonymous();
    let scope = Scope::new(&user, &serde_json::Value::Null, SystemTime::UNIX_EPOCH);
    let accepted = event.accept(json!({ "jobId": "j", "progress": 5 }), &scope).unwrap().payload;
    let expected = json!({
        "jobId": "j", "progress": 5, "status": "in_progress", "timestamp": "1970-01-01T00:00:00.000Z"
    });
    assert_eq!(accepted, expected);
    let refusal = event.accept(json!({ "jobId": "j", "progress": 101 }), &scope).unwrap_err();
    assert_eq!(refusal.message, "payload.progress must be at most 100");
}

#[test]
fn free_room_names_do_not_reach_rooms_with_rules() {
    let root = namespace("/");
    let free = contract(&root, "chat").rooms["room"].clone();
    for name in ["job:1", "user:u1:jobs", "admin:jobs", "generation-x"] {
        assert_eq!(root.check_taken(&free, name), Err(RoomNameError::Taken), "{name}");
        let (owner, _) = root.room_of(name).unwrap();
        assert_ne!(&*owner.contract, "chat", "{name}");
        assert_eq!(root.check_taken(owner, name), Ok(()), "{name}");
    }
    for name in ["lobby", "jobs:1", "team a/b", "generation", "user:u1"] {
        assert_eq!(root.check_taken(&free, name), Ok(()), "{name}");
        assert_eq!(&*root.room_of(name).unwrap().0.contract, "chat", "{name}");
    }
    let (_, vars) = root.room_of("user:u1:jobs").unwrap();
    assert_eq!(vars, [("userId".to_owned(), "u1".to_owned())]);
    assert!(root.room_of("$sid:x").is_none());
}

#[test]
fn chat_has_a_name_of_its_catalogue_for_every_code() {
    let root = namespace("/");
    let chat = contract(&root, "chat");
    let catalogue = [
        "AUTHENTICATION_FAILED",
        "AUTHORIZATION_FAILED",
        "RATE_LIMIT_EXCEEDED",
        "INVALID_ROOM",
        "INVALID_MESSAGE",
        "CONNECTION_ERROR",
        "UNKNOWN_ERROR",
    ];
    for code in Code::ALL {
        let shown = chat.errors.code(code);
        assert!(catalogue.contains(&shown), "{code} is shown as {shown}");
    }
}

#[test]
fn anonymous_greeting_has_no_user() {
    let realtime = namespace("/realtime");
    let greet = contract(&realtime, "vendhub-realtime").connect.greet.first().unwrap();
    let SentArgs::Values(args) = &greet.args else {
        panic!("a value is greeted with");
    };
    let [data] = &args[..] else { panic!("the greeting has one argument") };
    let payload = serde_json::Value::Null;
    for (user, expected) in [
        (User::anonymous(), json!({ "authenticated": false })),
        (User::named("u1"), json!({ "authenticated": true, "userId": "u1" })),
    ] {
        let rendered = serde_json::to_value(data.render(&Scope::new(&user, &payload, SystemTime::now()))).unwrap();
        assert_eq!(rendered, expected);
    }
}

/// Every code block of a page that is marked as a complete contract, with its line number.
fn examples(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in page.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```toml file" => open = Some((at + 2, String::new())),
            Some(_) if line.trim() == "```" => found.extend(open.take()),
            Some((_, example)) => {
                example.push_str(line);
                example.push('\n');
            }
            None => {}
        }
    }
    found
}

#[test]
fn every_example_of_the_documents_loads() {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            pages.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    let examples: Vec<_> = pages
        .iter()
        .flat_map(|(page, text)| examples(text).into_iter().map(move |(line, text)| (page, line, text)))
        .collect();
    assert!(examples.len() > 14, "{} examples", examples.len());
    for (page, line, text) in examples {
        let source = Source { name: format!("{page}, example at line {line}"), text };
        load_sources(vec![source]).map_err(|report| report.to_string()).unwrap();
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let reference = include_str!("../docs/contracts.md");
    let schema = file::json_schema();
    let definitions = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let keys =
        definitions.filter_map(|definition| definition.get("properties")?.as_object()).flat_map(|keys| keys.keys());
    let missing: Vec<&String> = keys
        .filter(|key| {
            let forms = [format!("`{key}`"), format!(".{key}`"), format!("`[{key}]`"), format!("`[{key}.")];
            !forms.iter().any(|form| reference.contains(form))
        })
        .collect();
    assert!(missing.is_empty(), "not in docs/contracts.md: {missing:?}");
}

#[test]
fn contracts_of_the_tests_load_beside_those_of_the_binary() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js/fixtures");
    let entries = [fixtures.to_owned(), "embedded:*".to_owned()];
    load(&entries).map_err(|report| report.to_string()).unwrap();
}
