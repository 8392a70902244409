//! The API's way to the publisher: a publish with an id happens once.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::publishing::{ContractPublish, PlainEmit, Published, Publishing, RemoteOutcome};
use crate::error::{Code, Refusal};
use crate::idempotency::{Claim, Idempotency, IdempotencyError};
use crate::publish::{self, NotCarried, Origin, Publisher};

/// Publishes for backends.
pub struct ApiPublisher {
    publisher: Arc<Publisher>,
    ids: Idempotency,
}

/// What is remembered of a publish, for those who send its id again.
#[derive(Serialize, Deserialize)]
struct Remembered {
    rooms: Vec<String>,
    local: usize,
    dropped: usize,
    remote: Option<Result<(), NotCarried>>,
    held: bool,
}

impl ApiPublisher {
    /// Publishes through this publisher, and remembers ids here.
    pub fn new(publisher: Arc<Publisher>, ids: Idempotency) -> Self {
        Self { publisher, ids }
    }

    async fn once(&self, publish: ContractPublish, id: &str) -> Result<Published, Refusal> {
        let (scope, event) = (publish.contract.clone(), publish.event.clone());
        let claimed = match self.ids.claim(&scope, id, &fingerprint(&publish)).await {
            Ok(Claim::New(claimed)) => claimed,
            Ok(Claim::Seen(result)) => return Ok(duplicate(event, result.as_deref())),
            Ok(Claim::Conflict) => {
                let text = format!("the id {id:?} was used for another publish; an id names one publish");
                return Err(Refusal::new(Code::InvalidPayload, text));
            }
            Err(error @ IdempotencyError::Length(_)) => {
                return Err(Refusal::new(Code::InvalidPayload, error.to_string()));
            }
            Err(IdempotencyError::Unavailable) => {
                let published = self.publish(publish).await?;
                return Ok(Published { idempotent: Some(false), ..published });
            }
        };
        match self.publish(publish).await {
            Ok(published) => {
                self.ids.complete(claimed, &remember(&published)).await;
                Ok(Published { idempotent: Some(true), ..published })
            }
            Err(refusal) => {
                self.ids.release(claimed).await;
                Err(refusal)
            }
        }
    }

    async fn publish(&self, publish: ContractPublish) -> Result<Published, Refusal> {
        let ContractPublish { contract, event, data, params, id: _ } = publish;
        let publish = publish::ContractPublish { contract, event, data, params };
        self.publisher.contract_event(publish, Origin::Api).await.map(Published::from)
    }
}

impl Publishing for ApiPublisher {
    fn contract_event(&self, mut publish: ContractPublish) -> BoxFuture<'_, Result<Published, Refusal>> {
        async move {
            match publish.id.take() {
                Some(id) => self.once(publish, &id).await,
                None => self.publish(publish).await,
            }
        }
        .boxed()
    }

    fn plain(&self, emit: PlainEmit) -> BoxFuture<'_, Result<Published, Refusal>> {
        let PlainEmit { namespace, rooms, users, sockets, except, event, args, volatile } = emit;
        let emit = publish::PlainEmit { namespace, rooms, users, sockets, except, event, args, volatile };
        async move { self.publisher.plain(emit, Origin::Api).await.map(Published::from) }.boxed()
    }
}

impl From<publish::Published> for Published {
    fn from(published: publish::Published) -> Self {
        let publish::Published { event, rooms, local, dropped, remote, held } = published;
        let remote = match remote {
            publish::RemoteOutcome::Alone => RemoteOutcome::Alone,
            publish::RemoteOutcome::Carried => RemoteOutcome::Carried,
            publish::RemoteOutcome::NotCarried(reason) => RemoteOutcome::NotCarried(reason),
        };
        Self { event, rooms, local, dropped, remote, held, duplicate: false, idempotent: None }
    }
}

/// What makes two publishes the same.
fn fingerprint(publish: &ContractPublish) -> Vec<u8> {
    let data = publish.data.as_ref().map_or("", |data| data.get());
    format!("{}\0{}\0{data}", publish.event, publish.params).into_bytes()
}

fn remember(published: &Published) -> String {
    let remembered = Remembered {
        rooms: published.rooms.iter().map(ToString::to_string).collect(),
        local: published.local,
        dropped: published.dropped,
        remote: match published.remote {
            RemoteOutcome::Alone => None,
            RemoteOutcome::Carried => Some(Ok(())),
            RemoteOutcome::NotCarried(reason) => Some(Err(reason)),
        },
        held: published.held,
    };
    serde_json::to_string(&remembered).unwrap_or_default()
}

/// The first publish's answer. Without one, because it is under way or was too long to keep, nothing is known but that.
fn duplicate(event: String, result: Option<&str>) -> Published {
    let first = result.and_then(|result| serde_json::from_str::<Remembered>(result).ok());
    let remote = match first.as_ref().and_then(|first| first.remote) {
        None => RemoteOutcome::Alone,
        Some(Ok(())) => RemoteOutcome::Carried,
        Some(Err(reason)) => RemoteOutcome::NotCarried(reason),
    };
    let (rooms, local, dropped, held) =
        first.map_or((Vec::new(), 0, 0, false), |first| (first.rooms, first.local, first.dropped, first.held));
    let rooms = rooms.iter().map(|room| room.as_str().into()).collect();
    Published { event, rooms, local, dropped, remote, held, duplicate: true, idempotent: Some(true) }
}
