//! Serves HTTP on one connection.
//!
//! hyper keeps two buffers of 8 KiB for each connection, also while an answer waits. A poll waits most of the time, so
//! meanwhile it is taken out of hyper: only its stream and the future of its answer are kept. When the answer is
//! ready, hyper serves the stream again. It first reads a short request that stands for the poll, and writes the
//! poll's answer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, ReadBuf};
use tower::ServiceExt as _;

use super::{ClientStream, HEAD_TIMEOUT, ListenerState, RequestConnection, Serve};

/// The placeholder request that hyper reads when the answer to a poll that has waited is ready.
const RESUMED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// The placeholder request for a connection that closes after the answer.
const RESUMED_LAST: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

/// The size of one read in bytes while an answer waits. Clients normally send nothing while they wait for an answer.
const READ: usize = 512;

type ResponseHandle = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The state that a connection and its requests share about answers that wait.
#[derive(Default)]
pub struct WaitingAnswers {
    /// The current request is a poll, so its answer may take long.
    polls: AtomicBool,
    state: Mutex<ResponseState>,
}

#[derive(Default)]
enum ResponseState {
    #[default]
    InHyper,
    /// The answer must wait outside of hyper.
    Parked(Parked),
    /// The answer that hyper must write next.
    Answered(Box<Response<Body>>),
}

/// An answer that waits outside of hyper.
struct Parked {
    answer: ResponseHandle,
    /// The connection closes after the answer.
    last: bool,
}

impl WaitingAnswers {
    /// Records that the current request is a poll.
    pub(in crate::engine) fn note_poll(&self) {
        self.polls.store(true, Ordering::Relaxed);
    }

    fn take_parked(&self) -> Option<Parked> {
        let mut state = self.state();
        match std::mem::take(&mut *state) {
            ResponseState::Parked(parked) => Some(parked),
            other => {
                *state = other;
                None
            }
        }
    }

    fn take_answered(&self) -> Option<Response<Body>> {
        let mut state = self.state();
        match std::mem::take(&mut *state) {
            ResponseState::Answered(response) => Some(*response),
            other => {
                *state = other;
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, ResponseState> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<S: Serve>(
    mut stream: ClientStream,
    arrival: RequestConnection,
    state: Arc<ListenerState<S>>,
) {
    loop {
        // This future is boxed, so that the task is small while an answer waits.
        let serving = Box::pin(serve_until_parked(stream, arrival.clone(), state.clone()));
        let Some((Parked { answer, last }, resumed, mut rest)) = serving.await else { return };
        stream = resumed;
        let Some(response) = wait(&mut stream, answer, &mut rest, state.options.max_head).await else { return };
        *arrival.waiting.state() = ResponseState::Answered(Box::new(response));
        let head = if last || state.stop.is_cancelled() { RESUMED_LAST } else { RESUMED };
        stream.put_back([head, &rest].concat().into());
    }
}

/// Serves a connection until an answer must wait outside of hyper. Returns the answer, the stream, and the bytes that
/// were read after the request. `None`: the connection has ended.
async fn serve_until_parked<S: Serve>(
    stream: ClientStream,
    arrival: RequestConnection,
    state: Arc<ListenerState<S>>,
) -> Option<(Parked, ClientStream, Vec<u8>)> {
    let (pending, waiting, stop) = (arrival.pending.clone(), arrival.waiting.clone(), state.stop.clone());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(state.options.max_head);
    let service = service_fn(move |request: Request<Incoming>| {
        PolledResponse::new(request, arrival.clone(), state.service.clone())
    });
    let mut serving = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let must_close = pending.must_close();
    tokio::pin!(must_close);
    let mut stopping = false;
    let step = loop {
        let step = poll_fn(|cx| match Pin::new(&mut serving).poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Err(outcome)),
            Poll::Pending => waiting.take_parked().map_or(Poll::Pending, |parked| Poll::Ready(Ok(parked))),
        });
        tokio::select! {
            biased;
            step = step => break step,
            () = stop.cancelled(), if !stopping => {
                Pin::new(&mut serving).graceful_shutdown();
                stopping = true;
            }
            () = must_close.as_mut() => return None,
        }
    };
    match step {
        Ok(parked) => {
            let parts = serving.into_parts()?;
            // These bytes are copied, because they are a part of hyper's buffer and would keep the whole buffer in
            // memory.
            Some((parked, parts.io.into_inner(), parts.read_buf.to_vec()))
        }
        Err(Ok(())) => None,
        Err(Err(error)) => {
            tracing::debug!(%error, "a connection ended with an error");
            None
        }
    }
}

/// Waits for an answer, and meanwhile keeps at most `most` bytes that the client sends. Returns `None` if the client
/// is gone.
async fn wait(
    stream: &mut ClientStream,
    mut answer: ResponseHandle,
    rest: &mut Vec<u8>,
    most: usize,
) -> Option<Response<Body>> {
    poll_fn(|cx| {
        if let Poll::Ready(Ok(response)) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        while rest.len() < most {
            let mut buffer = [MaybeUninit::uninit(); READ];
            let mut unread = ReadBuf::uninit(&mut buffer);
            match Pin::new(&mut *stream).poll_read(cx, &mut unread) {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => rest.extend_from_slice(unread.filled()),
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    })
    .await
}

/// The future of an answer, which hyper polls.
struct PolledResponse {
    /// `None`: the answer waits outside of hyper.
    answer: Option<ResponseHandle>,
    waiting: Arc<WaitingAnswers>,
    /// Whether the connection closes after the answer. `None`: the answer must wait in hyper.
    last: Option<bool>,
}

impl PolledResponse {
    fn new<S: Serve>(request: Request<Incoming>, arrival: RequestConnection, mut service: S) -> Self {
        let waiting = arrival.waiting.clone();
        if let Some(response) = waiting.take_answered() {
            return Self { answer: Some(Box::pin(std::future::ready(Ok(response)))), waiting, last: None };
        }
        arrival.pending.note_request();
        waiting.polls.store(false, Ordering::Relaxed);
        let last = is_last(&request);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(arrival);
        // If the service is ready, as it nearly always is, only the future of its answer is kept, which may wait for
        // long.
        let answer: ResponseHandle = match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Box::pin(service.call(request)),
            _ => Box::pin(service.oneshot(request)),
        };
        Self { answer: Some(answer), waiting, last }
    }
}

impl Future for PolledResponse {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = &mut self.answer else { return Poll::Pending };
        if let Poll::Ready(response) = answer.as_mut().poll(cx) {
            return Poll::Ready(response);
        }
        if self.waiting.polls.load(Ordering::Relaxed)
            && let Some(last) = self.last
            && let Some(answer) = self.answer.take()
        {
            *self.waiting.state() = ResponseState::Parked(Parked { answer, last });
        }
        Poll::Pending
    }
}

/// Whether the connection closes after a request. `None`: the request has a body or an older HTTP version, so that its
/// answer must wait in hyper.
fn is_last(request: &Request<Incoming>) -> Option<bool> {
    if request.version() != Version::HTTP_11 || !request.body().is_end_stream() {
        return None;
    }
    let values = request.headers().get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let mut options = values.flat_map(|value| value.split(|byte| *byte == b','));
    Some(options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close")))
}
