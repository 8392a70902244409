//! CEL rules.

use super::scope::Scope;

/// A compiled CEL expression that answers yes or no.
#[derive(Debug, Clone)]
pub struct Rule(String);

impl Rule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// What is wrong, for the author of the contract.
    pub fn compile(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    /// Whether the rule holds. A rule that cannot be evaluated does not hold.
    pub fn holds(&self, _scope: &Scope<'_>) -> bool {
        false
    }

    /// Whether it asks for `owner(room)`, so that the owner must be looked up first.
    pub fn needs_owner(&self) -> bool {
        false
    }

    /// Whether it looks at the payload.
    pub fn reads_payload(&self) -> bool {
        true
    }
}
