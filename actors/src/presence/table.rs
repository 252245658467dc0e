//! Who is there, and since when each room knows it. Time comes from outside, so does everything
//! that has to be read.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parlour_event::RoomNum;
use parlour_storage::schema::PresenceEntry;

use super::{PresenceOptions, State, Status};
use crate::latest::Latest;

/// Of how many users it is remembered what they are. Those who went offline first are forgotten
/// first; those beyond who are not offline count as offline.
const MAX_PEOPLE: usize = 100_000;

/// How many rooms these may have together. Of further ones nobody is told.
const MAX_PAIRS: usize = 1_000_000;

/// Of how many rooms it is remembered when somebody's presence changed there.
const MAX_CHANGES: usize = 100_000;

/// How long what another server says of its user counts: servers repeat it before half an hour is
/// over.
const TOLD: Duration = Duration::from_secs(30 * 60);

/// For how long after an activity a user counts as currently active.
const ACTIVE: Duration = Duration::from_secs(60);

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For deadlines.
    pub(super) monotonic: Duration,
    /// Milliseconds since the epoch.
    pub(super) wall: u64,
}

/// What storage says of a user.
#[derive(Debug, Clone, Default)]
pub(super) struct Background {
    pub(super) rooms: Vec<RoomNum>,
    pub(super) hidden: bool,
    pub(super) status_msg: Option<String>,
    pub(super) last_active_ts: u64,
}

/// Whether a user has come or gone, which is kept beyond a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Came,
    Went,
}

#[derive(Debug, Default)]
struct Person {
    devices: BTreeMap<String, Device>,
    /// `Unavailable` or `Offline`, if the user has said so.
    chosen: Option<State>,
    hidden: bool,
    status_msg: Option<String>,
    last_active_ts: u64,
    /// What another server has said of its user.
    told: Option<Told>,
    /// The user's rooms, each with the counter's value at what was last told there.
    rooms: BTreeMap<RoomNum, u64>,
    shown: State,
    currently_active: bool,
    /// The counter's value when the user went offline.
    went: u64,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    state: State,
    currently_active: bool,
    /// How long that counts.
    until: Duration,
}

#[derive(Debug)]
struct Device {
    state: State,
    /// How many syncs are under way.
    syncs: u32,
    /// When the last of them ended.
    seen: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    options: PresenceOptions,
    counter: u64,
    people: HashMap<Arc<str>, Person>,
    /// Those who are not shown as offline.
    awake: HashSet<Arc<str>>,
    /// The others, those who went first first.
    offline: BTreeSet<(u64, Arc<str>)>,
    /// How many rooms all people have together.
    pairs: usize,
    /// What was last told in each room, in order.
    rooms: HashMap<RoomNum, BTreeSet<(u64, Arc<str>)>>,
    changed: Latest<RoomNum>,
    /// Rooms in which something has changed since they were last taken.
    untold: HashSet<RoomNum>,
}

impl Device {
    fn is_there(&self, now: Now, grace: Duration) -> bool {
        self.syncs > 0 || now.monotonic < self.seen.saturating_add(grace)
    }
}

impl Person {
    fn is_idle(&self, now: Now, after: Duration) -> bool {
        u128::from(now.wall.saturating_sub(self.last_active_ts)) >= after.as_millis()
    }

    /// What the user is now, and whether currently active.
    fn look(&self, now: Now, options: &PresenceOptions) -> (State, bool) {
        if let Some(Told { state, currently_active, until }) = self.told {
            return Some((state, currently_active))
                .filter(|_| now.monotonic < until)
                .unwrap_or_default();
        }
        let there = self.devices.values().filter(|device| device.is_there(now, options.grace));
        let best = there.map(|device| device.state).max().unwrap_or_default();
        let state = match (best, self.chosen) {
            _ if self.hidden => State::Offline,
            (State::Offline, _) | (_, Some(State::Offline)) => State::Offline,
            (_, Some(State::Unavailable)) => State::Unavailable,
            (State::Online, _) if self.is_idle(now, options.idle) => State::Unavailable,
            (best, _) => best,
        };
        (state, state == State::Online && !self.is_idle(now, ACTIVE.min(options.idle)))
    }
}

