//! Measures the memory of connections in five states, and the cost of a connect.

use std::time::{Duration, Instant};

use anyhow::ensure;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::{Figures, Stage};
use crate::load::{Deaf, Entry, Load, Transport};
use crate::server::SECRET;

/// The pause before memory is read, in which background work frees memory.
const SETTLE: Duration = Duration::from_secs(2);
const PACKETS: usize = 64;
const LARGE: usize = 30_000;

pub(super) fn run(stage: &Stage, clients: usize, transport: Transport) -> anyhow::Result<Figures> {
    let server = &stage.nodes[0].process;
    let mut load = Load::new()?;
    // The server allocates what it needs only once before its memory is read for the first time.
    enter(stage, &mut load, 50, transport)?;
    load.close_all();
    std::thread::sleep(Duration::from_secs(1));

    let count = clients as f64;
    let before = server.rss_kib()?;
    let each = |load: &mut Load| -> anyhow::Result<f64> {
        load.rest(SETTLE, &mut Deaf)?;
        Ok((server.rss_kib()? - before) / count)
    };
    let cpu = server.cpu_us()?;
    enter(stage, &mut load, clients, transport)?;
    let connect_us = (server.cpu_us()? - cpu) / count;
    let idle_kib = each(&mut load)?;
    load.join(|index| format!("own-{index}"), &mut Deaf)?;
    talk(&mut load, clients, PACKETS, 16)?;
    let packets_kib = each(&mut load)?;
    talk(&mut load, clients, 1, LARGE)?;
    let large_kib = each(&mut load)?;
    load.close_all();
    std::thread::sleep(Duration::from_secs(3));
    let left_kib = each(&mut load)?;
    enter(stage, &mut load, clients, transport)?;
    let returned_kib = each(&mut load)?;
    Ok(Figures::from_iter([
        ("connect_us", connect_us),
        ("idle_kib", idle_kib),
        ("after_64_packets_kib", packets_kib),
        ("after_30_kB_kib", large_kib),
        ("after_all_left_kib", left_kib),
        ("after_return_kib", returned_kib),
    ]))
}

fn enter(stage: &Stage, load: &mut Load, count: usize, transport: Transport) -> anyhow::Result<()> {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let tokens = (0..count).map(|user| {
        let claims = json!({ "sub": format!("user-{user}"), "exp": 4_102_444_800u64, "roles": ["member"] });
        encode(&Header::default(), &claims, &key)
    });
    let tokens: Vec<String> = tokens.collect::<Result<_, _>>()?;
    let entry = |at: usize| {
        let auth = Some(json!({ "token": tokens[at] }).to_string());
        Entry { transport, namespace: "/secure".into(), auth }
    };
    load.open(count, |at| stage.address(at), entry, &mut Deaf)
}

/// Each connection sends an event to its own room and receives it.
fn talk(load: &mut Load, count: usize, times: usize, bytes: usize) -> anyhow::Result<()> {
    let pad = "x".repeat(bytes);
    let mut heard = 0;
    for index in 0..count {
        for n in 0..times {
            load.emit(index, None, &format!(r#"["say","own-{index}",{n},0,"{pad}"]"#))?;
        }
        let wanted = (index + 1) * times;
        if index % 50 == 49 || index + 1 == count {
            let deadline = Instant::now() + Duration::from_secs(30);
            while heard < wanted {
                ensure!(Instant::now() < deadline, "{} of {wanted} packets are back", heard);
                load.turn(Duration::from_millis(20), &mut |_: usize, _: &[u8]| heard += 1)?;
            }
        }
    }
    Ok(())
}
