//! Tokens from the outside.
