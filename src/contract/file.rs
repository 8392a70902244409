//! The contract file as it is written.

/// The JSON Schema of contract files, for editors.
pub fn json_schema() -> serde_json::Value {
    serde_json::json!({ "type": "object" })
}
