//! Reads the bodies of forwarded requests. Each body is read to its end, because its digest is signed. The total size
//! of all bodies is limited.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::NotForwarded;

/// Maximum size of all bodies in memory, in bytes. If four times the largest allowed body is more, that is the limit.
const TOGETHER: usize = 64 << 20;

/// Reads bodies within limits on size and time.
pub(super) struct Bodies {
    largest: usize,
    within: Duration,
    room: Arc<Semaphore>,
    /// Sessions whose body is being read. A session may send only one body at a time, because a slow body keeps its
    /// memory for long.
    posting: Mutex<HashSet<Box<str>>>,
}

/// A body, and its share of the limit on all bodies.
pub(super) struct ReadBody {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// A guard that marks a session's body as being read, until the guard is dropped.
pub(super) struct ReadingGuard<'a>(&'a Bodies, &'a str);

impl Bodies {
    /// A body may have at most `largest` bytes, and must arrive within the time `within`.
    pub(super) fn new(largest: usize, within: Duration) -> Self {
        let together = TOGETHER.max(largest.saturating_mul(4)).min(Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { largest, within, room: Arc::new(Semaphore::new(together)), posting: Mutex::default() }
    }

    /// Marks that a session's body is being read. `None` if another body of the session is already being read.
    pub(super) fn post<'a>(&'a self, sid: &'a str) -> Option<ReadingGuard<'a>> {
        let new = self.posting.lock().expect("no thread panics while it holds this lock").insert(sid.into());
        new.then_some(ReadingGuard(self, sid))
    }

    /// Reads a request's body to its end.
    pub(super) async fn read(&self, body: Body) -> Result<ReadBody, NotForwarded> {
        let hint = body.size_hint();
        let largest = usize::try_from(hint.upper().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        if largest == 0 {
            return Ok(ReadBody { bytes: Bytes::new(), _room: None });
        }
        if usize::try_from(hint.lower()).is_ok_and(|lower| lower > self.largest) {
            return Err(NotForwarded::TooLarge);
        }
        let needed = u32::try_from(largest.min(self.largest)).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(needed).map_err(|_| NotForwarded::Busy)?;
        let read = tokio::time::timeout(self.within, to_bytes(body, self.largest)).await;
        match read {
            Err(_) => Err(NotForwarded::SlowBody),
            // The body is too long, or its client has disconnected. A disconnected client receives no answer, so the
            // error does not matter.
            Ok(Err(_)) => Err(NotForwarded::TooLarge),
            Ok(Ok(bytes)) => Ok(ReadBody { bytes, _room: Some(room) }),
        }
    }
}

impl Drop for ReadingGuard<'_> {
    fn drop(&mut self) {
        self.0.posting.lock().expect("no thread panics while it holds this lock").remove(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked(bytes: &'static [u8]) -> Body {
        Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(bytes))]))
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_size_and_time_one_by_one_and_together() {
        let bodies = Bodies::new(4, Duration::from_secs(1));
        assert_eq!(bodies.read(Body::empty()).await.unwrap().bytes, "");
        assert_eq!(bodies.read(Body::from("abcd")).await.unwrap().bytes, "abcd");
        assert_eq!(bodies.read(chunked(b"abcd")).await.unwrap().bytes, "abcd");
        assert_eq!(bodies.read(Body::from("abcde")).await.err(), Some(NotForwarded::TooLarge));
        assert_eq!(bodies.read(chunked(b"abcde")).await.err(), Some(NotForwarded::TooLarge));
        let silent = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(bodies.read(silent()).await.err(), Some(NotForwarded::SlowBody));
        let large = Bodies::new(TOGETHER / 4, Duration::from_secs(1));
        let waiting: Vec<_> = (0..4).map(|_| large.read(silent())).collect();
        let fifth = async {
            tokio::task::yield_now().await;
            large.read(chunked(b"a")).await.err()
        };
        let (waiting, fifth) = tokio::join!(futures_util::future::join_all(waiting), fifth);
        assert!(waiting.iter().all(|read| read.as_ref().err() == Some(&NotForwarded::SlowBody)));
        assert_eq!(fifth, Some(NotForwarded::Busy));
        assert!(large.read(chunked(b"a")).await.is_ok(), "there is room again");
    }

    #[test]
    fn a_session_has_one_body_on_its_way() {
        let bodies = Bodies::new(4, Duration::from_secs(1));
        let first = bodies.post("a");
        assert!(first.is_some() && bodies.post("a").is_none() && bodies.post("b").is_some());
        drop(first);
        assert!(bodies.post("a").is_some());
    }
}
