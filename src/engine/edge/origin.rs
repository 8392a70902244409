//! Which web pages may connect. Browsers ask permission for polling only; a WebSocket from any page would get
//! through, with the user's cookies, if nobody looked at its `Origin`.

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

pub(super) enum Origins {
    Any,
    These(Vec<String>),
}

impl Origins {
    pub(super) fn new(origins: &[String]) -> Self {
        if origins.iter().any(|origin| origin == "*") {
            return Self::Any;
        }
        Self::These(origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect())
    }

    /// Whether a request may open a connection. One without an `Origin` is not from a web page.
    pub(super) fn permit(&self, headers: &HeaderMap) -> bool {
        let (Self::These(origins), Some(origin)) = (self, headers.get(ORIGIN)) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        origins.contains(&origin) || is_own(&origin, headers)
    }
}

/// Whether the page comes from the address that the request goes to.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").map(|(_, own)| own);
    matches!((own, host), (Some(own), Some(host)) if own.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn permits(origins: &[&str], origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("here.example:3000"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        let origins: Vec<_> = origins.iter().map(|&origin| origin.to_owned()).collect();
        Origins::new(&origins).permit(&headers)
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
}
