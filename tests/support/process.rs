//! The `roomcast` program: a command in a folder, or a node that serves on free ports until it is dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client::http;

/// Maximum time to wait for a result. It is long because tests run in parallel.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with these arguments, in a folder. It sees these variables and no others.
pub fn roomcast(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.current_dir(dir).args(args).env_clear().envs(variables.iter().copied());
    command
}

/// A node in a process and a folder of its own. The process is killed on drop.
pub struct Process {
    /// The address for clients.
    pub server: String,
    /// The address of the HTTP API.
    pub api: String,
    /// The node's name.
    pub name: String,
    pub dir: TempDir,
    child: Child,
}

impl Process {
    /// Starts a node with this `roomcast.toml`, and this file `test.contract.toml`. Its log goes to the test's own
    /// standard error.
    pub fn start(config: &str, contract: &str, variables: &[(&str, &str)]) -> Self {
        Self::spawn(config, contract, variables, Stdio::inherit())
    }

    /// Also returns the node's log, which is not read yet.
    pub fn start_with_log(config: &str, contract: &str, variables: &[(&str, &str)]) -> (Self, ChildStderr) {
        let mut node = Self::spawn(config, contract, variables, Stdio::piped());
        let log = node.child.stderr.take().unwrap();
        (node, log)
    }

    fn spawn(config: &str, contract: &str, variables: &[(&str, &str)], log: Stdio) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("test.contract.toml"), contract).unwrap();
        std::fs::write(dir.path().join("roomcast.toml"), config).unwrap();
        let mut child = roomcast(dir.path(), &["serve"], variables)
            .envs([("ROOMCAST_SERVER__LISTEN", "127.0.0.1:0"), ("ROOMCAST_API__LISTEN", "127.0.0.1:0")])
            .env("ROOMCAST_ANNOUNCE", "1")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let of = |key: &str| said[key].as_str().unwrap().to_owned();
        Self { server: of("server"), api: of("api"), name: of("node"), dir, child }
    }

    /// Waits until the node is ready.
    pub async fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        while http(&self.server, "GET /ready", "").await.0 != 200 {
            assert!(Instant::now() < until, "the node is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The sum of a metric's series that contain this text.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (status, body) = http(&self.api, "GET /metrics", "").await;
        assert_eq!(status, 200, "{body}");
        let of = |line: &&str| line.starts_with(name) && line.contains(labels);
        body.lines().filter(of).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Sends a signal, for example `-TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until the node has ended, without an error.
    pub async fn ends(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the node has not ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
