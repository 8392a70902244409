//! Lua scripts. Each Redis server gets the text of a script once; from then on only its digest is sent.

use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::scripts::Script as Digest;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::Redis;

/// Position of the first key among the arguments of EVAL and EVALSHA.
const FIRST_KEY: usize = 2;

/// A script from a `.lua` file beside the Rust file that embeds it.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    digest: Digest,
}

impl Script {
    /// Computes the digest of the script. Sends nothing to Redis yet.
    pub fn new(text: &'static str) -> Self {
        Self { text, digest: Digest::from_lua(text) }
    }

    /// Runs the script atomically on the server that holds the keys. In a Redis Cluster the keys must share a slot.
    ///
    /// # Errors
    /// Returns the error of Redis. After a time-out the script may have run; it is never sent again.
    pub async fn run(&self, redis: &Redis, keys: Vec<String>, args: Vec<Value>) -> Result<Value, Error> {
        match self.call(redis, "EVALSHA", Value::String(self.digest.sha1().clone()), &keys, &args).await {
            // A server that was restarted, flushed or promoted does not have the script, and so has not run it.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                self.call(redis, "EVAL", Value::from_static_str(self.text), &keys, &args).await
            }
            answer => answer,
        }
    }

    // This does not use fred's `LuaInterface`, because that ignores the options (`fail_fast`) of our client.
    async fn call(
        &self,
        redis: &Redis,
        command: &'static str,
        script: Value,
        keys: &[String],
        args: &[Value],
    ) -> Result<Value, Error> {
        let bytes = args.iter().map(size_of).sum();
        let Some(_taken) = redis.scripts().take(bytes) else {
            return Err(Error::new(ErrorKind::Backpressure, "too many bytes wait for Redis already"));
        };
        let count = i64::try_from(keys.len()).expect("a script has few keys");
        let names = keys.iter().map(|key| Value::from(key.as_str()));
        let words: Vec<Value> =
            [script, Value::from(count)].into_iter().chain(names).chain(args.iter().cloned()).collect();
        let hash = if keys.is_empty() { ClusterHash::Random } else { ClusterHash::Offset(FIRST_KEY) };
        let about = || format!("{command} {}", keys.first().map_or("", String::as_str));
        redis.noticed(about, redis.client().custom(CustomCommand::new_static(command, hash, false), words)).await
    }
}

fn size_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}
