//! The parts of a client's handshake that a contract can use.

/// A part of the handshake that templates of a contract use. A node keeps only such parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakePart {
    /// A parameter of the handshake's query.
    Query(String),
    /// A header of the handshake, by its name in lower case.
    Header(String),
    /// A member of the payload of the handshake's CONNECT packet. `None`: the whole payload.
    Auth(Option<String>),
}
