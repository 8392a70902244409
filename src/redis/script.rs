//! Lua scripts: sent whole once to each Redis, and by their digest from then on.

use fred::error::Error;
use fred::interfaces::LuaInterface;
use fred::types::Value;
use fred::types::scripts::Script as Digest;

use super::Redis;

/// A script from a `.lua` file beside the Rust that embeds it.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    digest: Digest,
}

impl Script {
    /// Knows the digest; nothing is sent yet.
    pub fn new(text: &'static str) -> Self {
        Self { text, digest: Digest::from_lua(text) }
    }

    /// Runs the script, atomically, on the Redis that holds the keys. In a Redis Cluster they must share a slot.
    ///
    /// # Errors
    /// What Redis says. After a time-out the script may have run; it is never sent again.
    pub async fn run(&self, redis: &Redis, keys: Vec<String>, args: Vec<Value>) -> Result<Value, Error> {
        let client = redis.client();
        match client.evalsha(self.digest.sha1().clone(), keys.clone(), args.clone()).await {
            // A Redis that was restarted or flushed, or a replica that was promoted, has forgotten it. It has not run.
            Err(error) if error.details().starts_with("NOSCRIPT") => client.eval(self.text, keys, args).await,
            answer => answer,
        }
    }
}
