//! The histories of a cluster: one Redis stream for each room, written and read by scripts.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use fred::types::Value;

use super::holes::{HoleStart, Holes};
use super::page::HistoryQuery;
use super::unrecorded::Unrecorded;
use super::{
    Appended, HistoryError, HistoryPage, HistoryStore, ListCopy, MAX_LIFE, MAX_PAGE, PageOrder, Retention, RoomKey,
    new_epoch,
};
use crate::event::{Event, RecoveryMark};
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::Metrics;

/// The field of an entry that contains the event's text.
const TEXT: &str = "event";

/// The field of an entry that contains one attachment. The field occurs once for each attachment, in order.
const ATTACHMENT: &str = "attachment";

/// The field that contains the id of the [`RecoveryMark`], in hexadecimal.
const MARK: &str = "mark";

/// The field that contains a room whose members did not get the event. The field occurs once for each such room.
const EXCEPT: &str = "except";

/// Histories in Redis.
///
/// A room's history is the STREAM `<prefix>:history:v1:{<namespace>#<room>}:events`. The id of an entry is
/// `<epoch>-<offset>`, so that a history cannot lose its epoch or offsets and keep its events.
pub struct RedisHistory {
    redis: Redis,
    append: Script,
    copy: Script,
    read: Script,
    holes: Arc<Holes>,
    unrecorded: Unrecorded,
    clock: RedisClock,
    metrics: Arc<Metrics>,
}

impl RedisHistory {
    /// Creates the histories on the node's Redis connection.
    pub fn new(redis: Redis, metrics: Arc<Metrics>) -> Self {
        Self {
            holes: Holes::new(redis.clone()),
            unrecorded: Unrecorded::new(redis.clone()),
            redis,
            append: Script::new(include_str!("append.lua")),
            copy: Script::new(include_str!("copy.lua")),
            read: Script::new(include_str!("read.lua")),
            clock: RedisClock::default(),
            metrics,
        }
    }

    /// Appends the event, unless Redis runs the script only after the caller's timeout: an event that was reported as
    /// failed must not appear after events that followed it.
    async fn append_in_time(
        &self,
        keys: &[String],
        keep: Retention,
        copy: Option<ListCopy<'_>>,
        event: &Event,
    ) -> Result<AppendReply, HistoryError> {
        let until = self.clock.now().map(|now| now + self.redis.command_timeout());
        let reply = self.run(&self.append, keys.to_vec(), arguments(keep, copy, until, event)).await?;
        let (now, reply) = read_appended(reply)?;
        self.clock.set(now);
        Ok(reply)
    }

    async fn copy_apart(&self, copy: ListCopy<'_>) {
        let args = vec![copy.payload.into(), copy.events.to_string().into(), millis(copy.ttl).into()];
        if let Err(error) = self.run(&self.copy, vec![copy.key.to_owned()], args).await {
            self.not_copied(&error.to_string());
        }
    }

    fn not_copied(&self, reason: &str) {
        self.metrics.history_errors_total.with_label_values(&["copy", "refused"]).inc();
        log_seldom!(warn, reason, "a contract's history list was not written");
    }

    /// The keys of the events and of the position of a hole.
    fn keys(&self, room: &RoomKey) -> Vec<String> {
        vec![self.key(room), self.redis.keys().history(&room.namespace, &room.room, "hole")]
    }

    fn key(&self, room: &RoomKey) -> String {
        self.redis.keys().history(&room.namespace, &room.room, "events")
    }

    async fn run(&self, script: &Script, keys: Vec<String>, args: Vec<Value>) -> Result<Value, HistoryError> {
        Ok(self.redis.when_up(script.run(&self.redis, keys, args)).await?)
    }
}

