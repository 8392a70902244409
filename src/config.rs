//! What an operator says: one struct a part.

pub mod limits;
