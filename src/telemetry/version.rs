//! Which build this is.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built of, or `unknown`.
pub const COMMIT: &str = env!("ROOMCAST_BUILD_COMMIT");

/// The features that it was built with, separated by commas, or `none`.
pub const FEATURES: &str = env!("ROOMCAST_BUILD_FEATURES");

/// What `--version` says behind the name.
pub const LINE: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("ROOMCAST_BUILD_COMMIT"),
    ", features: ",
    env!("ROOMCAST_BUILD_FEATURES"),
    ")"
);
