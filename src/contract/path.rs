//! A dotted path to a value of a [`Scope`].

use serde_json::Value;

use super::scope::Scope;

/// `payload.job.id`, `user.id`, `user.claims.tenant`, `params.userId`, `socket.id`, `vars.room`, `room`, `now`, `now_ms`,
/// `event.id`, `error.code`, `error.message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong, for the author of the contract.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    /// The value; `None` when there is none.
    pub fn find(&self, _scope: &Scope<'_>) -> Option<Value> {
        None
    }
}
