//! What rooms are asked, and what they answer.

use std::{sync::Arc, time::Duration};

use actix::Message;
use bytes::Bytes;
use parlour_event::{
    Pdu, RoomVersion, StreamPos, auth::AuthError, content::Membership, json::Object,
    pdu::FormatError, state::StateError,
};
use parlour_storage::StorageError;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};

use super::{
    policy::{Built, Unsigned},
    relations::RelationError,
};
use crate::{directory::AliasClaim, persister::PersistError, registry::PolicyError};

/// An event that a local user wants to send.
#[derive(Debug, Clone)]
pub struct LocalEvent {
    /// The sender, already authenticated.
    pub sender: OwnedUserId,
    /// The `type`.
    pub event_type: String,
    /// The `state_key`, for a state event.
    pub state_key: Option<String>,
    /// The `content`.
    pub content: Object,
    /// What a redaction redacts; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// The client's transaction, for idempotency.
    pub transaction: Option<Transaction>,
    /// Milliseconds since the epoch, if not now.
    pub timestamp: Option<u64>,
}

/// A client's transaction id with its scope.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Hash of user, device, endpoint and txn id.
    pub hash: [u8; 16],
    /// The device that sent it.
    pub device: String,
    /// The txn id, shown to that device in `unsigned`.
    pub txn_id: String,
}

/// A user's name and avatar, as a room's member event is to say them.
#[derive(Debug, Clone)]
pub struct ProfileUpdate {
    /// The user.
    pub user: OwnedUserId,
    /// The display name.
    pub display_name: Option<String>,
    /// The avatar, an `mxc:` URI.
    pub avatar_url: Option<String>,
}

/// Another server's answer to a local user's join: what `send_join` gives.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its version, as `make_join` said.
    pub version: &'static RoomVersion,
    /// The join.
    pub join: Arc<Pdu>,
    /// The room's state before the join.
    pub state: Vec<Arc<Pdu>>,
    /// The auth chain of the join and of the state.
    pub auth_chain: Vec<Arc<Pdu>>,
}

/// An older event, as another server has it.
#[derive(Debug, Clone)]
pub struct Backfilled {
    /// The event.
    pub pdu: Arc<Pdu>,
    /// The state before it; `None` if all events that it follows are known.
    pub state_before: Option<Vec<OwnedEventId>>,
}

/// An event for another server's user, whose server completes, hashes and signs it.
#[derive(Debug, Clone)]
pub struct Template {
    /// The room's version.
    pub version: &'static RoomVersion,
    /// The event without `event_id`, hashes and signatures.
    pub event: Object,
}

/// An event is durable and readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub event_id: OwnedEventId,
    /// Its place in the stream; of the newest commit if the event was there already.
    pub pos: StreamPos,
}

/// What became of an event from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the room.
    Accepted,
    /// It was known already.
    Known,
    /// Allowed where it stands, but not now: kept out of clients' sight.
    SoftFailed,
    /// The auth rules refuse it; kept as rejected.
    Rejected,
}

