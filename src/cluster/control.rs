//! Receives the messages on the control channel: heartbeats, and requests between nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::frame::Frame;
use super::heartbeat::{BYE, HELLO, WHO};
use super::pubsub::Incoming;
use super::{Cluster, ClusterActions, ClusterRevoker, SlowestConnections};

/// A message on the control channel.
#[derive(Serialize, Deserialize)]
pub(super) struct Control<'a, T> {
    pub(super) topic: &'a str,
    pub(super) data: T,
}

/// Handles a message from another node.
type MessageHandler = Box<dyn Fn(&str, Value) + Send + Sync>;

/// The handlers of the messages that other nodes send, by topic. A node does not handle its own messages.
#[derive(Default)]
pub struct MessageHandlers(HashMap<&'static str, MessageHandler>);

impl MessageHandlers {
    /// The handlers of the parts that act for other nodes.
    pub fn of(actions: &Arc<ClusterActions>, revoker: &Arc<ClusterRevoker>, survey: &Arc<SlowestConnections>) -> Self {
        survey.handle(revoker.handle(actions.handle(Self::default())))
    }

    /// Adds the handler of a topic. It gets the sender's id and the message. It must not block.
    #[must_use]
    pub fn on<T: DeserializeOwned>(
        mut self,
        topic: &'static str,
        handler: impl Fn(&str, T) + Send + Sync + 'static,
    ) -> Self {
        let read = move |node: &str, data| match serde_json::from_value(data) {
            Ok(message) => handler(node, message),
            Err(error) => tracing::debug!(node, topic, %error, "ignored an unreadable message of another node"),
        };
        self.0.insert(topic, Box::new(read));
        self
    }
}

/// The messages on the control channel that wait until this node can handle them.
#[must_use]
pub(super) struct ControlInbox(pub(super) mpsc::Receiver<Incoming>);

impl ControlInbox {
    /// Begins to handle the messages of other nodes, and to send heartbeats. Needs a Tokio runtime.
    pub(super) fn start(self, cluster: &Arc<Cluster>, handlers: MessageHandlers) {
        tokio::spawn(listen(cluster.clone(), self.0, handlers));
        tokio::spawn(cluster.clone().send_heartbeats());
    }
}

async fn listen(cluster: Arc<Cluster>, mut requests: mpsc::Receiver<Incoming>, handlers: MessageHandlers) {
    while let Some(request) = requests.recv().await {
        match serde_json::from_slice::<Control<'_, Value>>(&request.frame.body) {
            Ok(control) => cluster.receive(&request.frame, control.topic, control.data, &handlers).await,
            Err(error) => tracing::debug!(%error, "ignored an unreadable message of another node"),
        }
    }
}

impl Cluster {
    async fn receive(&self, frame: &Frame, topic: &str, data: Value, handlers: &MessageHandlers) {
        let node = &frame.origin.node;
        match topic {
            HELLO => {
                if let Ok(hello) = serde_json::from_value(data) {
                    self.note_hello(frame, hello, Instant::now());
                }
            }
            WHO => self.tell_now().await,
            BYE => self.note_bye(node),
            _ => match handlers.0.get(topic) {
                Some(handler) => handler(node, data),
                None => tracing::debug!(topic, "ignored a message of another node: its topic is unknown"),
            },
        }
    }
}
