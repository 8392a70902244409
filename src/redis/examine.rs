//! Collects facts about a Redis server for `roomcast doctor`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::{ClusterHash, CustomCommand, Expiration};

use super::{Cause, Keys, RedisError, connect};
use crate::config;

/// The facts about a Redis server.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// `redis_version`. A server that is only compatible with Redis reports its own version there.
    pub version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub mode: String,
    /// `master` or `slave`.
    pub role: String,
    /// Why a write was refused. `None` if it was accepted.
    pub refused: Option<Cause>,
    /// Time from sending a command to its answer: the shortest of several measurements.
    pub round_trip: Duration,
    /// `CONFIG GET` of [`SETTINGS`]. Empty if the user may not ask for them.
    pub settings: HashMap<String, String>,
}

/// The settings of Redis on which the operation of nodes depends.
pub const SETTINGS: [&str; 3] = ["client-output-buffer-limit", "maxmemory-policy", "maxclients"];

/// How many commands are timed. The shortest time is the round trip, because slower commands include waiting.
const PINGS: usize = 5;

/// Examines a Redis server. Does not retry after a failure, because the configuration may be wrong.
///
/// # Errors
/// Fails if the server cannot be reached or refuses the login.
pub async fn examine(config: &config::RedisSettings) -> Result<ServerFacts, RedisError> {
    let client = connect::commands(config)?;
    let mut connection = client.init().await?;
    let facts = ask(&client, &config.prefix).await;
    _ = client.quit().await;
    connection.abort();
    _ = (&mut connection).await;
    Ok(facts?)
}

async fn ask(client: &Client, prefix: &str) -> Result<ServerFacts, Error> {
    let mut round_trip = Duration::MAX;
    for _ in 0..PINGS {
        let began = Instant::now();
        // A Redis whose snapshot failed refuses PING, but not ECHO.
        _ = client.custom::<String, _>(command("ECHO"), vec!["?"]).await?;
        round_trip = round_trip.min(began.elapsed());
    }
    let info: String = client.custom(command("INFO"), vec!["everything"]).await?;
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let mut settings = HashMap::new();
    for name in SETTINGS {
        // Managed services and ACLs may forbid CONFIG.
        let told: Result<HashMap<String, String>, _> = client.custom(command("CONFIG"), vec!["GET", name]).await;
        settings.extend(told.unwrap_or_default());
    }
    let refused = try_to_write(client, prefix).await;
    let (version, mode, role) = (field("redis_version"), field("redis_mode"), field("role"));
    Ok(ServerFacts { version, mode, role, refused, round_trip, settings })
}

/// Writes a key that expires after one second.
async fn try_to_write(client: &Client, prefix: &str) -> Option<Cause> {
    let key = Keys::new(prefix).probe_write("doctor");
    let written = client.set::<(), _, _>(&key, "?", Some(Expiration::EX(1)), None, false).await;
    written.err().map(|error| Cause::of(&error).about(&format!("SET {key}")))
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Random, false)
}
