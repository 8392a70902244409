//! Which data a template, path or rule can use at its position in a contract. Any other data would silently be empty,
//! so its use is reported as a mistake.

use crate::contract::path::Root;
use crate::contract::rule::Rule;

/// Whether the members of a room are known at a position in a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MembersAt {
    /// The contract lists the members of this room.
    Listed,
    /// There is a room, and the contract does not list its members.
    Unlisted,
    /// The event has no room.
    NoRoom,
}

/// The position of a template, path or rule in a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpressionSite {
    /// In a client event: the payload, the user, and the rooms that the event joins or leaves can be used.
    Client,
    /// In the parts of a client event that are sent, and in their rules, can be used: everything of
    /// [`ExpressionSite::Client`], and the members of the event's room.
    Sent(MembersAt),
    /// In the name of an event that is sent because of a client event: the payload and the user can be used.
    EventName,
    /// In the error handling of a client event can be used: everything of [`ExpressionSite::Client`], and the error.
    Failure,
    /// In `[connect]`: the user and the socket can be used.
    Connect,
    /// In `[mirror]`: the user and the socket can be used.
    Socket,
    /// In a server event: the payload and the `params` that the backend gave can be used.
    Server,
    /// In a rule about a room can be used: everything of [`ExpressionSite::Client`], the room and its members.
    Room(MembersAt),
    /// In the event that announces one member: the member, the room and its members can be used.
    Member,
    /// In the event that announces all members: the room and its members can be used.
    Members,
    /// In the description of a member: the member and the room can be used.
    Shown,
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
            Root::SocketId | Root::Handshake => self.no_client("a backend has no socket"),
            Root::Metadata => self.no_metadata(),
            Root::Room | Root::Rooms => self.no_room(),
            Root::Vars => self.no_room().or_else(|| {
                matches!(self, Self::Client | Self::Failure)
                    .then_some("the variables of the room's name are not known here")
            }),
            Root::Members | Root::Count => self.no_members(),
            Root::Others => self.no_members().or_else(|| self.is_presence().then_some("nobody sends this event")),
            Root::Member => {
                (!matches!(self, Self::Member | Self::Shown)).then_some("it belongs to `joined`, `left` and `show`")
            }
            Root::ErrorCode | Root::ErrorMessage | Root::ErrorRetryAfterMs => {
                (self != Self::Failure).then_some("nothing has gone wrong here")
            }
            Root::EventName => self.no_client_event(),
            Root::Now | Root::NowMs | Root::EventId => None,
        }
    }

    /// Why a rule cannot work at this position.
    pub fn objection_to(self, rule: &Rule) -> Option<&'static str> {
        let room = match self {
            Self::Room(_) | Self::Member | Self::Members | Self::Shown => None,
            Self::Sent(MembersAt::NoRoom) => Some("the event has no room; add `room`, `join` or `leave`"),
            Self::Sent(_) => Some("only `require` and the rules of rooms know the room"),
            _ => Some("there is no room yet"),
        };
        let objections = [
            ("payload", self.no_payload()),
            ("params", self.no_params()),
            ("user", self.no_client("a backend has no user")),
            ("socket", self.no_client("a backend has no socket")),
            ("metadata", self.no_metadata()),
            ("room", room),
            ("vars", room),
            ("members", self.no_members()),
            ("count", self.no_members()),
        ];
        let used = objections.into_iter().find_map(|(variable, why)| why.filter(|_| rule.uses(variable)));
        let owner = if self.is_presence() { Some("owners are not looked up here") } else { room };
        used.or_else(|| owner.filter(|_| rule.needs_owner()))
    }

    fn no_payload(self) -> Option<&'static str> {
        (matches!(self, Self::Connect | Self::Socket) || self.is_presence()).then_some("there is no payload here")
    }

    fn no_client_event(self) -> Option<&'static str> {
        let is_event = matches!(self, Self::Client | Self::Sent(_) | Self::EventName | Self::Failure | Self::Room(_));
        (!is_event).then_some("no client sends an event here")
    }

    fn no_params(self) -> Option<&'static str> {
        (self != Self::Server).then_some("only backends give params")
    }

    fn no_client(self, why: &'static str) -> Option<&'static str> {
        match self {
            Self::Server => Some(why),
            Self::Member | Self::Members | Self::Shown => Some("nobody sends this event; use `member`"),
            _ => None,
        }
    }

    fn no_metadata(self) -> Option<&'static str> {
        match self {
            Self::EventName => Some("the event may change it; use the payload or the user"),
            _ => self.no_client("a backend has no socket"),
        }
    }

    fn no_room(self) -> Option<&'static str> {
        match self {
            Self::Connect | Self::Socket | Self::Server => Some("there is no room here"),
            Self::EventName => Some("the name of an event does not depend on a room"),
            Self::Sent(MembersAt::NoRoom) => Some("the event has no room; add `room`, `join` or `leave`"),
            _ => None,
        }
    }

    fn no_members(self) -> Option<&'static str> {
        match self {
            Self::Member | Self::Members | Self::Sent(MembersAt::Listed) | Self::Room(MembersAt::Listed) => None,
            Self::Sent(MembersAt::NoRoom) | Self::Room(MembersAt::NoRoom) => {
                Some("the event has no room; add `room`, `join` or `leave`")
            }
            Self::Sent(MembersAt::Unlisted) | Self::Room(MembersAt::Unlisted) => {
                Some("the room lists no members; give it a table `presence`")
            }
            Self::Client | Self::Failure => Some("the event has not joined its rooms here"),
            Self::EventName => Some("the name of an event does not depend on a room"),
            Self::Shown => Some("this describes one member"),
            Self::Connect | Self::Socket | Self::Server => Some("there is no room here"),
        }
    }

    fn is_presence(self) -> bool {
        matches!(self, Self::Member | Self::Members | Self::Shown)
    }
}
