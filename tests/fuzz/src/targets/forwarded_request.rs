//! Requests to `cluster.listen`: no request is accepted without a node's signature, and a stamp that was parsed and
//! written again is unchanged.

use std::sync::LazyLock;
use std::time::SystemTime;

use http::Request;
use http::header::HeaderValue;
use roomcast::config::{ClusterSettings, Secret};
use roomcast::forward::stamp::{ForwardStamp, STAMP};
use roomcast::forward::{ClusterKeys, NodeKey};

static KEYS: LazyLock<ClusterKeys> = LazyLock::new(|| {
    ClusterKeys::new(&ClusterSettings {
        secret: Some(Secret::new("a secret of the cluster")),
        ..ClusterSettings::default()
    })
});

/// Runs the target: a stamp, a target, and a header.
pub fn run(bytes: &[u8]) {
    let [stamp, target, cookie] = super::parts(bytes);
    if let Some(read) = std::str::from_utf8(stamp).ok().and_then(ForwardStamp::read) {
        assert_eq!(read.to_string().as_bytes(), stamp);
    }
    let mut request = Request::new(());
    if let Some(target) = std::str::from_utf8(target).ok().and_then(|target| target.parse().ok()) {
        *request.uri_mut() = target;
    }
    if let Ok(value) = HeaderValue::from_bytes(cookie) {
        request.headers_mut().insert("cookie", value);
    }
    let mut parts = request.into_parts().0;
    let (own, now) = (NodeKey::random(), SystemTime::now());
    if let Ok(value) = HeaderValue::from_bytes(stamp) {
        parts.headers.insert(STAMP, value);
        assert!(ForwardStamp::check(&KEYS, own, &parts, now).is_err());
    }
    // A request with a valid signature is accepted, unless its target is changed.
    let at_ms = roomcast::time::unix_millis(now);
    let (client, digest) = ([127, 0, 0, 1].into(), roomcast::forward::stamp::digest(cookie));
    let stamp = ForwardStamp { from: own, to: own, number: bytes.len() as u64, at_ms, client, digest };
    stamp.sign(&KEYS, &mut parts).expect("there is a key");
    assert_eq!(ForwardStamp::check(&KEYS, own, &parts, now).map(|(read, _)| read), Ok(stamp));
    let other = if parts.uri.path() == "/a" { "/b" } else { "/a" };
    parts.uri = other.parse().expect("a path");
    assert!(ForwardStamp::check(&KEYS, own, &parts, now).is_err());
}
