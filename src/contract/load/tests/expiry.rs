//! Tests `[auth.expiry]`.

use std::time::Duration;

use super::load_texts;
use crate::contract::model::{AtExpiry, ExpiryPolicy};

#[test]
fn expiry_has_defaults_and_is_read_as_written() {
    let policy = |text: &str| load_texts(&[&format!("name = 'x'\n{text}")]).unwrap()[0].auth().expiry.clone();
    assert_eq!(policy(""), ExpiryPolicy::default());
    let written = policy("[auth.expiry]\nwarn_event = 'soon'\nrefresh = 'renew'\nthen = 'reconnect'\n");
    let warn = Some((Duration::from_secs(60), "soon".to_owned()));
    assert_eq!(written, ExpiryPolicy { warn, refresh: Some("renew".into()), then: AtExpiry::Reconnect });
}

#[test]
fn what_would_do_nothing_or_clash_is_told() {
    let told = |texts: &[&str]| load_texts(texts).unwrap_err().join("\n");
    let found =
        told(&["name = 'x'\n[auth]\nmode = 'none'\n[auth.expiry]\nwarn = '5s'\nrefresh = 'a'\n[client.a]\nack = 1\n"]);
    for part in ["auth.expiry: tokens are not checked", "`warn_event` is missing", "is the same event"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    assert!(told(&["name = 'x'\n[auth.expiry]\nthen = 'close'\n"]).contains("\"close\" is not known here"));
    let one = "name = 'x'\n[auth.expiry]\nrefresh = 'a'\n";
    assert!(told(&[one, "name = 'y'\n"]).contains("must have the same authentication"));
    let with_event = told(&["name = 'y'\n[client.a]\nack = 1\n", one]);
    assert!(with_event.contains("0.toml:2 has the same event"), "{with_event}");
}
