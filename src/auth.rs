//! Who a client is: a token in, a [`User`] out.
//!
//! Keys are in memory, so that a handshake is verified without waiting. Each key is bound to one algorithm as it is
//! read, and a token is only ever verified by a key whose algorithm it names: what a header says chooses among keys,
//! never how a key is used.

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

use std::sync::{Arc, OnceLock};
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
use jwks::Jwks;
use key::KeySet;
use verify::Rules;

/// Whether the keys of the configuration can be used, without a node.
///
/// # Errors
/// The first that cannot.
pub fn check_keys(config: &config::Auth) -> Result<(), AuthSetupError> {
    KeySet::configured(&config.keys).map(drop)
}

/// Verifies tokens. Shared by every listener of the node.
pub struct Authenticator {
    /// Keys of the configuration, which never change.
    configured: KeySet,
    /// Keys of the published set, replaced as a whole.
    published: Arc<ArcSwap<KeySet>>,
    jwks: Option<Jwks>,
    rules: Rules,
    revocations: Arc<Revocations>,
    metrics: Arc<Metrics>,
    /// How many were let in by their tokens.
    authenticated: OnceLock<IntCounter>,
}

impl Authenticator {
    /// Reads the keys. A published set that cannot be fetched is no error: it is tried again, and until then
    /// its tokens are refused.
    ///
    /// # Errors
    /// A key of the configuration, or the file of a set, that cannot be used.
    pub async fn new(config: &config::Auth, metrics: Arc<Metrics>) -> Result<Arc<Self>, AuthSetupError> {
        let configured = KeySet::configured(&config.keys)?;
        let published = Arc::new(ArcSwap::from_pointee(KeySet::default()));
        let jwks = match &config.jwks {
            Some(jwks) => Some(Jwks::start(jwks, published.clone(), metrics.clone()).await?),
            None => None,
        };
        let revocations = Arc::new(Revocations::new(metrics.clone()));
        Ok(Arc::new(Self {
            configured,
            published,
            jwks,
            rules: Rules::new(config),
            revocations,
            metrics,
            authenticated: OnceLock::new(),
        }))
    }

    /// Whether any token could hold.
    pub fn has_keys(&self) -> bool {
        self.jwks.is_some() || !self.configured.is_empty()
    }

    /// Decides who a client is. The first source of the contract that has a token decides: a bad token is never
    /// anonymous, and no later source is asked.
    ///
    /// # Errors
    /// Why the client is nobody.
    pub fn authenticate(&self, policy: &AuthPolicy, handshake: &Handshake) -> Result<User, AuthError> {
        let result = self.identify(policy, handshake);
        let counter = |label| self.metrics.authentications_total.with_label_values(&[label]);
        match &result {
            Ok(user) if user.anonymous => counter("anonymous").inc(),
            // Looked up once: all others are seldom.
            Ok(_) => self.authenticated.get_or_init(|| counter("ok")).inc(),
            Err(error) => counter(error.reason()).inc(),
        }
        result
    }

    /// The same, but a token whose key is not known yet waits once for the published set to be fetched again,
    /// at most as long as a fetch may take.
    ///
    /// # Errors
    /// Why the client is nobody.
    pub async fn authenticate_or_refresh(&self, policy: &AuthPolicy, handshake: &Handshake) -> Result<User, AuthError> {
        let known = self.jwks.as_ref().map_or(0, Jwks::fetches);
        let first = self.authenticate(policy, handshake);
        match (&first, &self.jwks) {
            // Boxed: few wait, and everybody's future has the place of what it might wait for.
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

    /// The user of a token, for handshakes and for tokens that replace an ending one.
    ///
    /// # Errors
    /// Why the token does not hold.
    pub fn user(&self, token: &str, policy: &AuthPolicy) -> Result<User, AuthError> {
        let claims = self.verify(token)?;
        if capability::is_capability(&claims) {
            return Err(AuthError::WrongUse);
        }
        let user = claims::user(&claims, token, policy)?;
        // Whole seconds were compared; the moment at which sessions end is the same to the millisecond.
        if self.ends_at(&user).is_some_and(|at| at <= SystemTime::now()) {
            return Err(AuthError::TokenExpired);
        }
        if self.is_revoked(&user) { Err(AuthError::Revoked) } else { Ok(user) }
    }

    /// The same, but a token whose key is not known yet waits once for the published set to be fetched again.
    ///
    /// # Errors
    /// Why the token does not hold.
    pub async fn user_or_refresh(&self, token: &str, policy: &AuthPolicy) -> Result<User, AuthError> {
        let known = self.jwks.as_ref().map_or(0, Jwks::fetches);
        let first = self.user(token, policy);
        match (&first, &self.jwks) {
            (Err(AuthError::KeyUnknown), Some(jwks)) if jwks.is_newer_than(known).await => self.user(token, policy),
            _ => first,
        }
    }

    /// When a user's token no longer holds: its `exp`, and the leeway.
    pub fn ends_at(&self, user: &User) -> Option<SystemTime> {
        user.expires_at?.checked_add(self.rules.leeway())
    }

    /// Whether the user, or the token that said who it is, is revoked now.
    pub fn is_revoked(&self, user: &User) -> bool {
        self.revocations.refuse_user(user)
    }

    /// What is revoked.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// The claims of a token whose signature and times hold.
    fn verify(&self, token: &str) -> Result<ClaimSet, AuthError> {
        let published = self.published.load();
        let result = verify::verify(token, &[&self.configured, &published], &self.rules);
        if let (Err(AuthError::KeyUnknown), Some(jwks)) = (&result, &self.jwks) {
            jwks.ask_for_refresh();
        }
        result
    }
}

// Keys are not shown.
impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("rules", &self.rules).finish_non_exhaustive()
    }
}
