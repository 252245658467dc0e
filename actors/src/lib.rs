//! Who does what in Parlour: the actors.
//!
//! | module | one per | what it owns |
//! |---|---|---|
//! | [`registry`] | process | which rooms are awake; who may queue for them |
//! | `room` | awake room | extremities, current state, members by server |
//! | [`persister`] | process | stream positions, the write path, group commit |
//! | [`notifier`] | process | who waits for what |
//! | [`users`] | group of users | accounts, devices, account data, receipts, filters |
//! | [`out_of_band`] | process | memberships of rooms that this server is not in |
//! | [`directory`] | process | room aliases and published rooms |
//! | [`delayed`] | process | events that are to be sent later |
//! | [`reports`] | process | what users find inappropriate |
//! | [`room_orders`] | process | rooms that operators block or delete |
//! | [`notices`] | process | what the server itself says to users |
//! | [`bulk`] | process | users, rooms and history that load tests begin with |
//! | [`stored_tokens`] | process | registration tokens that operators hand out |
//! | [`typing`] | process | who is typing |
//! | [`keyring`] | process | which keys other servers sign with |
//! | [`server_keys`] | process | the keys that this server signs with |
//! | [`presence`] | process | who is online |
//! | [`federation_queue`] | process | what goes to other servers; one task for each that is sent to |
//! | [`threads`] | process | what all of them run on |
//! | [`engine`] | process | starts and stops all of them |
//!
//! Messages go down (a request asks a room, a room asks the persister); news go up (the persister
//! tells rooms and the notifier). Nobody waits for somebody who may wait for them.

pub mod budget;
pub mod bulk;
pub mod changes;
pub mod commit;
pub mod delayed;
pub mod directory;
pub mod engine;
pub mod env;
pub mod federation_queue;
pub mod interner;
pub mod keyring;
mod latest;
pub mod metrics;
pub mod nodes;
pub mod notices;
pub mod notifier;
pub mod out_of_band;
pub mod per_key;
pub mod persister;
pub mod presence;
pub mod registry;
pub mod reports;
mod room;
pub mod room_orders;
pub mod server_keys;
pub mod stored_tokens;
pub mod threads;
pub mod typing;
pub mod users;
pub mod words;
pub mod workers;

pub use engine::{Engine, EngineOptions, StartError};
pub use registry::{NewRoom, PolicyError, PolicySource, RoomLimits, Rooms};
pub use room::{
    messages::{
        Backfilled, Entrance, LocalEvent, ProfileUpdate, RoomError, Sent, Template, Transaction,
        Verdict,
    },
    relations::{MAX_HOPS, RelationError},
};
