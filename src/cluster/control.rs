//! Receives the messages on the control channel: heartbeats, and requests between nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use prometheus::IntCounter;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::frame::Frame;
use super::heartbeat::{BYE, HELLO, WHO};
use super::pubsub::Incoming;
use super::{Cluster, ClusterActions, ClusterRevoker, SlowestConnections};
use crate::telemetry::log_limit::log_seldom;

/// A message on the control channel.
#[derive(Serialize, Deserialize)]
pub(super) struct Control<'a, T> {
    pub(super) topic: &'a str,
    pub(super) data: T,
}

/// Handles a message from another node. Returns an error if the message cannot be read.
type MessageHandler = Box<dyn Fn(&str, Value) -> Result<(), serde_json::Error> + Send + Sync>;

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
        let read = move |node: &str, data| serde_json::from_value(data).map(|message| handler(node, message));
        self.0.insert(topic, Box::new(read));
        self
    }
}

/// The messages on the control channel that wait until this node can handle them.
#[must_use]
pub(super) struct ControlInbox {
    pub(super) requests: mpsc::Receiver<Incoming>,
    /// Counts the messages that cannot be read.
    pub(super) unreadable: IntCounter,
}

impl ControlInbox {
    /// Begins to handle the messages of other nodes, and to send heartbeats. Needs a Tokio runtime.
    pub(super) fn start(self, cluster: &Arc<Cluster>, handlers: MessageHandlers) {
        tokio::spawn(self.listen(cluster.clone(), handlers));
        tokio::spawn(cluster.clone().send_heartbeats());
    }

    async fn listen(mut self, cluster: Arc<Cluster>, handlers: MessageHandlers) {
        while let Some(request) = self.requests.recv().await {
            let frame = &request.frame;
            let received = match serde_json::from_slice::<Control<'_, Value>>(&frame.body) {
                Ok(control) => cluster.receive(frame, control.topic, control.data, &handlers).await,
                Err(error) => Err(error),
            };
            if let Err(error) = received {
                log_seldom!(warn, node = %frame.origin.node, %error, "ignored an unreadable message of another node");
                self.unreadable.inc();
            }
        }
    }
}

impl Cluster {
    async fn receive(
        &self,
        frame: &Frame,
        topic: &str,
        data: Value,
        handlers: &MessageHandlers,
    ) -> Result<(), serde_json::Error> {
        let node = &frame.origin.node;
        match topic {
            HELLO => self.note_hello(frame, serde_json::from_value(data)?, Instant::now()),
            WHO => self.tell_now().await,
            BYE => self.note_bye(node),
            _ => match handlers.0.get(topic) {
                Some(handler) => handler(node, data)?,
                None => return Err(serde_json::Error::custom(format_args!("the topic {topic:?} is unknown"))),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::actions::ActionMessage;
    use super::super::members::Heartbeat;
    use super::super::questions::{AnswerMessage, QuestionMessage};
    use super::super::revocations::RevocationMessage;
    use super::super::slowest::{SlowConnection, SlowestAnswer, SlowestQuestion};
    use super::*;
    use crate::formats::{FRAME, frozen};
    use crate::recovery::MovedSession;

    /// Reads a message and writes it as the node does, and compares the result with the frozen sample, which it reads
    /// again.
    fn frozen<T: Serialize + DeserializeOwned>(topic: &str, sample: &str, message: &str) {
        let data: T = serde_json::from_str(message).unwrap();
        let written = serde_json::to_vec(&Control { topic, data }).unwrap();
        let frozen = frozen::check(&FRAME, sample, &written);
        let control: Control<'_, Box<RawValue>> = serde_json::from_slice(&frozen).unwrap();
        assert_eq!(control.topic, topic);
        serde_json::from_str::<T>(control.data.get()).unwrap_or_else(|error| panic!("{sample}: {error}"));
    }

    #[test]
    fn messages_of_the_control_channel_are_the_frozen_ones() {
        frozen::<Heartbeat>(
            HELLO,
            "hello.json",
            r#"{"connections":3,"rooms":2,"listens":["p:control"],"heads":{"p:control":7},"contracts":"digest","runs":1,
                "standing":{"leaving":true,"accepts":100,"places":7}}"#,
        );
        frozen::<()>(WHO, "who.json", "null");
        frozen::<()>(BYE, "bye.json", "null");
        for (sample, what) in [
            ("act-join.json", r#"{"join":"a"}"#),
            ("act-leave.json", r#"{"leave":"a"}"#),
            ("act-disconnect.json", r#"{"disconnect":{"transport":true}}"#),
        ] {
            frozen::<ActionMessage>("act", sample, &format!(r#"{{"namespace":"/n","rooms":["r"],"what":{what}}}"#));
        }
        frozen::<QuestionMessage>(
            "ask",
            "ask.json",
            r#"{"id":"1","namespace":"/n","rooms":["r"],"event":"AAAA","patience_ms":500}"#,
        );
        frozen::<AnswerMessage>(
            "acknowledged",
            "acknowledged.json",
            r#"{"id":"1","asked":2,"not_asked":1,"too_large":0,"said":[["s","[1]",["AAE="]],[null,"[]",[]]]}"#,
        );
        frozen::<RevocationMessage>("revoke", "revoke.json", REVOKE);
        frozen::<MovedSession>("moved", "moved.json", r#"{"namespace":"/n","id":"s","generation":2}"#);
        frozen::<SlowestQuestion>(
            "slowest",
            "slowest.json",
            r#"{"id":"1","namespace":"/n","by":"queuedBytes","limit":10}"#,
        );
        frozen::<SlowestAnswer>("slowest_are", "slowest_are.json", r#"{"id":"1","items":[{"a":1}],"cut":false}"#);
        frozen::<SlowConnection>(
            "slowest_are",
            "slow-connection.json",
            r#"{"socket_id":"s","user_id":"u","transport":"websocket","connected_at_ms":1,"rooms":["r"],"metadata":{"k":1},
                "queued_bytes":2,"queued_packets":3,"dropped":4,"last_write_at_ms":5}"#,
        );
    }

    const REVOKE: &str = r#"{"epoch":"e","number":7,"changes":[[{"user":"u"},{"since":1,"until":2,"spares_newer":true}],[{"token":"t"},null]]}"#;
}
