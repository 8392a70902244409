//! What a template, a path or a rule can see where it stands. Elsewhere it would silently find nothing.

use crate::contract::path::Root;
use crate::contract::rule::Rule;

/// Where a template, a path or a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sees {
    /// In a client event: its payload, its user, and the rooms that it joined or left.
    Client,
    /// The same, and what went wrong.
    Failure,
    /// In `[connect]`: the user and the socket.
    Connect,
    /// In `[mirror]`: the same.
    Socket,
    /// In a server event: what the backend gave.
    Server,
    /// In a rule about a room: what a client event sees, and the room.
    Room,
}

impl Sees {
    /// Why a path finds nothing here.
    pub fn objection(self, root: Root) -> Option<&'static str> {
        match root {
            Root::Payload => self.no_payload(),
            Root::Params => self.no_params(),
            Root::UserId | Root::UserRoles | Root::UserClaims | Root::UserAuthenticated | Root::UserAnonymous => {
                self.no_client("a backend is no user")
            }
            Root::SocketId => self.no_client("a backend has no socket"),
            Root::Room | Root::Rooms | Root::Vars => match self {
                Self::Client | Self::Failure | Self::Room => None,
                Self::Connect | Self::Socket | Self::Server => Some("there is no room here"),
            },
            Root::ErrorCode | Root::ErrorMessage | Root::ErrorRetryAfterMs => {
                (self != Self::Failure).then_some("nothing has gone wrong here")
            }
            Root::Now | Root::NowMs | Root::EventId => None,
        }
    }

    /// Why a rule finds nothing here.
    pub fn objection_to(self, rule: &Rule) -> Option<&'static str> {
        let room = (self != Self::Room).then_some("there is no room yet");
        let objections = [
            ("payload", self.no_payload()),
            ("params", self.no_params()),
            ("user", self.no_client("a backend is no user")),
            ("socket", self.no_client("a backend has no socket")),
            ("room", room),
            ("vars", room),
        ];
        let used = objections.into_iter().find_map(|(variable, why)| why.filter(|_| rule.uses(variable)));
        used.or_else(|| room.filter(|_| rule.needs_owner()))
    }

    fn no_payload(self) -> Option<&'static str> {
        matches!(self, Self::Connect | Self::Socket).then_some("there is no payload here")
    }

    fn no_params(self) -> Option<&'static str> {
        (self != Self::Server).then_some("only backends give params")
    }

    fn no_client(self, why: &'static str) -> Option<&'static str> {
        (self == Self::Server).then_some(why)
    }
}
