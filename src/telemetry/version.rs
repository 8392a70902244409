//! Identifies this build.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, or `unknown`.
pub const COMMIT: &str = env!("ROOMCAST_BUILD_COMMIT");

/// The Cargo features of the build, separated by commas, or `none`.
pub const FEATURES: &str = env!("ROOMCAST_BUILD_FEATURES");

/// The text that `--version` prints after the name.
pub const LINE: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("ROOMCAST_BUILD_COMMIT"),
    ", features: ",
    env!("ROOMCAST_BUILD_FEATURES"),
    ")"
);
