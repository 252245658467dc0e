//! Whose keys a user's clients have to ask for anew, and whose they need not follow any more.
//!
//! Whether a room is encrypted does not matter: it may become so at any time, and clients pass over
//! whom they don't follow. Joins and leaves are found by comparing states, changes of keys in the
//! feeds of the rooms, so that the cost follows what has changed.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound::{Excluded, Included},
};

use parlour_actors::changes::Changes;
use parlour_event::{
    EventNum, RoomNum, StreamPos,
    content::Membership,
    state::{ReadState as _, StateRoot},
};
use parlour_storage::{
    Direction, StorageError,
    schema::{KeysChanged, MembershipEntry, StoredEvent, keys},
};
use ruma::UserId;

use super::{Fields, View, ViewError, reader::membership_of};

/// For how many new people it is looked whether they were known before; more are told without.
const MAX_CHECKED: usize = 2_000;

/// How many events are read at once.
const BATCH: usize = 512;

/// What has changed about the people around a user.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Their keys have changed, or the first room shared with them has begun.
    pub changed: BTreeSet<String>,
    /// The last room shared with them has ended.
    pub left: BTreeSet<String>,
}

impl View {
    /// What has changed for a user within `(since, until]`.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device_lists(
        &self,
        changes: &Changes,
        user: &UserId,
        since: StreamPos,
        until: StreamPos,
    ) -> Result<DeviceLists, ViewError> {
        let lists = DeviceLists::default();
        let mut round =
            Round { view: self, user, since, until, rooms: None, lists, came: BTreeSet::new() };
        let mut went = BTreeSet::new();
        for room in round.candidates(changes.rooms_since(since))? {
            round.compare(room, &mut went)?;
        }
        for room in round.candidates(changes.rooms_with_keys_since(since))? {
            round.follow(room)?;
        }
        round.own_feed()?;
        round.settle(went)?;
        Ok(round.lists)
    }
}

/// One answer in the making.
struct Round<'a> {
    view: &'a View,
    user: &'a UserId,
    since: StreamPos,
    until: StreamPos,
    /// The rooms that the user has to do with; read when they are needed.
    rooms: Option<HashMap<RoomNum, MembershipEntry>>,
    lists: DeviceLists,
    /// Who is in a room with the user now, and was not in that room with the user before.
    came: BTreeSet<String>,
}

