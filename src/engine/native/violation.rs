//! Errors that end a WebSocket connection.

/// A violation of the WebSocket protocol by a client. It ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set that no negotiated extension uses.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// A frame has an opcode that RFC 6455 reserves.
    #[error("the opcode is reserved")]
    Opcode,
    /// A client's frame is not masked.
    #[error("a frame of a client is not masked")]
    Unmasked,
    /// A control frame is fragmented, or its payload is longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation frame without a message to continue, or a new message within another one.
    #[error("the fragments of a message are out of order")]
    Fragments,
    /// A length has its highest bit set, or is not written in the shortest form.
    #[error("the length is not encoded in the shortest form")]
    Length,
    /// A close frame has half a code, or a code that may not be sent.
    #[error("the close code is not permitted")]
    CloseCode,
    /// A text message or the reason of a close frame is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A compressed message cannot be decompressed.
    #[error("the message is not compressed as agreed on")]
    Deflate,
    /// A message is longer than `server.max_payload`.
    #[error("the message is longer than the limit")]
    TooLarge,
}

impl Violation {
    /// The code of the close frame that reports the violation.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Utf8 | Self::Deflate => 1007,
            Self::TooLarge => 1009,
            _ => 1002,
        }
    }
}
