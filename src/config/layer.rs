//! Layers of a configuration, each with the name that mistakes and `roomcast config` call it by.

pub(super) mod environment;
pub(super) mod file;
pub(super) mod original;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

/// Values with the name of where they came from.
pub(super) struct Layer {
    /// Such as `roomcast.toml`, or `environment ROOMCAST_LOG__LEVEL`.
    pub(super) name: String,
    /// A table.
    pub(super) values: Value,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let values = self.values.clone().into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(values))
    }
}

/// Everything that the layers so far say.
pub(super) fn merged(figment: &Figment) -> Value {
    figment.find_value("").unwrap_or_else(|_| Value::from(Dict::new()))
}
