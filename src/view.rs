//! What clients may see of rooms, and how it looks to them.
//!
//! Everything here reads: from the index and the log, at a position, for one reader. The endpoints
//! and `/sync` share it, so that history visibility is judged in one place.
//!
//! | module | question |
//! |---|---|
//! | [`resident`] | may this server have this event |
//! | [`room`] | which room, what state at which position |
//! | [`reader`] | may this user see this event; what was the user's membership then |
//! | [`event`] | how an event looks to a client |
//! | [`filter`] | does a client's filter want it |
//! | [`tokens`] | which place in the history |
//! | [`access`] | what may this user read of the room as a whole |
//! | [`ancestors`] | what is before an event, for other servers |
//! | [`audience`] | whom may this user know of |
//! | [`people`] | who is found by name |
//! | [`page`] | the events on one side of a place |
//! | [`power`] | who is what in a room now |
//! | [`thread`] | which thread an event belongs to |
//! | [`bundle`] | what do an event's children come to |
//! | [`children`] | which events relate to an event |
//! | [`threads`] | which threads does a room have |
//! | [`time`] | which event is nearest to a time |
//! | [`gaps`] | where is history missing that others have |
//! | [`ignored`] | whom does this user not want to hear |
//! | [`invites`] | from whom does this user take invites |
//! | `told` | which state is told to those who are invited or knock |
//! | `preview` | what is told of a room to those who are not in it |
//! | [`published`] | which rooms are in the directory |
//! | [`spaces`] | what is in a space |
//! | [`mutual`] | which rooms do two users share |
//! | [`sync`] | what is new for a device |

pub mod access;
pub mod ancestors;
pub mod audience;
pub mod bundle;
pub mod children;
pub mod device_lists;
mod erased;
pub mod event;
pub mod filter;
pub mod gaps;
pub mod ignored;
pub mod invites;
pub mod keys;
pub mod mutual;
pub mod page;
pub mod people;
mod pool;
pub mod power;
mod preview;
pub mod published;
pub mod reader;
pub mod resident;
mod restricted;
pub mod room;
pub mod spaces;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod threads;
pub mod time;
pub mod tokens;
mod told;

use std::sync::Arc;

use parlour_actors::{Engine, env::Clock, nodes::Nodes};
use parlour_storage::{StorageError, Store};

use self::pool::Pool;

pub use self::{
    access::{Access, Standing},
    ancestors::Gap,
    children::{Children, ChildrenRequest},
    event::{EventFormat, Fields},
    filter::{EventFilter, RelationFilter},
    gaps::Gaps,
    ignored::Ignored,
    invites::{InviteAction, InvitePermission},
    page::{Page, PageRequest, Shown},
    power::Powers,
    preview::understood,
    published::{ListPage, ListToken, PublishedRooms},
    reader::{Reader, Seen},
    resident::Resident,
    restricted::Vouching,
    room::{RoomView, StateAt},
    thread::ThreadPlace,
    threads::{Threads, ThreadsRequest},
    tokens::{GraphToken, SyncToken, ThreadsToken, Token, TokenError},
    told::wire_json,
};

/// Reading access to rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    /// The index and the log.
    pub store: Store,
    /// Nodes of room states.
    pub nodes: Nodes,
    /// For `age`.
    pub clock: Arc<dyn Clock>,
    pool: Pool,
}

impl View {
    /// Reading access to what the engine holds.
    #[must_use]
    pub fn of(engine: &Engine, clock: Arc<dyn Clock>) -> Self {
        let (store, nodes) = (engine.store.clone(), engine.nodes.clone());
        Self { store, nodes, clock, pool: Pool::new(engine.threads.clone()) }
    }
}

/// Why something could not be read. Always the server's fault.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A room state is broken.
    #[error(transparent)]
    State(#[from] parlour_event::state::StateError<StorageError>),
    /// A stored event is not what an event should be.
    #[error("the stored event {event_id} is not readable: {what}")]
    Event {
        /// The event.
        event_id: String,
        /// What is wrong with it.
        what: String,
    },
}

impl From<ViewError> for crate::error::ApiError {
    fn from(error: ViewError) -> Self {
        Self::internal(error)
    }
}
