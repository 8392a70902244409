//! The adapter of a namespace in socketioxide. It keeps rooms in memory, and uses the library's Redis adapter for
//! calls of the library's own API that ask other nodes.
//!
//! Events do not use the library's broadcast between nodes: see [`Port`] and `carrier`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use futures_util::{FutureExt as _, StreamExt as _};
use socketioxide_core::adapter::errors::{AdapterError, BroadcastError, SocketError};
use socketioxide_core::adapter::{
    BroadcastFlags, BroadcastOptions, CoreAdapter, CoreLocalAdapter, DefinedAdapter, RemoteSocketData, Room, RoomParam,
    SocketEmitter,
};
use socketioxide_core::packet::Packet;
use socketioxide_core::{Sid, Value};
use socketioxide_redis::{CustomRedisAdapter, RedisAdapterConfig, RedisAdapterCtr};
use tokio::sync::OwnedSemaphorePermit;

use super::carrier::Ports;
use super::driver::PubSubDriver;
use crate::engine::validate::validate;
use crate::event::Args;
use crate::session::{Reply, RoomName, SendError};

/// How long the library waits for an acknowledgement at most. The asking side gives up earlier; this only limits what
/// the library keeps.
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);

type RedisAdapter<E> = CustomRedisAdapter<E, PubSubDriver>;

/// The state that the adapters of all namespaces share.
pub struct AdapterState {
    ports: Arc<Ports>,
    driver: Option<PubSubDriver>,
    redis: Option<RedisAdapterCtr<PubSubDriver>>,
}

impl AdapterState {
    /// The state of adapters that announce their ports. With `redis`, they can ask other nodes.
    pub(super) fn new(ports: Arc<Ports>, redis: Option<(PubSubDriver, String)>) -> Self {
        let driver = redis.as_ref().map(|(driver, _)| driver.clone());
        let redis = redis.map(|(driver, prefix)| {
            RedisAdapterCtr::new_with_driver(driver, RedisAdapterConfig::new().with_prefix(prefix))
        });
        Self { ports, driver, redis }
    }
}

/// The adapter of one namespace.
pub struct NodeAdapter<E> {
    ports: Arc<Ports>,
    backend: Backend<E>,
}

enum Backend<E> {
    Memory(CoreLocalAdapter<E>),
    Redis(Arc<RedisAdapter<E>>),
}

/// Delivers to the clients of one namespace on this node.
pub(super) trait Port: Send + Sync {
    /// Encodes an event once and queues it for every client that is in one of `rooms` and in none of `except`.
    /// Returns one error for each client whose queue did not take it.
    fn broadcast(&self, event: Value, rooms: &[RoomName], except: &[RoomName]) -> Vec<SocketError>;

    /// Sends a packet to one client.
    fn send(&self, sid: Sid, packet: Packet) -> Result<(), SendError>;

    /// Sends one client a packet that it must acknowledge. The permit is released when the acknowledgement is no
    /// longer awaited. Must be called within a Tokio runtime.
    fn ask(&self, sid: Sid, packet: Packet, reply: Reply, permit: OwnedSemaphorePermit) -> Result<(), SendError>;

    /// Adds a client to rooms in the library's tables.
    fn join(&self, sid: Sid, rooms: Vec<String>);

    /// Removes a client from a room in the library's tables.
    fn leave(&self, sid: Sid, room: &RoomName);

    /// The namespace's path, as packets contain it.
    fn path(&self) -> socketioxide_core::Str;
}

impl<E: SocketEmitter> Port for NodeAdapter<E> {
    // The library's flag for volatile events is not set, because it hides which events were dropped. The carrier
    // handles volatile events.
    fn broadcast(&self, event: Value, rooms: &[RoomName], except: &[RoomName]) -> Vec<SocketError> {
        let mut options = BroadcastOptions::default();
        options.rooms = rooms.iter().map(owned).collect();
        options.except = except.iter().map(owned).collect();
        options.add_flag(BroadcastFlags::Local);
        self.get_local().broadcast(Packet::event(self.path(), event), options).err().unwrap_or_default()
    }

    fn send(&self, sid: Sid, packet: Packet) -> Result<(), SendError> {
        match self.get_local().broadcast(packet, BroadcastOptions::new(sid)) {
            Ok(()) => Ok(()),
            Err(errors) => Err(errors.first().map_or(SendError::Closed, reason)),
        }
    }

