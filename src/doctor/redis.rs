//! Checks whether Redis meets the needs of the nodes.

use std::collections::HashMap;
use std::time::Duration;

use super::deployment::causes;
use super::report::Finding;
use crate::config::{self, Url};
use crate::redis::examine::{ServerFacts, examine};
use crate::redis::{Cause, RedisError};

/// The minimum version of Redis; see docs/redis.md.
const LEAST: (u32, u32) = (7, 0);
/// The minimum buffer of a pub/sub client, in bytes: the default of Redis. With less, a short stall of a node loses
/// messages.
const LEAST_BUFFER: u64 = 32 << 20;
/// A round trip to Redis that takes this long is reported as slow. Every publish to other nodes takes at least a round
/// trip.
const SLOW: Duration = Duration::from_millis(20);

const REMEDY: &str = "check the address, the password and the network; a Redis Cluster is `redis-cluster://`, sentinels are \
                      `redis-sentinel://`, TLS is `rediss://`; docs/redis.md lists the causes";

/// Runs the checks of Redis.
pub(super) async fn check(url: &Url) -> Vec<Finding> {
    let config = config::RedisSettings { url: Some(url.clone()), ..config::RedisSettings::default() };
    let facts = match examine(&config).await {
        Ok(facts) => facts,
        Err(RedisError::Config(error)) => {
            let cause = Cause::of(&error);
            return vec![Finding::problem("redis", format!("{}: {cause}", cause.kind.as_str()), REMEDY)];
        }
        Err(error) => return vec![Finding::problem("redis", causes(&error), REMEDY)],
    };
    vec![
        writes(&facts),
        version(&facts),
        mode(&facts, url.scheme().unwrap_or_default()),
        delay(&facts),
        buffers(&facts.settings),
        eviction(&facts.settings),
    ]
}

fn writes(facts: &ServerFacts) -> Finding {
    let name = "redis.writes";
    match &facts.refused {
        None => Finding::ok(name, "a write was accepted"),
        Some(cause) => {
            let remedy =
                "docs/redis.md lists the remedies; until then histories, presence, owners and sessions are not kept";
            Finding::problem(name, format!("{}: {cause}", cause.kind.as_str()), remedy)
        }
    }
}

fn version(facts: &ServerFacts) -> Finding {
    let mut numbers = facts.version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= LEAST {
        return Finding::ok("redis.version", format!("Redis {}", facts.version));
    }
    let found = format!("Redis {} is older than {}.{}", facts.version, LEAST.0, LEAST.1);
    Finding::problem("redis.version", found, "upgrade it: nodes use scripts and sharded pub/sub as of 7.0")
}

fn mode(facts: &ServerFacts, scheme: &str) -> Finding {
    let name = "redis.mode";
    let asked = if scheme.ends_with("-cluster") { "cluster" } else { "standalone" };
    if facts.mode == "sentinel" && !scheme.ends_with("-sentinel") {
        let remedy = "give nodes `redis-sentinel://HOST:26379?sentinelServiceName=NAME` as `redis.url`";
        return Finding::problem(name, "this is a sentinel, not a Redis", remedy);
    }
    if facts.mode != asked {
        let found = format!("the address says {asked}, the server says {}", facts.mode);
        let remedy = "a Redis Cluster is `redis-cluster://…` in `redis.url`, a single server is `redis://…`";
        return Finding::problem(name, found, remedy);
    }
    if facts.role == "slave" {
        let remedy = "give nodes the primary's address, or sentinels that know it";
        return Finding::problem(name, "this is a replica, which takes no writes", remedy);
    }
    Finding::ok(name, format!("{}, {}", facts.mode, if facts.role == "master" { "primary" } else { &facts.role }))
}

fn delay(facts: &ServerFacts) -> Finding {
    let found = format!("a command took {:.1} ms from here", facts.round_trip.as_secs_f64() * 1000.0);
    if facts.round_trip < SLOW {
        return Finding::ok("redis.delay", found);
    }
    Finding::warning(
        "redis.delay",
        found,
        "if it takes as long from the nodes: move Redis near them; every event waits for it",
    )
}

