//! Reads variables that operators of an earlier Socket.IO server already have.

use std::net::SocketAddr;
use std::time::Duration;

use figment::Figment;
use figment::value::{Tag, Value};

use super::{Layer, merged};
use crate::config::mistake::SettingMistake;
use crate::config::{Config, Period, tree};
use crate::rate::Rate;

/// How many events the window of a rate has if only the window is set.
const EVENTS_PER_WINDOW: u32 = 100;

/// Parses one variable, from the values of the layers below and its text.
type ReadVariable = fn(&Value, &str) -> Result<Value, String>;

/// The variables, the keys that they set, and how they are parsed.
pub(in crate::config) const VARIABLES: [(&str, &str, ReadVariable); 9] = [
    ("REDIS_URL", "redis.url", |_, text| Ok(text.into())),
    ("WEBSOCKET_CORS_ORIGIN", "server.cors_origins", origins),
    ("WEBSOCKET_MAX_BUFFER_SIZE", "server.max_payload", number),
    ("WEBSOCKET_MAX_CONNECTIONS", "server.max_connections", number),
    ("WEBSOCKET_PATH", "server.path", |_, text| Ok(format!("/{}/", text.trim_matches('/')).into())),
    ("WEBSOCKET_PING_INTERVAL", "server.ping_interval", millis),
    ("WEBSOCKET_PING_TIMEOUT", "server.ping_timeout", millis),
    ("WEBSOCKET_PORT", "server.listen", port),
    ("WEBSOCKET_RATE_LIMIT_WINDOW", "limits.events_per_socket", window),
];

/// The meaning of a variable, for docs/configuration.md.
#[cfg(test)]
pub(in crate::config) fn meaning(name: &str) -> &'static str {
    match name {
        "REDIS_URL" => "a URL",
        "WEBSOCKET_CORS_ORIGIN" => "origins, separated by commas",
        "WEBSOCKET_MAX_BUFFER_SIZE" => "bytes",
        "WEBSOCKET_MAX_CONNECTIONS" => "a number; 0: no limit",
        "WEBSOCKET_PATH" => "a path, with or without slashes at its ends",
        "WEBSOCKET_PORT" => "a port; the address stays as configured, or 127.0.0.1",
        "WEBSOCKET_RATE_LIMIT_WINDOW" => "the window, in milliseconds; the count stays as configured, or 100",
        _ => "milliseconds",
    }
}

/// Adds each variable, which replaces the value of the layers so far. An empty variable counts as not set.
pub(in crate::config) fn add(
    mut figment: Figment,
    variables: &[(String, String)],
    mistakes: &mut Vec<SettingMistake>,
) -> Figment {
    for (name, key, read) in VARIABLES {
        let Some((_, text)) = variables.iter().find(|(known, text)| known == name && !text.is_empty()) else {
            continue;
        };
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let below = merged(&figment);
        match read(&below, text.trim()).and_then(|value| tree::nest(&below, &path, value)) {
            Ok(values) => figment = figment.merge(Layer { name: format!("environment {name}"), values }),
            Err(problem) => mistakes.push(SettingMistake {
                key: name.to_owned(),
                value: Some(text.clone()),
                layer: Some("environment".into()),
                problem,
                remedy: format!("or remove it and set `{key}`"),
            }),
        }
    }
    figment
}

fn number(_: &Value, text: &str) -> Result<Value, String> {
    text.parse::<u64>().map(Value::from).map_err(|_| "must be a whole number".into())
}

fn millis(_: &Value, text: &str) -> Result<Value, String> {
    let millis: u64 = text.parse().map_err(|_| "must be a whole number of milliseconds".to_owned())?;
    Ok(Period::from_millis(millis).to_string().into())
}

fn origins(_: &Value, text: &str) -> Result<Value, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect();
    Ok(Value::Array(Tag::Default, items))
}

/// This variable sets only the port of the address. The address stays as in the layers below.
fn port(below: &Value, text: &str) -> Result<Value, String> {
    let port: u16 = text.parse().map_err(|_| "must be a port number, 0 to 65535".to_owned())?;
    let listen = below.find_ref("server.listen").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let mut listen: SocketAddr = listen.unwrap_or(Config::default().server.listen);
    listen.set_port(port);
    Ok(listen.to_string().into())
}

/// This variable sets only the window of the rate. The count stays as in the layers below.
fn window(below: &Value, text: &str) -> Result<Value, String> {
    let millis = text.parse::<u64>().ok().filter(|millis| *millis > 0);
    let per = Duration::from_millis(millis.ok_or("must be a whole number of milliseconds, at least 1")?);
    let rate = below.find_ref("limits.events_per_socket").and_then(Value::as_str);
    let rate = rate.and_then(|text| text.parse::<Rate>().ok());
    let (count, burst) = rate.map_or((EVENTS_PER_WINDOW, EVENTS_PER_WINDOW), |rate| (rate.count, rate.burst));
    Ok(Rate { count, per, burst }.to_string().into())
}