    fn ask(&self, sid: Sid, packet: Packet, mut reply: Reply, permit: OwnedSemaphorePermit) -> Result<(), SendError> {
        let options = BroadcastOptions::new(sid);
        let (answers, asked) = self.get_local().broadcast_with_ack(packet, options, Some(LONGEST_PATIENCE));
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

    fn join(&self, sid: Sid, rooms: Vec<String>) {
        self.get_local().add_all(sid, rooms);
    }

    fn leave(&self, sid: Sid, room: &RoomName) {
        self.get_local().del(sid, room.to_string());
    }

    fn path(&self) -> socketioxide_core::Str {
        self.get_local().path().clone()
    }
}

fn owned(room: &RoomName) -> Room {
    Room::Owned(room.to_string())
}

/// Translates the library's error for a packet that was not queued.
pub(super) fn reason(error: &SocketError) -> SendError {
    match error {
        SocketError::InternalChannelFull => SendError::Full,
        SocketError::Closed => SendError::Closed,
    }
}

impl<E: SocketEmitter> DefinedAdapter for NodeAdapter<E> {}

impl<E: SocketEmitter> CoreAdapter<E> for NodeAdapter<E> {
    type Error = AdapterError;
    type State = AdapterState;
    type AckStream = Either<E::AckStream, <RedisAdapter<E> as CoreAdapter<E>>::AckStream>;
    type InitRes = ();

    fn new(state: &Self::State, local: CoreLocalAdapter<E>) -> Self {
        if let Some(driver) = &state.driver {
            driver.name(local.server_id());
        }
        let backend = match &state.redis {
            Some(redis) => Backend::Redis(Arc::new(CoreAdapter::new(redis, local))),
            None => Backend::Memory(local),
        };
        Self { ports: state.ports.clone(), backend }
    }

    // The port is announced synchronously, so that it exists before the first client connects, even if Redis is not
    // available.
    fn init(self: Arc<Self>, on_success: impl FnOnce() + Send + 'static) {
        self.ports.announce(self.get_local().path(), self.clone());
        on_success();
        if let Backend::Redis(redis) = &self.backend {
            let starting = redis.clone().init(|| ());
            tokio::spawn(async move {
                if let Err(error) = starting.await {
                    tracing::error!(error = ?error, "the adapter of a namespace did not start");
                }
            });
        }
    }

    async fn close(&self) -> Result<(), AdapterError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::Redis(redis) => redis.close().await.map_err(Into::into),
        }
    }

    async fn server_count(&self) -> Result<u16, AdapterError> {
        match &self.backend {
            Backend::Memory(_) => Ok(1),
            Backend::Redis(redis) => redis.server_count().await.map_err(Into::into),
        }
    }

    async fn broadcast(&self, packet: Packet, options: BroadcastOptions) -> Result<(), BroadcastError> {
        match &self.backend {
            Backend::Memory(local) => Ok(local.broadcast(packet, options)?),
            Backend::Redis(redis) => redis.broadcast(packet, options).await,
        }
    }

    async fn broadcast_with_ack(
        &self,
        packet: Packet,
        options: BroadcastOptions,
        timeout: Option<Duration>,
    ) -> Result<Self::AckStream, AdapterError> {
        match &self.backend {
            Backend::Memory(local) => Ok(Either::Left(local.broadcast_with_ack(packet, options, timeout).0)),
            Backend::Redis(redis) => {
                redis.broadcast_with_ack(packet, options, timeout).await.map(Either::Right).map_err(Into::into)
            }
        }
    }

    async fn add_sockets(&self, options: BroadcastOptions, rooms: impl RoomParam) -> Result<(), AdapterError> {
        match &self.backend {
            Backend::Memory(local) => {
                local.add_sockets(options, rooms);
                Ok(())
            }
            Backend::Redis(redis) => redis.add_sockets(options, rooms).await.map_err(Into::into),
        }
    }

    async fn del_sockets(&self, options: BroadcastOptions, rooms: impl RoomParam) -> Result<(), AdapterError> {
        match &self.backend {
            Backend::Memory(local) => {
                local.del_sockets(options, rooms);
                Ok(())
            }
            Backend::Redis(redis) => redis.del_sockets(options, rooms).await.map_err(Into::into),
        }
    }

    async fn disconnect_socket(&self, options: BroadcastOptions) -> Result<(), BroadcastError> {
        match &self.backend {
            Backend::Memory(local) => Ok(local.disconnect_socket(options)?),
            Backend::Redis(redis) => redis.disconnect_socket(options).await,
        }
    }

    async fn rooms(&self, options: BroadcastOptions) -> Result<Vec<Room>, AdapterError> {
        match &self.backend {
            Backend::Memory(local) => Ok(local.rooms(options).into_iter().collect()),
            Backend::Redis(redis) => redis.rooms(options).await.map_err(Into::into),
        }
    }

    async fn fetch_sockets(&self, options: BroadcastOptions) -> Result<Vec<RemoteSocketData>, AdapterError> {
        match &self.backend {
            Backend::Memory(local) => Ok(local.fetch_sockets(options)),
            Backend::Redis(redis) => redis.fetch_sockets(options).await.map_err(Into::into),
        }
    }

    fn get_local(&self) -> &CoreLocalAdapter<E> {
        match &self.backend {
            Backend::Memory(local) => local,
            Backend::Redis(redis) => redis.get_local(),
        }
    }
}