impl Table {
    /// Nobody is there; the counter goes on after `counter`.
    pub(super) fn new(options: PresenceOptions, counter: u64) -> Self {
        Self {
            options,
            counter,
            people: HashMap::new(),
            awake: HashSet::new(),
            offline: BTreeSet::new(),
            pairs: 0,
            rooms: HashMap::new(),
            changed: Latest::new(counter, MAX_CHANGES),
            untold: HashSet::new(),
        }
    }

    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    pub(super) fn knows(&self, user: &str) -> bool {
        self.people.contains_key(user)
    }

    pub(super) fn is_awake(&self, user: &str) -> bool {
        self.awake.contains(user)
    }

    /// Takes a user in, or brings one who is known up to date: rooms and whether hidden. Does
    /// nothing if there are too many already.
    pub(super) fn meet(&mut self, user: &str, background: Background) {
        self.make_room(background.rooms.len());
        let Some(user) = self.known_or_new(user, &background) else { return };
        let Some(person) = self.people.get_mut(&user) else { return };
        person.hidden = background.hidden;
        let rooms: HashSet<_> = background.rooms.into_iter().collect();
        let (told, pairs) = (&mut self.rooms, &mut self.pairs);
        person.rooms.retain(|room, at| {
            let stays = rooms.contains(room);
            if !stays {
                *pairs -= 1;
                forget(told, *room, *at, &user);
            }
            stays
        });
        let new = rooms.into_iter().filter(|room| !person.rooms.contains_key(room));
        let new: Vec<_> = new.take(MAX_PAIRS.saturating_sub(self.pairs)).collect();
        self.pairs += new.len();
        person.rooms.extend(new.iter().map(|room| (*room, 0)));
        // Somebody who is offline is no news in a new room.
        if person.shown != State::Offline && !new.is_empty() {
            self.counter += 1;
            self.tell(&user, &new);
        }
    }

    fn known_or_new(&mut self, user: &str, background: &Background) -> Option<Arc<str>> {
        if let Some((user, _)) = self.people.get_key_value(user) {
            return Some(user.clone());
        }
        if self.people.len() >= MAX_PEOPLE {
            return None;
        }
        let user: Arc<str> = user.into();
        let person = Person {
            status_msg: background.status_msg.clone(),
            last_active_ts: background.last_active_ts,
            went: self.counter,
            ..Person::default()
        };
        self.people.insert(user.clone(), person);
        self.offline.insert((self.counter, user.clone()));
        Some(user)
    }

    /// The user was there when the process before this one ended.
    pub(super) fn was_there(&mut self, user: &str, now: Now) {
        if let Some(person) = self.people.get_mut(user) {
            let device = Device { state: State::Online, syncs: 0, seen: now.monotonic };
            person.devices.insert(String::new(), device);
        }
    }

    /// A device has begun to sync as `state`.
    pub(super) fn sync_began(&mut self, user: &str, device: &str, state: State, now: Now) {
        let Some(person) = self.people.get_mut(user) else { return };
        let known = person.devices.entry(device.to_owned());
        let entry = known.or_insert(Device { state, syncs: 0, seen: now.monotonic });
        entry.state = state;
        entry.syncs += 1;
        person.chosen = person.chosen.filter(|chosen| *chosen != State::Offline);
        if person.shown == State::Offline && state == State::Online {
            person.last_active_ts = now.wall;
        }
    }

