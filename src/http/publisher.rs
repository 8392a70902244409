//! Publishes for the API. A publish with an id happens once.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::Instrument as _;

use super::publishing::{BackendPublished, Publishing};
use crate::error::{Code, Refusal};
use crate::idempotency::{ClaimResult, Idempotency, IdempotencyError};
use crate::publish::{ContractPublish, PlainEmit, Published, Publisher, PublisherKind, RemoteOutcome};
use crate::telemetry::log_limit::log_seldom;

/// Publishes for backends.
/// A publish that has begun is completed even if the backend disconnects. Otherwise an event could be in a history
/// without being delivered, and an id could be claimed for an event that was never sent.
#[derive(Clone)]
pub struct ApiPublisher {
    publisher: Arc<Publisher>,
    ids: Arc<Idempotency>,
}

impl ApiPublisher {
    /// Publishes through `publisher`, and keeps ids in `ids`.
    pub fn new(publisher: Arc<Publisher>, ids: Idempotency) -> Self {
        Self { publisher, ids: Arc::new(ids) }
    }

    async fn once(&self, publish: ContractPublish, id: &str) -> Result<BackendPublished, Refusal> {
        let (scope, event) = (publish.contract.clone(), publish.event.clone());
        let claimed = match self.ids.claim(&scope, id, &fingerprint(&publish)).await {
            Ok(ClaimResult::New(claimed)) => claimed,
            Ok(ClaimResult::Seen(result)) => return Ok(duplicate(event, result.as_deref())),
            Ok(ClaimResult::Conflict) => {
                let text = format!("the id {id:?} was used for another publish; use a new id for each publish");
                return Err(Refusal::new(Code::InvalidPayload, text));
            }
            Err(error @ IdempotencyError::Length(_)) => {
                return Err(Refusal::new(Code::InvalidPayload, error.to_string()));
            }
            Err(IdempotencyError::Unavailable) => {
                let published = self.publish(publish).await?;
                return Ok(BackendPublished { idempotent: Some(false), ..published });
            }
        };
        match self.publish(publish).await {
            Ok(published) => {
                let result = serde_json::to_string(&published.published).unwrap_or_default();
                self.ids.complete(claimed, &result).await;
                Ok(BackendPublished { idempotent: Some(true), ..published })
            }
            Err(refusal) => {
                self.ids.release(claimed).await;
                Err(refusal)
            }
        }
    }

    async fn publish(&self, publish: ContractPublish) -> Result<BackendPublished, Refusal> {
        let span = tracing::info_span!("publish", contract = publish.contract, event = publish.event);
        self.publisher.contract_event(publish, PublisherKind::Api).instrument(span).await.map(BackendPublished::from)
    }
}

impl Publishing for ApiPublisher {
    fn contract_event(
        &self,
        publish: ContractPublish,
        id: Option<String>,
    ) -> BoxFuture<'_, Result<BackendPublished, Refusal>> {
        let this = self.clone();
        run_to_end(async move {
            match id {
                Some(id) => this.once(publish, &id).await,
                None => this.publish(publish).await,
            }
        })
    }

    fn plain(&self, emit: PlainEmit) -> BoxFuture<'_, Result<BackendPublished, Refusal>> {
        let publisher = self.publisher.clone();
        run_to_end(async move { publisher.plain(emit, PublisherKind::Api).await.map(BackendPublished::from) })
    }
}

/// Runs the work in a task of its own, so that it cannot be dropped half-way.
fn run_to_end<'a>(
    publish: impl Future<Output = Result<BackendPublished, Refusal>> + Send + 'static,
) -> BoxFuture<'a, Result<BackendPublished, Refusal>> {
    let task = tokio::spawn(publish.in_current_span());
    async move {
        task.await.unwrap_or_else(|error| {
            log_seldom!(error, %error, "a publish failed half-way");
            Err(Refusal::new(Code::InternalError, "the publish failed half-way; whether it went out is not known"))
        })
    }
    .boxed()
}

/// Returns the bytes that must be equal for two publishes to be the same.
fn fingerprint(publish: &ContractPublish) -> Vec<u8> {
    let args: Vec<&str> = publish.args.iter().map(|arg| arg.get()).collect();
    format!("{}\0{}\0{}", publish.event, publish.params, args.join("\0")).into_bytes()
}

/// Returns the answer to a duplicate: the first publish's answer, or an unknown result if the first is not complete yet
/// or had too long an answer.
fn duplicate(event: String, result: Option<&str>) -> BackendPublished {
    let first = result.and_then(|result| serde_json::from_str::<Published>(result).ok());
    let published = match first {
        Some(first) => Published { event, ..first },
        None => {
            Published { event, rooms: Vec::new(), local: 0, dropped: 0, remote: RemoteOutcome::Unknown, held: false }
        }
    };
    BackendPublished { published, duplicate: true, idempotent: Some(true) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::contract::load::{Source, load_sources};
    use crate::publish::{Delivery, DeliveryResult, Outgoing, PublisherParts, RemoteDelivery};
    use crate::telemetry::metrics::Metrics;

    const CONTRACT: &str = r#"
name = "c"
namespace = "/"
auth = { mode = "none" }
[rooms.all]
name = "all"
[server.e]
rooms = ["all"]
"#;

    /// A publisher for this test that confirms after a delay.
    #[derive(Default)]
    struct Slow(AtomicUsize);

    impl Delivery for Slow {
        fn broadcast(&self, _: &Outgoing) -> DeliveryResult {
            self.0.fetch_add(1, Ordering::SeqCst);
            let confirmed = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(())
            };
            DeliveryResult { remote: RemoteDelivery::Handed(Box::pin(confirmed)), ..DeliveryResult::to(3, 0) }
        }
    }

    fn publisher() -> (ApiPublisher, Arc<Slow>) {
        let source = Source { name: "test.toml".into(), text: CONTRACT.into() };
        let namespaces: Vec<_> = load_sources(vec![source]).unwrap().into_iter().map(Arc::new).collect();
        let (delivery, metrics) = (Arc::new(Slow::default()), Arc::new(Metrics::new()));
        let publisher = Publisher::new(PublisherParts::alone(&namespaces, delivery.clone(), metrics.clone()));
        (ApiPublisher::new(publisher, Idempotency::in_memory(Duration::from_secs(60), metrics)), delivery)
    }

    fn publish(event: &str) -> ContractPublish {
        let (contract, event) = ("c".to_owned(), event.to_owned());
        ContractPublish { contract, event, args: Vec::new(), params: serde_json::Value::Null }
    }

    fn id() -> Option<String> {
        Some("1".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn publish_of_a_backend_that_hangs_up_is_done_to_its_end() {
        let (api, delivery) = publisher();
        let hung_up = tokio::time::timeout(Duration::from_millis(10), api.contract_event(publish("e"), id())).await;
        assert!(hung_up.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = api.contract_event(publish("e"), id()).await.unwrap();
        assert_eq!((again.duplicate, again.published.local), (true, 3), "the first answer");
        assert_eq!(delivery.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_publish_gives_its_id_back() {
        let (api, delivery) = publisher();
        assert_eq!(api.contract_event(publish("unknown"), id()).await.unwrap_err().code, Code::UnknownEvent);
        assert!(!api.contract_event(publish("e"), id()).await.unwrap().duplicate);
        let other = ContractPublish { params: serde_json::json!({ "x": 1 }), ..publish("e") };
        assert_eq!(api.contract_event(other, id()).await.unwrap_err().code, Code::InvalidPayload);
        assert_eq!(delivery.0.load(Ordering::SeqCst), 1);
    }
}
