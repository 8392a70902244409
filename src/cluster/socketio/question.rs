//! Questions to the clients of every server, and the servers' answers.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;

use super::{MAX_MESSAGE_BYTES, UnusableMessage};
use crate::event::{Args, Event};
use crate::msgpack::{Json, MsgpackReader, Token, put_json, put_names, put_text};

/// The member of a question by which nodes recognise that a roomcast node has asked. Servers of Node.js ignore this
/// member.
pub(super) const OURS: &str = "roomcast";

/// The types of questions and answers.
const ASK: u8 = 7;
const CLIENTS_ASKED: u64 = 8;
const ACKNOWLEDGED: u64 = 9;

/// A question that clients in rooms must answer.
#[derive(Debug)]
pub struct ServerQuestion<'a> {
    /// The id of the server that asks.
    pub uid: &'a str,
    /// The id that the answers carry.
    pub request_id: &'a str,
    /// The namespace's path.
    pub namespace: &'a str,
    /// The event that clients get.
    pub event: &'a Event,
    /// The rooms and socket ids that are asked; at least one.
    pub rooms: &'a [String],
    /// How long the clients may take to answer.
    pub patience: Duration,
}

/// A server's answer to a question.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerResponse {
    /// How many of its clients the server has asked.
    Asked(usize),
    /// The answer of one of its clients.
    Said(Args),
}

impl ServerQuestion<'_> {
    /// Writes the question in the format of Node's adapter, with `OURS` as an additional member.
    ///
    /// # Errors
    /// [`UnusableMessage::Malformed`] when the event's text is not JSON.
    pub fn encode(&self) -> Result<Bytes, UnusableMessage> {
        let mut out = BytesMut::with_capacity(256 + self.event.size_bytes());
        // The maps of a question have six, three, three and one members.
        out.put_u8(0x86);
        put_text(&mut out, "uid");
        put_text(&mut out, self.uid);
        put_text(&mut out, "requestId");
        put_text(&mut out, self.request_id);
        put_text(&mut out, "type");
        out.put_u8(ASK);
        put_text(&mut out, "packet");
        out.put_u8(0x83);
        put_text(&mut out, "type");
        out.put_u8(0x02);
        put_text(&mut out, "data");
        put_json(&mut out, self.event.text(), self.event.attachments())?;
        put_text(&mut out, "nsp");
        put_text(&mut out, self.namespace);
        put_text(&mut out, "opts");
        out.put_u8(0x83);
        put_text(&mut out, "rooms");
        put_names(&mut out, self.rooms);
        put_text(&mut out, "except");
        put_names(&mut out, &[]);
        put_text(&mut out, "flags");
        out.put_u8(0x81);
        put_text(&mut out, "timeout");
        out.put_u8(0xce);
        out.put_u32(u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX));
        put_text(&mut out, OURS);
        out.put_u8(0xc3);
        Ok(out.freeze())
    }
}

impl ServerResponse {
    /// Reads an answer. Returns it with the id of the question, or `None` for an answer to another kind of request.
    ///
    /// # Errors
    /// Returns why the answer is ignored.
    pub fn read(bytes: &Bytes) -> Result<Option<(String, Self)>, UnusableMessage> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(UnusableMessage::TooLarge);
        }
        if bytes.first() != Some(&b'{') {
            return said(bytes.clone());
        }
        let ServerCount { r#type, request_id, client_count } =
            serde_json::from_slice(bytes).map_err(|_| UnusableMessage::Malformed)?;
        let count = client_count.filter(|_| r#type == Some(CLIENTS_ASKED));
        Ok(request_id.zip(count).map(|(id, count)| (id, Self::Asked(count))))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerCount {
    r#type: Option<u64>,
    request_id: Option<String>,
    client_count: Option<usize>,
}

/// Reads `{type: 9, requestId, packet}` in MessagePack. `packet` is the client's answer, and may be absent.
fn said(bytes: Bytes) -> Result<Option<(String, ServerResponse)>, UnusableMessage> {
    let mut reader = MsgpackReader::new(bytes);
    let Token::Map(members) = reader.token()? else { return Err(UnusableMessage::Malformed) };
    let (mut kind, mut request_id, mut out) = (None, None, Json::default());
    out.raw("[");
    for _ in 0..members {
        match reader.key()?.as_str() {
            "type" => {
                if let Token::Uint(number) = reader.token()? {
                    kind = Some(number);
                }
            }
            "requestId" => request_id = Some(reader.text()?),
            "packet" => reader.json(&mut out, 1)?,
            _ => reader.skip()?,
        }
    }
    out.raw("]");
    let (text, attachments) = out.finish();
    let answer = ServerResponse::Said(Args::from_wire(text, attachments));
    Ok(request_id.filter(|_| kind == Some(ACKNOWLEDGED)).map(|id| (id, answer)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{RequestAnswer, ServerRequest, Targets, parse};
    use super::*;

    #[test]
    fn a_question_is_read_as_what_it_was() {
        let event = Event::encode("confirm", &["delete?"]).unwrap();
        let question = ServerQuestion {
            uid: "abcdef",
            request_id: "q",
            namespace: "/n",
            event: &event,
            rooms: &["lobby".to_owned()],
            patience: Duration::from_millis(700),
        };
        let targets = Targets { rooms: vec!["lobby".to_owned()], except: Vec::new() };
        let read = ServerRequest::BroadcastWithAck {
            request_id: "q".into(),
            event: Box::new(event.clone()),
            namespace: "/n".into(),
            targets,
            patience: question.patience,
            ours: true,
        };
        assert_eq!(parse(&question.encode().unwrap()).unwrap(), read);
    }

    #[test]
    fn answers_are_read_and_those_to_other_questions_are_told_apart() {
        let read = |text: &str| ServerResponse::read(&Bytes::copy_from_slice(text.as_bytes()));
        let count = RequestAnswer::clients_asked("q", 3).to_text();
        assert_eq!(read(&count).unwrap(), Some(("q".into(), ServerResponse::Asked(3))));
        assert_eq!(read(r#"{"requestId":"q","sockets":[]}"#).unwrap(), None);
        assert_eq!(read("{").unwrap_err(), UnusableMessage::Malformed);
        let args = Args::from_wire(r#"[{"a":1},2]"#.into(), Vec::new());
        let (id, said) = ServerResponse::read(&RequestAnswer::acknowledged("q", &args).unwrap()).unwrap().unwrap();
        assert_eq!(
            (id.as_str(), said),
            ("q", ServerResponse::Said(Args::from_wire(r#"[{"a":1}]"#.into(), Vec::new())))
        );
        let nothing = RequestAnswer::acknowledged("q", &Args::from_wire("[]".into(), Vec::new())).unwrap();
        assert_eq!(
            ServerResponse::read(&nothing).unwrap().unwrap().1,
            ServerResponse::Said(Args::from_wire("[]".into(), Vec::new()))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ServerResponse::read(&bytes.into());
        }
    }
}
