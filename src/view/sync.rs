//! `/sync`: what is new for one device between two moments.
//!
//! Everything is read at exact positions: a room's state at a position is that of its newest
//! timeline entry at or before it, so nothing that happens meanwhile can be seen twice or missed.
//!
//! | module | section of the answer |
//! |---|---|
//! | `rooms` | which rooms are looked at, and what the user is to each |
//! | `joined`, `left`, `invited` | rooms by the user's membership |
//! | `outside` | rooms that this server is not in |
//! | `timeline`, `state`, `summary`, `ephemeral` | parts of a room |
//! | `delivery` | the whole, where it is nothing but a few messages |
//! | `account` | account data, global and per room |
//! | `devices` | messages for the device, whose keys have changed, one-time keys |
//! | `presence` | who is online |
//! | `sent` | which member events a device has been sent already |
//! | `shape` | how a filter wants events to look |
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#syncing>

mod account;
mod delivery;
mod devices;
mod ephemeral;
mod invited;
mod joined;
mod left;
mod outside;
mod presence;
mod rooms;
mod sent;
mod shape;
mod state;
mod summary;
mod timeline;

use std::sync::Arc;

use parlour_actors::{Engine, changes::Changes, presence::Presence, typing::Typing, users::Users};
use parlour_event::{RoomNum, StreamPos, content::Membership};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::client::{
        filter::FilterDefinition,
        sync::sync_events::v3::{Response, Rooms},
    },
};

pub use self::delivery::Delivery;
use self::{
    account::AccountData, delivery::Deliveries, sent::SentMembers, shape::Shape, summary::Heroes,
};
use super::{EventFilter, Ignored, RelationFilter, SyncToken, View, ViewError};
use crate::push::{UnreadCounts, counts::Reading};

/// What one device asks for.
#[derive(Debug)]
pub struct Ask {
    /// The user.
    pub user: OwnedUserId,
    /// The device.
    pub device: OwnedDeviceId,
    /// What the device has seen; `None` for the first sync.
    pub since: Option<SyncToken>,
    /// Whether all state is wanted, also of what has not changed.
    pub full_state: bool,
    /// Whether the state at the end of the timelines is wanted, not that at their start.
    pub state_after: bool,
    /// What is wanted.
    pub filter: Arc<FilterDefinition>,
    /// Which relations events of timelines must have.
    pub relations: Arc<RelationFilter>,
}

/// Answers `/sync`. One per server.
#[derive(Debug)]
pub struct Syncs {
    view: View,
    users: Users,
    typing: Typing,
    presence: Presence,
    changes: Arc<Changes>,
    counts: UnreadCounts,
    sent: SentMembers,
    heroes: Heroes,
    deliveries: Deliveries,
}

/// One answer in the making.
struct Round<'a> {
    syncs: &'a Syncs,
    ask: &'a Ask,
    now: SyncToken,
    shape: Shape,
    ignored: Ignored,
    account: AccountData,
    /// Push rules, parsed at most once per answer.
    reading: Reading<'a>,
}

impl Syncs {
    /// Answers from what the engine holds. Of what many are told, so many bytes are kept for them.
    #[must_use]
    pub fn new(view: View, engine: &Engine, counts: UnreadCounts, kept_bytes: u64) -> Self {
        Self {
            view,
            users: engine.users.clone(),
            typing: engine.typing.clone(),
            presence: engine.presence.clone(),
            changes: engine.changes.clone(),
            counts,
            sent: SentMembers::default(),
            heroes: Heroes::default(),
            deliveries: Deliveries::new(kept_bytes),
        }
    }

    /// How many bytes are kept of what many are told.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.deliveries.memory_bytes()
    }

    /// The newest moment that can be answered for.
    #[must_use]
    pub fn now(&self) -> SyncToken {
        SyncToken {
            pos: self.changes.current(),
            typing: self.typing.counter(),
            presence: self.presence.counter(),
            inbox: None,
        }
    }

    /// Prepares the last answers before a stop: what the next process will not know has to be told
    /// by this one.
    pub fn close(&self) {
        self.typing.end();
    }

    /// What is new for a device until `now`.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn build(&self, ask: &Ask, now: SyncToken) -> Result<Response, ViewError> {
        let round = Round {
            syncs: self,
            ask,
            now,
            shape: Shape::of(&ask.filter),
            ignored: match ask.since {
                Some(since) => self.view.ignored_since(&ask.user, since.pos)?,
                None => self.view.ignored_by(&ask.user)?,
            },
            account: AccountData::read(&self.users, ask, now.pos)?,
            reading: Reading::new(&self.counts, &ask.user),
        };
        let (messages, next) = round.messages()?;
        let mut response = self.nothing(ask, next)?;
        response.to_device.events = messages;
        round.device_lists(&mut response)?;
        let (rooms, new_rooms) = round.rooms()?;
        response.rooms = rooms;
        response.presence.events = round.presence(&new_rooms)?;
        response.account_data.events = round.global_account_data()?;
        Ok(response)
    }
}

/// Whether an answer tells nothing new.
#[must_use]
pub fn is_empty(response: &Response) -> bool {
    response.rooms.is_empty()
        && response.account_data.is_empty()
        && response.to_device.is_empty()
        && response.device_lists.is_empty()
        && response.presence.is_empty()
}

impl Round<'_> {
    fn view(&self) -> &View {
        &self.syncs.view
    }

    fn user(&self) -> &str {
        self.ask.user.as_str()
    }

    /// What the device has seen.
    fn since(&self) -> Option<StreamPos> {
        self.ask.since.map(|since| since.pos)
    }

    /// Whether all rooms are wanted, not only those in which something is new.
    fn wants_all(&self) -> bool {
        self.ask.since.is_none() || self.ask.full_state
    }

    /// The rooms' sections, and which rooms the user has come into.
    fn rooms(&self) -> Result<(Rooms, Vec<RoomNum>), ViewError> {
        let (mut rooms, mut new_rooms) = (Rooms::new(), Vec::new());
        for (num, entry) in self.candidates()? {
            if entry.is_out_of_band() && self.outside(num, &entry, &mut rooms)? {
                continue;
            }
            let Some(relation) = self.relation(num)? else { continue };
            let room_id = relation.room.room_id.clone();
            match relation.membership {
                Membership::Join => {
                    new_rooms
                        .extend(Some(num).filter(|_| relation.was() != Some(Membership::Join)));
                    let room = self.joined(&relation)?;
                    rooms.join.extend(room.map(|room| (room_id, room)));
                }
                Membership::Invite => {
                    let room = self.invited(&relation)?;
                    rooms.invite.extend(room.map(|room| (room_id, room)));
                }
                Membership::Knock => {
                    let room = self.knocked(&relation)?;
                    rooms.knock.extend(room.map(|room| (room_id, room)));
                }
                Membership::Leave | Membership::Ban => {
                    let room = self.left(&relation)?;
                    rooms.leave.extend(room.map(|room| (room_id, room)));
                }
            }
        }
        Ok((rooms, new_rooms))
    }

    fn timeline_filter(&self) -> EventFilter<'_> {
        EventFilter::new(&self.ask.filter.room.timeline).with_relations(&self.ask.relations)
    }

    fn state_filter(&self) -> EventFilter<'_> {
        EventFilter::new(&self.ask.filter.room.state)
    }
}
