//! The typed layout of the index: which keys there are and what stands behind them.
//!
//! One tree, one byte of prefix per keyspace. Numbers in keys are big-endian, so that a scan is in
//! numeric order. Values start with a version byte and are encoded with `postcard`.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | [`keys::EVENT`] | event number | [`EventMeta`], body: the PDU |
//! | [`keys::EVENT_ID`] | event id | event number |
//! | [`keys::TIMELINE`] | room, position | [`TimelineEntry`]: arrival order |
//! | [`keys::GRAPH`] | room, depth, position | event number: graph order |
//! | [`keys::NODE`] | node id | a node of the state map |
//! | [`keys::STATE_KEY`], [`keys::STATE_KEY_NAME`] | type and state key, or its number | the other |
//! | [`keys::ROOM_ID`], [`keys::ROOM`] | room id, or its number | number, or [`RoomHead`] |
//! | [`keys::MEMBERSHIP`] | user, room | [`MembershipEntry`] |
//! | [`keys::OUT_OF_BAND`] | room, user | nothing, body: [`OutOfBandEntry`] |
//! | [`keys::FORGOTTEN`] | user, room | position of the membership that was forgotten |
//! | [`keys::SERVER_IN_ROOM`] | room, server | how many of its users are joined |
//! | [`keys::TRANSACTION`] | hash of device, endpoint and txn id | [`TransactionEntry`] |
//! | [`keys::USER`], [`keys::DEVICE`], [`keys::TOKEN`] | user; user, device; hash of a token | [`User`], [`Device`], [`TokenEntry`] |
//! | [`keys::PROFILE_SPREAD`] | user | position of the change that has to go into the user's rooms |
//! | [`keys::USER_WORD`] | word, user | nothing: the user's name or id has the word |
//! | [`keys::OPEN_PEOPLE`] | `o`, room; `u`, user; `w`, word, user | nothing: anybody may enter or read the room; the user's words; nothing |
//! | [`keys::PEOPLE_NEWS`] | position | [`PeopleNews`] |
//! | [`keys::PRESENCE`], [`keys::ONLINE`] | user | [`PresenceEntry`]; nothing: the user is not offline |
//! | [`keys::DEPARTURE`], [`keys::ERASED`] | user | position of the deactivation |
//! | [`keys::GUEST`] | user | nothing: the user is a guest |
//! | [`keys::ACCOUNT_DATA`], [`keys::ACCOUNT_FEED`] | user, room, type; user, position | [`AccountDataEntry`] with body; which one changed |
//! | [`keys::RECEIPT`], [`keys::RECEIPT_FEED`] | room, user, type, thread; room, position | position; [`ReceiptEntry`] |
//! | [`keys::THREAD_SUBSCRIPTION`], [`keys::THREAD_SUBSCRIPTION_FEED`] | user, room, thread; user, position | [`ThreadSubscriptionEntry`]; which one changed |
//! | [`keys::FILTER`] | user, filter id | the filter, as JSON |
//! | [`keys::ALIAS`], [`keys::ALIAS_OF_ROOM`] | room alias; room, alias | [`AliasEntry`]; nothing |
//! | [`keys::PUBLISHED`] | room | nothing: the room is in the published directory |
//! | [`keys::RELATION`] | room, parent, kind, depth, event number | [`RelationEntry`]; under room and parent alone nothing, if there is something to aggregate |
//! | [`keys::RELATION_OF_USER`] | room, parent, user, and: time, event id; hash of an annotation, event number; nothing | event number of an edit; nothing; how many replies in the thread |
//! | [`keys::THREAD`] | room, root; room, depth, event number of the latest reply | [`ThreadEntry`]; root |
//! | [`keys::EVENT_TIME`] | room, time, event number | nothing |
//! | [`keys::DELAYED`] | delay id; user, delay id; time, delay id | [`DelayedEntry`] with body; nothing; nothing |
//! | [`keys::REMOTE_KEYS`] | server name | [`RemoteKeys`], body: the signed document |
//! | [`keys::NOTICE_ROOM`] | user | [`MadeRoom`] |
//! | [`keys::REPORT`] | number | [`Report`] |
//! | [`keys::REGISTRATION_TOKEN`] | token | [`RegistrationToken`] |
//! | [`keys::ROOM_ORDER`] | `block`, room id; `delete`, id of the deletion; `replacement`, the same | [`BlockedRoom`]; [`Deletion`]; [`MadeRoom`] |
//! | [`keys::OUTBOX`] | position; server | [`OutboxEntry`]; [`DestinationEntry`] |
//! | [`keys::SERVER_STAY`] | room, server, end; room, twice | position at which the [`ServerStay`] began; those of the newest event that goes to other servers, and of the last change of stays |
//! | [`keys::ROOM_OF_SERVER`] | server, room, end of the stay | nothing |
//! | [`keys::BACKWARD`] | room, event id | [`BackwardEntry`] |
//! | [`keys::WAITING_REDACTION`] | room, event id, server or nothing | number of the redaction that redacts the event if it is of that server, or in any case |
//! | [`keys::OFF_TIMELINE`] | room, event number | nothing; under number 0 if the room is known by its number alone |
//! | [`keys::E2EE`] | user and: `d`, device; `o`, device; `k`, device, algorithm, number; `f`, device, algorithm | nothing, body: the device's keys; [`OneTimeKeys`]; id of a one-time key, with body; id of a fallback key, with body |
//! | | user and: `x`, usage; `s`, user, key; `l`; `n`, position, user; `y` | nothing, body: a cross-signing key; nothing, body: the user's signatures of a key; [`KeysChanged`]; as in the feed of a room; [`DehydratedDevice`] with body |
//! | [`keys::KEY_FEED`] | room, position | the user whose keys have changed, and when they had before |
//! | [`keys::KNOWN_KEYS`] | `h`, user; `d`, user, device; `x`, user, usage; `q`, server, user | [`KnownKeys`]; nothing, body: the device's keys; nothing, body: a cross-signing key; [`StaleKeys`] |
//! | [`keys::REMOTE_MEMBER`] | `u`, user, room; `o`, room | since when a user of another server is joined to the room; since when users of this one are |
//! | [`keys::INBOX`] | user, device, position, number among the device's messages | nothing, body: the message |
//! | [`keys::EDU_OUTBOX`] | server, position, number among the server's EDUs | nothing, body: the EDU |
//! | [`keys::DEVICE_LIST`] | `l`, user; `n`, position | [`DeviceList`]; [`KeyNewsEntry`] |
//! | [`keys::KEY_BACKUP`] | user; user, `v`, version; user, `k`, version, room, session | [`BackupVersions`]; [`BackupVersion`] with body; [`BackedUpKey`] with body |
//! | [`keys::SETTING`] | name | server-wide values such as the server's name |

