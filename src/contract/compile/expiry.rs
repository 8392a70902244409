//! Compiles what happens when a token expires.

use std::time::Duration;

use super::Compiler;
use crate::contract::document::KeyPath;
use crate::contract::file;
use crate::contract::model::{AuthMode, ExpiryPolicy};

/// How long before its token ends a client is warned if the contract does not set the time.
const DEFAULT_WARNING: Duration = Duration::from_secs(60);

impl Compiler<'_> {
    pub(super) fn expiry(&mut self, key_path: &KeyPath, raw: Option<file::ExpirySpec>, mode: AuthMode) -> ExpiryPolicy {
        let Some(raw) = raw else { return ExpiryPolicy::default() };
        if mode == AuthMode::None {
            self.note_mistake(
                key_path,
                "tokens are not checked, so none expires",
                "take it out, or give `mode` another value",
            );
        }
        let before = self.duration(&key_path.key("warn"), raw.warn.clone());
        if raw.warn.is_some() && raw.warn_event.is_none() {
            let remedy = "add `warn_event = \"token:expiring\"`, or remove `warn`";
            self.note_mistake(
                &key_path.key("warn"),
                "`warn` says when to warn a client, and `warn_event` is missing",
                remedy,
            );
        }
        if let Some(event) = &raw.warn_event {
            self.check_event_name(&key_path.key("warn_event"), event);
        }
        if let Some(event) = &raw.refresh {
            self.check_event_name(&key_path.key("refresh"), event);
            if self.keys.client.contains(event) {
                let problem = format!("[client.\"{event}\"] is the same event");
                self.note_mistake(&key_path.key("refresh"), problem, "rename the client event or the refresh event");
            }
        }
        ExpiryPolicy {
            warn: raw.warn_event.map(|event| (before.unwrap_or(DEFAULT_WARNING), event)),
            refresh: raw.refresh,
            then: raw.then.unwrap_or_default(),
        }
    }
}
