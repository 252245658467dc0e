//! The keys of the index.

mod e2ee;
mod moderation;
mod parts;

use bytes::Bytes;
use parlour_event::{EventNum, RoomNum, StateKeyNum, StreamPos, state::NodeId};

pub use self::{
    e2ee::*,
    moderation::*,
    parts::{KeyBuilder, KeyReader, last_number, last_numbers},
};

macro_rules! keyspaces {
    ($($(#[$doc:meta])* $name:ident = $byte:literal;)*) => {
        $($(#[$doc])* pub const $name: u8 = $byte;)*
        const NAMES: &[(u8, &str)] = &[$(($byte, stringify!($name))),*];
    };
}

keyspaces! {
    /// Events by number.
    EVENT = b'E';
    /// Event ids.
    EVENT_ID = b'I';
    /// A room's events in the order of arrival.
    TIMELINE = b'T';
    /// A room's events in the order of its history.
    GRAPH = b'G';
    /// Nodes of the state map.
    NODE = b'N';
    /// Numbers of `(type, state_key)` pairs.
    STATE_KEY = b'K';
    /// `(type, state_key)` pairs by number.
    STATE_KEY_NAME = b'k';
    /// Numbers of rooms.
    ROOM_ID = b'R';
    /// Rooms by number.
    ROOM = b'H';
    /// Which rooms a user is or was in.
    MEMBERSHIP = b'M';
    /// Memberships of rooms that this server is not in.
    OUT_OF_BAND = b'v';
    /// Which rooms a user has forgotten.
    FORGOTTEN = b'f';
    /// How many joined members a server has in a room.
    SERVER_IN_ROOM = b'S';
    /// Client transactions.
    TRANSACTION = b'X';
    /// Accounts.
    USER = b'U';
    /// Users whose new profile has not come into all of their rooms yet.
    PROFILE_SPREAD = b'u';
    /// Users by the words of their names, for the user directory.
    USER_WORD = b'i';
    /// Users in rooms that anybody may enter or read, by their words, and these rooms.
    OPEN_PEOPLE = b'0';
    /// Whose entries among those may have to change.
    PEOPLE_NEWS = b'9';
    /// What users last said of their presence.
    PRESENCE = b'e';
    /// Users who are not offline.
    ONLINE = b'c';
    /// Users who are deactivated and still in rooms.
    DEPARTURE = b'y';
    /// Users who are guests.
    GUEST = b'j';
    /// Users whose events are hidden from who was not there.
    ERASED = b'Y';
    /// Devices.
    DEVICE = b'V';
    /// Access tokens and refresh tokens, hashed.
    TOKEN = b't';
    /// Account data, global (room 0) and per room.
    ACCOUNT_DATA = b'A';
    /// Account data in the order of change.
    ACCOUNT_FEED = b'a';
    /// A user's receipts in a room.
    RECEIPT = b'r';
    /// A room's receipts in the order of change.
    RECEIPT_FEED = b'p';
    /// Threads that a user has subscribed to or left.
    THREAD_SUBSCRIPTION = b'Q';
    /// A user's thread subscriptions in the order of change.
    THREAD_SUBSCRIPTION_FEED = b'q';
    /// Stored filters.
    FILTER = b'F';
    /// Room aliases of this server.
    ALIAS = b'L';
    /// A room's aliases.
    ALIAS_OF_ROOM = b'l';
    /// Rooms in the published directory.
    PUBLISHED = b'P';
    /// Events by what they relate to.
    RELATION = b'O';
    /// What single users have made of an event: edits, annotations, replies in its thread.
    RELATION_OF_USER = b'o';
    /// Threads, by root and by their latest reply.
    THREAD = b's';
    /// A room's events by the time that they bear.
    EVENT_TIME = b'd';
    /// Events that are to be sent later.
    DELAYED = b'D';
    /// Keys of other servers.
    REMOTE_KEYS = b'C';
    /// The room in which the server talks to a user.
    NOTICE_ROOM = b'n';
    /// Reports of events, rooms and users, in the order in which they came.
    REPORT = b'w';
    /// Tokens that open the registration.
    REGISTRATION_TOKEN = b'z';
    /// What operators have ordered about rooms: blocks and deletions.
    ROOM_ORDER = b'W';
    /// Events that wait to be sent to other servers, and how far each of those has got.
    OUTBOX = b'x';
    /// Since when which other server gets a room's events.
    SERVER_STAY = b'm';
    /// The rooms whose events a server gets.
    ROOM_OF_SERVER = b'J';
    /// Events that are not here and that events of a room follow: its backward extremities.
    BACKWARD = b'B';
    /// A room's events that are not in its timeline.
    OFF_TIMELINE = b'b';
    /// Keys of users and their devices for end-to-end encryption, and what belongs to them.
    E2EE = b'h';
    /// Whose keys have changed, of those who are in a room.
    KEY_FEED = b'g';
    /// What is known of the keys of users of other servers.
    KNOWN_KEYS = b'5';
    /// Which rooms users of other servers are joined to.
    REMOTE_MEMBER = b'6';
    /// Messages that wait for devices.
    INBOX = b'1';
    /// EDUs that wait for other servers and must not be lost.
    EDU_OUTBOX = b'2';
    /// What other servers are told of the devices of users here.
    DEVICE_LIST = b'4';
    /// Backups of the keys of rooms.
    KEY_BACKUP = b'3';
    /// Redactions of events that are not here.
    WAITING_REDACTION = b'7';
    /// Server-wide values.
    SETTING = b'Z';
}

/// The keyspaces whose keys begin with the number of a room. A room that is purged is removed from
/// them.
pub const OF_ROOM: &[u8] = &[
    TIMELINE,
    GRAPH,
    SERVER_IN_ROOM,
    SERVER_STAY,
    RECEIPT,
    RECEIPT_FEED,
    ALIAS_OF_ROOM,
    RELATION,
    RELATION_OF_USER,
    THREAD,
    EVENT_TIME,
    BACKWARD,
    WAITING_REDACTION,
    OFF_TIMELINE,
    OUT_OF_BAND,
    KEY_FEED,
];

/// The keyspaces of which every message adds a key that falls anywhere among the others, in their
/// order. Nodes of states are not among them: a message has none, and they are long.
pub(crate) const WITHOUT_ORDER: &[u8] = &[EVENT_ID, TRANSACTION];

/// A key as an error message shows it: the keyspace's name and the rest in hexadecimal. Never in
/// clear text, since keys hold user ids.
#[must_use]
pub fn readable(key: &[u8]) -> String {
    let Some((keyspace, rest)) = key.split_first() else {
        return "an empty key".to_owned();
    };
    let name = NAMES.iter().find(|(byte, _)| byte == keyspace).map_or("?", |(_, name)| name);
    let hex: String = rest.iter().take(40).map(|byte| format!("{byte:02x}")).collect();
    format!("{name} {hex}")
}

/// [`EVENT`]
#[must_use]
pub fn event(num: EventNum) -> Bytes {
    KeyBuilder::new(EVENT).number(num.0).build()
}

/// The keys that every event adds stand in rows: one of all events, and some for each room. Returns
/// how many bytes the keys of such a row have in common.
pub(crate) fn row(key: &[u8]) -> Option<usize> {
    match *key.first()? {
        EVENT => Some(1),
        TIMELINE | GRAPH | EVENT_TIME => Some(1 + size_of::<u64>()),
        _ => None,
    }
}

/// [`EVENT_ID`]
#[must_use]
pub fn event_id(id: &str) -> Bytes {
    KeyBuilder::new(EVENT_ID).raw(id.as_bytes()).build()
}

/// [`TIMELINE`]
#[must_use]
pub fn timeline(room: RoomNum, pos: StreamPos) -> Bytes {
    KeyBuilder::new(TIMELINE).number(room.0).number(pos.0).build()
}

/// [`GRAPH`]
#[must_use]
pub fn graph(room: RoomNum, depth: u64, pos: StreamPos) -> Bytes {
    KeyBuilder::new(GRAPH).number(room.0).number(depth).number(pos.0).build()
}

/// [`NODE`]
#[must_use]
pub fn node(id: NodeId) -> Bytes {
    KeyBuilder::new(NODE).raw(&id.to_bytes()).build()
}

/// [`STATE_KEY`]
#[must_use]
pub fn state_key(event_type: &str, state_key: &str) -> Bytes {
    KeyBuilder::new(STATE_KEY).text(event_type).text(state_key).build()
}

/// [`STATE_KEY_NAME`]
#[must_use]
pub fn state_key_name(num: StateKeyNum) -> Bytes {
    KeyBuilder::new(STATE_KEY_NAME).number(num.0).build()
}

/// [`ROOM_ID`]
#[must_use]
pub fn room_id(id: &str) -> Bytes {
    KeyBuilder::new(ROOM_ID).raw(id.as_bytes()).build()
}

/// [`ROOM`]
#[must_use]
pub fn room(num: RoomNum) -> Bytes {
    KeyBuilder::new(ROOM).number(num.0).build()
}

/// [`MEMBERSHIP`]
#[must_use]
pub fn membership(user: &str, room: RoomNum) -> Bytes {
    KeyBuilder::new(MEMBERSHIP).text(user).number(room.0).build()
}

/// [`OUT_OF_BAND`]
#[must_use]
pub fn out_of_band(room: RoomNum, user: &str) -> Bytes {
    KeyBuilder::new(OUT_OF_BAND).number(room.0).text(user).build()
}

/// [`FORGOTTEN`]
#[must_use]
pub fn forgotten(user: &str, room: RoomNum) -> Bytes {
    KeyBuilder::new(FORGOTTEN).text(user).number(room.0).build()
}

/// The common start of a user's [`MEMBERSHIP`] keys.
#[must_use]
pub fn memberships_of(user: &str) -> Bytes {
    KeyBuilder::new(MEMBERSHIP).text(user).build()
}

/// [`SERVER_IN_ROOM`]
#[must_use]
pub fn servers_in_room(room: RoomNum) -> Bytes {
    KeyBuilder::new(SERVER_IN_ROOM).number(room.0).build()
}

/// [`SERVER_IN_ROOM`]
#[must_use]
pub fn server_in_room(room: RoomNum, server: &str) -> Bytes {
    KeyBuilder::new(SERVER_IN_ROOM).number(room.0).text(server).build()
}

/// [`BACKWARD`]
#[must_use]
pub fn backward(room: RoomNum, event_id: &str) -> Bytes {
    KeyBuilder::new(BACKWARD).number(room.0).text(event_id).build()
}

/// [`OFF_TIMELINE`]
#[must_use]
pub fn off_timeline(room: RoomNum, event: EventNum) -> Bytes {
    KeyBuilder::new(OFF_TIMELINE).number(room.0).number(event.0).build()
}

/// [`TRANSACTION`]
#[must_use]
pub fn transaction(hash: &[u8; 16]) -> Bytes {
    KeyBuilder::new(TRANSACTION).raw(hash).build()
}

/// [`USER`]
#[must_use]
pub fn user(user: &str) -> Bytes {
    KeyBuilder::new(USER).text(user).build()
}

/// [`PROFILE_SPREAD`]
#[must_use]
pub fn profile_spread(user: &str) -> Bytes {
    KeyBuilder::new(PROFILE_SPREAD).text(user).build()
}

/// [`USER_WORD`]
#[must_use]
pub fn user_word(word: &str, user: &str) -> Bytes {
    KeyBuilder::new(USER_WORD).text(word).text(user).build()
}

/// [`PRESENCE`]
#[must_use]
pub fn presence(user: &str) -> Bytes {
    KeyBuilder::new(PRESENCE).text(user).build()
}

/// [`ONLINE`]
#[must_use]
pub fn online(user: &str) -> Bytes {
    KeyBuilder::new(ONLINE).text(user).build()
}

/// [`DEPARTURE`]
#[must_use]
pub fn departure(user: &str) -> Bytes {
    KeyBuilder::new(DEPARTURE).text(user).build()
}

/// [`GUEST`]
#[must_use]
pub fn guest(user: &str) -> Bytes {
    KeyBuilder::new(GUEST).text(user).build()
}

/// [`ERASED`]
#[must_use]
pub fn erased(user: &str) -> Bytes {
    KeyBuilder::new(ERASED).text(user).build()
}

/// [`DEVICE`]
#[must_use]
pub fn device(user: &str, device: &str) -> Bytes {
    KeyBuilder::new(DEVICE).text(user).text(device).build()
}

/// The common start of a user's [`DEVICE`] keys.
#[must_use]
pub fn devices_of(user: &str) -> Bytes {
    KeyBuilder::new(DEVICE).text(user).build()
}

/// [`TOKEN`]
#[must_use]
pub fn token(hash: &[u8; 32]) -> Bytes {
    KeyBuilder::new(TOKEN).raw(hash).build()
}

/// [`ACCOUNT_DATA`]; room 0 is the global account data.
#[must_use]
pub fn account_data_in(user: &str, room: RoomNum) -> Bytes {
    KeyBuilder::new(ACCOUNT_DATA).text(user).number(room.0).build()
}

/// [`ACCOUNT_DATA`]
#[must_use]
pub fn account_data(user: &str, room: RoomNum, data_type: &str) -> Bytes {
    KeyBuilder::new(ACCOUNT_DATA).text(user).number(room.0).text(data_type).build()
}

/// [`ACCOUNT_FEED`]
#[must_use]
pub fn account_feed(user: &str, pos: StreamPos) -> Bytes {
    KeyBuilder::new(ACCOUNT_FEED).text(user).number(pos.0).build()
}

/// [`RECEIPT`]
#[must_use]
pub fn receipt(room: RoomNum, user: &str, receipt_type: &str, thread: &str) -> Bytes {
    KeyBuilder::new(RECEIPT).number(room.0).text(user).text(receipt_type).text(thread).build()
}

/// [`RECEIPT_FEED`]
#[must_use]
pub fn receipt_feed(room: RoomNum, pos: StreamPos) -> Bytes {
    KeyBuilder::new(RECEIPT_FEED).number(room.0).number(pos.0).build()
}

/// [`THREAD_SUBSCRIPTION`]
#[must_use]
pub fn thread_subscription(user: &str, room: RoomNum, root: &str) -> Bytes {
    KeyBuilder::new(THREAD_SUBSCRIPTION).text(user).number(room.0).text(root).build()
}

/// The common start of a user's [`THREAD_SUBSCRIPTION`] keys.
#[must_use]
pub fn thread_subscriptions_of(user: &str) -> Bytes {
    KeyBuilder::new(THREAD_SUBSCRIPTION).text(user).build()
}

/// The common start of a user's [`THREAD_SUBSCRIPTION`] keys in a room.
#[must_use]
pub fn thread_subscriptions_in(user: &str, room: RoomNum) -> Bytes {
    KeyBuilder::new(THREAD_SUBSCRIPTION).text(user).number(room.0).build()
}

/// [`THREAD_SUBSCRIPTION_FEED`]
#[must_use]
pub fn thread_subscription_feed(user: &str, pos: StreamPos) -> Bytes {
    KeyBuilder::new(THREAD_SUBSCRIPTION_FEED).text(user).number(pos.0).build()
}

/// [`FILTER`]
#[must_use]
pub fn filter(user: &str, filter: &str) -> Bytes {
    KeyBuilder::new(FILTER).text(user).text(filter).build()
}

/// [`ALIAS`]
#[must_use]
pub fn alias(alias: &str) -> Bytes {
    KeyBuilder::new(ALIAS).raw(alias.as_bytes()).build()
}

/// [`ALIAS_OF_ROOM`]
#[must_use]
pub fn alias_of_room(room: RoomNum, alias: &str) -> Bytes {
    KeyBuilder::new(ALIAS_OF_ROOM).number(room.0).text(alias).build()
}

/// The common start of a room's [`ALIAS_OF_ROOM`] keys.
#[must_use]
pub fn aliases_of_room(room: RoomNum) -> Bytes {
    KeyBuilder::new(ALIAS_OF_ROOM).number(room.0).build()
}

/// [`PUBLISHED`]
#[must_use]
pub fn published(room: RoomNum) -> Bytes {
    KeyBuilder::new(PUBLISHED).number(room.0).build()
}

/// [`REMOTE_KEYS`]
#[must_use]
pub fn remote_keys(server: &str) -> Bytes {
    KeyBuilder::new(REMOTE_KEYS).text(server).build()
}

/// [`SETTING`]
#[must_use]
pub fn setting(name: &str) -> Bytes {
    KeyBuilder::new(SETTING).text(name).build()
}
