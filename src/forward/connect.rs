//! Connections to other nodes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::tls::NodeTls;

/// Connects to other nodes, with TLS if it is configured.
#[derive(Clone)]
pub(super) struct NodeConnector {
    /// Maximum time to connect, including the TLS handshake.
    pub(super) within: Duration,
    pub(super) tls: Option<NodeTls>,
}

/// A connection to another node.
pub(super) enum NodeStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl NodeConnector {
    async fn connect(self, node: Uri) -> io::Result<TokioIo<NodeStream>> {
        let connecting = async {
            let address = node.authority().map_or("", |authority| authority.as_str());
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = self.tls else { return Ok(NodeStream::Plain(stream)) };
            let host = node.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(tls.server_name.unwrap_or(host)).map_err(io::Error::other)?;
            Ok(NodeStream::Tls(Box::new(tls.connector.connect(name, stream).await?)))
        };
        let stream = tokio::time::timeout(self.within, connecting).await;
        stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
    }
}

impl Service<Uri> for NodeConnector {
    type Response = TokioIo<NodeStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, node: Uri) -> Self::Future {
        Box::pin(self.clone().connect(node))
    }
}

impl Connection for NodeStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for NodeStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for NodeStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
