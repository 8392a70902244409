//! The API keys of backends and operators.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config;

/// The entry in a key's `contracts` that means every contract, and events that no contract describes.
const ALL: &str = "*";

/// A known API key, found by the secret that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The name of the key's holder.
    pub name: String,
    /// The contracts that the key may publish to. `*` means all contracts, and plain emits.
    pub contracts: Vec<String>,
}

impl ApiKey {
    /// Whether the key may publish to a contract, and read from it.
    pub fn permits(&self, contract: &str) -> bool {
        self.permits_everything() || self.contracts.iter().any(|known| known == contract)
    }

    /// Whether the key may also make requests that no contract covers, such as emitting an event that no contract
    /// describes.
    pub fn permits_everything(&self) -> bool {
        self.contracts.iter().any(|known| known == ALL)
    }
}

/// The API keys of a node. Holds hashes of the secrets only.
#[derive(Default)]
pub struct ApiKeys(Vec<([u8; 32], ApiKey)>);

impl ApiKeys {
    /// Creates the list of keys from the configuration, with hashes in place of the secrets.
    pub fn new(keys: &[config::ApiKeySettings]) -> Self {
        let hashed = |key: &config::ApiKeySettings| {
            let known = ApiKey { name: key.name.clone(), contracts: key.contracts.clone() };
            (hash(key.secret.expose()), known)
        };
        Self(keys.iter().map(hashed).collect())
    }

    /// Finds the key of an `Authorization: Bearer …` header.
    ///
    /// Takes the same time for every key, and however much of the secret is right: hashes of equal length are compared
    /// without branches, and all of them are compared.
    pub fn check(&self, authorization: &str) -> Option<&ApiKey> {
        let (scheme, secret) = authorization.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let presented = hash(secret.trim());
        let (mut found, mut place) = (Choice::from(0), 0_u64);
        for (index, (known, _)) in self.0.iter().enumerate() {
            let equal = known.ct_eq(&presented);
            place.conditional_assign(&(index as u64), equal);
            found |= equal;
        }
        bool::from(found).then(|| &self.0[usize::try_from(place).unwrap_or_default()].1)
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

// The debug output does not show hashes either: a weak secret could be guessed from its hash.
impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, key)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn keys() -> ApiKeys {
        let key = |name: &str, secret: &str, contracts: &[&str]| config::ApiKeySettings {
            name: name.into(),
            secret: Secret::new(secret),
            contracts: contracts.iter().map(|&name| name.into()).collect(),
        };
        ApiKeys::new(&[
            key("a", "first-secret-of-a", &["*"]),
            key("b", "secret-of-b", &["one"]),
            key("a", "next", &["*"]),
        ])
    }

    #[test]
    fn every_key_is_found_by_its_secret() {
        let keys = keys();
        assert_eq!(keys.check("Bearer first-secret-of-a").unwrap().name, "a");
        assert_eq!(keys.check("bearer  secret-of-b ").unwrap().name, "b");
        assert_eq!(keys.check("Bearer next").unwrap().name, "a");
    }

    #[test]
    fn everything_else_is_nobody() {
        let keys = keys();
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer first-secret-of-", "Basic secret-of-b", "secret-of-b", "Bearer NEXT"]
        {
            assert_eq!(keys.check(wrong), None, "{wrong}");
        }
        assert_eq!(ApiKeys::default().check("Bearer "), None);
    }

    #[test]
    fn key_is_scoped_to_its_contracts() {
        let keys = keys();
        let b = keys.check("Bearer secret-of-b").unwrap();
        assert!(b.permits("one") && !b.permits("two") && !b.permits_everything());
        assert!(keys.check("Bearer next").unwrap().permits("two"));
        assert!(!format!("{keys:?}").contains("secret"));
    }
}
