//! Which data a template, path or rule can use at its position in a contract. Any other data would silently be empty,
//! so its use is reported as a mistake.

use crate::contract::path::Root;
use crate::contract::rule::Rule;

/// The position of a template, path or rule in a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpressionSite {
    /// In a client event: the payload, the user, and the rooms that the event joins or leaves can be used.
    Client,
    /// In the error handling of a client event: the same as for [`ExpressionSite::Client`], and the error.
    Failure,
    /// In `[connect]`: the user and the socket can be used.
    Connect,
    /// In `[mirror]`: the user and the socket can be used.
    Socket,
    /// In a server event: the payload and the `params` that the backend gave can be used.
    Server,
    /// In a rule about a room: the same as for [`ExpressionSite::Client`], and the room.
    Room,
}

impl ExpressionSite {
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
