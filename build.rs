//! Embeds the contracts of `contracts/*.toml`, so that no Rust file has to name them, and embeds the identity of the
//! build.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The variable that gives the commit if there is no repository, as in a container's build.
const COMMIT: &str = "ROOMCAST_COMMIT";

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo::rustc-env=ROOMCAST_BUILD_COMMIT={}", commit(&root));
    println!("cargo::rustc-env=ROOMCAST_BUILD_FEATURES={}", features());
    println!("cargo::rerun-if-changed=build.rs");
    embed_contracts(&root.join("contracts"))
}

/// The commit, taken from the variable or from git. `unknown` without both.
fn commit(root: &Path) -> String {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let given = env::var(COMMIT).ok().filter(|given| !given.is_empty() && given.bytes().all(|b| b.is_ascii_graphic()));
    given.or_else(|| commit_of_repository(root)).unwrap_or_else(|| "unknown".to_owned())
}

fn commit_of_repository(root: &Path) -> Option<String> {
    // Checks that the repository is this folder's, and not one that only contains the folder.
    if !root.join(".git").exists() {
        return None;
    }
    // The second file that Cargo watches changes with every commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(root, &["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(root, &["rev-parse", "--short=12", "HEAD"])
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The Cargo features, as Cargo gives them to build scripts.
fn features() -> String {
    let set = env::vars().filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()));
    let mut features: Vec<_> = set.filter(|feature| feature != "default").collect();
    features.sort();
    if features.is_empty() { "none".to_owned() } else { features.join(",") }
}

fn embed_contracts(folder: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut code = String::from("&[\n");
    for path in &files {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("contract files have plain names");
        writeln!(code, "    ({name:?}, include_str!({:?})),", path.display().to_string()).expect("a String grows");
    }
    code.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("embedded.rs"), code)
}
