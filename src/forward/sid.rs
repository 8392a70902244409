//! The id of a session as the client sees it: a secret that only the client gets, and the encrypted name of the
//! session's node.
//!
//! An id is 36 bytes, written as 48 characters of the URL-safe base64 alphabet:
//!
//! | bytes | what |
//! | --- | --- |
//! | 16 | random (122 bits): the secret |
//! | 8 | the node's [`NodeKey`], combined by XOR with an HMAC of the random bytes |
//! | 12 | the first bytes of an HMAC of both: only a process with `cluster.secret` can make one |
//!
//! Without a cluster secret all 36 bytes are random, and only the node that made the id can use it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::{ClusterKeys, SecretKeys};

/// Length of an id, in characters.
pub const LENGTH: usize = 48;

const RANDOM: usize = 16;
const NODE: usize = 8;
const PROOF: usize = 12;
const BYTES: usize = RANDOM + NODE + PROOF;

/// Identifies a running node to the others. The key is random at each start, so that a session id never names a later
/// process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeKey(u64);

impl NodeKey {
    /// Creates a random key for a node that is starting.
    pub fn random() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        // A UUID's version and variant are fixed bits, at different positions in the UUID's two halves.
        Self(high ^ low.rotate_left(32))
    }

    pub(super) fn to_bytes(self) -> [u8; NODE] {
        self.0.to_be_bytes()
    }

    /// Reads a key from 16 hexadecimal digits.
    pub(super) fn read(text: &str) -> Option<Self> {
        let plain = text.len() == 2 * NODE && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        plain.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl std::fmt::Display for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Makes the session ids of this node, and reads the session ids of other nodes.
#[derive(Debug, Clone)]
pub struct SidMint {
    keys: ClusterKeys,
    own: NodeKey,
}

impl SidMint {
    /// Creates the maker of ids that name the node `own`. Without keys the ids name no node.
    pub fn new(keys: ClusterKeys, own: NodeKey) -> Self {
        Self { keys, own }
    }

    /// Makes a new id for a session of this node.
    pub fn mint(&self) -> String {
        let mut bytes = [0; BYTES];
        bytes[..RANDOM].copy_from_slice(Uuid::new_v4().as_bytes());
        match self.keys.newest() {
            Some(keys) => keys.seal(self.own, &mut bytes),
            None => {
                bytes[RANDOM..2 * RANDOM].copy_from_slice(Uuid::new_v4().as_bytes());
                bytes[2 * RANDOM..].copy_from_slice(&Uuid::new_v4().as_bytes()[..BYTES - 2 * RANDOM]);
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the other node that an id names. `None` if the id names this node, was forged, or is not an id.
    pub fn other_node(&self, id: &str) -> Option<NodeKey> {
        if id.len() != LENGTH || self.keys.all().is_empty() {
            return None;
        }
        let mut bytes = [0; BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(id, &mut bytes).ok()?;
        let node = self.keys.all().iter().find_map(|keys| keys.open(&bytes)).filter(|_| read == BYTES)?;
        (node != self.own).then_some(node)
    }
}

impl SecretKeys {
    /// Adds the node and the proof to the random bytes.
    fn seal(&self, node: NodeKey, bytes: &mut [u8; BYTES]) {
        let hidden = self.hidden(node, &bytes[..RANDOM]);
        bytes[RANDOM..RANDOM + NODE].copy_from_slice(&hidden);
        let proof = self.prove.clone().chain_update(&bytes[..RANDOM + NODE]).finalize().into_bytes();
        bytes[RANDOM + NODE..].copy_from_slice(&proof[..PROOF]);
    }

    /// Returns the node that an id names, if the id's proof is right. Checking a wrong proof takes the same time
    /// wherever the proof differs.
    fn open(&self, bytes: &[u8; BYTES]) -> Option<NodeKey> {
        let (said, proof) = bytes.split_at(RANDOM + NODE);
        self.prove.clone().chain_update(said).verify_truncated_left(proof).ok()?;
        let hidden: [u8; NODE] = said[RANDOM..].try_into().ok()?;
        Some(NodeKey(u64::from_be_bytes(self.hidden(NodeKey(u64::from_be_bytes(hidden)), &said[..RANDOM]))))
    }

    /// Encrypts a node's key with the random bytes. Encrypting the result again returns the key.
    fn hidden(&self, node: NodeKey, random: &[u8]) -> [u8; NODE] {
        let pad = self.hide.clone().chain_update(random).finalize().into_bytes();
        let mut bytes = node.to_bytes();
        bytes.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{ClusterSettings, Secret};

    fn sids(secrets: &[&str]) -> SidMint {
        let secret = |at: usize| secrets.get(at).map(|secret| Secret::new(*secret));
        let config = ClusterSettings { secret: secret(0), previous_secret: secret(1), ..ClusterSettings::default() };
        SidMint::new(ClusterKeys::new(&config), NodeKey::random())
    }

    fn is_plain(id: &str) -> bool {
        id.len() == LENGTH && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    }

    #[test]
    fn other_nodes_read_whose_session_an_id_is_and_clients_do_not() {
        let (one, two) = (sids(&["secret"]), sids(&["secret"]));
        let ids: HashSet<String> = (0..1000).map(|_| one.mint()).collect();
        assert_eq!(ids.len(), 1000);
        for id in &ids {
            assert!(is_plain(id), "{id}");
            assert_eq!((two.other_node(id), one.other_node(id)), (Some(one.own), None));
        }
        // No byte is the same in all ids, so a client cannot tell that the ids name the same node.
        let bytes: Vec<Vec<u8>> = ids.iter().map(|id| URL_SAFE_NO_PAD.decode(id).unwrap()).collect();
        for at in (0..BYTES).filter(|at| ![6, 8].contains(at)) {
            assert!(bytes.iter().map(|id| id[at]).collect::<HashSet<_>>().len() > 200, "byte {at}");
        }
    }

    #[test]
    fn an_id_that_was_changed_anywhere_names_nobody() {
        let (one, two) = (sids(&["secret"]), sids(&["secret"]));
        let id = one.mint();
        for at in 0..LENGTH {
            let mut forged = id.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(two.other_node(std::str::from_utf8(&forged).unwrap()), None, "{at}");
        }
        // Parts of two ids do not make a valid third one.
        let other = one.mint();
        for cut in 1..LENGTH {
            let spliced = format!("{}{}", &id[..cut], &other[cut..]);
            // Two ids may end in the same character.
            if spliced != id && spliced != other {
                assert_eq!(two.other_node(&spliced), None, "{cut}");
            }
        }
    }

    #[test]
    fn secrets_are_rotated_with_two_at_a_time() {
        let (old, both, new) = (sids(&["old"]), sids(&["new", "old"]), sids(&["new"]));
        assert_eq!(both.other_node(&old.mint()), Some(old.own));
        assert_eq!(new.other_node(&both.mint()), Some(both.own));
        assert_eq!((new.other_node(&old.mint()), old.other_node(&new.mint())), (None, None));
    }

    #[test]
    fn without_a_secret_an_id_is_of_use_to_its_own_node_only() {
        let (alone, cluster) = (sids(&[]), sids(&["secret"]));
        let ids: HashSet<String> = (0..1000).map(|_| alone.mint()).collect();
        assert!(ids.len() == 1000 && ids.iter().all(|id| is_plain(id)));
        assert!(ids.iter().all(|id| cluster.other_node(id).is_none()));
        assert_eq!(alone.other_node(&cluster.mint()), None);
    }

    #[test]
    fn keys_are_not_shown() {
        assert!(!format!("{:?}", sids(&["hunter2", "hunter3"])).contains("hunter"));
    }

    proptest! {
        #[test]
        fn no_text_that_nobody_made_names_a_node(text in ".{0,60}", id in "[A-Za-z0-9_-]{48}") {
            let sids = sids(&["secret"]);
            prop_assert_eq!((sids.other_node(&text), sids.other_node(&id)), (None, None));
        }
    }
}
