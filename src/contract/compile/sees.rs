//! Which data a template, path or rule can use at its position in a contract. Anything else would silently be empty,
//! so it is reported as a mistake.

use crate::contract::path::Root;
use crate::contract::rule::Rule;

/// The position of a template, path or rule in a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sees {
    /// In a client event. Sees the payload, the user, and the rooms that the event joins or leaves.
    Client,
    /// In the error handling of a client event. Sees the same as [`Sees::Client`], and the error.
    Failure,
    /// In `[connect]`. Sees the user and the socket.
    Connect,
    /// In `[mirror]`. Sees the user and the socket.
    Socket,
    /// In a server event. Sees what the backend gave.
    Server,
    /// In a rule about a room. Sees the same as [`Sees::Client`], and the room.
    Room,
}

impl Sees {
    /// Why a path with this root finds nothing at this position.
    pub fn objection(self, root: Root) -> Option<&'static str> {
        match root {
            Root::Payload => self.no_payload(),
            Root::Params => self.no_params(),
            Root::UserId | Root::UserRoles | Root::UserClaims | Root::UserAuthenticated | Root::UserAnonymous => {
                self.no_client("a backend has no user")
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

    /// Why a rule cannot work at this position.
    pub fn objection_to(self, rule: &Rule) -> Option<&'static str> {
        let room = (self != Self::Room).then_some("there is no room yet");
        let objections = [
            ("payload", self.no_payload()),
            ("params", self.no_params()),
            ("user", self.no_client("a backend has no user")),
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
