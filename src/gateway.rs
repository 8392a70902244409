//! What happens to a client's event.

pub mod replay;
