//! A lower bound for the cost of any server: this server only makes the necessary system calls, one write per
//! recipient. It has no queue, limits, pings or checks. Any server of rooms that writes each event separately costs at
//! least this much.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use roomcast_bench::wire;

const LISTENER: Token = Token(usize::MAX);

struct Client {
    stream: TcpStream,
    upgraded: bool,
    held: Vec<u8>,
}

struct Floor {
    clients: HashMap<usize, Client>,
    rooms: HashMap<Vec<u8>, Vec<usize>>,
}

fn main() -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    println!(r#"{{"ready":true,"server":"{}"}}"#, listener.local_addr()?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut events, mut next, mut buffer) = (Events::with_capacity(1024), 0, vec![0; 256 * 1024]);
    let mut floor = Floor { clients: HashMap::new(), rooms: HashMap::new() };
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() != LISTENER {
                floor.read(event.token().0, &mut buffer);
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nodelay(true)?;
                poll.registry().register(&mut stream, Token(next), Interest::READABLE)?;
                floor.clients.insert(next, Client { stream, upgraded: false, held: Vec::new() });
                next += 1;
            }
        }
    }
}

impl Floor {
    fn read(&mut self, id: usize, buffer: &mut [u8]) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            match client.stream.read(buffer) {
                Ok(0) => return self.gone(id),
                Ok(count) => client.held.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.gone(id),
            }
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        let held = std::mem::take(&mut client.held);
        let mut used = 0;
        if !client.upgraded {
            let Some(head) = wire::head(&held) else {
                client.held = held;
                return;
            };
            used = head;
            client.upgraded = true;
            // This `Sec-WebSocket-Accept` value matches the one key that the load generator always sends.
            let _ = client.stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            );
        }
        while let Some((payload, length)) = wire::frame(&held[used..]) {
            let payload = payload.to_vec();
            used += length;
            self.packet(id, &payload);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.held = held[used..].to_vec();
        }
    }

    fn packet(&mut self, id: usize, packet: &[u8]) {
        let text = |at: usize| packet.split(|byte| *byte == b'"').nth(at).unwrap_or_default().to_vec();
        match packet {
            [b'4', b'0', ..] => self.say(id, br#"40{"sid":"x"}"#),
            [b'4', b'2', ..] if text(1) == b"join" => {
                self.rooms.entry(text(3)).or_default().push(id);
                self.say(id, b"431[]");
            }
            [b'4', b'2', ..] if text(1) == b"echo" => {
                let mut answer = b"43".to_vec();
                answer.extend_from_slice(&packet[2..packet.iter().position(|byte| *byte == b'[').unwrap_or(2)]);
                answer.extend_from_slice(b"[]");
                self.say(id, &answer);
            }
            [b'4', b'2', ..] if text(1) == b"say" => {
                let mut event = br#"42["said","#.to_vec();
                event.extend_from_slice(&packet[packet.len().min(9)..]);
                let mut frame = Vec::new();
                wire::put_server_frame(&mut frame, &event);
                for member in self.rooms.get(&text(3)).into_iter().flatten() {
                    if let Some(client) = self.clients.get_mut(member) {
                        let _ = client.stream.write_all(&frame);
                    }
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, id: usize, text: &[u8]) {
        let mut frame = Vec::new();
        wire::put_server_frame(&mut frame, text);
        if let Some(client) = self.clients.get_mut(&id) {
            let _ = client.stream.write_all(&frame);
        }
    }

    fn gone(&mut self, id: usize) {
        self.clients.remove(&id);
        for members in self.rooms.values_mut() {
            members.retain(|member| *member != id);
        }
    }
}
