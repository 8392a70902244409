//! JSON Schemas of types that are written as one value, such as a text with a unit.

use crate::rate::Rate;

/// Gives a type a JSON Schema, which is used wherever the type occurs.
macro_rules! inline_schema {
    ($name:ident, $schema:tt) => {
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

pub(crate) use inline_schema;

inline_schema!(Rate, { "type": "string", "format": "rate" });
