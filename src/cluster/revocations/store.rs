//! Revocations in Redis: a HASH contains the revocations and the number of the last change, and a ZSET contains the
//! time at which each revocation ends.

use std::collections::HashMap;
use std::future::Future;
use std::time::SystemTime;

use fred::error::Error;
use fred::interfaces::HashesInterface;
use fred::types::{FromValue, Value};

use crate::directory::{MAX_REVOCATIONS, Revocation, Subject};
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::time::unix_millis;

/// A subject with its revocation, or with `None` if the subject is no longer revoked.
pub(super) type RevocationChange = (Subject, Option<Revocation>);

/// The version of the store. A different epoch means that Redis has lost the revocations of the earlier epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Version {
    pub(super) epoch: String,
    pub(super) number: u64,
}

/// Why nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreError {
    Away,
    Full,
}

/// The whole content of the store of revocations.
pub(super) struct Stored {
    pub(super) version: Version,
    pub(super) entries: HashMap<Subject, Revocation>,
}

pub(super) struct RevocationStore {
    pub(super) redis: Redis,
    change: Script,
}

const EPOCH: &str = "#epoch";
const NUMBER: &str = "#number";

impl RevocationStore {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis, change: Script::new(include_str!("change.lua")) }
    }

    /// Stores all of the changes, or none of them.
    pub(super) async fn write(&self, changes: &[RevocationChange]) -> Result<Version, StoreError> {
        let mut args: Vec<Value> =
            vec![unix_millis(SystemTime::now()).to_string().into(), MAX_REVOCATIONS.to_string().into()];
        for (subject, revocation) in changes {
            // A revocation consists only of numbers and a flag, so this conversion cannot fail.
            let json = revocation.and_then(|it| serde_json::to_string(&it).ok()).unwrap_or_default();
            let end = revocation.map_or(0, |it| it.until);
            args.extend([Value::from(subject.key()), json.into(), end.to_string().into()]);
        }
        let keys = self.keys();
        let answer = self.answered(self.change.run(&self.redis, keys, args)).await?;
        match Vec::<String>::from_value(answer).unwrap_or_default().as_slice() {
            [epoch, number] => Ok(Version { epoch: epoch.clone(), number: number.parse().unwrap_or_default() }),
            _ => Err(StoreError::Full),
        }
    }

    /// The version of the store after the last change; `None` if nothing is stored.
    pub(super) async fn version(&self) -> Result<Option<Version>, StoreError> {
        let [entries, _] = self.names();
        let fields = vec![EPOCH, NUMBER];
        let found: Vec<Option<String>> = self.answered(self.redis.client().hmget(entries, fields)).await?;
        Ok(version(found.first().cloned().flatten(), found.get(1).cloned().flatten()))
    }

    /// Reads the whole store; `None` if nothing is stored.
    pub(super) async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let [entries, _] = self.names();
        let mut found: HashMap<String, String> = self.answered(self.redis.client().hgetall(entries)).await?;
        let Some(version) = version(found.remove(EPOCH), found.remove(NUMBER)) else { return Ok(None) };
        let entry = |(key, json): (String, String)| Some((Subject::of_key(&key)?, serde_json::from_str(&json).ok()?));
        Ok(Some(Stored { version, entries: found.into_iter().filter_map(entry).collect() }))
    }

    fn names(&self) -> [String; 2] {
        ["entries", "ends"].map(|part| self.redis.keys().revocations(part))
    }

    fn keys(&self) -> Vec<String> {
        self.names().into()
    }

    async fn answered<T>(&self, command: impl Future<Output = Result<T, Error>> + Send) -> Result<T, StoreError> {
        let noticed = self.redis.noticed(|| "revocations".to_owned(), command);
        self.redis.when_up(noticed).await.map_err(|error| {
            tracing::debug!(redis.error = %error, "revocations could not be stored or read");
            StoreError::Away
        })
    }
}

fn version(epoch: Option<String>, number: Option<String>) -> Option<Version> {
    Some(Version { epoch: epoch?, number: number?.parse().ok()? })
}
