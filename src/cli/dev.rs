//! Development mode: keys for one run, every contract of the binary, and pages of every origin.

use std::time::Duration;

use super::welcome::{TRYING_ROLES, TRYING_USER};
use crate::auth::mint::{MintError, NewToken, TokenSigner, mint};
use crate::config::{Algorithm, ApiKeySettings, AuthKeySettings, Config, Secret};

/// The name of the keys that development mode makes for one run.
const NAME: &str = "dev";
/// How long the printed token is valid.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The keys of one run, which development mode prints.
pub(super) struct Development {
    /// A user's token.
    pub(super) token: String,
    /// The API key.
    pub(super) api_key: String,
}

/// Adds a signing key and an API key for this run. If the settings name no contracts, adds those of the binary. If they
/// name no origins, permits all origins, because a page under development has a server of its own.
pub(super) fn prepare(config: &mut Config) -> Result<Development, MintError> {
    let (secret, api_key) = (random(), random());
    let claims = NewToken {
        subject: Some(TRYING_USER.into()),
        roles: TRYING_ROLES.map(str::to_owned).to_vec(),
        issuer: config.auth.issuer.first().cloned(),
        audience: config.auth.audience.first().cloned(),
        ..NewToken::default()
    };
    // The name of the keys is unique, so that it does not clash with configured keys.
    let kid = format!("{NAME}-{}", &random()[..8]);
    let signer = TokenSigner { algorithm: Algorithm::HS256, kid: Some(&kid), secret: &secret };
    let token = mint(&claims, TOKEN_TTL, &signer)?;
    config.auth.keys.push(AuthKeySettings {
        kid: Some(kid),
        algorithm: Algorithm::HS256,
        secret: Some(Secret::new(secret)),
        public_key: None,
    });
    config.api.keys.push(ApiKeySettings {
        name: NAME.into(),
        secret: Secret::new(&*api_key),
        ..ApiKeySettings::default()
    });
    if config.contracts.files.is_empty() {
        config.contracts.files.push("embedded:*".into());
    }
    if config.server.cors_origins.is_empty() {
        config.server.cors_origins.push("*".into());
    }
    Ok(Development { token, api_key })
}

/// Returns 244 random bits from the operating system, in hexadecimal.
fn random() -> String {
    [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|id| id.simple().to_string()).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_run_and_stand_beside_configured_ones() {
        let mut config = Config::default();
        config.contracts.files.push("mine.toml".into());
        config.server.cors_origins.push("https://mine.example".into());
        config
            .auth
            .keys
            .push(AuthKeySettings { secret: Some(Secret::new("configured")), ..AuthKeySettings::default() });
        let first = prepare(&mut config).unwrap();
        let mut plain = Config::default();
        let second = prepare(&mut plain).unwrap();
        assert_eq!(plain.server.cors_origins, ["*"]);
        assert_ne!(first.api_key, second.api_key);
        assert_eq!(config.auth.keys.len(), 2);
        assert_eq!(config.contracts.files, ["mine.toml"]);
        assert_eq!(config.server.cors_origins, ["https://mine.example"]);
        assert_eq!(config.api.keys[0].secret.expose(), first.api_key);
    }
}
