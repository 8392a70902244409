//! Measures events to rooms at a fixed rate, at saturation and in overload, and measures echoes.

use std::time::{Duration, Instant};

use super::{Clock, Figures, Size, Stage};
use crate::load::{Load, Sink, Transport};
use crate::wire;

const PAD: usize = 64;
/// One in this number of deliveries has its delay recorded.
const SAMPLE: u64 = 16;
/// A run counts as complete when nothing has arrived for this time.
const QUIET: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
const ECHOES: usize = 100;

/// Counts what all connections receive, checks the order, and records delays.
pub(super) struct Ledger {
    started: Instant,
    next: Vec<u32>,
    own: u32,
    speaker: usize,
    heard: u64,
    disordered: u64,
    late_us: Vec<u64>,
}

impl Ledger {
    pub(super) fn new(connections: usize) -> Self {
        Self {
            started: Instant::now(),
            next: vec![0; connections],
            own: 0,
            speaker: 0,
            heard: 0,
            disordered: 0,
            late_us: Vec::new(),
        }
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Sends one event to a room, with a growing number and the time of sending.
    pub(super) fn say(&self, load: &mut Load, speaker: usize, room: usize, n: u32, pad: &str) -> anyhow::Result<()> {
        load.emit(speaker, None, &format!(r#"["say","r{room}",{n},{},"{pad}"]"#, self.now_us()))
    }

    fn figures(mut self, stage: &Stage, start: &Clock, expected: u64) -> anyhow::Result<Figures> {
        let end = stage.clock()?;
        self.late_us.sort_unstable();
        let late_ms = |part: f64| {
            let at = (self.late_us.len() as f64 * part) as usize;
            self.late_us.get(at).map_or(f64::NAN, |late| *late as f64 / 1000.0)
        };
        let heard = self.heard as f64;
        let mut figures = Figures::from_iter([
            ("delivery_us", (end.servers_us - start.servers_us) / heard),
            ("lost", expected as f64 - heard),
            ("disordered", self.disordered as f64),
            ("p50_ms", late_ms(0.5)),
            ("p99_ms", late_ms(0.99)),
            ("deliveries_per_s", heard / (end.at - start.at).as_secs_f64()),
            ("generator_us", (end.load_us - start.load_us) / heard),
        ]);
        if stage.redis.is_some() {
            figures.insert("redis_us", (end.redis_us - start.redis_us) / heard);
        }
        Ok(figures)
    }
}

impl Sink for Ledger {
    fn event(&mut self, connection: usize, text: &[u8]) {
        let Some((n, sent_us)) = wire::said(text) else { return };
        // Missing events are counted as lost. Here only late and repeated events are counted.
        if n < self.next[connection] {
            self.disordered += 1;
        }
        self.next[connection] = n + 1;
        self.heard += 1;
        if connection == self.speaker {
            self.own += 1;
        }
        if self.heard % SAMPLE == 0 {
            self.late_us.push(self.now_us().saturating_sub(sent_us));
        }
    }
}

pub(super) struct Paced {
    pub(super) rooms: usize,
    pub(super) members: usize,
    /// Number of events a second, over all rooms.
    pub(super) rate: u32,
    /// How the members connect, except for the first one, which opens with a WebSocket.
    pub(super) transport: Transport,
}

fn gathered(stage: &Stage, rooms: usize, members: usize, transport: Transport) -> anyhow::Result<(Load, Ledger)> {
    let mut load = Load::new()?;
    let mut ledger = Ledger::new(rooms * members);
    let of = |index| if index == 0 { Transport::WebSocket } else { transport };
    stage.open(&mut load, rooms * members, of, &mut ledger)?;
    // Neighbours are on different nodes, and a room has every `rooms`-th pair of them.
    load.join(|index| format!("r{}", index / 2 % rooms), &mut ledger)?;
    load.rest(Duration::from_millis(500), &mut ledger)?;
    Ok((load, ledger))
}

pub(super) fn paced(stage: &Stage, size: Size, how: &Paced) -> anyhow::Result<Figures> {
    let (mut load, mut ledger) = gathered(stage, how.rooms, how.members, how.transport)?;
    let pad = "x".repeat(PAD);
    let start = stage.clock()?;
    let (total, mut said) = (how.rate * size.seconds, 0);
    while said < total {
        let due = total.min((start.at.elapsed().as_secs_f64() * f64::from(how.rate)) as u32);
        while said < due {
            let room = said as usize % how.rooms;
            ledger.say(&mut load, room * 2, room, said / how.rooms as u32, &pad)?;
            said += 1;
        }
        load.turn(Duration::from_millis(4), &mut ledger)?;
    }
    let expected = u64::from(total) * how.members as u64;
    arrive(&mut load, &mut ledger, expected)?;
    ledger.figures(stage, &start, expected)
}

/// Waits for the events that are still in flight, until nothing has arrived for 5 s, and for at most 60 s. Events that
/// have not arrived then count as lost.
fn arrive(load: &mut Load, ledger: &mut Ledger, expected: u64) -> anyhow::Result<()> {
    let (begun, mut quiet) = (Instant::now(), Instant::now());
    while ledger.heard < expected && quiet.elapsed() < QUIET && begun.elapsed() < PATIENCE {
        let before = ledger.heard;
        load.turn(Duration::from_millis(20), ledger)?;
        if ledger.heard > before {
            quiet = Instant::now();
        }
    }
    Ok(())
}

pub(super) fn saturated(stage: &Stage, members: usize, events: u32, window: u32) -> anyhow::Result<Figures> {
    let (mut load, mut ledger) = gathered(stage, 1, members, Transport::WebSocket)?;
    // Most servers send an event last to the client that joined last, so that client is the sender.
    ledger.speaker = members - 1;
    let pad = "x".repeat(PAD);
    let start = stage.clock()?;
    let mut said = 0;
    while said < events {
        while said < events && said < ledger.own + window {
            ledger.say(&mut load, members - 1, 0, said, &pad)?;
            said += 1;
        }
        load.turn(Duration::from_millis(20), &mut ledger)?;
        if start.at.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    let expected = u64::from(events) * members as u64;
    arrive(&mut load, &mut ledger, expected)?;
    ledger.figures(stage, &start, expected)
}

pub(super) fn overload(stage: &Stage, _: Size) -> anyhow::Result<Figures> {
    let (members, rate) = (1000, 2000.0);
    let (mut load, mut ledger) = gathered(stage, 1, members, Transport::WebSocket)?;
    let pad = "x".repeat(PAD);
    let before_kib = stage.nodes[0].process.rss_kib()?;
    let start = stage.clock()?;
    let (mut said, mut peak_kib, time) = (0, 0f64, Duration::from_secs(3));
    while start.at.elapsed() < time {
        let due = (start.at.elapsed().as_secs_f64() * rate) as u32;
        while said < due {
            ledger.say(&mut load, 0, 0, said, &pad)?;
            said += 1;
        }
        load.turn(Duration::from_millis(1), &mut ledger)?;
        peak_kib = peak_kib.max(stage.nodes[0].process.rss_kib()? - before_kib);
    }
    let ended = Instant::now();
    let expected = u64::from(said) * members as u64;
    arrive(&mut load, &mut ledger, expected)?;
    let quiet_s = ended.elapsed().as_secs_f64();
    let closed = load.closed();
    let mut figures = ledger.figures(stage, &start, expected)?;
    figures.insert("closed", closed as f64);
    figures.insert("peak_mib", peak_kib / 1024.0);
    figures.insert("quiet_after_s", quiet_s);
    Ok(figures)
}

pub(super) fn echo(stage: &Stage, size: Size) -> anyhow::Result<Figures> {
    let mut load = Load::new()?;
    let mut nothing = |_: usize, _: &[u8]| {};
    stage.open(&mut load, ECHOES, |_| Transport::WebSocket, &mut nothing)?;
    let event = format!(r#"["echo","{}"]"#, "x".repeat(PAD));
    let start = stage.clock()?;
    let mut asked = 0;
    // Each round waits for all connections, so that no connection gets far ahead of the others.
    while start.at.elapsed() < Duration::from_secs(size.seconds.into()) {
        for connection in 0..ECHOES {
            load.emit(connection, Some(1), &event)?;
        }
        asked += ECHOES;
        load.until(Duration::from_secs(10), &mut nothing, |load| load.acknowledged() >= asked)?;
    }
    let end = stage.clock()?;
    let echoes = asked as f64;
    Ok(Figures::from_iter([
        ("echo_us", (end.servers_us - start.servers_us) / echoes),
        ("echoes_per_s", echoes / (end.at - start.at).as_secs_f64()),
        ("generator_us", (end.load_us - start.load_us) / echoes),
    ]))
}
