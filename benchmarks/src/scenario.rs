//! The scenarios, each with its servers. Run the scenarios on a machine that does nothing else.

mod cluster;
mod idle;
mod rooms;
mod turns;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::load::{Entry, Load, Sink, Transport};
use crate::server::{Peer, Redis, Server, cpu_us};

/// Figures by their names, in the order of the table's columns.
pub type Figures = IndexMap<&'static str, f64>;

/// The duration and the size of runs.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Number of idle connections.
    pub idle: usize,
    /// Seconds of each run at a fixed rate.
    pub seconds: u32,
}

impl Size {
    /// Number of idle clients that open with long-polling: fewer than the others, because each uses several ports, and
    /// the kernel keeps a port for a minute after its connection is closed.
    const fn idle_over_http(self) -> usize {
        self.idle / 4
    }
}

/// A measurement.
pub struct Scenario {
    /// The scenario's name in the tables.
    pub name: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The servers that take part.
    pub peers: &'static [Peer],
    /// The number of nodes. Several nodes share a Redis.
    pub nodes: usize,
    /// The figure that is plotted.
    pub plot: &'static str,
    run: fn(&Stage, Size) -> anyhow::Result<Figures>,
}

const ALONE: &[Peer] = &[Peer::Native, Peer::Socketioxide, Peer::Minimal, Peer::Node];
const ALONE_AND_FLOOR: &[Peer] = &[Peer::Native, Peer::Socketioxide, Peer::Minimal, Peer::Node, Peer::Floor];
const WITH_POLLING: &[Peer] = &[Peer::Native, Peer::Socketioxide, Peer::Node];
const PAIRS: &[Peer] = &[Peer::Native, Peer::Socketioxide, Peer::Node, Peer::NodeSharded];

/// Events to rooms whose members have WebSockets.
const fn websockets(rooms: usize, members: usize, rate: u32) -> rooms::Paced {
    rooms::Paced { rooms, members, rate, transport: Transport::WebSocket }
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "idle",
        about: "Connections without traffic: KiB of resident memory each, and processor time for each connect, with a token that is verified and limits that are on.",
        peers: ALONE,
        nodes: 1,
        plot: "idle_kib",
        run: |stage, size| idle::run(stage, size.idle, Transport::WebSocket),
    },
    Scenario {
        name: "idle, upgraded",
        about: "The same for clients that open with long-polling and upgrade to a WebSocket, as the official client does by default.",
        peers: WITH_POLLING,
        nodes: 1,
        plot: "idle_kib",
        run: |stage, size| idle::run(stage, size.idle_over_http(), Transport::Upgrade),
    },
    Scenario {
        name: "idle, polling",
        about: "The same for clients that only poll, measured while each has a poll that waits.",
        peers: WITH_POLLING,
        nodes: 1,
        plot: "idle_kib",
        run: |stage, size| idle::run(stage, size.idle_over_http(), Transport::Polling),
    },
    Scenario {
        name: "room of 100 that polls, 20/s",
        about: "One member with a WebSocket says something that the server relays to all; the others poll. A delivery is the answer to a poll and the next poll.",
        peers: WITH_POLLING,
        nodes: 1,
        plot: "delivery_us",
        run: |stage, size| {
            let how = rooms::Paced { rooms: 1, members: 100, rate: 20, transport: Transport::Polling };
            rooms::paced(stage, size, &how)
        },
    },
    Scenario {
        name: "room of 1,000, 50/s",
        about: "One member says something that the server relays to all.",
        peers: ALONE_AND_FLOOR,
        nodes: 1,
        plot: "delivery_us",
        run: |stage, size| rooms::paced(stage, size, &websockets(1, 1000, 50)),
    },
    Scenario {
        name: "200 rooms of 10, 2,000/s",
        about: "In each room one member speaks.",
        peers: ALONE_AND_FLOOR,
        nodes: 1,
        plot: "delivery_us",
        run: |stage, size| rooms::paced(stage, size, &websockets(200, 10, 2000)),
    },
    Scenario {
        name: "room of 1,000, saturated",
        about: "The speaker is never more than 32 events ahead of itself.",
        peers: ALONE_AND_FLOOR,
        nodes: 1,
        plot: "delivery_us",
        run: |stage, _| rooms::saturated(stage, 1000, 2000, 32),
    },
    Scenario {
        name: "room of 10,000, 5/s",
        about: "How long a thread is held, by the node's own histograms: turns of writers and of the queueing; and the time until an event is queued for all members.",
        peers: &[Peer::Native, Peer::Node],
        nodes: 1,
        plot: "delivery_us",
        run: turns::large_room,
    },
    Scenario {
        name: "echo",
        about: "100 connections, each asks again as soon as it is answered.",
        peers: ALONE_AND_FLOOR,
        nodes: 1,
        plot: "echo_us",
        run: rooms::echo,
    },
    Scenario {
        name: "overload",
        about: "The speaker says 2,000 events a second to 1,000 members for three seconds, whatever becomes of them.",
        peers: ALONE,
        nodes: 1,
        plot: "delivery_us",
        run: rooms::overload,
    },
    Scenario {
        name: "two nodes, room of 1,000, 50/s",
        about: "Half of the members on each node; processor time is that of both nodes.",
        peers: PAIRS,
        nodes: 2,
        plot: "delivery_us",
        run: |stage, size| rooms::paced(stage, size, &websockets(1, 1000, 50)),
    },
    Scenario {
        name: "two nodes, 200 rooms of 10, 2,000/s",
        about: "Half of each room on each node.",
        peers: PAIRS,
        nodes: 2,
        plot: "delivery_us",
        run: |stage, size| rooms::paced(stage, size, &websockets(200, 10, 2000)),
    },
    Scenario {
        name: "two nodes, one without members",
        about: "What the other node spends on each publish to rooms that it has no member of: 2,000 a second of 2 kB.",
        peers: PAIRS,
        nodes: 2,
        plot: "uninterested_us",
        run: cluster::uninterested,
    },
];

