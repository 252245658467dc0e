//! How many members a room has, and after whom a client may name it.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use parlour_event::{EventNum, content::Membership, state::StateRoot};
use ruma::{OwnedUserId, UInt, UserId, api::client::sync::sync_events::v3::RoomSummary};
use serde::Deserialize;

use super::{Round, rooms::Relation, state::Changed};
use crate::view::{Fields, View, ViewError, reader::membership_of};

/// How many users a room is named after.
const HEROES: usize = 5;

/// How many rooms' heroes are remembered.
const CACHED: NonZeroUsize = NonZeroUsize::new(2_048).expect("it is not 0");

/// How many bytes of a state root tell the members apart.
const MEMBERS: usize = 20;

/// How many member events are read at once.
const BATCH: usize = 32;

/// The first members of a room, one more than needed, since nobody is a hero to oneself.
#[derive(Debug, Default)]
struct First {
    /// Joined or invited.
    here: Vec<OwnedUserId>,
    /// Left or banned.
    gone: Vec<OwnedUserId>,
}

/// The first members by the state's members. Equal members are the same state, so nothing here
/// ever becomes wrong.
#[derive(Debug)]
pub(super) struct Heroes(Mutex<LruCache<[u8; MEMBERS], Arc<First>>>);

impl Default for Heroes {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CACHED)))
    }
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    alias: Option<String>,
}

impl Round<'_> {
    /// Whether a change of the state may change the summary.
    pub(super) fn changes_summary(&self, changed: &Changed) -> Result<bool, ViewError> {
        if changed.keys().any(|key| key.is_member()) {
            return Ok(true);
        }
        for event_type in ["m.room.name", "m.room.canonical_alias"] {
            let key = self.view().store.state_key_num(event_type, "")?;
            if key.is_some_and(|key| changed.contains_key(&key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fills the summary in; returns the heroes.
    pub(super) fn summary(
        &self,
        relation: &Relation,
        summary: &mut RoomSummary,
    ) -> Result<Vec<String>, ViewError> {
        let at = &relation.at;
        summary.joined_member_count = UInt::new(at.joined);
        summary.invited_member_count = UInt::new(at.invited);
        if self.view().has_name(at.state_after)? {
            return Ok(Vec::new());
        }
        let first = self.syncs.heroes.of(self.view(), at.state_after, at.joined + at.invited)?;
        summary.heroes = first.without(&self.ask.user);
        Ok(summary.heroes.iter().map(ToString::to_string).collect())
    }
}

impl View {
    /// Whether clients have a name for the room without asking who is in it.
    pub(crate) fn has_name(&self, root: StateRoot) -> Result<bool, ViewError> {
        for event_type in ["m.room.name", "m.room.canonical_alias"] {
            let Some(event) = self.state_event(root, event_type, "")? else { continue };
            let content = Fields::of(&event)?.content_as::<Named>();
            let name = content.ok().and_then(|named| match event_type {
                "m.room.name" => named.name,
                _ => named.alias,
            });
            if name.is_some_and(|name| !name.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The member events of those after whom a room without a name is named: of the first who are
    /// joined or invited, one more than needed.
    pub(crate) fn hero_nums(&self, root: StateRoot) -> Result<Vec<EventNum>, ViewError> {
        let mut heroes = Vec::new();
        // Numbers grow in the order of arrival.
        let mut nums = self.member_nums(root)?;
        nums.sort_unstable();
        for batch in nums.chunks(BATCH) {
            for event in self.store.events(batch)?.into_iter().flatten() {
                let membership = membership_of(&event)?;
                let is_here = matches!(membership, Some(Membership::Join | Membership::Invite));
                heroes.extend(is_here.then_some(event.num));
            }
            if heroes.len() > HEROES {
                break;
            }
        }
        heroes.truncate(HEROES + 1);
        Ok(heroes)
    }
}

impl First {
    fn without(&self, user: &UserId) -> Vec<OwnedUserId> {
        let others = |all: &[OwnedUserId]| -> Vec<_> {
            all.iter().filter(|other| *other != user).take(HEROES).cloned().collect()
        };
        let here = others(&self.here);
        if here.is_empty() { others(&self.gone) } else { here }
    }

    /// Whether more members can change nothing, if so many are joined or invited.
    fn is_enough(&self, members: u64) -> bool {
        let all_here = self.here.len() as u64 >= members;
        self.here.len() > HEROES || (all_here && (self.here.len() > 1 || self.gone.len() > HEROES))
    }
}

impl Heroes {
    fn of(&self, view: &View, root: StateRoot, members: u64) -> Result<Arc<First>, ViewError> {
        // Names and sizes of the two halves follow each other, members first.
        let key = root.to_bytes().first_chunk().copied().unwrap_or_default();
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = cached {
            return Ok(known);
        }
        let mut first = First::default();
        // Numbers grow in the order of arrival.
        let mut nums = view.member_nums(root)?;
        nums.sort_unstable();
        for batch in nums.chunks(BATCH) {
            for event in view.store.events(batch)?.into_iter().flatten() {
                let list = match membership_of(&event)? {
                    Some(Membership::Join | Membership::Invite) => &mut first.here,
                    Some(Membership::Leave | Membership::Ban) => &mut first.gone,
                    Some(Membership::Knock) | None => continue,
                };
                let user = Fields::of(&event)?.state_key;
                let user = user.and_then(|user| OwnedUserId::try_from(&*user).ok());
                list.extend(user.filter(|_| list.len() <= HEROES));
            }
            if first.is_enough(members) {
                break;
            }
        }
        let first = Arc::new(first);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, first.clone());
        Ok(first)
    }
}
