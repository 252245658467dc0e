//! Which rooms an answer looks at, and what the user is to each of them.

use std::collections::HashSet;

use parlour_event::{EventNum, RoomNum, StreamPos, content::Membership, state::ReadState as _};
use parlour_storage::schema::{MembershipEntry, StoredEvent, TimelineEntry};

use ruma::{OwnedRoomId, RoomId};

use super::Round;
use crate::view::{RoomView, View, ViewError, reader::membership_of};

/// For so few changed rooms it is cheaper to ask for each whether the user is in it than to read
/// the list of the user's rooms.
const FEW: usize = 32;

/// How far back a user's memberships of one room are followed.
const MAX_STEPS: usize = 100;

/// What the user is to a room now, and was at the last sync.
pub(super) struct Relation {
    pub(super) room: RoomView,
    /// The room now.
    pub(super) at: TimelineEntry,
    /// The user's member event now.
    pub(super) member: StoredEvent,
    pub(super) membership: Membership,
    /// `None` if there was no last sync or no room.
    pub(super) then: Option<Then>,
}

/// A room at the last sync.
pub(super) struct Then {
    pub(super) at: TimelineEntry,
    /// The user's member event.
    pub(super) member: Option<(EventNum, Membership)>,
}

/// One membership of a user in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) num: EventNum,
    pub(crate) pos: StreamPos,
    pub(crate) membership: Membership,
}

impl Relation {
    /// Whether the user's member event is another one than at the last sync.
    pub(super) fn is_news(&self) -> bool {
        self.then_member().map(|(num, _)| num) != Some(self.member.num)
    }

    /// The user's membership at the last sync.
    pub(super) fn was(&self) -> Option<Membership> {
        self.then_member().map(|(_, membership)| membership)
    }

    pub(super) fn then_member(&self) -> Option<(EventNum, Membership)> {
        self.then.as_ref().and_then(|then| then.member)
    }
}

impl Round<'_> {
    /// The rooms in which something may be new for the user. Their number follows what has
    /// changed, or the number of the user's rooms, whichever is less.
    pub(super) fn candidates(&self) -> Result<Vec<(RoomNum, MembershipEntry)>, ViewError> {
        let (store, user) = (&self.view().store, self.user());
        let Some(since) = self.ask.since.filter(|_| !self.wants_all()) else {
            let all = store.memberships(user)?;
            let include_leave = self.ask.filter.room.include_leave;
            let is_wanted = |entry: &MembershipEntry| {
                let is_over = matches!(&*entry.membership, "leave" | "ban");
                // What is over now may not have been over at the position of this answer.
                !is_over
                    || include_leave
                    || self.since().is_some_and(|since| entry.pos > since)
                    || entry.pos > self.now.pos
            };
            return Ok(all.into_iter().filter(|(_, entry)| is_wanted(entry)).collect());
        };
        // Of rooms that the user was done with at the last sync, nothing is told.
        let is_wanted =
            |entry: &MembershipEntry| entry.membership == "join" || entry.pos > since.pos;
        let typing = self.syncs.typing.rooms_since(since.typing);
        let Some(changed) = self.syncs.changes.rooms_since(since.pos) else {
            let all = store.memberships(user)?;
            return Ok(all.into_iter().filter(|(_, entry)| is_wanted(entry)).collect());
        };
        let changed: HashSet<_> =
            changed.into_iter().chain(typing).chain(self.account.rooms()).collect();
        self.view().rooms_of(user, &changed, is_wanted)
    }

    /// What the user is to a room; `None` if the filter does not want the room or the user is
    /// nothing to it.
    pub(super) fn relation(&self, num: RoomNum) -> Result<Option<Relation>, ViewError> {
        let view = self.view();
        let Some((_, at)) = view.room_at(num, self.now.pos)? else { return Ok(None) };
        let Some(room) = view.room_by_num(num)? else { return Ok(None) };
        if !self.wants_room(&room.room_id) {
            return Ok(None);
        }
        let Some(member) = view.state_event(at.state_after, "m.room.member", self.user())? else {
            return Ok(None);
        };
        let Some(membership) = membership_of(&member)? else { return Ok(None) };
        let then = match self.since() {
            None => None,
            Some(since) => self.then(num, since, &member, membership)?,
        };
        Ok(Some(Relation { room, at, member, membership, then }))
    }

    /// Whether the filter wants a room at all.
    pub(super) fn wants_room(&self, room: &RoomId) -> bool {
        let filter = &self.ask.filter.room;
        let listed = |rooms: &[OwnedRoomId]| rooms.iter().any(|listed| listed == room);
        !listed(&filter.not_rooms) && filter.rooms.as_deref().is_none_or(listed)
    }

    fn then(
        &self,
        num: RoomNum,
        since: StreamPos,
        member: &StoredEvent,
        membership: Membership,
    ) -> Result<Option<Then>, ViewError> {
        let view = self.view();
        let Some((_, at)) = view.room_at(num, since)? else { return Ok(None) };
        let member = match view.member_num(at.state_after, self.user())? {
            Some(num) if num == member.num => Some((num, membership)),
            Some(num) => {
                let event = view.store.event(num)?;
                let membership = event.as_ref().map(membership_of).transpose()?.flatten();
                membership.map(|membership| (num, membership))
            }
            None => None,
        };
        Ok(Some(Then { at, member }))
    }
}

impl View {
    /// Those of some rooms that a user is joined to.
    pub(super) fn joined_of(
        &self,
        user: &str,
        rooms: HashSet<RoomNum>,
    ) -> Result<Vec<RoomNum>, ViewError> {
        let joined = self.rooms_of(user, &rooms, |entry| entry.membership == "join")?;
        Ok(joined.into_iter().map(|(num, _)| num).collect())
    }

    /// Those of some rooms to which a user has such a relation.
    pub(in crate::view) fn rooms_of(
        &self,
        user: &str,
        rooms: &HashSet<RoomNum>,
        is_wanted: impl Fn(&MembershipEntry) -> bool,
    ) -> Result<Vec<(RoomNum, MembershipEntry)>, ViewError> {
        if rooms.len() > FEW {
            let all = self.store.memberships(user)?.into_iter();
            let wanted = all.filter(|(num, entry)| rooms.contains(num) && is_wanted(entry));
            return Ok(wanted.collect());
        }
        let mut found = Vec::new();
        for num in rooms {
            let entry = self.store.membership(user, *num)?.filter(&is_wanted);
            found.extend(entry.map(|entry| (*num, entry)));
        }
        Ok(found)
    }

    /// A user's memberships of a room from a member event back into the past, newest first, that
    /// event included; ends behind the first for which `is_enough`.
    pub(crate) fn steps(
        &self,
        member: &StoredEvent,
        is_enough: impl Fn(&Step) -> bool,
    ) -> Result<Vec<Step>, ViewError> {
        let mut steps = Vec::new();
        let mut event = Some(member.clone());
        while let Some(member) = event.take() {
            let (num, pos) = (member.num, member.meta.pos);
            let membership = membership_of(&member)?.unwrap_or(Membership::Leave);
            let step = Step { num, pos, membership };
            steps.push(step);
            if is_enough(&step) || steps.len() >= MAX_STEPS {
                break;
            }
            let Some(key) = member.meta.state_key else { break };
            if let Some(num) = self.nodes.get(member.meta.state_before, key)? {
                event = self.store.event(num)?;
            }
        }
        Ok(steps)
    }
}
