//! Measures what a node spends on events that have no recipient on it.

use std::time::Duration;

use super::{Figures, Size, Stage};
use crate::load::{Deaf, Entry, Load};

const ROOMS: usize = 20;
const RATE: u32 = 2000;

/// All members are on the first node. The second node has one client, in a room of its own.
pub(super) fn uninterested(stage: &Stage, size: Size) -> anyhow::Result<Figures> {
    let (busy, other) = (&stage.nodes[0], &stage.nodes[1]);
    let mut load = Load::new()?;
    load.open(ROOMS, |_| busy.address, |_| Entry::default(), &mut Deaf)?;
    load.open(1, |_| other.address, |_| Entry::default(), &mut Deaf)?;
    load.join(|index| format!("r{index}"), &mut Deaf)?;
    load.rest(Duration::from_secs(1), &mut Deaf)?;
    // The processor time that the node uses while nothing is published is subtracted from the measured time.
    let quiet = other.process.cpu_us()?;
    load.rest(Duration::from_secs(size.seconds.into()), &mut Deaf)?;
    let quiet = other.process.cpu_us()? - quiet;

    let pad = "x".repeat(2000);
    let (start, start_us) = (stage.clock()?, other.process.cpu_us()?);
    let (total, mut said) = (RATE * size.seconds, 0);
    while said < total {
        let due = total.min((start.at.elapsed().as_secs_f64() * f64::from(RATE)) as u32);
        while said < due {
            let room = said as usize % ROOMS;
            load.emit(room, None, &format!(r#"["say","r{room}",{said},0,"{pad}"]"#))?;
            said += 1;
        }
        load.turn(Duration::from_millis(4), &mut Deaf)?;
    }
    load.rest(Duration::from_secs(1), &mut Deaf)?;
    let spent = other.process.cpu_us()? - start_us - quiet;
    let end = stage.clock()?;
    Ok(Figures::from_iter([
        ("uninterested_us", spent.max(0.0) / f64::from(total)),
        ("publisher_us", (end.servers_us - start.servers_us - spent) / f64::from(total)),
        ("redis_us", (end.redis_us - start.redis_us) / f64::from(total)),
    ]))
}
