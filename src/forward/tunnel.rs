//! Passes the bytes of a client's WebSocket through this node, in both directions, when the session is on another node.
//!
//! Each direction has one buffer of `BUFFER` bytes and reads only when the buffer is empty, so a side that does not
//! read slows the other side down. When one direction ends, its end is passed on. The tunnel ends when both directions
//! have ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes, split};
use tokio_util::sync::CancellationToken;

/// Size of the buffer of each direction, in bytes.
const BUFFER: usize = 8 * 1024;

/// How long the session's node may take to send its last data to a client whose tunnel is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The tunnels that are open on this node.
#[derive(Clone, Default)]
pub struct Tunnels(Arc<Mutex<OpenTunnel>>);

#[derive(Default)]
struct OpenTunnel {
    /// Tunnels that [`Tunnels::close`] has not closed, in the order in which they were opened.
    unasked: BTreeMap<u64, CancellationToken>,
    opened: u64,
    open: usize,
}

/// One tunnel, which counts as open until this value is dropped.
pub(super) struct Tunnel {
    tunnels: Tunnels,
    number: u64,
    close: CancellationToken,
}

impl Tunnels {
    /// How many tunnels are open.
    pub fn open(&self) -> usize {
        self.lock().open
    }

    /// How many tunnels are open and were not closed by [`Tunnels::close`].
    pub fn unasked(&self) -> usize {
        self.lock().unasked.len()
    }

    /// Closes at most `count` tunnels, the oldest first. Returns how many it closed. The official client reconnects,
    /// through another node.
    pub fn close(&self, count: usize) -> usize {
        let mut open = self.lock();
        let mut closed = 0;
        while closed < count
            && let Some((_, close)) = open.unasked.pop_first()
        {
            close.cancel();
            closed += 1;
        }
        closed
    }

    /// Opens a tunnel.
    pub(super) fn begin(&self) -> Tunnel {
        let mut open = self.lock();
        let (number, close) = (open.opened, CancellationToken::new());
        open.opened += 1;
        open.open += 1;
        open.unasked.insert(number, close.clone());
        Tunnel { tunnels: self.clone(), number, close }
    }

    fn lock(&self) -> MutexGuard<'_, OpenTunnel> {
        self.0.lock().expect("no thread panics while it holds this lock")
    }
}

impl Tunnel {
    /// Passes bytes until both directions have ended, one of them breaks, or the tunnel is closed.
    pub(super) async fn carry<C, N>(self, mut client: C, mut node: N)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        N: AsyncRead + AsyncWrite + Unpin,
    {
        let ended = tokio::select! {
            ended = copy_bidirectional_with_sizes(&mut client, &mut node, BUFFER, BUFFER) => Some(ended),
            () = self.close.cancelled() => None,
        };
        match ended {
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::debug!(%error, "a tunnel broke"),
            // The node that has the session sees the client disconnect. Data that the session's node has sent before
            // still reaches the client.
            None => {
                let _ = tokio::time::timeout(LAST_WORDS, async {
                    node.shutdown().await?;
                    let (mut from_node, _) = split(node);
                    tokio::io::copy(&mut from_node, &mut client).await
                })
                .await;
            }
        }
        let _ = tokio::time::timeout(LAST_WORDS, client.shutdown()).await;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let mut open = self.tunnels.lock();
        open.unasked.remove(&self.number);
        open.open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    struct Ends {
        tunnels: Tunnels,
        client: DuplexStream,
        node: DuplexStream,
    }

    fn tunnel() -> Ends {
        let tunnels = Tunnels::default();
        let ((client, near), (node, far)) = (duplex(64), duplex(64));
        tokio::spawn(tunnels.begin().carry(near, far));
        Ends { tunnels, client, node }
    }

    async fn gone(tunnels: &Tunnels) {
        while tunnels.open() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_end_of_one_direction_leaves_the_other() {
        let Ends { tunnels, mut client, mut node } = tunnel();
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut read = Vec::new();
        node.read_to_end(&mut read).await.unwrap();
        assert_eq!((read.as_slice(), tunnels.open()), (&b"ping"[..], 1));
        node.write_all(b"pong").await.unwrap();
        drop(node);
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"pingpong");
        gone(&tunnels).await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_the_node_up() {
        let Ends { mut client, mut node, .. } = tunnel();
        let mut written = 0;
        let writing = async {
            loop {
                node.write_all(&[7; 64]).await.unwrap();
                written += 64;
            }
        };
        // No other task runs in this test, so the result does not depend on the time.
        assert!(tokio::time::timeout(Duration::from_millis(200), writing).await.is_err());
        assert!(written <= BUFFER + 3 * 64, "{written} bytes are somewhere");
        client.read_exact(&mut vec![0; written]).await.unwrap();
        node.write_all(b"more").await.unwrap();
    }

    #[tokio::test]
    async fn a_tunnel_that_is_closed_brings_the_nodes_last_words() {
        let Ends { tunnels, mut client, mut node } = tunnel();
        node.write_all(b"one").await.unwrap();
        client.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!((tunnels.unasked(), tunnels.close(9), tunnels.unasked()), (1, 1, 0));
        let mut read = Vec::new();
        node.read_to_end(&mut read).await.unwrap();
        assert_eq!(tunnels.open(), 1, "it is still there");
        node.write_all(b"two").await.unwrap();
        drop(node);
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"two");
        gone(&tunnels).await;
    }

    #[tokio::test(start_paused = true)]
    async fn closing_does_not_wait_for_a_node_that_says_nothing() {
        let Ends { tunnels, mut client, node: _node } = tunnel();
        tunnels.close(1);
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        gone(&tunnels).await;
    }
}
