//! The channels and the queue of one namespace.

use std::sync::Arc;

use super::receive_queue::ReceiveQueue;
use crate::redis::{Keys, SocketIoKeys};

/// The channels and the queue of one namespace.
pub(super) struct NamespaceChannels {
    pub(super) namespace: Arc<str>,
    /// The sender id of this node in Socket.IO's messages.
    pub(super) uid: String,
    pub(super) frames: Arc<str>,
    pub(super) broadcasts: Arc<str>,
    pub(super) requests: Arc<str>,
    /// Channels on which socketioxide's adapter and emitter send requests: under `redis.socketio_key`, and under our
    /// own prefix. Empty if `redis.socketio_key` is empty.
    pub(super) library: Vec<Arc<str>>,
    pub(super) responses: Arc<str>,
    /// Channel on which servers may send answers to this node only.
    pub(super) own_responses: Arc<str>,
    pub(super) intake: Arc<ReceiveQueue>,
}

impl NamespaceChannels {
    pub(super) fn new(path: &Arc<str>, keys: &Keys, socketio: Option<&SocketIoKeys>, intake: ReceiveQueue) -> Self {
        let name =
            |of: fn(&SocketIoKeys, &str) -> String| socketio.map_or_else(String::new, |keys| of(keys, path)).into();
        let uid = uuid::Uuid::new_v4().simple().to_string()[..6].to_owned();
        let own_responses = socketio.map_or_else(String::new, |keys| keys.responses_to(path, &uid)).into();
        let requests: Arc<str> = name(SocketIoKeys::requests);
        let mut library = Vec::new();
        if socketio.is_some() {
            library.extend([requests.clone(), keys.socketio().requests(path).into()]);
            library.dedup();
        }
        Self {
            namespace: path.clone(),
            uid,
            own_responses,
            frames: keys.events_channel(path).into(),
            broadcasts: name(SocketIoKeys::broadcast),
            requests,
            library,
            responses: name(SocketIoKeys::responses),
            intake: Arc::new(intake),
        }
    }
}
