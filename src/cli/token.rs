//! `roomcast token`

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde_json::{Map, Value};

use super::{ConfigFile, Failure};
use crate::auth::mint::{NewToken, TokenSigner, mint};
use crate::config::{Algorithm, AuthSettings, Period};

/// The token's claims and its key.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The user's id. Required, except for a capability.
    #[arg(long, value_name = "ID", required_unless_present = "capability")]
    sub: Option<String>,
    /// A role of the user; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A further claim. The value is JSON, or else a text. May be given several times.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// How long the token is valid.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    ttl: String,
    /// Makes a capability for this room instead of a user's token. A client that sends it in a payload may join the
    /// room.
    #[arg(long, value_name = "ROOM")]
    capability: Option<String>,
    /// Signs with this secret and HS256 instead of the configured key. For development only: other users of the machine
    /// can see it.
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// Signs with the configured key of this name.
    #[arg(long, value_name = "NAME", conflicts_with = "secret")]
    kid: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(args: &TokenArgs) -> Result<String, Failure> {
    let auth = match &args.secret {
        // With a secret on the command line, no configuration is needed.
        Some(_) if args.config.config.is_none() => AuthSettings::default(),
        _ => args.config.load(Vec::new())?.config.auth,
    };
    sign(args, &auth).map_err(Failure::configuration)
}

fn sign(args: &TokenArgs, auth: &AuthSettings) -> anyhow::Result<String> {
    let ttl: Period = args.ttl.parse().map_err(|problem| anyhow!("--ttl must be {problem}"))?;
    let claims = NewToken {
        subject: args.sub.clone(),
        roles: args.roles.clone(),
        room: args.capability.clone(),
        issuer: auth.issuer.first().cloned(),
        audience: auth.audience.first().cloned(),
        others: claims(&args.claims)?,
    };
    let signer = signer(args, auth)?;
    mint(&claims, ttl.get(), &signer).context("the token cannot be made")
}

fn claims(texts: &[String]) -> anyhow::Result<Map<String, Value>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
        }
        _ => Err(anyhow!("--claim {text}: write NAME=VALUE")),
    };
    texts.iter().map(pair).collect()
}

fn signer<'a>(args: &'a TokenArgs, auth: &'a AuthSettings) -> anyhow::Result<TokenSigner<'a>> {
    if let Some(secret) = &args.secret {
        return Ok(TokenSigner { algorithm: Algorithm::HS256, kid: None, secret });
    }
    let wanted = |kid: &Option<String>| args.kid.is_none() || *kid == args.kid;
    let key = auth.keys.iter().find(|key| key.algorithm.is_symmetric() && wanted(&key.kid));
    match key.and_then(|key| Some((key, key.secret.as_ref()?))) {
        Some((key, secret)) => {
            Ok(TokenSigner { algorithm: key.algorithm, kid: key.kid.as_deref(), secret: secret.expose() })
        }
        None => bail!("auth.keys has no key for HS256, HS384 or HS512: configure one, or give --secret"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_json_or_text() {
        let read = claims(&["n=5".into(), "rooms=[\"a:*\"]".into(), "name=Ann=Lee".into(), "id=\"5\"".into()]).unwrap();
        assert_eq!(Value::Object(read), serde_json::json!({ "n": 5, "rooms": ["a:*"], "name": "Ann=Lee", "id": "5" }));
        assert!(claims(&["alone".into()]).is_err());
    }
}
