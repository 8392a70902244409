//! The queue of packets that wait for a connection.
//!
//! Usually the queue has only one packet, which is written in the next turn. This packet is stored inline; only more
//! packets need an allocation.

use std::collections::VecDeque;

use bytes::Bytes;

/// A queue of packets in order.
#[derive(Default)]
pub(super) struct Packets {
    first: Option<Bytes>,
    /// The packets behind the first packet; empty if there is no first packet.
    rest: VecDeque<Bytes>,
}

impl Packets {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, packet: Bytes) {
        match self.first {
            None => self.first = Some(packet),
            Some(_) => self.rest.push_back(packet),
        }
    }

    /// Inserts a packet behind the first `before` packets. The queue must have at least that many.
    pub(super) fn insert(&mut self, before: usize, packet: Bytes) {
        match before.checked_sub(1) {
            Some(before) => self.rest.insert(before, packet),
            None => {
                if let Some(second) = self.first.replace(packet) {
                    self.rest.push_front(second);
                }
            }
        }
    }

    pub(super) const fn first(&self) -> Option<&Bytes> {
        self.first.as_ref()
    }

    pub(super) const fn first_mut(&mut self) -> Option<&mut Bytes> {
        self.first.as_mut()
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Bytes> {
        match at.checked_sub(1) {
            Some(at) => self.rest.get_mut(at),
            None => self.first.as_mut(),
        }
    }

    /// Removes the first packet.
    pub(super) fn pop(&mut self) {
        self.first = self.rest.pop_front();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.rest)
    }

    /// Removes all packets, and frees their memory.
    pub(super) fn clear(&mut self) {
        self.first = None;
        if self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_what_a_plain_queue_is(steps in proptest::collection::vec((0u8..6, any::<u8>()), 1..60)) {
            let (mut packets, mut plain) = (Packets::default(), VecDeque::new());
            for (step, byte) in steps {
                let packet = Bytes::from(vec![byte]);
                match step {
                    0 | 1 => {
                        packets.push(packet.clone());
                        plain.push_back(packet);
                    }
                    2 => {
                        let before = usize::from(byte) % (plain.len() + 1);
                        packets.insert(before, packet.clone());
                        plain.insert(before, packet);
                    }
                    3 => {
                        packets.pop();
                        plain.pop_front();
                    }
                    4 => prop_assert_eq!(packets.get_mut(usize::from(byte % 8)), plain.get_mut(usize::from(byte % 8))),
                    _ if byte < 30 => {
                        packets.clear();
                        plain.clear();
                    }
                    _ => {}
                }
                prop_assert_eq!(packets.iter().collect::<Vec<_>>(), plain.iter().collect::<Vec<_>>());
                prop_assert_eq!((packets.len(), packets.is_empty()), (plain.len(), plain.is_empty()));
                prop_assert_eq!(packets.first(), plain.front());
                prop_assert_eq!(packets.first_mut(), plain.front_mut());
            }
        }
    }
}
