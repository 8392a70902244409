//! Decides from which web pages a client may connect. Browsers enforce this (CORS) for long-polling only. A WebSocket
//! from any page would be accepted with the user's cookies if the node did not check its `Origin`.

use std::sync::Arc;

use http::header::{HOST, HeaderValue, ORIGIN};
use http::{HeaderMap, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// The origins that `server.cors_origins` names.
#[derive(Clone)]
pub(in crate::engine) enum AllowedOrigins {
    Any,
    These(Arc<[Origin]>),
}

impl AllowedOrigins {
    pub(in crate::engine) fn new(origins: &[String]) -> Self {
        if origins.iter().any(|origin| origin == "*") {
            return Self::Any;
        }
        // The check of the configuration has already refused values that are not origins.
        Self::These(origins.iter().filter_map(|origin| Origin::read(origin)).collect())
    }

    /// Whether a request from a page may open a connection. A request without an `Origin` does not come from a web
    /// page.
    pub(super) fn permit(&self, headers: &HeaderMap) -> bool {
        let (Self::These(origins), Some(origin)) = (self, headers.get(ORIGIN)) else { return true };
        let Some(origin) = read_origin(origin) else { return false };
        origins.contains(&origin) || origin.is_own(headers)
    }

    /// The CORS headers for browsers. A page may send any header, because only its origin decides whether it may
    /// connect.
    pub(in crate::engine) fn cors(&self) -> CorsLayer {
        let layer =
            CorsLayer::new().allow_methods([Method::GET, Method::POST]).allow_headers(AllowHeaders::mirror_request());
        match self {
            Self::Any => layer.allow_origin(AllowOrigin::any()),
            Self::These(origins) => {
                let (named, credentials) = (origins.clone(), !origins.is_empty());
                layer
                    .allow_origin(AllowOrigin::predicate(move |origin, _| {
                        read_origin(origin).is_some_and(|origin| named.contains(&origin))
                    }))
                    .allow_credentials(credentials)
            }
        }
    }
}

fn read_origin(header: &HeaderValue) -> Option<Origin> {
    Origin::read(header.to_str().ok()?)
}

/// An origin (RFC 6454). Origins are equal if a browser would treat them as the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Origin {
    /// `null`: the origin of a sandboxed page or of a local file.
    Opaque,
    /// A scheme, a host (empty with `file://`), and a port: the given port, or else the scheme's default port if it has
    /// one.
    Named { scheme: String, host: String, port: Option<u16> },
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Some(Self::Opaque);
        }
        let (scheme, rest) = text.split_once("://")?;
        let (host, port) = host_and_port(rest.trim_end_matches('/'))?;
        Some(Self::Named { scheme: scheme.to_owned(), host: host.to_owned(), port: port.or(default_port(scheme)) })
    }

    /// Whether the page comes from the same host and port that the request goes to. `Host` has no scheme. If it has
    /// no port, the default port of the page's scheme is meant, because a browser leaves the port out only then.
    fn is_own(&self, headers: &HeaderMap) -> bool {
        let Self::Named { scheme, host, port } = self else { return false };
        let asked = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_ascii_lowercase);
        let asked = asked.as_deref().and_then(host_and_port);
        asked.is_some_and(|(asked, at)| asked == host && !asked.is_empty() && at.or(default_port(scheme)) == *port)
    }
}

/// Splits `rt.example.com:443` or `[::1]:443` into host and port.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    match text.rsplit_once(':') {
        // A colon inside the brackets of an IPv6 address does not end the host.
        Some((host, port)) if !port.ends_with(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((text, None)),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits_at(host: &'static str, origins: &[&str], origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        let origins: Vec<_> = origins.iter().map(|&origin| origin.to_owned()).collect();
        AllowedOrigins::new(&origins).permit(&headers)
    }

    fn permits(origins: &[&str], origin: Option<&'static str>) -> bool {
        permits_at("here.example:3000", origins, origin)
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        assert!(permits(&[], None));
        assert!(permits(&[], Some("http://here.example:3000")));
        assert!(!permits(&[], Some("https://evil.example")));
        assert!(!permits(&[], Some("null")));
        assert!(permits(&["https://App.example/"], Some("https://app.example")));
        assert!(!permits(&["https://app.example"], Some("https://evil.example")));
        assert!(permits(&["*"], Some("https://evil.example")));
    }

    #[test]
    fn origins_are_compared_as_scheme_host_and_port() {
        for (host, origin, is_own) in [
            ("rt.example.com:443", "https://rt.example.com", true),
            ("rt.example.com", "https://rt.example.com:443", true),
            ("rt.example.com", "https://rt.example.com", true),
            ("RT.example.com:80", "http://rt.Example.com", true),
            ("rt.example.com:8443", "https://rt.example.com:8443", true),
            ("[::1]:443", "https://[::1]", true),
            ("[::1]", "http://[::1]:80", true),
            ("rt.example.com:443", "http://rt.example.com", false),
            ("rt.example.com:80", "https://rt.example.com", false),
            ("rt.example.com", "https://rt.example.com:8443", false),
            ("rt.example.com:8443", "https://rt.example.com", false),
            ("example.com", "https://rt.example.com", false),
            ("", "file://", false),
            ("localhost", "capacitor://localhost:80", false),
        ] {
            assert_eq!(permits_at(host, &[], Some(origin)), is_own, "{origin} at {host}");
        }
        assert!(permits(&["https://app.example:443"], Some("https://app.example")));
        assert!(!permits(&["https://app.example"], Some("http://app.example")));
        assert!(!permits(&["https://app.example"], Some("https://app.example:8443")));
    }

    #[test]
    fn pages_of_apps_and_files_can_be_listed() {
        for origin in ["null", "file://", "capacitor://localhost", "ionic://localhost", "app://bundle"] {
            assert!(!permits(&[], Some(origin)), "{origin}");
            assert!(permits(&[origin], Some(origin)), "{origin}");
        }
        assert!(!permits(&["file://"], Some("null")) && !permits(&["null"], Some("file://")));
        assert!(!permits(&["file://"], Some("https://evil.example")));
    }
}