    /// A device has begun to sync as what it is anyway, as clients do that come back for more: then
    /// it is counted, and nobody need be told anything. Else this says `false`, and does nothing.
    pub(super) fn sync_goes_on(&mut self, user: &str, device: &str, state: State) -> bool {
        let Some(person) = self.people.get_mut(user) else { return false };
        if person.shown == State::Offline || person.chosen == Some(State::Offline) {
            return false;
        }
        let Some(device) = person.devices.get_mut(device) else { return false };
        let goes_on = device.state == state;
        device.syncs += u32::from(goes_on);
        goes_on
    }

    /// A sync of a device has ended.
    pub(super) fn sync_ended(&mut self, user: &str, device: &str, now: Now) {
        let person = self.people.get_mut(user);
        if let Some(device) = person.and_then(|person| person.devices.get_mut(device)) {
            device.syncs = device.syncs.saturating_sub(1);
            device.seen = now.monotonic;
        }
    }

    /// The user has done something.
    pub(super) fn acted(&mut self, user: &str, now: Now) {
        if let Some(person) = self.people.get_mut(user)
            && person.shown != State::Offline
        {
            person.chosen = None;
            person.last_active_ts = now.wall;
        }
    }

    /// The user has said what it is.
    pub(super) fn set(
        &mut self,
        user: &str,
        device: &str,
        state: State,
        status_msg: Option<String>,
        now: Now,
    ) {
        let Some(person) = self.people.get_mut(user) else { return };
        person.status_msg = status_msg;
        person.last_active_ts = now.wall;
        person.chosen = Some(state).filter(|state| *state != State::Online);
        if state != State::Offline {
            let known = person.devices.entry(device.to_owned());
            let entry = known.or_insert(Device { state, syncs: 0, seen: now.monotonic });
            entry.seen = now.monotonic;
            entry.state = entry.state.max(state);
        }
    }

    /// Nothing is known of the user but that it is not there.
    pub(super) fn clear(&mut self, user: &str) {
        if let Some(person) = self.people.get_mut(user) {
            person.devices.clear();
            (person.chosen, person.status_msg, person.last_active_ts) = (None, None, 0);
        }
    }

    /// Another server has said what its user is. Says whether that has to be told in any case.
    pub(super) fn told(&mut self, user: &str, status: Status, now: Now) -> bool {
        let Some(person) = self.people.get_mut(user) else { return false };
        let Status { state, currently_active, status_msg, last_active_ts } = status;
        let until = now.monotonic.saturating_add(TOLD);
        person.told = Some(Told { state, currently_active, until });
        person.last_active_ts = last_active_ts.min(now.wall);
        std::mem::replace(&mut person.status_msg, status_msg) != person.status_msg
    }

    /// Sees what a user is now, and tells it to the user's rooms if it is another thing than
    /// before, or if it `must` be told.
    pub(super) fn settle(&mut self, user: &str, now: Now, must: bool) -> Option<Turn> {
        let (user, _) = self.people.get_key_value(user)?;
        let user = user.clone();
        let person = self.people.get_mut(&user)?;
        let grace = self.options.grace;
        person.devices.retain(|_, device| device.is_there(now, grace));
        let (state, active) = person.look(now, &self.options);
        let was = std::mem::replace(&mut person.shown, state);
        let was_active = std::mem::replace(&mut person.currently_active, active);
        let must = must && !person.hidden;
        if !must && (was, was_active) == (state, active) {
            return None;
        }
        let rooms: Vec<_> = person.rooms.keys().copied().collect();
        self.counter += 1;
        let went = std::mem::replace(&mut person.went, self.counter);
        self.tell(&user, &rooms);
        match (was, state) {
            (State::Offline, State::Offline) => {
                self.offline.remove(&(went, user.clone()));
                self.offline.insert((self.counter, user));
                None
            }
            (State::Offline, _) => {
                self.offline.remove(&(went, user.clone()));
                self.awake.insert(user);
                Some(Turn::Came)
            }
            (_, State::Offline) => {
                self.awake.remove(&user);
                self.offline.insert((self.counter, user));
                Some(Turn::Went)
            }
            _ => None,
        }
    }

