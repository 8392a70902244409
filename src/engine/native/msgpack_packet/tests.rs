use proptest::prelude::*;

use super::super::packet::{self, Parser};
use super::*;
use crate::event::Args;

fn read(bytes: &'static [u8]) -> Result<MsgpackPacket, MalformedPacket> {
    MsgpackPacket::read(Bytes::from_static(bytes))
}

fn json(packet: &MsgpackPacket) -> (String, Vec<Bytes>) {
    let (text, attachments) = packet.json(1000).unwrap();
    (text.into(), attachments)
}

/// A packet with this data, as the official client sends an event.
fn event(data: &[u8]) -> MsgpackPacket {
    MsgpackPacket::read([&b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data"[..], data].concat().into()).unwrap()
}

#[test]
fn packets_of_the_official_client_are_read() {
    // These packets were written by socket.io-msgpack-parser 3.0.2 with socket.io-client 4.8.4.
    let connect = read(b"\x83\xa4type\x00\xa4data\x81\xa5token\xa1x\xa3nsp\xa6/admin").unwrap();
    assert_eq!((connect.kind, &*connect.namespace, connect.ack), (PacketKind::Connect, "/admin", None));
    assert_eq!(json(&connect), (r#"{"token":"x"}"#.to_owned(), Vec::new()));
    let event = read(
        b"\x85\xa4type\x02\xa4data\x93\xa1e\x01\xc4\x02\x00\xff\xa7options\x81\xa8compress\xc3\xa2id\x07\xa3nsp\xa1/",
    )
    .unwrap();
    assert_eq!((event.kind, &*event.namespace, event.ack), (PacketKind::Event, "/", Some(7)));
    let (text, attachments) = json(&event);
    assert_eq!(text, r#"["e",1,{"_placeholder":true,"num":0}]"#);
    assert_eq!(attachments, [Bytes::from_static(b"\x00\xff")]);
    let ack = read(b"\x84\xa4type\x03\xa2id\x00\xa4data\x92\x01\xc3\xa3nsp\xa1/").unwrap();
    assert_eq!((ack.kind, ack.ack, json(&ack).0), (PacketKind::Ack, Some(0), "[1,true]".to_owned()));
    let bare = read(b"\x83\xa4type\x00\xa4data\xd4\0\0\xa3nsp\xa1/").unwrap();
    assert_eq!((bare.kind, json(&bare).0), (PacketKind::Connect, String::new()));
    let leave = read(b"\x82\xa4type\x01\xa3nsp\xa8/a?b=1&c").unwrap();
    assert_eq!((leave.kind, &*leave.namespace, json(&leave).0), (PacketKind::Disconnect, "/a", String::new()));
}

#[test]
fn what_no_client_sends_is_refused() {
    for (bytes, error) in [
        (&b""[..], MalformedPacket::MessagePack),
        (b"\x93\xa4type\x00\xa3nsp\xa1/", MalformedPacket::MessagePack),
        (b"\x82\xa4type\x00\xa3nsp\xa1/\0", MalformedPacket::MessagePack),
        (b"\xdf\xff\xff\xff\xff\xa4type\x00", MalformedPacket::MessagePack),
        (b"\x82\xa4type\x04\xa3nsp\xa1/", MalformedPacket::Type),
        (b"\x82\xa4type\xa10\xa3nsp\xa1/", MalformedPacket::Type),
        (b"\x81\xa3nsp\xa1/", MalformedPacket::Type),
        (b"\x81\xa4type\x00", MalformedPacket::Namespace),
        (b"\x83\xa4type\x01\xa4data\x90\xa3nsp\xa1/", MalformedPacket::Payload),
        (b"\x83\xa4type\x03\xa4data\x90\xa3nsp\xa1/", MalformedPacket::Ack),
        (b"\x84\xa4type\x02\xa4data\x91\xa1e\xa2id\xff\xa3nsp\xa1/", MalformedPacket::Ack),
        (b"\x84\xa4type\x02\xa4data\x91\xa1e\xa2id\xcf\xff\0\0\0\0\0\0\0\xa3nsp\xa1/", MalformedPacket::Ack),
    ] {
        assert_eq!(read(bytes), Err(error), "{bytes:?}");
    }
    let long = [&b"\x82\xa4type\x00\xa3nsp\xda\x01\x01"[..], &[b'/'; 257]].concat();
    assert_eq!(MsgpackPacket::read(long.into()), Err(MalformedPacket::Namespace));
}

#[test]
fn what_json_does_not_have_is_refused_with_a_code_and_the_events_name() {
    let deep = [&b"\x92\xa1e"[..], &vec![0x91; 5000], b"\0"].concat();
    let long = [&b"\x92\xa1e\xda\x03\xe8"[..], &[b'x'; 1000]].concat();
    for (data, code) in [
        (&b"\x92\xa1e\xcb\x7f\xf8\0\0\0\0\0\0"[..], Code::InvalidPayload),
        (b"\x92\xa1e\xcb\xff\xf0\0\0\0\0\0\0", Code::InvalidPayload),
        (b"\x92\xa1e\xd4\x07\x01", Code::InvalidPayload),
        (&deep, Code::TooLarge),
        (&long, Code::TooLarge),
    ] {
        let packet = event(data);
        assert_eq!(refusal(packet.json(1000).unwrap_err(), 1000).code, code, "{data:?}");
        assert_eq!(packet.bare_event().unwrap().name(), "e");
    }
    assert_eq!(event(b"\x92\x07\xd4\x07\x01").bare_event().unwrap().name(), "7");
    assert!(event(b"\x90").bare_event().is_err() && event(b"\x91\xc0").bare_event().is_err());
    // Times are text, as JSON.stringify writes them.
    assert_eq!(json(&event(b"\x92\xa1e\xd6\xff\x69\x55\xb9\x00")).0, r#"["e","2026-01-01T00:00:00.000Z"]"#);
}

#[test]
fn frames_are_those_of_the_parser() {
    let plain = Event::encode("e", [1]).unwrap();
    let message =
        |frame: &Bytes| frame::messages(frame).map(|(text, bytes)| (text, bytes.to_vec())).collect::<Vec<_>>();
    let framed = packet::event(Parser::MessagePack, "/a", &plain, None);
    assert_eq!(message(&framed), [(false, b"\x83\xa4type\x02\xa3nsp\xa2/a\xa4data\x92\xa1e\x01".to_vec())]);
    let left = packet::disconnected(Parser::MessagePack, "/");
    assert_eq!(message(&left), [(false, b"\x82\xa4type\x01\xa3nsp\xa1/".to_vec())]);
    let rubbish = Event::from_wire("[\"e\",".into(), Vec::new()).unwrap();
    assert_eq!(packet::event(Parser::MessagePack, "/", &rubbish, None), Bytes::new());
}

proptest! {
    #[test]
    fn what_we_send_could_be_read(namespace in "/[a-z]{0,8}", id in 0i64.., number in any::<u64>(), bytes in any::<Vec<u8>>()) {
        let text = format!(r#"["e",{number},{{"_placeholder":true,"num":0}}]"#);
        let sent = Event::from_wire(text.clone().into(), vec![bytes.clone().into()]).unwrap();
        for (kind, frame) in [
            (PacketKind::Event, packet::question(Parser::MessagePack, &namespace, id, &sent, None)),
            (PacketKind::Ack, packet::acknowledgement(Parser::MessagePack, &namespace, id, &Args::of(&sent), None)),
        ] {
            let (_, message) = frame::messages(&frame).next().unwrap();
            let packet = MsgpackPacket::read(Bytes::copy_from_slice(message)).unwrap();
            prop_assert_eq!((packet.kind, &*packet.namespace, packet.ack), (kind, &*namespace, Some(id)));
            let (read, attachments) = packet.json(usize::MAX).unwrap();
            let wanted = if kind == PacketKind::Event { text.clone() } else { text.replacen(r#""e","#, "", 1) };
            prop_assert_eq!((&*read, attachments), (&*wanted, vec![Bytes::from(bytes.clone())]));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), cut in 0usize..40) {
        let head = &b"\x85\xa4type\x02\xa4data\x93\xa1e\x01\xc4\x02\x00\xff\xa2id\x07\xa3nsp\xa1/"[..];
        let mixed = [&head[..cut.min(head.len())], &bytes].concat();
        if let Ok(packet) = MsgpackPacket::read(mixed.into()) {
            let _ = (packet.json(1000), packet.bare_event());
        }
    }
}
