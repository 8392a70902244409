//! The adapter of a namespace in socketioxide. Through it, links send packets to the namespace's sockets.
//!
//! The adapter does not handle rooms or other nodes: the node's own index and cluster serve both engines.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use socketioxide_core::adapter::errors::{AdapterError, SocketError};
use socketioxide_core::adapter::{BroadcastOptions, CoreAdapter, CoreLocalAdapter, DefinedAdapter, SocketEmitter};
use socketioxide_core::packet::Packet;
use socketioxide_core::{Sid, Value};
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::validate::validate;
use crate::event::Args;
use crate::session::{AckSender, SendError};

/// The longest time that the library waits for an acknowledgement. The asking side gives up earlier; this only limits
/// what the library keeps.
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);

/// Sends packets to the sockets of one namespace.
pub(super) trait PacketPort: Send + Sync {
    /// Sends a packet to one client.
    fn send(&self, sid: Sid, packet: Packet) -> Result<(), SendError>;

    /// Sends one client a packet that it must acknowledge. The permit is released when the acknowledgement is no
    /// longer awaited. Must be called within a Tokio runtime.
    fn ask(&self, sid: Sid, packet: Packet, reply: AckSender, permit: OwnedSemaphorePermit) -> Result<(), SendError>;

    /// The namespace's path, as packets contain it.
    fn path(&self) -> socketioxide_core::Str;
}

/// The port of each namespace. It is set when the library has created its adapter: the library creates adapters itself,
/// and only when its namespaces exist.
pub struct PacketPorts {
    ports: HashMap<Arc<str>, OnceLock<Weak<dyn PacketPort>>>,
}

impl PacketPorts {
    pub(super) fn new(namespaces: &[Arc<str>]) -> Self {
        Self { ports: namespaces.iter().map(|path| (path.clone(), OnceLock::new())).collect() }
    }

    fn announce(&self, namespace: &str, port: Arc<dyn PacketPort>) {
        if let Some(place) = self.ports.get(namespace) {
            let _ = place.set(Arc::downgrade(&port));
        }
    }

    pub(super) fn get(&self, namespace: &str) -> Option<Arc<dyn PacketPort>> {
        self.ports.get(namespace)?.get()?.upgrade()
    }
}

/// The adapter of one namespace.
pub struct NodeAdapter<E> {
    ports: Arc<PacketPorts>,
    local: CoreLocalAdapter<E>,
}

impl<E: SocketEmitter> PacketPort for NodeAdapter<E> {
    fn send(&self, sid: Sid, packet: Packet) -> Result<(), SendError> {
        match self.local.broadcast(packet, BroadcastOptions::new(sid)) {
            Ok(()) => Ok(()),
            Err(errors) => Err(errors.first().map_or(SendError::Closed, reason)),
        }
    }

    fn ask(
        &self,
        sid: Sid,
        packet: Packet,
        mut reply: AckSender,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), SendError> {
        let options = BroadcastOptions::new(sid);
        let (answers, asked) = self.local.broadcast_with_ack(packet, options, Some(LONGEST_PATIENCE));
        if asked == 0 {
            return Err(SendError::Closed);
        }
        let mut answers = Box::pin(answers);
        // If the packet could not be queued, the error is available at once.
        let at_once = answers.next().now_or_never().flatten();
        if let Some((_, Err(_))) = at_once {
            return Err(SendError::Full);
        }
        tokio::spawn(async move {
            let _permit = permit;
            let answer = match at_once {
                Some(answer) => Some(answer),
                None => tokio::select! {
                    answer = answers.next() => answer,
                    () = reply.closed() => None,
                },
            };
            if let Some((_, Ok(Value::Str(text, attachments)))) = answer {
                let attachments: Vec<_> = attachments.into_iter().flatten().collect();
                // The answer is not passed to other clients, but the asking side must be able to parse it.
                if validate(&text, attachments.len()).is_ok() {
                    let _ = reply.send(Args::from_wire(text.as_str().to_owned().into(), attachments));
                }
            }
        });
        Ok(())
    }

    fn path(&self) -> socketioxide_core::Str {
        self.local.path().clone()
    }
}

/// Translates the library's error for a packet that was not queued.
fn reason(error: &SocketError) -> SendError {
    match error {
        SocketError::InternalChannelFull => SendError::Full,
        SocketError::Closed => SendError::Closed,
    }
}

impl<E: SocketEmitter> DefinedAdapter for NodeAdapter<E> {}

impl<E: SocketEmitter> CoreAdapter<E> for NodeAdapter<E> {
    type Error = AdapterError;
    type State = Arc<PacketPorts>;
    type AckStream = E::AckStream;
    type InitRes = ();

    fn new(ports: &Self::State, local: CoreLocalAdapter<E>) -> Self {
        Self { ports: ports.clone(), local }
    }

    // The port is announced synchronously, so that it exists before the first client connects.
    fn init(self: Arc<Self>, on_success: impl FnOnce() + Send + 'static) {
        self.ports.announce(self.local.path(), self.clone());
        on_success();
    }

    async fn broadcast_with_ack(
        &self,
        packet: Packet,
        options: BroadcastOptions,
        timeout: Option<Duration>,
    ) -> Result<Self::AckStream, AdapterError> {
        Ok(self.local.broadcast_with_ack(packet, options, timeout).0)
    }

    fn get_local(&self) -> &CoreLocalAdapter<E> {
        &self.local
    }
}
