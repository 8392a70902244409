//! The promises of the stores that have a form in memory and a form in Redis (`src/store.rs`). Each promise is a
//! function over the trait of the store. Tests of one form alone follow the promises in each file.

use std::sync::Arc;
use std::time::Duration;

use roomcast::config;
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use crate::support::redis::{RedisServer, eventually};

/// How long a command to Redis may last in these tests.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs promises in memory, with a redis-server each, and one after the other with one Redis Cluster. The module that
/// uses this macro has the functions `memory` and `redis`, which create the store.
macro_rules! on_every_form {
    ($($promise:ident)*) => {
        mod in_memory {
            $( #[tokio::test] async fn $promise() {
                super::$promise(super::memory()).await;
            } )*
        }
        mod in_redis {
            $( #[tokio::test] async fn $promise() {
                let server = crate::support::redis::RedisServer::start();
                let redis = crate::stores::connect(&server, "p").await;
                super::$promise(super::redis(redis.clone())).await;
                redis.close().await;
            } )*
        }
        #[tokio::test]
        async fn in_redis_cluster() {
            let server = crate::support::redis::RedisServer::cluster();
            $(
                let redis = crate::stores::connect(&server, stringify!($promise)).await;
                assert!(redis.is_clustered());
                $promise(self::redis(redis.clone())).await;
                redis.close().await;
            )*
        }
    };
}

mod history;
mod idempotency;
mod notices;
mod owners;
mod presence;
mod recovery;
mod throttles;

/// Connects to the server with this prefix of keys, and waits until Redis works.
async fn connect(server: &RedisServer, prefix: &str) -> Redis {
    connect_counted(server, prefix, &Arc::default()).await
}

async fn connect_counted(server: &RedisServer, prefix: &str, metrics: &Arc<Metrics>) -> Redis {
    let config = config::RedisSettings {
        url: Some(config::Url::new(server.url())),
        prefix: prefix.into(),
        command_timeout: COMMAND_TIMEOUT.into(),
        ..config::RedisSettings::default()
    };
    let redis = Redis::connect(&config, prefix, metrics.clone()).unwrap();
    eventually("Redis is up", Duration::from_secs(10), || redis.is_up()).await;
    redis
}
