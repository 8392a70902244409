//! The measured servers: their processor time and memory, as the kernel counts them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

/// The key that signs the tokens of clients.
pub const SECRET: &str = "of the benchmark, 32 bytes long..";

/// The kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Peer {
    /// This project with the native engine.
    Native,
    /// This project with the socketioxide engine.
    Socketioxide,
    /// Node's socket.io; two nodes use the adapter that sends with `PUBLISH`.
    Node,
    /// Node's socket.io; two nodes use the adapter that sends with `SPUBLISH`.
    NodeSharded,
    /// socketioxide as its documentation sets it up, one node.
    Minimal,
    /// The floor program, which only writes each event to each recipient; one node.
    Floor,
}

impl Peer {
    /// The server's name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "roomcast, native",
            Self::Socketioxide => "roomcast, socketioxide",
            Self::Node => "Node socket.io",
            Self::NodeSharded => "Node socket.io, sharded adapter",
            Self::Minimal => "socketioxide alone",
            Self::Floor => "floor",
        }
    }

    fn command(self, redis: Option<SocketAddr>) -> anyhow::Result<Command> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let beside = |name: &str| -> anyhow::Result<PathBuf> { Ok(std::env::current_exe()?.with_file_name(name)) };
        let url = redis.map(|redis| format!("redis://{redis}"));
        let mut command = match self {
            Self::Native | Self::Socketioxide => roomcast(self, here, url.as_deref())?,
            Self::Node | Self::NodeSharded => {
                let mut command = Command::new("node");
                command.arg(here.join("peer.js")).env("SECRET", SECRET);
                if let Some(url) = url {
                    command.env("REDIS_URL", url);
                }
                command.env("ADAPTER", if self == Self::NodeSharded { "sharded" } else { "classic" });
                command
            }
            Self::Minimal => Command::new(beside("minimal-socketioxide")?),
            Self::Floor => Command::new(beside("floor")?),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(command)
    }
}

fn roomcast(peer: Peer, here: &Path, redis: Option<&str>) -> anyhow::Result<Command> {
    let binary = std::env::var_os("BENCH_BIN").map_or_else(|| here.join("../target/release/roomcast"), PathBuf::from);
    let mut command = Command::new(binary);
    let keys = format!(r#"[{{ algorithm = "HS256", secret = "{SECRET}" }}]"#);
    command
        .arg("serve")
        .current_dir(std::env::temp_dir())
        .env("ROOMCAST_SERVER__ENGINE", if peer == Peer::Native { "native" } else { "socketioxide" })
        .env("ROOMCAST_SERVER__LISTEN", "127.0.0.1:0")
        .env("ROOMCAST_SERVER__MAX_CONNECTIONS", "100000")
        .env("ROOMCAST_SERVER__QUEUE", "4096")
        .env("ROOMCAST_API__LISTEN", "127.0.0.1:0")
        .env("ROOMCAST_AUTH__KEYS", keys)
        .env("ROOMCAST_LIMITS__CONNECTIONS_PER_IP", "1000000/s")
        .env("ROOMCAST_LIMITS__EVENTS_PER_SOCKET", "1000000/s")
        .env("ROOMCAST_CONTRACTS__FILES", serde_json::json!([here.join("contracts")]).to_string())
        .env("ROOMCAST_LOG__LEVEL", "warn")
        .env("ROOMCAST_ANNOUNCE", "1");
    if let Some(url) = redis {
        command.env("ROOMCAST_REDIS__URL", url);
    }
    Ok(command)
}

/// A child process that is killed when this value is dropped.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// User and system time of the process since its start, in microseconds.
    pub fn cpu_us(&self) -> anyhow::Result<f64> {
        cpu_us(self.0.id())
    }

    /// Resident memory of the process in KiB.
    pub fn rss_kib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS: the server has ended")?;
        Ok(line.split_whitespace().nth(1).context("VmRSS without a number")?.parse()?)
    }
}

/// Processor time of a process and its ended threads, in microseconds. Not from `/proc`, whose ticks are 10 ms long.
pub fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write only to the memory that they are given.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    ensure!(!failed, "the server has ended");
    Ok(time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3)
}

/// A server that listens.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// The address of the server's metrics, if the server has any.
    pub api: Option<SocketAddr>,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(peer: Peer, redis: Option<SocketAddr>) -> anyhow::Result<Self> {
        let mut child = peer.command(redis)?.spawn().with_context(|| format!("{} cannot be started", peer.name()))?;
        let out = child.stdout.take().context("no output")?;
        let process = Process(child);
        let mut lines = BufReader::new(out).lines();
        for line in lines.by_ref() {
            let line = line?;
            if line.starts_with(r#"{"ready""#) {
                let ready: serde_json::Value = serde_json::from_str(&line)?;
                let address = ready["server"].as_str().context("no address")?.parse()?;
                let api = ready["api"].as_str().and_then(|api| api.parse().ok());
                // Reads the rest of the server's output, so that the server never blocks on a full pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { process, address, api });
            }
        }
        bail!("{} did not start", peer.name())
    }

    /// The server's metrics in Prometheus' text format, if the server has any.
    pub fn metrics(&self) -> anyhow::Result<Option<String>> {
        let Some(api) = self.api else { return Ok(None) };
        let mut stream = TcpStream::connect(api)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(Some(answer))
    }
}

/// A redis-server for one run.
pub struct Redis {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Redis {
    /// Starts `redis-server` without persistence.
    pub fn start() -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .current_dir(std::env::temp_dir())
            .spawn()
            .context("redis-server cannot be started")?;
        let process = Process(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            ensure!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { process, address })
    }
}