fn buffers(settings: &HashMap<String, String>) -> Finding {
    let name = "redis.output_buffer";
    let Some([hard, soft, seconds]) = settings.get("client-output-buffer-limit").and_then(|text| pubsub(text)) else {
        let remedy = "look at it where Redis is managed: pub/sub clients should have 32 MiB at least";
        return Finding::unknown(name, "client-output-buffer-limit may not be asked", remedy);
    };
    let remedy = "CONFIG SET client-output-buffer-limit \"pubsub 64mb 32mb 60\", and the same in redis.conf: a node that does not \
                  read for a moment is cut off at the limit, and its clients miss messages";
    if hard != 0 && hard < LEAST_BUFFER {
        let found = format!("pub/sub clients are cut off when {hard} bytes wait for them");
        return Finding::problem(name, found, remedy);
    }
    if soft != 0 && soft < LEAST_BUFFER / 4 {
        let found = format!("pub/sub clients are cut off when {soft} bytes wait for them for {seconds} s");
        return Finding::warning(name, found, remedy);
    }
    Finding::ok(name, format!("pub/sub clients may have {hard} bytes waiting, {soft} for {seconds} s (0: no limit)"))
}

/// Finds hard limit, soft limit and seconds of `pubsub` in a text like `normal 0 0 0 slave 268435456 67108864 60
/// pubsub 33554432 8388608 60`.
fn pubsub(text: &str) -> Option<[u64; 3]> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "pubsub").skip(1).map(|word| word.parse().ok());
    Some([words.next()??, words.next()??, words.next()??])
}

fn eviction(settings: &HashMap<String, String>) -> Finding {
    let name = "redis.eviction";
    match settings.get("maxmemory-policy").map(String::as_str) {
        Some("noeviction") => Finding::ok(name, "nothing is evicted"),
        // Every other policy may evict keys of roomcast, because all these keys have a time to live.
        Some(policy) => Finding::warning(
            name,
            format!("when memory is full, keys are evicted ({policy})"),
            "set maxmemory-policy to noeviction, and maxmemory above what histories need: an evicted history starts again without its events",
        ),
        None => Finding::unknown(name, "maxmemory-policy may not be asked", "it should be noeviction"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn facts(version: &str, mode: &str, role: &str) -> ServerFacts {
        ServerFacts {
            version: version.into(),
            mode: mode.into(),
            role: role.into(),
            round_trip: Duration::from_millis(1),
            refused: None,
            settings: HashMap::new(),
        }
    }

    fn limited(text: &str) -> Level {
        buffers(&HashMap::from([("client-output-buffer-limit".into(), text.into())])).level
    }

    #[test]
    fn the_limit_of_pubsub_clients_is_found_among_the_others() {
        assert_eq!(limited("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"), Level::Ok);
        assert_eq!(limited("normal 0 0 0 slave 0 0 0 pubsub 0 0 0"), Level::Ok);
        assert_eq!(limited("normal 0 0 0 slave 0 0 0 pubsub 1000000 0 0"), Level::Problem);
        assert_eq!(limited("normal 0 0 0 slave 0 0 0 pubsub 33554432 1000 60"), Level::Warning);
        assert_eq!(limited("rubbish"), Level::Unknown);
        assert_eq!(buffers(&HashMap::new()).level, Level::Unknown);
    }

    #[test]
    fn old_servers_replicas_and_other_modes_are_problems() {
        for (given, level) in
            [("7.0.15", Level::Ok), ("8.2.1", Level::Ok), ("6.2.14", Level::Problem), ("", Level::Problem)]
        {
            assert_eq!(version(&facts(given, "standalone", "master")).level, level, "{given}");
        }
        assert_eq!(mode(&facts("7.0.0", "standalone", "master"), "redis").level, Level::Ok);
        assert_eq!(mode(&facts("7.0.0", "standalone", "master"), "redis-sentinel").level, Level::Ok);
        assert_eq!(mode(&facts("7.0.0", "cluster", "master"), "redis-cluster").level, Level::Ok);
        assert_eq!(mode(&facts("7.0.0", "cluster", "master"), "redis").level, Level::Problem);
        assert_eq!(mode(&facts("7.0.0", "sentinel", ""), "redis").level, Level::Problem);
        assert_eq!(mode(&facts("7.0.0", "standalone", "slave"), "redis").level, Level::Problem);
    }
}
