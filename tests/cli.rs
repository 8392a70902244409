//! The command line from the outside: its output and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::process;

fn roomcast(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    process::roomcast(dir, args, variables).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn wrong_usage_ends_with_64_and_help_with_0() {
    let dir = folder();
    for args in [&["dance"][..], &["serve", "--prot", "1"], &["token"], &[]] {
        assert_eq!(code(&roomcast(dir.path(), args, &[])), 64, "{args:?}");
    }
    for args in [&["--help"][..], &["help", "serve"], &["--version"]] {
        let output = roomcast(dir.path(), args, &[]);
        assert_eq!((code(&output), err(&output)), (0, String::new()), "{args:?}");
    }
}

#[test]
fn version_names_the_commit_and_the_features() {
    let said = out(&roomcast(folder().path(), &["--version"], &[]));
    let rest = said.trim().strip_prefix(concat!("roomcast ", env!("CARGO_PKG_VERSION"), " (commit ")).unwrap();
    let (commit, features) = rest.split_once(", features: ").unwrap();
    let git = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(["rev-parse", "HEAD"]).output();
    // A binary that was built from a source tree without its git repository reports the commit `unknown`.
    let known = git.is_ok_and(|git| String::from_utf8_lossy(&git.stdout).starts_with(commit));
    assert!(known || commit == "unknown" || std::env::var("ROOMCAST_COMMIT").is_ok_and(|c| c == commit), "{said}");
    assert_eq!(features, if cfg!(feature = "otlp") { "otlp)" } else { "none)" });
}

#[test]
fn wrong_configuration_ends_with_64_and_every_mistake() {
    let dir = folder();
    std::fs::write(dir.path().join("roomcast.toml"), "[server]\nquue = 5\n[log]\nlevel = 3\n").unwrap();
    for command in ["serve", "check", "config", "token --sub a"] {
        let args: Vec<&str> = command.split(' ').collect();
        let output = roomcast(dir.path(), &args, &[("ROOMCAST_SERVER__QUEUE", "0")]);
        assert_eq!(code(&output), 64, "{command}");
        let told = err(&output);
        for part in [
            "server.quue (from roomcast.toml:2): unknown key; did you mean `queue`?",
            "log.level = 3 (from roomcast.toml:4): must be a text",
            "server.queue = 0 (from environment ROOMCAST_SERVER__QUEUE): must be 1 to",
            "3 mistakes in the configuration",
        ] {
            assert!(told.contains(part), "{command}: {part}\nin\n{told}");
        }
    }
}

#[test]
fn effective_values_name_their_layers_and_hide_secrets() {
    let dir = folder();
    std::fs::write(dir.path().join("mine.toml"), "[redis]\nurl = \"redis://:hunter2@localhost\"\n").unwrap();
    let variables =
        [("ROOMCAST_CONFIG", "mine.toml"), ("ROOMCAST_REDIS__PASSWORD", "hunter2"), ("WEBSOCKET_PORT", "80")];
    let output = roomcast(dir.path(), &["config"], &variables);
    assert_eq!((code(&output), err(&output)), (0, String::new()));
    let shown = out(&output);
    assert!(!shown.contains("hunter2"), "{shown}");
    for (key, layer) in [
        ("url = \"redis://***@localhost\"", "# mine.toml:2"),
        ("password = \"***\"", "# environment ROOMCAST_REDIS__PASSWORD"),
        ("listen = \"127.0.0.1:80\"", "# environment WEBSOCKET_PORT"),
        ("queue = 1024", "# default"),
    ] {
        assert!(shown.lines().any(|line| line.starts_with(key) && line.ends_with(layer)), "{key} {layer}\nin\n{shown}");
    }
}

#[test]
fn schemas_are_json() {
    let dir = folder();
    for args in [&["schema"][..], &["schema", "config"]] {
        let output = roomcast(dir.path(), args, &[]);
        let schema: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!((code(&output), &schema["type"]), (0, &serde_json::json!("object")), "{args:?}");
    }
}

#[test]
fn schema_of_the_configuration_accepts_the_example_and_files_of_secrets() {
    let dir = folder();
    let schema = serde_json::from_str(&out(&roomcast(dir.path(), &["schema", "config"], &[]))).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let accepts = |text: &str| validator.is_valid(&toml::from_str::<serde_json::Value>(text).unwrap());
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/roomcast.example.toml")).unwrap();
    assert!(accepts(&example));
    assert!(accepts(
        "[redis]\npassword_file = \"pw\"\n[[auth.keys]]\npublic_key_file = \"k\"\n[server]\nmax_payload = \"1MB\"\n"
    ));
    assert!(!accepts("[redis]\npasswort = \"pw\"\n"));
    assert!(!accepts("[server]\nqueue = \"many\"\n"));
}

#[test]
fn token_is_signed_with_the_configured_key() {
    let dir = folder();
    let config = "[auth]\nissuer = [\"me\"]\n[[auth.keys]]\nkid = \"k1\"\nalgorithm = \"HS384\"\nsecret = \"sixteen or more bytes\"\n";
    std::fs::write(dir.path().join("roomcast.toml"), config).unwrap();
    let args = ["token", "--sub", "alice", "--role", "admin", "--claim", "rooms=[\"a:*\"]", "--ttl", "5m"];
    let token = out(&roomcast(dir.path(), &args, &[]));
    let key = jsonwebtoken::DecodingKey::from_secret(b"sixteen or more bytes");
    let rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS384);
    let data = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &rules).unwrap();
    assert_eq!(data.header.kid.as_deref(), Some("k1"));
    let claims = data.claims;
    assert_eq!((&claims["sub"], &claims["iss"]), (&"alice".into(), &"me".into()));
    assert_eq!((&claims["roles"], &claims["rooms"]), (&serde_json::json!(["admin"]), &serde_json::json!(["a:*"])));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);

    let token = out(&roomcast(dir.path(), &["token", "--capability", "job:7"], &[]));
    let data = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &rules).unwrap();
    assert_eq!((&data.claims["use"], &data.claims["room"]), (&"room".into(), &"job:7".into()));

    let output = roomcast(folder().path(), &["token", "--sub", "alice"], &[]);
    assert_eq!(code(&output), 64);
    assert!(err(&output).contains("give --secret"), "{}", err(&output));
}