pub mod accounts;
mod codec;
pub mod delayed;
pub mod device_list;
pub mod e2ee;
mod edges;
pub mod edu_outbox;
pub mod keys;
pub mod known_keys;
pub mod moderation;
pub mod out_of_band;
pub mod outbox;
pub mod people;
pub mod redactions;
pub mod relations;
pub mod rooms;
pub mod servers;

pub use accounts::{
    AccountDataEntry, AccountFeedEntry, Device, LastSeen, PresenceEntry, ReceiptEntry,
    Subscription, ThreadSubscriptionEntry, ThreadSubscriptionFeedEntry, TokenEntry, Tokens,
    TransactionEntry, User,
};
pub use codec::Stored;
pub use delayed::DelayedEntry;
pub use device_list::{DeviceList, DeviceUpdate, KeyNewsEntry};
pub use e2ee::{
    BackedUpKey, BackupVersion, BackupVersions, DehydratedDevice, KeysChanged, OneTimeKeys,
};
pub use edges::BackwardEntry;
pub use known_keys::{KnownKeys, StaleKeys};
pub use moderation::{
    BlockedRoom, Deletion, DeletionStatus, MadeRoom, RegistrationToken, Replacement, Report,
    ReportSubject,
};
pub use out_of_band::OutOfBandEntry;
pub use outbox::{DestinationEntry, OutboxEntry, ServerStay};
pub use people::PeopleNews;
pub use relations::{Hop, NumberedPlace, RelationEntry, RelationGroup, ThreadEntry};
pub use rooms::{
    AliasEntry, EventFlags, EventMeta, GraphPlace, MembershipEntry, RoomHead, SentAs, StoredEvent,
    TimelineEntry,
};
pub use servers::{RemoteKey, RemoteKeys};
