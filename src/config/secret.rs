//! Secret values, which are never shown.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::schema::inline_schema;

/// The text that is shown instead of a secret.
pub(super) const HIDDEN: &str = "***";

/// A secret. Neither `Debug` nor `Serialize` shows it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Only the code that needs it may call this.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the secret value is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A URL. Its user information, and parameters that name a password or token, are never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    /// Takes a URL without checking it.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The URL itself. Only the code that connects may call this.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the URL is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scheme of the URL: the part before `://`, as it was written.
    pub fn scheme(&self) -> Option<&str> {
        self.0.split_once("://").map(|(scheme, _)| scheme)
    }

    /// Returns the URL without its secrets.
    pub fn masked(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else { return HIDDEN.into() };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        // An unescaped slash or question mark in a password makes the rest of the URL look like a path. Then nothing
        // more is shown.
        if tail.contains('@') {
            return format!("{scheme}://{HIDDEN}");
        }
        let authority = match authority.rsplit_once('@') {
            Some((_, host)) => format!("{HIDDEN}@{host}"),
            None => authority.to_owned(),
        };
        let query: Vec<Cow<'_, str>> = query.split('&').map(mask_parameter).collect();
        let mark = if query == [""] { "" } else { "?" };
        format!("{scheme}://{authority}{path}{mark}{}", query.join("&"))
    }
}

fn mask_parameter(parameter: &str) -> Cow<'_, str> {
    let Some((name, _)) = parameter.split_once('=') else { return parameter.into() };
    let lower = name.to_ascii_lowercase();
    let secret = ["pass", "secret", "token", "key", "auth", "sig"].iter().any(|word| lower.contains(word));
    if secret { format!("{name}={HIDDEN}").into() } else { parameter.into() }
}

// === showing ===

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

inline_schema!(Secret, { "type": "string", "format": "secret" });

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

inline_schema!(Url, { "type": "string", "format": "url" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_shown_nowhere() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn url_hides_what_authenticates() {
        let masked = |url: &str| Url::new(url).masked();
        assert_eq!(masked("redis://localhost:6379/1"), "redis://localhost:6379/1");
        assert_eq!(masked("redis://user:pw@host:6379/1"), "redis://***@host:6379/1");
        assert_eq!(masked("redis://:p@w@host:6379"), "redis://***@host:6379");
        assert_eq!(masked("redis://:p/w@host:6379"), "redis://***");
        assert_eq!(masked("redis://:p?w@host:6379"), "redis://***");
        assert_eq!(
            masked("redis-sentinel://a:1?node=b:2&sentinelPassword=pw"),
            "redis-sentinel://a:1?node=b:2&sentinelPassword=***"
        );
        assert_eq!(masked("pw@host"), "***");
        assert_eq!(format!("{:?}", Url::new("https://u:pw@h/p")), "https://***@h/p");
    }
}
