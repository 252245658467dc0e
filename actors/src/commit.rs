//! What is written and what is told.

use bytes::Bytes;
use parlour_event::{EventNum, RoomNum, StreamPos};
use parlour_storage::Op;
use serde::{Deserialize, Serialize};

/// A change that is to become durable: everything that one event (or one receipt, one piece of
/// account data, ...) does, as one value.
///
/// Its position in the stream is known only when the persister numbers it, so a change is asked
/// for its operations then.
pub trait Change: Send {
    /// Adds the operations that carry the change out, and says what readers are told.
    fn write(self: Box<Self>, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement;
}

/// Told to readers of the output log: that there is something, and whom it concerns. Never the
/// thing itself; readers fetch that from storage from their own position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Announcement {
    /// A room has a new event.
    Event {
        /// The room.
        room: RoomNum,
        /// The event.
        event: EventNum,
        /// Local users whose relation to the room changed, with their new membership.
        members: Vec<(String, String)>,
        /// Whether there is something for other servers in it.
        outgoing: bool,
    },
    /// A room has an older event that was not here: it is in no timeline.
    Past {
        /// The room.
        room: RoomNum,
    },
    /// A local user's membership of a room that this server is not in has changed.
    OutOfBand {
        /// The room.
        room: RoomNum,
        /// The user.
        user: String,
        /// The new membership.
        membership: String,
    },
    /// A room has a new receipt.
    Receipt {
        /// The room.
        room: RoomNum,
        /// The reader, if the receipt is for nobody else.
        private_to: Option<String>,
    },
    /// Something of a user's own changed: account data, a filter, a forgotten room.
    User {
        /// The user.
        user: String,
    },
    /// Something of several users' own has changed, messages for their devices; or such messages
    /// wait for other servers.
    Users {
        /// The users.
        users: Vec<String>,
        /// The other servers.
        servers: Vec<String>,
    },
    /// A user's keys have changed, for everybody in these rooms and for the user.
    Keys {
        /// The user.
        user: String,
        /// The rooms.
        rooms: Vec<RoomNum>,
    },
    /// A room has come into the published directory, or has gone.
    Published {
        /// The room.
        room: RoomNum,
    },
    /// Nothing that a waiting client would want to know.
    Nothing,
}

impl Announcement {
    /// The bytes that go into the log record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        postcard::to_extend(self, Vec::new())
            .expect("writing plain data to a growing buffer cannot fail")
            .into()
    }

    /// Reads an announcement out of a log record; `None` if it is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

/// A change made of ready operations.
#[derive(Debug)]
pub struct Ops {
    /// The operations.
    pub ops: Vec<Op>,
    /// What readers are told.
    pub announcement: Announcement,
}

impl Change for Ops {
    fn write(self: Box<Self>, _pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        ops.extend(self.ops);
        self.announcement
    }
}

/// A change whose operations depend on its position.
pub struct At<F>(pub F);

impl<F> Change for At<F>
where
    F: FnOnce(StreamPos, &mut Vec<Op>) -> Announcement + Send,
{
    fn write(self: Box<Self>, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        (self.0)(pos, ops)
    }
}

impl<F> std::fmt::Debug for At<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("At(..)")
    }
}