impl HistoryStore for RedisHistory {
    async fn append(
        &self,
        room: &RoomKey,
        keep: Retention,
        copy: Option<ListCopy<'_>>,
        event: &Event,
    ) -> Result<Appended, HistoryError> {
        let (beside, apart) = match self.redis.is_clustered() {
            true => (None, copy),
            false => (copy, None),
        };
        let mut keys = self.keys(room);
        keys.push(self.redis.keys().history(&room.namespace, &room.room, "fence"));
        keys.extend(beside.map(|copy| copy.key.to_owned()));
        let mut appended = self.append_in_time(&keys, keep, beside, event).await;
        if matches!(appended, Ok(AppendReply::Late)) {
            // Redis answered within the time limit, so this node's copy of Redis' clock was wrong. The answer has
            // corrected the copy.
            appended = self.append_in_time(&keys, keep, beside, event).await;
        }
        let appended = appended.and_then(|reply| match reply {
            AppendReply::Done(appended, copied) => Ok((appended, copied)),
            AppendReply::Late => Err(HistoryError::Timeout),
            AppendReply::Fenced => Err(HistoryError::Fenced),
        });
        let (appended, copied) = appended.inspect_err(|error| {
            // A fenced event is not published live, so it leaves no hole.
            if *error != HistoryError::Fenced {
                self.holes.note(room, keep.ttl);
            }
        })?;
        if !copied {
            self.not_copied("the key holds something else");
        }
        if let Some(copy) = apart {
            self.copy_apart(copy).await;
        }
        Ok(appended)
    }

    async fn read(&self, room: &RoomKey, query: HistoryQuery) -> Result<HistoryPage, HistoryError> {
        let oldest_first = query.since.is_some() && query.order == PageOrder::Asc;
        let (offset, epoch) = match query.since {
            Some(since) => {
                // Numbers larger than this are not offsets, and Lua cannot compare them exactly.
                let offset = since.offset.min(1 << 53).to_string();
                (offset, since.known_epoch().map(|epoch| epoch.to_string()).unwrap_or_default())
            }
            None => Default::default(),
        };
        let limit = query.limit.clamp(1, MAX_PAGE).to_string();
        let which = if oldest_first { "oldest" } else { "newest" };
        let args = vec![limit.into(), which.into(), offset.into(), epoch.into()];
        let reply = self.run(&self.read, self.keys(room), args).await?;
        let (hole, mut page) = read_page(reply, query, oldest_first)?;
        page.complete &= !self.holes.may_miss(room) && !hole.is_some_and(|hole| hole.is_in(&page, query));
        Ok(page)
    }

    fn note_unrecorded(&self, namespace: &Arc<str>, life: Duration) {
        self.unrecorded.note(namespace, life);
    }

    async fn lacks_events(&self, namespace: &str) -> Result<bool, HistoryError> {
        self.unrecorded.is_noted(namespace).await
    }

    fn size(&self) -> (usize, usize) {
        (0, 0)
    }
}

impl From<fred::error::Error> for HistoryError {
    fn from(error: fred::error::Error) -> Self {
        use fred::error::ErrorKind;
        match error.kind() {
            // fred reports a lost connection by several kinds of error, also for commands that were already written to
            // the connection.
            ErrorKind::Timeout | ErrorKind::IO | ErrorKind::Canceled => Self::Timeout,
            ErrorKind::Routing | ErrorKind::Backpressure => Self::Unavailable,
            _ => Self::Refused(error.to_string()),
        }
    }
}

fn arguments(keep: Retention, copy: Option<ListCopy<'_>>, until: Option<Duration>, event: &Event) -> Vec<Value> {
    let (payload, events, ttl) = match copy {
        Some(copy) => (copy.payload, copy.events, copy.ttl),
        None => ("", 0, Duration::ZERO),
    };
    let mut args: Vec<Value> = vec![
        new_epoch().to_string().into(),
        keep.events.to_string().into(),
        millis(keep.ttl).into(),
        payload.into(),
        events.to_string().into(),
        millis(ttl).into(),
        until.map(|until| until.as_millis().to_string()).unwrap_or_default().into(),
        event.fence().map(|fence| fence.to_string()).unwrap_or_default().into(),
        TEXT.into(),
        Bytes::copy_from_slice(event.text().as_bytes()).into(),
    ];
    for attachment in event.attachments() {
        args.push(ATTACHMENT.into());
        args.push(attachment.clone().into());
    }
    if let Some(mark) = event.mark() {
        args.push(MARK.into());
        args.push(format!("{:x}", mark.id).into());
        for room in &mark.except {
            args.push(EXCEPT.into());
            args.push(room.as_ref().into());
        }
    }
    args
}

fn millis(duration: Duration) -> String {
    duration.min(MAX_LIFE).as_millis().to_string()
}

