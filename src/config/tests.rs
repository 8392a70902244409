//! Tests of layers and mistakes through the public interface.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// A configuration file in a directory of its own, and variables.
struct Setting {
    dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Setting {
    fn new(toml: &str) -> Self {
        let setting = Self { dir: tempfile::tempdir().unwrap(), variables: Vec::new() };
        setting.file("roomcast.toml", toml);
        setting
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn load(&self) -> Result<LoadedConfig, ConfigError> {
        let file = Some(self.dir.path().join("roomcast.toml"));
        load(Sources { file, variables: self.variables.clone(), flags: Vec::new() })
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}")).config
    }

    /// Returns all mistakes, with the file's directory removed from their texts.
    fn mistakes(&self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        self.load().unwrap_err().mistakes.iter().map(|mistake| mistake.to_string().replace(&dir, "")).collect()
    }
}

#[test]
fn defaults_need_no_file_and_have_no_mistake() {
    let loaded = load(Sources::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn environment_is_above_the_original_names_and_those_above_the_file() {
    let setting = Setting::new(
        "[server]\nping_interval = \"1s\"\nping_timeout = \"2s\"\nconnect_timeout = \"3s\"\nlisten = \"0.0.0.0:1\"",
    )
    .var("WEBSOCKET_PING_TIMEOUT", "4000")
    .var("WEBSOCKET_PING_INTERVAL", "5000")
    .var("WEBSOCKET_PORT", "9")
    .var("ROOMCAST_SERVER__PING_INTERVAL", "6s");
    let server = setting.config().server;
    assert_eq!(server.connect_timeout.get(), Duration::from_secs(3));
    assert_eq!(server.ping_timeout.get(), Duration::from_secs(4));
    assert_eq!(server.ping_interval.get(), Duration::from_secs(6));
    assert_eq!(server.listen.to_string(), "0.0.0.0:9");
    let origins = setting.load().unwrap().origins;
    let layer = |key: &str| origins.layer_of(&key.split('.').map(str::to_owned).collect::<Vec<_>>());
    assert!(layer("server.connect_timeout").unwrap().ends_with("roomcast.toml:4"));
    assert_eq!(layer("server.ping_timeout").unwrap(), "environment WEBSOCKET_PING_TIMEOUT");
    assert_eq!(layer("server.ping_interval").unwrap(), "environment ROOMCAST_SERVER__PING_INTERVAL");
    assert_eq!(layer("server.queue"), None);
}

#[test]
fn every_original_variable_is_understood() {
    let config = Setting::new("")
        .var("WEBSOCKET_PORT", "4000")
        .var("WEBSOCKET_PATH", "/ws")
        .var("WEBSOCKET_CORS_ORIGIN", "https://a.example, https://b.example")
        .var("WEBSOCKET_PING_TIMEOUT", "60000")
        .var("WEBSOCKET_PING_INTERVAL", "25000")
        .var("WEBSOCKET_MAX_BUFFER_SIZE", "1048576")
        .var("WEBSOCKET_MAX_CONNECTIONS", "10000")
        .var("WEBSOCKET_RATE_LIMIT_WINDOW", "60000")
        .var("REDIS_URL", "redis://localhost:6379")
        .config();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(config.server.path, "/ws/");
    assert_eq!(config.server.cors_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.server.ping_timeout.to_string(), "1m");
    assert_eq!(config.server.ping_interval.to_string(), "25s");
    assert_eq!(config.server.max_payload.bytes(), 1 << 20);
    assert_eq!(config.server.max_connections, 10_000);
    assert_eq!(config.limits.events_per_socket.unwrap().to_string(), "100/1m");
    assert_eq!(config.redis.url.unwrap().expose(), "redis://localhost:6379");
}

#[test]
fn variables_are_read_as_their_keys_types_are() {
    let config = Setting::new("[hooks.song-maker]\nurl = \"https://songs.example\"\n")
        .var("ROOMCAST_AUTH__KEYS", r#"[{secret="0123456789abcdef", kid="007"}]"#)
        .var("ROOMCAST_AUTH__ISSUER", "a,b")
        .var("ROOMCAST_CONTRACTS__FILES", r#"["embedded:*"]"#)
        .var("ROOMCAST_REDIS__PASSWORD", "[1]")
        .var("ROOMCAST_REDIS__USERNAME", "0042")
        .var("ROOMCAST_REDIS__DATABASE", "3")
        .var("ROOMCAST_NODE__DEV", "true")
        .var("ROOMCAST_NODE__ID", "")
        .var("ROOMCAST_SERVER__MAX_PAYLOAD", "2MiB")
        .var("ROOMCAST_HOOKS__SONG_MAKER__TIMEOUT", "1s")
        .var("ROOMCAST_HOOKS__OTHER__URL", "http://localhost:1")
        .var("ROOMCAST_CONFIG", "not a setting of ours")
        .var("UNRELATED", "1")
        .config();
    assert_eq!(config.auth.keys[0].kid.as_deref(), Some("007"));
    assert_eq!(config.auth.issuer, ["a", "b"]);
    assert_eq!(config.contracts.files, ["embedded:*"]);
    assert_eq!(config.redis.password.unwrap().expose(), "[1]");
    assert_eq!(config.redis.username.as_deref(), Some("0042"));
    assert_eq!(config.redis.database, Some(3));
    assert!(config.node.dev);
    assert_eq!(config.node.id, None);
    assert_eq!(config.server.max_payload.to_string(), "2MiB");
    assert_eq!(config.hooks["song-maker"].timeout.to_string(), "1s");
    assert_eq!(config.hooks["song-maker"].url.expose(), "https://songs.example");
    assert!(config.hooks.contains_key("other"));
}

#[test]
fn variable_reaches_into_a_list() {
    let toml = "[[api.keys]]\nname = \"a\"\n[[api.keys]]\nname = \"b\"\nsecret = \"bbbbbbbbbbbbbbbb\"\n";
    let config = Setting::new(toml)
        .var("ROOMCAST_API__KEYS__0__SECRET", "aaaaaaaaaaaaaaaa")
        .var("ROOMCAST_API__KEYS__2__NAME", "c")
        .var("ROOMCAST_API__KEYS__2__SECRET", "cccccccccccccccc")
        .config();
    let keys: Vec<_> = config.api.keys.iter().map(|key| (key.name.as_str(), key.secret.expose())).collect();
    assert_eq!(keys, [("a", "aaaaaaaaaaaaaaaa"), ("b", "bbbbbbbbbbbbbbbb"), ("c", "cccccccccccccccc")]);
    let mistakes = Setting::new("").var("ROOMCAST_API__KEYS__1__NAME", "b").mistakes();
    assert_eq!(mistakes, ["ROOMCAST_API__KEYS__1__NAME: `api.keys` has 0 entries: the next is 0"]);
}

#[test]
fn secrets_come_from_files_too() {
    let setting = Setting::new("[redis]\npassword_file = \"pw\"\n[[auth.keys]]\nsecret_file = \"key\"\n");
    setting.file("pw", "hunter2\r\n");
    let url = setting.file("url", "redis://host:1");
    setting.file("key", "sixteen or more bytes\n\n");
    let setting = setting.var("ROOMCAST_REDIS__URL_FILE", url.to_str().unwrap());
    let config = setting.config();
    assert_eq!(config.redis.password.unwrap().expose(), "hunter2");
    assert_eq!(config.redis.url.unwrap().expose(), "redis://host:1");
    assert_eq!(config.auth.keys[0].secret.as_ref().unwrap().expose(), "sixteen or more bytes\n");
}

#[test]
fn value_of_a_higher_layer_is_above_the_file_of_a_lower_one() {
    let setting = Setting::new("[redis]\npassword_file = \"pw\"\n");
    setting.file("pw", "of the file");
    let file = setting.file("other", "of the other");
    assert_eq!(setting.config().redis.password.unwrap().expose(), "of the file");
    let setting = setting.var("ROOMCAST_REDIS__PASSWORD", "of the variable");
    assert_eq!(setting.config().redis.password.unwrap().expose(), "of the variable");
    let setting = Setting::new("[redis]\npassword = \"of the file\"\n");
    let setting = setting.var("ROOMCAST_REDIS__PASSWORD_FILE", file.to_str().unwrap());
    assert_eq!(setting.config().redis.password.unwrap().expose(), "of the other");
    let setting = Setting::new("[redis]\npassword = \"a\"\npassword_file = \"b\"\n");
    assert_eq!(
        setting.mistakes(),
        ["redis.password_file = \"b\" (from roomcast.toml:3): both the value and its file are set; remove one of them"]
    );
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let setting = Setting::new(
        "[contracts]\nfiles = [\"c/*.toml\", \"/abs.toml\", \"embedded:*\"]\n[redis.tls]\nca_file = \"ca.pem\"\n",
    );
    let ca = setting.file("ca.pem", "");
    let config = setting.config();
    let dir = setting.dir.path().display();
    assert_eq!(config.contracts.files, [format!("{dir}/c/*.toml"), "/abs.toml".into(), "embedded:*".into()]);
    assert_eq!(config.redis.tls.ca_file, Some(ca));
    let config = Setting::new("").var("ROOMCAST_CONTRACTS__FILES", "c/*.toml").config();
    assert_eq!(config.contracts.files, ["c/*.toml"]);
}

#[test]
fn all_mistakes_are_told_at_once_with_layer_and_remedy() {
    let setting = Setting::new(
        r#"
[server]
listen = "nowhere"
pign_interval = "25s"
ping_timeout = 20
port = 3000
queue = 0

[log]
format = "xml"
level = "loud"

[[auth.keys]]
algorithm = "none"
secret = "sixteen or more bytes"

[[auth.keys]]
secret = "short"

[[auth.keys]]
algorithm = "RS256"
secret = "sixteen or more bytes"

[redis]
url = "localhost:6379"
pasword = "hunter2"

[hooks.songs]
timeout = "0s"

[colours]
red = true
"#,
    )
    .var("ROOMCAST_LIMITS__MAX_PENDING_EVENTS", "0")
    .var("ROOMCAST_LIMITS__CONNECTIONS_PER_IP", "0/s")
    .var("ROOMCAST_SERVER__MAX_CONNECTIONS", "many")
    .var("ROOMCAST_SERVICE_HOST", "10.0.0.1")
    .var("ROOMCAST_API__KEYS", "[{")
    .var("ROOMCAST_SERVER__CORS__ORIGINS", "*")
    .var("WEBSOCKET_PING_INTERVAL", "25s");
    let mistakes = setting.mistakes();
    for expected in [
        "server.listen = \"nowhere\" (from roomcast.toml:3): must be an address and a port, such as 127.0.0.1:3000 or [::1]:3000; remove it for the default, \"127.0.0.1:3000\"",
        "server.pign_interval (from roomcast.toml:4): unknown key; did you mean `ping_interval`?",
        "server.ping_timeout = 20 (from roomcast.toml:5): must be a time with its unit, such as \"25s\", \"100ms\" or \"5m\"; remove it for the default, \"20s\"",
        "server.port (from roomcast.toml:6): this setting has another name here; write the address and the port as `server.listen`",
        "server.queue = 0 (from roomcast.toml:7): must be 1 to 1000000; remove it for the default, 1024",
        "server.max_connections = \"many\" (from environment ROOMCAST_SERVER__MAX_CONNECTIONS): must be a whole number; remove it for the default, 0",
        "server.cors (from environment ROOMCAST_SERVER__CORS__ORIGINS): this setting has another name here; write `server.cors_origins`",
        "log.format = \"xml\" (from roomcast.toml:10): must be human or json; remove it for the default, \"human\"",
        "auth.keys[0].algorithm = \"none\" (from roomcast.toml:14): must be HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA; remove it for the default, \"HS256\"",
        "auth.keys[1].secret (from roomcast.toml:18): has 5 bytes: a secret needs at least 16; make one with `openssl rand -base64 48`",
        "auth.keys[2].secret (from roomcast.toml:22): RS256 uses a public key, not a shared secret; set `public_key`, or the algorithm HS256, HS384 or HS512",
        "redis.pasword (from roomcast.toml:26): unknown key; did you mean `password`?",
        "redis.url = \"***\" (from roomcast.toml:25): must start with redis://HOST, rediss://HOST, redis-cluster://HOST, rediss-cluster://HOST, redis-sentinel://HOST or rediss-sentinel://HOST; write the whole URL",
        "hooks.songs.url: is missing; set the URL of the backend",
        "hooks.songs.timeout = \"0s\" (from roomcast.toml:29): must be at least 10ms; remove it for the default, \"5s\"",
        "colours (from roomcast.toml:31): unknown key; the sections are node, server, contracts, api, auth, redis, cluster, presence, recovery, limits, drain, hooks and log",
        "limits.max_pending_events = 0 (from environment ROOMCAST_LIMITS__MAX_PENDING_EVENTS): must be at least 1; remove it for the default, 256",
        "limits.connections_per_ip = \"0/s\" (from environment ROOMCAST_LIMITS__CONNECTIONS_PER_IP): \"0/s\" holds a zero; a count, a burst and a window are at least 1; remove it for none",
        "ROOMCAST_SERVICE_HOST: not a setting; if Kubernetes made it for a Service: set `enableServiceLinks: false` in the pod",
        "WEBSOCKET_PING_INTERVAL = 25s (from environment): must be a whole number of milliseconds; or remove it and set `server.ping_interval`",
    ] {
        assert!(mistakes.iter().any(|told| told == expected), "{expected}\nin\n{}", mistakes.join("\n"));
    }
    let starts = |start: &str| mistakes.iter().any(|told| told.starts_with(start));
    assert!(starts("log.level = \"loud\" (from roomcast.toml:11): \"loud\" is neither a level"), "{mistakes:#?}");
    assert!(starts("ROOMCAST_API__KEYS: not a TOML value"), "{mistakes:#?}");
    assert_eq!(mistakes.len(), 22, "{}", mistakes.join("\n"));
    let told = mistakes.join("\n");
    for secret in ["hunter2", "sixteen or more bytes", "short"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn secrets_are_shown_by_neither_debug_nor_mistakes() {
    let toml = "[redis]\nurl = \"redis://u:hunter2@h\"\npassword = \"hunter2\"\n[[api.keys]]\nname = \"a\"\nsecret = \"hunter2hunter2hunter2\"\n[hooks.a]\nurl = \"https://u:hunter2@h/?token=hunter2\"\nsecret = \"hunter2hunter2hunter2\"\n";
    let loaded = Setting::new(toml).load().unwrap();
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    let wrong = "[redis]\nurl = \"x://u:hunter2@h\"\npassword = [\"hunter2\"]\n[[api.keys]]\nsecret = 5\n[[auth.keys]]\npublic_key = \"hunter2\"\nsceret = \"hunter2\"\n";
    let mistakes = Setting::new(wrong).mistakes().join("\n");
    assert!(!mistakes.contains("hunter2"), "{mistakes}");
}

#[test]
fn unreadable_files_are_mistakes_and_not_defaults() {
    let error = load(Sources { file: Some("/nowhere/roomcast.toml".into()), ..Sources::default() }).unwrap_err();
    assert!(error.to_string().contains("(from /nowhere/roomcast.toml): cannot be read: "), "{error}");
    let mistakes = Setting::new("[redis]\npassword_file = \"gone\"\n").mistakes();
    assert!(
        mistakes[0].starts_with("redis.password_file = \"gone\" (from roomcast.toml:2): cannot be read"),
        "{mistakes:?}"
    );
    assert_eq!(mistakes.len(), 1);
}

#[test]
fn dev_is_a_layer_of_the_command_line() {
    let loaded = load(Sources { flags: vec![("--dev", "node.dev", "true".into())], ..Sources::default() }).unwrap();
    assert!(loaded.config.node.dev);
    assert_eq!(loaded.origins.layer_of(&["node".into(), "dev".into()]).unwrap(), "command line --dev");
}

#[test]
fn effective_values_are_toml_that_means_the_same() {
    let toml = "[redis]\nurl = \"redis://u:hunter2@h:1\"\npassword = \"hunter2\"\n[[auth.keys]]\nkid = \"a\"\nsecret = \"hunter2hunter2hunter2\"\n[[auth.keys]]\nalgorithm = \"HS384\"\nsecret = \"hunter2hunter2hunter2\"\n[auth.jwks]\nurl = \"https://id.example/keys\"\n[hooks.5]\nurl = \"https://five.example\"\n[hooks.\"a.b\"]\nurl = \"https://h.example\"\n";
    let setting = Setting::new(toml).var("ROOMCAST_LOG__LEVEL", "debug").var("ROOMCAST_LIMITS__EVENTS_PER_NODE", "5/s");
    let loaded = setting.load().unwrap();
    let shown = loaded.to_toml().replace(&format!("{}/", setting.dir.path().display()), "");
    assert!(!shown.contains("hunter2"), "{shown}");
    for line in [
        "[node]",
        "# id is not set",
        "ping_interval = \"25s\" # default",
        "level = \"debug\" # environment ROOMCAST_LOG__LEVEL",
        "events_per_node = \"5/s\" # environment ROOMCAST_LIMITS__EVENTS_PER_NODE",
        "url = \"redis://***@h:1\" # roomcast.toml:2",
        "password = \"***\" # roomcast.toml:3",
        "[[auth.keys]]",
        "algorithm = \"HS384\" # roomcast.toml:8",
        "[auth.jwks]",
        "[hooks.\"a.b\".breaker]",
    ] {
        assert!(shown.lines().any(|known| known.split_whitespace().eq(line.split_whitespace())), "{line}\nin\n{shown}");
    }
    let mut again: Config = toml::from_str(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    let mut config = loaded.config;
    again.redis = config.redis.clone();
    for (key, again) in config.auth.keys.iter_mut().zip(&mut again.auth.keys) {
        key.secret.clone_from(&again.secret);
    }
    assert_eq!(again, config);
}

#[test]
fn a_cluster_that_passes_on_requests_needs_a_secret_and_a_redis() {
    let secret = "x".repeat(32);
    let right = Setting::new(&format!(
        "[redis]\nurl = \"redis://localhost\"\n[cluster]\nlisten = \"[::]:3002\"\nprevious_secret = \"{secret}\""
    ));
    let file = right.file("secret", &format!("{secret}\n"));
    let right = right.var("ROOMCAST_CLUSTER__SECRET_FILE", &file.to_string_lossy());
    assert_eq!(right.config().cluster.secret.unwrap().expose(), secret);
    let wrong = Setting::new(
        "[server]\nlisten = \"0.0.0.0:3002\"\n[cluster]\nlisten = \"0.0.0.0:3002\"\nadvertise = \"node-1\"\nprevious_secret = \"short\"\nmax_forwarded = 0\n\
         [cluster.tls]\ncert_file = \"nowhere.pem\"",
    );
    let mistakes = wrong.mistakes();
    for expected in [
        "cluster.listen = \"0.0.0.0:3002\" (from roomcast.toml:4): is also `server.listen` or `api.listen`: nodes need a listener of their own; choose another port",
        "cluster.secret: is missing; nodes that forward requests must share a secret: set it beside `listen`",
        "cluster.previous_secret (from roomcast.toml:6): has 5 bytes: a secret needs at least 32; make one with `openssl rand -base64 48`",
        "cluster.advertise = \"node-1\" (from roomcast.toml:5): must be HOST:PORT; write an address or a name of this node that the other nodes can reach",
        "cluster.max_forwarded = 0 (from roomcast.toml:7): must be 1 to 1000000; remove it for the default, 20000",
        "cluster.tls.ca_file: is missing; name a PEM file: nodes check each other's certificates",
    ] {
        assert!(mistakes.iter().any(|told| told == expected), "{expected}\nin\n{}", mistakes.join("\n"));
    }
    assert_eq!(mistakes.len(), 8, "{}", mistakes.join("\n"));
    let alone = Setting::new(&format!("[cluster]\nlisten = \"0.0.0.0:3002\"\nsecret = \"{secret}\""));
    assert_eq!(
        alone.mistakes(),
        [
            "cluster.listen = \"0.0.0.0:3002\" (from roomcast.toml:2): needs `redis.url`: nodes learn of each other through Redis; set `redis.url`, or remove it",
        ]
    );
    let useless = Setting::new(&format!("[cluster]\nsecret = \"{secret}\""));
    assert_eq!(
        useless.mistakes(),
        ["cluster.secret (from roomcast.toml:2): has no effect without `listen`; set `listen`, or remove the secret"]
    );
}

#[test]
fn what_does_not_fit_the_address_of_redis_is_found() {
    let told = |toml: &str| Setting::new(toml).mistakes().join("\n");
    for (toml, expected) in [
        (
            "url = \"redis://h\"\n[redis.sentinel]\nservice = \"main\"",
            "redis.sentinel.service = \"main\" (from roomcast.toml:4): has no effect: redis.url names no sentinels; write \
             redis-sentinel://… in redis.url, or remove redis.sentinel",
        ),
        (
            "url = \"redis-sentinel://h\"",
            "redis.sentinel.service: is missing: redis.url names sentinels; set redis.sentinel.service, as in `sentinel \
             monitor NAME …`",
        ),
        (
            "url = \"redis://h\"\n[redis.tls]\nca_file = \"/dev/null\"",
            "redis.tls.ca_file = \"/dev/null\" (from roomcast.toml:4): has no effect: redis.url does not use TLS, so nothing \
             would be encrypted; write rediss://… in redis.url, or remove redis.tls",
        ),
        (
            "url = \"redis://:hunter2@h?timeout=5s\"",
            "redis.url = \"redis://***@h?timeout=5s\" (from roomcast.toml:2): has the unknown parameter \"timeout\"; remove \
             it: such a URL has none",
        ),
        (
            "url = \"redis://u@h\"",
            "redis.password: is missing: a user needs one; set redis.password or redis.password_file",
        ),
        (
            "url = \"redis://h\"\nprobe_interval = \"1ms\"",
            "redis.probe_interval = \"1ms\" (from roomcast.toml:3): must be at least 10ms; remove it for the default, \"1s\"",
        ),
    ] {
        assert_eq!(told(&format!("[redis]\n{toml}\n")), expected, "{toml}");
    }
    for toml in [
        "url = \"redis-sentinel://h\"\nsentinel = { service = \"main\" }",
        "url = \"redis-sentinel://h?sentinelServiceName=main&node=i:1\"",
        "url = \"rediss://u:p%20w@h:1/3\"\ntls = { ca_file = \"/dev/null\" }",
    ] {
        Setting::new(&format!("[redis]\n{toml}\n")).load().unwrap_or_else(|error| panic!("{toml}: {error}"));
    }
    let short = "server.ping_interval = \"5ms\" (from roomcast.toml:2): must be at least 100ms; remove it for the default, \"25s\"";
    assert_eq!(told("[server]\nping_interval = \"5ms\"\n"), short);
}
