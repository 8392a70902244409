//! Writes log records to standard error on a thread of its own.
//!
//! A task that logs appends its record to a buffer and continues; the thread writes the buffer. When the reader of
//! standard error stalls, only this thread waits. The buffer then fills up to [`MAX_BYTES`]; further records are lost
//! and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum size of the records that wait or are being written, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// A buffer that has grown beyond this size, in bytes, is shrunk once it is written.
const KEPT_BYTES: usize = 64 << 10;

/// The pause before writing is tried again, if standard error is non-blocking and not ready.
const RETRY: Duration = Duration::from_millis(10);

/// Accepts log records. Clones share one buffer.
#[derive(Clone)]
pub struct LogWriter(Arc<Shared>);

struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct Buffer {
    waiting: Vec<u8>,
    /// How many bytes the thread is writing now.
    writing: usize,
    /// The id of the writing thread. Its own record, which reports lost records, is always accepted.
    writer: Option<ThreadId>,
}

impl LogWriter {
    /// Starts the thread that writes to `out` until the process ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { buffer: Mutex::default(), changed: Condvar::new(), lost: AtomicU64::new(0) });
        let writing = shared.clone();
        let thread = thread::Builder::new().name("log".into()).spawn(move || writing.run(out))?;
        shared.buffer().writer = Some(thread.thread().id());
        Ok(Self(shared))
    }

    /// Waits at most `within` until all records are written. Returns false when some are left.
    pub fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut buffer = self.0.buffer();
        while !buffer.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            buffer = self.0.changed.wait_timeout(buffer, left).expect("no thread panics while it holds this lock").0;
        }
        true
    }

    /// How many records were lost since the process started.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// Each call must write exactly one record.
impl Write for &LogWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.0.push(record);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

// === impl Shared ===

impl Shared {
    fn push(&self, record: &[u8]) {
        let mut buffer = self.buffer();
        let is_full = buffer.waiting.len() + buffer.writing + record.len() > MAX_BYTES;
        if is_full && buffer.writer != Some(thread::current().id()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        buffer.waiting.extend_from_slice(record);
        drop(buffer);
        self.changed.notify_all();
    }

    fn run(&self, mut out: impl Write) {
        let (mut bytes, mut told) = (Vec::new(), 0);
        loop {
            self.take(&mut bytes);
            let unwritten = write(&mut out, &bytes);
            let records = memchr::memchr_iter(b'\n', &bytes[bytes.len() - unwritten..]).count();
            let lost = self.lost.fetch_add(records as u64, Ordering::Relaxed) + records as u64;
            self.buffer().writing = 0;
            if unwritten == 0 && lost > told {
                tracing::warn!(lost = lost - told, "log records were lost: nothing could be written to standard error");
                told = lost;
            }
            self.changed.notify_all();
        }
    }

    /// Waits for records, then swaps the buffers.
    fn take(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES);
        let mut buffer = self.buffer();
        while buffer.waiting.is_empty() {
            buffer = self.changed.wait(buffer).expect("no thread panics while it holds this lock");
        }
        std::mem::swap(&mut buffer.waiting, bytes);
        buffer.writing = bytes.len();
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().expect("no thread panics while it holds this lock")
    }
}

impl Buffer {
    const fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.writing == 0
    }
}

/// Writes the bytes. Returns how many of them could not be written.
fn write(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(RETRY),
            Err(_) => break,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A writer in which each write waits until the test decides its outcome.
    struct Stalled {
        outcomes: Receiver<bool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.outcomes.recv() {
                Ok(false) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok(true) | Err(_) => self.written.lock().unwrap().extend_from_slice(bytes),
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalled() -> (LogWriter, SyncSender<bool>, Arc<Mutex<Vec<u8>>>) {
        let (outcomes, receiver) = sync_channel(16);
        let written = Arc::new(Mutex::new(Vec::new()));
        let out = Stalled { outcomes: receiver, written: written.clone() };
        (LogWriter::start(out).unwrap(), outcomes, written)
    }

    #[test]
    fn stalled_reader_costs_a_bounded_buffer_and_lost_records_are_counted() {
        let (log, outcomes, written) = stalled();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        for _ in 0..MAX_BYTES / 100 + 50 {
            (&log).write_all(&line).unwrap();
        }
        assert!(log.lost() >= 50, "{}", log.lost());
        assert!(!log.flush(Duration::from_millis(20)), "nothing was written");
        assert!(log.0.buffer().waiting.len() <= MAX_BYTES);
        drop(outcomes);
        assert!(log.flush(PATIENCE));
        let kept = MAX_BYTES as u64 / 100 + 50 - log.lost();
        assert_eq!(written.lock().unwrap().len() as u64, kept * 100);
        (&log).write_all(&line).unwrap();
        assert!(log.flush(PATIENCE));
        assert_eq!(written.lock().unwrap().len() as u64, (kept + 1) * 100);
        assert!(log.0.buffer().waiting.capacity() <= KEPT_BYTES, "a large buffer is given back");
    }

    #[test]
    fn failed_writes_are_counted_by_records() {
        let (log, outcomes, written) = stalled();
        (&log).write_all(b"one\n").unwrap();
        outcomes.send(false).unwrap();
        assert!(log.flush(PATIENCE));
        assert_eq!(log.lost(), 1);
        outcomes.send(true).unwrap();
        (&log).write_all(b"two\n").unwrap();
        assert!(log.flush(PATIENCE));
        assert_eq!((log.lost(), &written.lock().unwrap()[..]), (1, &b"two\n"[..]));
    }
}