/// The script's answer to an append. The flag tells whether the list was written.
enum AppendReply {
    Done(Appended, bool),
    Late,
    Fenced,
}

/// Reads Redis' time and the script's answer.
fn read_appended(reply: Value) -> Result<(Duration, AppendReply), HistoryError> {
    let parts: Vec<String> = reply.convert()?;
    let number = |text: &str| text.parse().map_err(|_| refused("the script answered no number"));
    let now = parts.first().map_or_else(|| Err(refused("the script answered nothing")), |now| number(now))?;
    let reply = match &parts[1..] {
        [word] if word == "late" => AppendReply::Late,
        [word] if word == "fenced" => AppendReply::Fenced,
        [epoch, offset, copied] => {
            AppendReply::Done(Appended { epoch: number(epoch)?, offset: number(offset)? }, copied == "1")
        }
        _ => return Err(refused("the script answered something else")),
    };
    Ok((Duration::from_millis(now), reply))
}

/// The time of the Redis server: the time that Redis last reported, plus the time that has passed since.
#[derive(Default)]
struct RedisClock(Mutex<Option<(Duration, Instant)>>);

impl RedisClock {
    fn set(&self, now: Duration) {
        *self.0.lock().expect("no thread panics while it holds this lock") = Some((now, Instant::now()));
    }

    fn now(&self) -> Option<Duration> {
        self.0.lock().expect("no thread panics while it holds this lock").map(|(said, at)| said + at.elapsed())
    }
}

fn read_page(
    reply: Value,
    query: HistoryQuery,
    oldest_first: bool,
) -> Result<(Option<HoleStart>, HistoryPage), HistoryError> {
    let mut parts = reply.into_array().into_iter();
    let hole = parts.next().filter(|hole| hole.as_str().is_some_and(|hole| !hole.is_empty()));
    let hole = hole.map(|hole| read_id(&hole)).transpose()?.map(|(epoch, offset)| HoleStart { epoch, offset });
    let Some(newest) = parts.next() else { return Ok((hole, HistoryPage::empty(query))) };
    let (epoch, last) = read_id(&newest)?;
    let kept: u64 = parts.next().and_then(|count| count.as_u64()).ok_or_else(|| refused("no length"))?;
    let mut events = Vec::new();
    for entry in parts.next().map(Value::into_array).unwrap_or_default() {
        events.push(read_entry(entry)?);
    }
    if !oldest_first {
        events.reverse();
    }
    Ok((hole, HistoryPage::of(query, epoch, (last + 1).saturating_sub(kept), last, events)))
}

fn read_entry(entry: Value) -> Result<(u64, Event), HistoryError> {
    let mut entry = entry.into_array().into_iter();
    let (Some(id), Some(fields)) = (entry.next(), entry.next()) else { return Err(refused("an entry without fields")) };
    let (_, offset) = read_id(&id)?;
    let mut fields = fields.into_array().into_iter();
    let mut text = None;
    let (mut mark, mut except) = (None, Vec::new());
    let mut attachments = Vec::new();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let value = value.into_bytes().unwrap_or_default();
        match name.as_str().as_deref() {
            Some(TEXT) => text = ByteString::try_from(value).ok(),
            Some(ATTACHMENT) => attachments.push(value),
            Some(MARK) => mark = std::str::from_utf8(&value).ok().and_then(|id| u128::from_str_radix(id, 16).ok()),
            Some(EXCEPT) => except.push(String::from_utf8_lossy(&value).into()),
            _ => {}
        }
    }
    let text = text.ok_or_else(|| refused("an entry without an event"))?;
    let event = Event::from_wire(text, attachments).map_err(|error| refused(&error.to_string()))?;
    let event = match mark {
        Some(id) => event.with_mark(RecoveryMark { id, except }),
        None => event,
    };
    Ok((offset, event))
}

fn read_id(id: &Value) -> Result<(u64, u64), HistoryError> {
    let text = id.as_str().ok_or_else(|| refused("an entry without an id"))?;
    let parts = text.split_once('-').and_then(|(epoch, offset)| Some((epoch.parse().ok()?, offset.parse().ok()?)));
    parts.ok_or_else(|| refused("an id that is not ours"))
}

fn refused(why: &str) -> HistoryError {
    HistoryError::Refused(why.to_owned())
}
