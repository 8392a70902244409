//! Compares what this version of the code writes with the frozen samples in `tests/formats/`. A sample never changes: a
//! change of a format needs a new version, and so a new folder of samples.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SharedFormat;

/// The folder of a format's samples.
pub fn folder(format: &SharedFormat) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/{}.v{}", format.name, format.version))
}

/// Returns a sample, and fails if `written` differs from it. With `FREEZE_FORMATS=1` it writes a sample that does not
/// exist yet; it never replaces one.
pub fn check(format: &SharedFormat, sample: &str, written: &[u8]) -> Vec<u8> {
    let path = folder(format).join(sample);
    if !path.exists() && std::env::var_os("FREEZE_FORMATS").is_some() {
        std::fs::create_dir_all(folder(format)).unwrap();
        std::fs::write(&path, written).unwrap();
    }
    let frozen = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        String::from_utf8_lossy(written),
        String::from_utf8_lossy(&frozen),
        "{} {} is written differently now: give the format a new version (docs/versions.md)",
        format.name,
        path.display(),
    );
    assert_eq!(written, frozen);
    frozen
}

/// Compares a value that is written as JSON with its sample, and reads the sample again.
pub fn check_json<T: Serialize + DeserializeOwned + Debug>(format: &SharedFormat, sample: &str, value: &T) -> T {
    let frozen = check(format, sample, &serde_json::to_vec(value).unwrap());
    serde_json::from_slice(&frozen).unwrap_or_else(|error| panic!("{sample} cannot be read any more: {error}"))
}
