//! A TCP proxy between a node and its Redis that simulates network failures: it passes, loses one direction, stalls or
//! resets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The state of the connection between a node and Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The proxy forwards everything.
    Open,
    /// Nothing passes to Redis: commands wait, as with TCP's retransmission; answers and messages pass.
    NoCommands,
    /// Nothing passes to the node: answers and messages wait, commands pass.
    NoAnswers,
    /// Every connection is reset, and so is every new one.
    Reset,
    /// Existing connections stay stuck for good; new ones pass.
    OldStuck,
}

/// The proxy. Connections that are open at a reset are closed. Bytes that wait in the proxy are sent on when the state
/// permits it again.
pub struct Proxy {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    accepted: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts a proxy in front of a server on this port of the machine.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let accepted = Arc::new(AtomicUsize::new(0));
        tokio::spawn(accept(listener, port, way.clone(), accepted.clone()));
        Self { address, way, accepted }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Number of connections that the proxy has accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, port: u16, way: Arc<watch::Sender<Way>>, accepted: Arc<AtomicUsize>) {
    while let Ok((node, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(pass(node, port, way.subscribe()));
    }
}

/// Forwards one connection to Redis until the connection ends or is reset.
async fn pass(node: TcpStream, port: u16, way: watch::Receiver<Way>) {
    let began = *way.borrow();
    let Ok(redis) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let mut end = way.clone();
    let (node_reads, node_writes) = node.into_split();
    let (redis_reads, redis_writes) = redis.into_split();
    let commands = pump(node_reads, redis_writes, way.clone(), move |way| {
        matches!(way, Way::Open | Way::NoAnswers) || (way == Way::OldStuck && began == Way::OldStuck)
    });
    let answers = pump(redis_reads, node_writes, way, move |way| {
        matches!(way, Way::Open | Way::NoCommands) || (way == Way::OldStuck && began == Way::OldStuck)
    });
    tokio::select! {
        _ = end.wait_for(|way| *way == Way::Reset) => {}
        ((reads, _), (_, writes)) = async { tokio::join!(commands, answers) } => drop((reads, writes)),
    }
}

/// Copies one direction while the state permits it.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    passes: impl Fn(Way) -> bool,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if way.wait_for(|way| passes(*way)).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    // The end of the stream must not arrive before the bytes that were written earlier.
    if way.wait_for(|way| passes(*way)).await.is_ok() {
        let _ = to.shutdown().await;
    }
    (from, to)
}