/// The servers of one run.
pub struct Stage {
    /// The nodes.
    pub nodes: Vec<Server>,
    redis: Option<Redis>,
}

impl Stage {
    fn start(peer: Peer, nodes: usize) -> anyhow::Result<Self> {
        let redis = if nodes > 1 { Some(Redis::start()?) } else { None };
        let address = redis.as_ref().map(|redis| redis.address);
        let nodes = (0..nodes).map(|_| Server::start(peer, address)).collect::<anyhow::Result<_>>()?;
        // Waits until the nodes of a cluster know each other.
        std::thread::sleep(Duration::from_millis(if redis.is_some() { 2500 } else { 500 }));
        Ok(Self { nodes, redis })
    }

    /// The address of the node that serves a connection. Connections are spread over the nodes in turn.
    fn address(&self, connection: usize) -> SocketAddr {
        self.nodes[connection % self.nodes.len()].address
    }

    fn open(
        &self,
        load: &mut Load,
        count: usize,
        transport: impl Fn(usize) -> Transport,
        sink: &mut impl Sink,
    ) -> anyhow::Result<()> {
        let entry = |at| Entry { transport: transport(at), ..Entry::default() };
        load.open(count, |at| self.address(at), entry, sink)
    }

    /// The processor time that all nodes have used so far.
    fn clock(&self) -> anyhow::Result<Clock> {
        let mut servers_us = 0.0;
        for node in &self.nodes {
            servers_us += node.process.cpu_us()?;
        }
        let redis_us = self.redis.as_ref().map_or(Ok(0.0), |redis| redis.process.cpu_us())?;
        Ok(Clock { at: Instant::now(), servers_us, redis_us, load_us: cpu_us(std::process::id())? })
    }
}

/// The processor time at one instant.
struct Clock {
    at: Instant,
    servers_us: f64,
    redis_us: f64,
    load_us: f64,
}

impl Scenario {
    /// Runs the scenario once.
    ///
    /// # Errors
    /// Returns the reason why the scenario could not be measured.
    pub fn measure(&self, peer: Peer, size: Size) -> anyhow::Result<Figures> {
        let stage = Stage::start(peer, self.nodes)?;
        (self.run)(&stage, size)
    }
}
