//! Layers of a configuration. Messages and `roomcast config` name the layer from which a value came.

pub(super) mod environment;
pub(super) mod file;
pub(super) mod original;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

/// The values of one layer, and the name of their source.
pub(super) struct Layer {
    /// The name of the layer, such as `roomcast.toml`, or `environment ROOMCAST_LOG__LEVEL`.
    pub(super) name: String,
    /// The values of the layer, as a table.
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

/// The merged values of all layers so far.
pub(super) fn merged(figment: &Figment) -> Value {
    figment.find_value("").unwrap_or_else(|_| Value::from(Dict::new()))
}