/// Why a room did not do what it was asked. Nothing has changed then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RoomError {
    /// There is no such room on this server.
    #[error("the room is not known here")]
    UnknownRoom,
    /// The auth rules refuse the event.
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    /// The user's membership is not one from which the change is possible.
    #[error("the membership of {user} is `{}`", .is.as_str())]
    WrongMembership {
        /// Whose membership was to change.
        user: String,
        /// What it is.
        is: Membership,
    },
    /// The event may not relate to what it relates to.
    #[error(transparent)]
    Relation(#[from] RelationError),
    /// The room lets no guests in.
    #[error("the room does not let guests in")]
    NoGuests,
    /// The event does not have the format that the room version wants, or is too large.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The event was handed over before and refused.
    #[error("the event was refused before")]
    RefusedBefore,
    /// The event is of another room, or builds on one that is.
    #[error("the event belongs to another room")]
    OtherRoom,
    /// What another server says of a room that is to be entered makes no sense.
    #[error("the other server's answer makes no sense: {0}")]
    BadEntrance(&'static str),
    /// The room's policy server has not signed the event.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Events that this one builds on are not known.
    #[error("{} events that it builds on are not known", .0.len())]
    Missing(Vec<OwnedEventId>),
    /// Too many requests wait for this room already.
    #[error("too many requests wait for this room")]
    Busy,
    /// The event could not be made durable.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// Storage cannot be read.
    #[error("storage: {0}")]
    Storage(Arc<StorageError>),
    /// The create event of a new room is not acceptable.
    #[error("the create event is not acceptable")]
    CreateRefused,
    /// State resolution gave up.
    #[error("state resolution: {0}")]
    Resolution(String),
    /// The room's core panicked on this very request; the room was set up again.
    #[error("the room failed on this event")]
    Panicked,
    /// The event made the room panic before and is not tried again.
    #[error("the event is in quarantine")]
    Quarantined,
    /// The room's actor ended before it answered.
    #[error("the room went away")]
    Gone,
}

impl From<StorageError> for RoomError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<StateError<StorageError>> for RoomError {
    fn from(error: StateError<StorageError>) -> Self {
        match error {
            StateError::Store(error) => error.into(),
            misplaced @ StateError::Misplaced(_) => Self::Resolution(misplaced.to_string()),
        }
    }
}

/// A request to a room.
pub(crate) enum Input {
    /// Send a local user's event.
    Local(Box<LocalEvent>),
    /// Send a local user's member event, if the target's membership is one of these.
    Member(Box<LocalEvent>, &'static [Membership]),
    /// Send a guest's join.
    Guest(Box<LocalEvent>),
    /// Say a local user's new name and avatar, if the user is in the room.
    Profile(Box<ProfileUpdate>),
    /// The first events of a new room; all of them or none.
    Birth(Box<Birth>),
    /// Take in an event made elsewhere. Signatures and hashes have been checked.
    Received(Arc<Pdu>),
    /// Take in such an event, but keep it from users: the room's policy server does not sign it.
    Unwanted(Arc<Pdu>),
    /// Take in such an event, with the state before it as another server tells it.
    ReceivedAt(Arc<Pdu>, Vec<OwnedEventId>),
    /// Take in an event that another server hands over, or refuse it.
    Bring(Arc<Pdu>, Option<OwnedServerName>),
    /// Store events without a place in the graph.
    Outliers(Vec<Arc<Pdu>>),
    /// Take in older events.
    Backfill(Vec<Backfilled>),
    /// Enter the room through another server.
    Enter(Box<Entrance>),
    /// Build an event for another server's user.
    Template(Box<LocalEvent>),
    /// Build a local user's event and do nothing with it.
    Propose(Box<LocalEvent>),
    /// Take in a local user's event that was built before.
    Built(Box<Built>),
    /// Send local users' events, one after the other; those that are refused are left out.
    Many(Vec<LocalEvent>),
}

impl Input {
    /// The local user who asks for it, if there is one.
    pub(crate) fn asker(&self) -> Option<&UserId> {
        match self {
            Self::Local(event) | Self::Member(event, _) | Self::Guest(event) => Some(&event.sender),
            Self::Propose(event) => Some(&event.sender),
            Self::Profile(update) => Some(&update.user),
            Self::Built(built) => Some(built.pdu.sender()),
            _of_others => None,
        }
    }
}

/// What a new room begins with.
pub(crate) struct Birth {
    pub(crate) create: Arc<Pdu>,
    /// The events behind the create event.
    pub(crate) events: Vec<LocalEvent>,
    pub(crate) alias: Option<AliasClaim>,
    pub(crate) published: bool,
    pub(crate) made_for: Option<Bytes>,
}

/// What a room answers.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// Nothing more is to be said.
    Done,
    Sent(Sent),
    Received(Verdict),
    Backfilled(Vec<Verdict>),
    Many(Vec<Result<OwnedEventId, RoomError>>),
    Template(Template),
    Proposed(Arc<Pdu>),
    /// The room's policy server has to sign it first.
    Unsigned(Box<Unsigned>),
}

/// Where the answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Output, RoomError>>;

/// A request with its place in the room's queue.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Perform {
    pub(crate) input: Input,
    pub(crate) reply: Reply,
    pub(crate) permit: Admission,
    /// When the room was asked, on the monotonic clock.
    pub(crate) asked: Duration,
}

/// A place in the room's queue and one in the whole server's.
pub(crate) struct Admission {
    pub(crate) _room: OwnedSemaphorePermit,
    pub(crate) _server: OwnedSemaphorePermit,
}

/// A queue with so many places. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    size: usize,
}

impl Queue {
    pub(crate) fn new(size: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(size)), size }
    }

    /// A place, if one is left.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// All places, once nobody else has any.
    pub(crate) async fn enter_alone(&self) -> Option<SemaphorePermit<'_>> {
        let all = u32::try_from(self.size).unwrap_or(u32::MAX);
        self.places.acquire_many(all).await.ok()
    }

    /// How many places are taken.
    pub(crate) fn taken(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }
}

/// There is news of the room's commits: one has failed, or the room has asked to be told.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct News;
