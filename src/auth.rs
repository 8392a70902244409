//! Authentication: verifies a client's token and returns a [`User`].
//!
//! Keys are held in memory, so a handshake is verified without waiting. Each key is bound to one algorithm when it is
//! read, and verifies only tokens that name this algorithm. So a token's header selects a key, but never how the key
//! is used.

pub mod api_keys;
mod capability;
mod claim_set;
mod claims;
mod error;
mod handshake;
mod jwks;
mod key;
pub mod mint;
mod revocations;
mod verify;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
pub(crate) use claims::issued_at;
pub use error::{AuthError, AuthSetupError};
pub use handshake::Handshake;
use prometheus::IntCounter;
pub use revocations::Revocations;

use crate::config;
use crate::contract::model::{AuthMode, AuthPolicy};
use crate::telemetry::metrics::Metrics;
use crate::user::User;
use claim_set::ClaimSet;
use jwks::KeySetFetcher;
use key::KeySet;
use verify::Rules;

/// Checks that the keys of the configuration can be used. Needs no node.
///
/// # Errors
/// Returns an error for the first key that cannot be used.
pub fn check_keys(config: &config::AuthSettings) -> Result<(), AuthSetupError> {
    KeySet::configured(&config.keys).map(drop)
}

/// Verifies tokens. Shared by every listener of the node.
pub struct Authenticator {
    /// The keys of the configuration, which do not change while the node runs.
    configured: KeySet,
    /// The keys of the published key set. A refresh replaces all of them at once.
    published: Arc<ArcSwap<KeySet>>,
    jwks: Option<KeySetFetcher>,
    rules: Rules,
    revocations: Arc<Revocations>,
    metrics: Arc<Metrics>,
    /// Counts the clients that were authenticated. Looked up once, because most handshakes need this counter.
    authenticated: IntCounter,
}

impl Authenticator {
    /// Reads the keys. A published key set that cannot be fetched is not an error: the node fetches it again, and
    /// refuses the tokens that need its keys until a fetch succeeds.
    ///
    /// # Errors
    /// Returns an error if a key of the configuration, or the file of a key set, cannot be used.
    pub async fn new(config: &config::AuthSettings, metrics: Arc<Metrics>) -> Result<Arc<Self>, AuthSetupError> {
        let configured = KeySet::configured(&config.keys)?;
        let published = Arc::new(ArcSwap::from_pointee(KeySet::default()));
        let jwks = match &config.jwks {
            Some(jwks) => Some(KeySetFetcher::start(jwks, published.clone(), metrics.clone()).await?),
            None => None,
        };
        let revocations = Arc::new(Revocations::new(metrics.clone()));
        let authenticated = metrics.authentications_total.with_label_values(&["ok"]);
        let rules = Rules::new(config);
        Ok(Arc::new(Self { configured, published, jwks, rules, revocations, metrics, authenticated }))
    }

    /// Authenticates a client. The first source of the contract that has a token decides: a client with an invalid
    /// token is never anonymous, and later sources are not read.
    ///
    /// # Errors
    /// Returns why the client is refused.
    pub fn authenticate(&self, policy: &AuthPolicy, handshake: &Handshake) -> Result<User, AuthError> {
        let result = self.identify(policy, handshake);
        let counter = |label| self.metrics.authentications_total.with_label_values(&[label]);
        match &result {
            Ok(user) if user.anonymous => counter("anonymous").inc(),
            Ok(_) => self.authenticated.inc(),
            Err(error) => counter(error.reason()).inc(),
        }
        result
    }

    /// Like [`Authenticator::authenticate`]. If the token's key is not known, waits for a refresh of the published key
    /// set and tries once more. The wait is at most as long as a fetch may take.
    ///
    /// # Errors
    /// Returns why the client is refused.
    pub async fn authenticate_or_refresh(&self, policy: &AuthPolicy, handshake: &Handshake) -> Result<User, AuthError> {
        let known = self.jwks.as_ref().map_or(0, KeySetFetcher::fetches);
        let first = self.authenticate(policy, handshake);
        match (&first, &self.jwks) {
            // The future of the wait is boxed, because few handshakes need it. Unboxed, it would enlarge the future of
            // every handshake.
            (Err(AuthError::KeyUnknown), Some(jwks)) if Box::pin(jwks.is_newer_than(known)).await => {
                self.authenticate(policy, handshake)
            }
            _ => first,
        }
    }

    fn identify(&self, policy: &AuthPolicy, handshake: &Handshake) -> Result<User, AuthError> {
        if policy.mode == AuthMode::None {
            return Ok(User::anonymous());
        }
        match handshake.token(&policy.tokens)? {
            Some(token) => self.user(&token, policy),
            None if policy.mode == AuthMode::Optional => Ok(User::anonymous()),
            None => Err(AuthError::TokenMissing),
        }
    }

    /// Verifies a token and returns its user. Also used for a newer token that replaces an expiring one.
    ///
    /// # Errors
    /// Returns why the token is not valid.
    pub fn user(&self, token: &str, policy: &AuthPolicy) -> Result<User, AuthError> {
        let claims = self.verify(token)?;
        if capability::is_capability(&claims) {
            return Err(AuthError::WrongUse);
        }
        let user = claims::user(&claims, token, policy)?;
        // The JWT library compares whole seconds. This check compares the exact ms at which the node will end the
        // session.
        if self.ends_at(&user).is_some_and(|at| at <= SystemTime::now()) {
            return Err(AuthError::TokenExpired);
        }
        if self.is_revoked(&user) { Err(AuthError::Revoked) } else { Ok(user) }
    }

    /// Like [`Authenticator::user`]. If the token's key is not known, waits for a refresh of the published key set and
    /// tries once more.
    ///
    /// # Errors
    /// Returns why the token is not valid.
    pub async fn user_or_refresh(&self, token: &str, policy: &AuthPolicy) -> Result<User, AuthError> {
        let known = self.jwks.as_ref().map_or(0, KeySetFetcher::fetches);
        let first = self.user(token, policy);
        match (&first, &self.jwks) {
            (Err(AuthError::KeyUnknown), Some(jwks)) if jwks.is_newer_than(known).await => self.user(token, policy),
            _ => first,
        }
    }

    /// The time at which a user's token stops being valid: its `exp` plus the leeway. `None` for a user without an
    /// `exp`.
    pub fn ends_at(&self, user: &User) -> Option<SystemTime> {
        user.expires_at?.checked_add(self.rules.leeway())
    }

    /// Whether the user, or the token that identified the user, is revoked now.
    pub fn is_revoked(&self, user: &User) -> bool {
        self.revocations.refuse_user(user)
    }

    /// The revocations in the memory of this node.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// The claims of a token whose signature and times are valid.
    fn verify(&self, token: &str) -> Result<ClaimSet, AuthError> {
        let published = self.published.load();
        let result = verify::verify(token, &[&self.configured, &published], &self.rules);
        if let (Err(AuthError::KeyUnknown), Some(jwks)) = (&result, &self.jwks) {
            jwks.ask_for_refresh();
        }
        result
    }
}

// The debug output shows no keys.
impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("rules", &self.rules).finish_non_exhaustive()
    }
}
