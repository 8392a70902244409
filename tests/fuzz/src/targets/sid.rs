//! Session ids: a node's name can be read only from an id that a node made, and changing any bit of it makes it
//! invalid.

use std::sync::LazyLock;

use roomcast::config::{ClusterSettings, Secret};
use roomcast::forward::{ClusterKeys, NodeKey, SidMint};

static NODES: LazyLock<[SidMint; 2]> = LazyLock::new(|| {
    let config = ClusterSettings { secret: Some(Secret::new("a secret of the cluster")), ..ClusterSettings::default() };
    [(); 2].map(|()| SidMint::new(ClusterKeys::new(&config), NodeKey::random()))
});

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let [one, two] = &*NODES;
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(two.other_node(&text), None);
    let id = one.mint();
    let named = two.other_node(&id);
    assert!(named.is_some() && one.other_node(&id).is_none());
    // The input gives the position and the value of a change in the id.
    let [at, byte, ..] = bytes else { return };
    let mut forged = id.clone().into_bytes();
    let at = usize::from(*at) % forged.len();
    // The target compares one byte only. If it compared the whole id, libFuzzer would learn the id from the comparison
    // and could present a valid id, which is no forgery.
    let is_same = std::mem::replace(&mut forged[at], *byte) == *byte;
    let forged = String::from_utf8_lossy(&forged);
    assert_eq!(two.other_node(&forged), named.filter(|_| is_same));
}