impl Round<'_> {
    /// Those of the changed rooms that the user is in, or was in before; all without a list.
    fn candidates(&self, changed: Option<Vec<RoomNum>>) -> Result<Vec<RoomNum>, ViewError> {
        let user = self.user.as_str();
        let is_wanted =
            |entry: &MembershipEntry| entry.membership == "join" || entry.pos > self.since;
        if let Some(changed) = changed {
            let changed = changed.into_iter().collect();
            let wanted = self.view.rooms_of(user, &changed, is_wanted)?;
            return Ok(wanted.into_iter().map(|(room, _)| room).collect());
        }
        let all = self.view.store.memberships(user)?.into_iter();
        Ok(all.filter(|(_, entry)| is_wanted(entry)).map(|(room, _)| room).collect())
    }

    /// Compares a room's members at both ends.
    fn compare(&mut self, room: RoomNum, went: &mut BTreeSet<String>) -> Result<(), ViewError> {
        let state = |pos| {
            let at = self.view.room_at(room, pos)?;
            Ok::<_, ViewError>(at.map_or(StateRoot::EMPTY, |(_, entry)| entry.state_after))
        };
        let (before, now) = (state(self.since)?, state(self.until)?);
        if before == now {
            return Ok(());
        }
        let was_in = self.is_in(before, self.user.as_str())?;
        let is_in = self.is_in(now, self.user.as_str())?;
        match (was_in, is_in) {
            (false, false) => {}
            (false, true) => {
                let members = self.members_of(now)?;
                self.came.extend(members);
            }
            (true, false) => went.extend(self.members_of(before)?),
            (true, true) => self.compare_members(before, now, went)?,
        }
        Ok(())
    }

    fn compare_members(
        &mut self,
        before: StateRoot,
        now: StateRoot,
        went: &mut BTreeSet<String>,
    ) -> Result<(), ViewError> {
        let differences = self.view.nodes.diff(before, now)?;
        let members = differences.into_iter().filter(|(key, ..)| key.is_member());
        let (old, new): (Vec<_>, Vec<_>) = members.map(|(_, old, new)| (old, new)).unzip();
        let was = self.joined(old.into_iter().flatten().collect())?;
        let is = self.joined(new.into_iter().flatten().collect())?;
        for user in was.intersection(&is) {
            // Its keys may have changed while it was away.
            if self.have_changed(user)? {
                self.lists.changed.insert(user.clone());
            }
        }
        went.extend(was.difference(&is).cloned());
        self.came.extend(is.difference(&was).cloned());
        Ok(())
    }

    /// Whose keys have changed while they were in a room that the user is in.
    fn follow(&mut self, room: RoomNum) -> Result<(), ViewError> {
        let state = self.view.room_at(room, self.until)?;
        let state = state.map_or(StateRoot::EMPTY, |(_, entry)| entry.state_after);
        if !self.is_in(state, self.user.as_str())? {
            return Ok(());
        }
        let (low, high) =
            (keys::key_feed(room, self.since), keys::key_feed(room, StreamPos(u64::MAX)));
        let range = (Excluded(&low[..]), Included(&high[..]));
        for (key, entry) in self.view.store.scan(range, Direction::Forward, usize::MAX)? {
            let pos = StreamPos(keys::last_number(&key).unwrap_or_default());
            let Some((before, other)) = keys::read_key_feed(&entry.value) else { continue };
            if self.is_within(pos, before)
                && !self.lists.changed.contains(&other)
                && self.is_in(state, &other)?
            {
                self.lists.changed.insert(other);
            }
        }
        Ok(())
    }

    /// The user's own keys, and others that the user has signed.
    fn own_feed(&mut self) -> Result<(), StorageError> {
        let user = self.user.as_str();
        let after = StreamPos(self.since.0.saturating_add(1));
        let (low, high) =
            (keys::own_key_feed_at(user, after), keys::own_key_feed_at(user, StreamPos(u64::MAX)));
        let range = (Included(&low[..]), Excluded(&high[..]));
        for (key, entry) in self.view.store.scan(range, Direction::Forward, usize::MAX)? {
            let pos = keys::own_key_feed_pos(user, &key).unwrap_or_default();
            if let Some((before, other)) = keys::read_key_feed(&entry.value)
                && self.is_within(pos, before)
            {
                self.lists.changed.insert(other);
            }
        }
        Ok(())
    }

    /// Whether keys have changed within this time that have changed at a position, and before that
    /// at another. Of the times before that one nothing is known.
    fn is_within(&self, pos: StreamPos, before: StreamPos) -> bool {
        pos > self.since && (pos <= self.until || before > self.since)
    }

    /// Of those who came or went, tells of those with whom it was the first room or the last.
    fn settle(&mut self, went: BTreeSet<String>) -> Result<(), ViewError> {
        let came = std::mem::take(&mut self.came);
        let are_few = came.len() <= MAX_CHECKED;
        for other in came {
            if other == self.user.as_str() || self.lists.changed.contains(&other) {
                continue;
            }
            let is_known = are_few && self.shared_room(&other, self.since)?;
            if !is_known || self.have_changed(&other)? {
                self.lists.changed.insert(other);
            }
        }
        for other in went {
            if other != self.user.as_str() && !self.shared_room(&other, self.until)? {
                self.lists.changed.remove(&other);
                self.lists.left.insert(other);
            }
        }
        Ok(())
    }

    /// Whether the user was in a room with another at a position.
    fn shared_room(&mut self, other: &str, pos: StreamPos) -> Result<bool, ViewError> {
        let mine = match self.rooms.take() {
            Some(rooms) => rooms,
            None => self.view.store.memberships(self.user.as_str())?.into_iter().collect(),
        };
        let mine = &*self.rooms.insert(mine);
        let view = self.view;
        let is_mine = |room| match mine.get(&room) {
            Some(entry) => view.was_joined(self.user.as_str(), room, entry, pos),
            None => Ok(false),
        };
        if other.split_once(':').map(|(_, server)| server) == Some(self.user.server_name().as_str())
        {
            for (room, entry) in view.store.memberships(other)? {
                if view.was_joined(other, room, &entry, pos)? && is_mine(room)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        for room in mine.keys() {
            if is_mine(*room)?
                && let Some((_, at)) = view.room_at(*room, pos)?
                && view.is_joined_in(at.state_after, other)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn have_changed(&self, user: &str) -> Result<bool, StorageError> {
        let changed = self.view.store.typed::<KeysChanged>(&keys::keys_changed(user))?;
        Ok(changed.is_some_and(|changed| self.is_within(changed.pos, changed.before)))
    }

    fn is_in(&self, state: StateRoot, user: &str) -> Result<bool, ViewError> {
        self.view.is_joined_in(state, user)
    }

    fn members_of(&self, state: StateRoot) -> Result<BTreeSet<String>, ViewError> {
        self.joined(self.view.member_nums(state)?)
    }

    /// Who is joined by one of these member events.
    fn joined(&self, events: Vec<EventNum>) -> Result<BTreeSet<String>, ViewError> {
        let mut users = BTreeSet::new();
        for batch in events.chunks(BATCH) {
            for event in self.view.store.events(batch)?.into_iter().flatten() {
                if membership_of(&event)? == Some(Membership::Join) {
                    users.extend(member(&event)?);
                }
            }
        }
        Ok(users)
    }
}

impl View {
    fn is_joined_in(&self, state: StateRoot, user: &str) -> Result<bool, ViewError> {
        let Some(num) = self.member_num(state, user)? else { return Ok(false) };
        let event = self.store.event(num)?;
        let membership = event.as_ref().map(membership_of).transpose()?.flatten();
        Ok(membership == Some(Membership::Join))
    }

    /// Whether a local user was joined to a room at a position; `entry` says what the user is now.
    fn was_joined(
        &self,
        user: &str,
        room: RoomNum,
        entry: &MembershipEntry,
        pos: StreamPos,
    ) -> Result<bool, ViewError> {
        if entry.pos <= pos {
            return Ok(entry.membership == "join");
        }
        match self.room_at(room, pos)? {
            Some((_, at)) => self.is_joined_in(at.state_after, user),
            None => Ok(false),
        }
    }
}

/// Whose member event it is.
fn member(event: &StoredEvent) -> Result<Option<String>, ViewError> {
    Ok(Fields::of(event)?.state_key.map(|user| user.to_string()))
}
