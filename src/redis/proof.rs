//! Proves that the server which has taken a publish is the primary.
//!
//! A replica takes publishes as well, and brings them only to those who are connected to it. After a failover whose old
//! connections stay open, a publish would be confirmed by a server that the other nodes have left. So a write that changes
//! nothing is sent behind the publish, on the same connection: a replica refuses it.

use fred::error::Error;
use fred::interfaces::KeysInterface;
use tokio::sync::{mpsc, oneshot};

use super::cause::{Cause, CauseKind};
use super::{Redis, probe};

/// How many callers may wait for a proof; more wait for a place. One proof serves all that have asked before it is sent.
const WAITING: usize = 4096;

type Answer = oneshot::Sender<Result<(), Error>>;

/// Where proofs are asked for.
pub(super) struct Proofs(mpsc::Sender<Answer>);

/// What comes of [`Proofs::new`], for [`run`].
pub(super) struct Asked(mpsc::Receiver<Answer>);

impl Proofs {
    pub(super) fn new() -> (Self, Asked) {
        let (asked, waiting) = mpsc::channel(WAITING);
        (Self(asked), Asked(waiting))
    }

    /// Resolves when a proof that was sent after this call is answered.
    pub(super) async fn next(&self) -> Result<(), Error> {
        let (answer, proof) = oneshot::channel();
        if self.0.send(answer).await.is_err() {
            return Err(Error::new_canceled());
        }
        proof.await.unwrap_or_else(|_| Err(Error::new_canceled()))
    }
}

/// Gives proofs until Redis is closed.
pub(super) async fn run(redis: Redis, mut asked: Asked, node: String) {
    let key = redis.keys().probe_write(&node);
    let mut waiting = Vec::new();
    loop {
        let count = tokio::select! {
            () = redis.state().stopped() => return,
            count = asked.0.recv_many(&mut waiting, WAITING) => count,
        };
        if count == 0 {
            return;
        }
        let proof = prove(&redis, &key).await;
        for answer in waiting.drain(..) {
            // The publisher may not want to know.
            let _ = answer.send(proof.clone());
        }
    }
}

async fn prove(redis: &Redis, key: &str) -> Result<(), Error> {
    // Each server of a Redis Cluster redirects what is not its own.
    if redis.is_clustered() {
        return Ok(());
    }
    match redis.client().del::<(), _>(key).await {
        Ok(()) => Ok(()),
        Err(error) => {
            redis.notice(&error, &format!("{} {key}", probe::PROOF));
            match Cause::of(&error).kind {
                CauseKind::ReadOnly | CauseKind::Timeout | CauseKind::Lost => Err(error),
                // It is a primary that refuses writes for another reason.
                _ => Ok(()),
            }
        }
    }
}