    fn tell(&mut self, user: &Arc<str>, rooms: &[RoomNum]) {
        let Some(person) = self.people.get_mut(user) else { return };
        for room in rooms {
            let Some(told) = person.rooms.get_mut(room) else { continue };
            let before = std::mem::replace(told, self.counter);
            forget(&mut self.rooms, *room, before, user);
            self.rooms.entry(*room).or_default().insert((self.counter, user.clone()));
            self.changed.set(*room, self.counter);
            self.untold.insert(*room);
        }
    }

    /// Those who are not offline.
    pub(super) fn awake(&self) -> Vec<Arc<str>> {
        self.awake.iter().cloned().collect()
    }

    /// The rooms in which something has changed since this was last asked.
    pub(super) fn take_untold(&mut self) -> Vec<RoomNum> {
        self.untold.drain().collect()
    }

    /// What others see of a user; `None` if the user is not remembered.
    pub(super) fn status(&self, user: &str) -> Option<Status> {
        let person = self.people.get(user)?;
        if person.hidden {
            return Some(Status::default());
        }
        Some(Status {
            state: person.shown,
            currently_active: person.currently_active,
            status_msg: person.status_msg.clone(),
            last_active_ts: person.last_active_ts,
        })
    }

    /// What of a user is to be kept, hidden or not; `None` if the user is not remembered, or if
    /// another server says what it is.
    pub(super) fn kept(&self, user: &str) -> Option<PresenceEntry> {
        let person = self.people.get(user).filter(|person| person.told.is_none())?;
        let (status_msg, last_active_ts) = (person.status_msg.clone(), person.last_active_ts);
        Some(PresenceEntry { status_msg, last_active_ts })
    }

    /// Whether more would not be news: the user is known to be active.
    pub(super) fn is_fresh(&self, user: &str, wall: u64, within: Duration) -> bool {
        self.people.get(user).is_none_or(|person| {
            let ago = u128::from(wall.saturating_sub(person.last_active_ts));
            person.shown == State::Offline || person.currently_active && ago < within.as_millis()
        })
    }

    /// The rooms in which something has changed after `since`; `None` if that is not known.
    pub(super) fn rooms_since(&self, since: u64) -> Option<Vec<RoomNum>> {
        self.changed.since(self.sane(since))
    }

    /// Who has changed in a room after `since`, the newest first, at most so many.
    pub(super) fn changed_in(&self, room: RoomNum, since: u64, most: usize) -> Vec<Arc<str>> {
        let since = self.sane(since);
        let Some(told) = self.rooms.get(&room) else { return Vec::new() };
        let newest_first = told.iter().rev().take_while(|(counter, _)| *counter > since);
        newest_first.take(most).map(|(_, user)| user.clone()).collect()
    }

    /// A counter from before a restart is lower than all of this process; a higher one (the clock
    /// was set back) counts as 0.
    fn sane(&self, since: u64) -> u64 {
        if since > self.counter { 0 } else { since }
    }

    /// Makes room for one more user with so many rooms, as far as there are others who can be
    /// forgotten.
    fn make_room(&mut self, rooms: usize) {
        while self.people.len() >= MAX_PEOPLE || self.pairs.saturating_add(rooms) > MAX_PAIRS {
            let Some((_, user)) = self.offline.pop_first() else { return };
            let Some(person) = self.people.remove(&user) else { continue };
            self.pairs -= person.rooms.len();
            for (room, told) in person.rooms {
                forget(&mut self.rooms, room, told, &user);
            }
        }
    }
}

fn forget(
    rooms: &mut HashMap<RoomNum, BTreeSet<(u64, Arc<str>)>>,
    room: RoomNum,
    told: u64,
    user: &Arc<str>,
) {
    if let Some(users) = rooms.get_mut(&room) {
        users.remove(&(told, user.clone()));
        if users.is_empty() {
            rooms.remove(&room);
        }
    }
}
