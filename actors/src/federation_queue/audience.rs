//! Which servers get what happens in a room. In a room of thousands of servers most are dead, and
//! the list is long: so it is remembered for the rooms that are busy, and whoever is away is set
//! aside until any server comes back. An event costs what those are that are there.

use std::collections::BTreeSet;

use lru::LruCache;
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{StorageError, Store, schema::ServerStay};
use ruma::{OwnedServerName, ServerName};

/// How many servers are remembered that have come into a room. The rest hears later of who is online.
const MAX_ARRIVED: usize = 1_000;

/// How many servers are remembered for all rooms together; a room with more is remembered alone.
const MAX_REMEMBERED: usize = 200_000;

/// The lists of the rooms that were busy last.
#[derive(Debug)]
pub(super) struct Audiences {
    by_room: LruCache<RoomNum, Audience>,
    /// How many servers are in the lists.
    remembered: usize,
    most: usize,
    /// Servers that have come into a room, some of the newest.
    arrived: BTreeSet<OwnedServerName>,
    /// Who came before this, came before the process began to look.
    start: Option<StreamPos>,
}

/// The servers that get a room's events.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// When the room's stays last changed, as of when they were read.
    version: StreamPos,
    stays: Vec<(OwnedServerName, ServerStay)>,
    /// The first so many of `stays` are of servers that were there when it was last looked.
    present: usize,
    /// How often a server had come back by then.
    returns: u64,
}

impl Default for Audiences {
    fn default() -> Self {
        Self::with_room_for(MAX_REMEMBERED)
    }
}

impl Audiences {
    fn with_room_for(most: usize) -> Self {
        let (by_room, arrived) = (LruCache::unbounded(), BTreeSet::new());
        Self { by_room, remembered: 0, most, arrived, start: None }
    }

    /// The servers that get a room's events, as they are at the moment. `returns` says how often a
    /// server has come back by now, `may_send` whether one is to be spoken to at all.
    pub(super) fn of(
        &mut self,
        store: &Store,
        room: RoomNum,
        returns: u64,
        may_send: impl Fn(&ServerName) -> bool,
    ) -> Result<&mut Audience, StorageError> {
        // It is read before the stays are: these may be newer than it says, and not older.
        let version = store.stays_changed(room)?;
        let start = *self.start.get_or_insert_with(|| store.applied());
        let known = self.by_room.get(&room).map(|known| known.version);
        if known != Some(version) {
            let audience = Audience::read(store, room, version, may_send)?;
            let seen = known.unwrap_or(start);
            let new = audience.stays.iter().filter(|(_, stay)| stay.since > seen);
            let room_for = MAX_ARRIVED.saturating_sub(self.arrived.len());
            self.arrived.extend(new.take(room_for).map(|(server, _)| server.clone()));
            self.remember(room, audience);
        }
        let audience = self.by_room.get_or_insert_mut(room, Audience::default);
        if audience.returns != returns {
            audience.returns = returns;
            audience.present = audience.stays.len();
        }
        Ok(audience)
    }

    /// Servers that have come into a room, at most so many, each once.
    pub(super) fn take_arrived(&mut self, most: usize) -> Vec<OwnedServerName> {
        std::iter::from_fn(|| self.arrived.pop_first()).take(most).collect()
    }

    fn remember(&mut self, room: RoomNum, audience: Audience) {
        // A room that nobody else is in takes its place, too.
        let weight = |audience: &Audience| audience.stays.len() + 1;
        self.remembered += weight(&audience);
        let before = self.by_room.put(room, audience);
        self.remembered -= before.as_ref().map_or(0, weight);
        while self.remembered > self.most && self.by_room.len() > 1 {
            let oldest = self.by_room.pop_lru();
            self.remembered -= oldest.as_ref().map_or(0, |(_, audience)| weight(audience));
        }
    }
}

impl Audience {
    fn read(
        store: &Store,
        room: RoomNum,
        version: StreamPos,
        may_send: impl Fn(&ServerName) -> bool,
    ) -> Result<Self, StorageError> {
        let stays = store.stays_in(room, usize::MAX)?.into_iter();
        let named = stays
            .filter_map(|(name, stay)| Some((OwnedServerName::try_from(name).ok()?, stay)))
            .filter(|(name, _)| may_send(name));
        let stays: Vec<_> = named.collect();
        Ok(Self { version, present: stays.len(), stays, returns: 0 })
    }

    /// Whether there is nobody but this server in the room.
    pub(super) fn is_empty(&self) -> bool {
        self.stays.iter().all(|(_, stay)| stay.until.is_some())
    }

    /// All servers that are in the room, whether they have been set aside or not.
    pub(super) fn servers(&self) -> impl Iterator<Item = &OwnedServerName> {
        let there = self.stays.iter().filter(|(_, stay)| stay.until.is_none());
        there.map(|(server, _)| server)
    }

    /// Goes through the stays of all servers that have not been set aside. `reach` says whether a
    /// server is there; if not, it is set aside, and is not gone by again until a server has come
    /// back. A server with more than one stay may be gone by more than once.
    pub(super) fn reach<E>(
        &mut self,
        mut reach: impl FnMut(&ServerName, &ServerStay) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while let Some((server, stay)) = self.stays[..self.present].get(at) {
            match reach(server, stay)? {
                true => at += 1,
                false => {
                    self.present -= 1;
                    self.stays.swap(at, self.present);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parlour_storage::{Op, Record, schema::outbox};
    use proptest::prelude::*;

    use super::*;

    const ROOMS: u64 = 3;
    const SERVERS: u64 = 6;

    /// What happens around the lists.
    #[derive(Debug, Clone)]
    enum Event {
        Comes { room: u64, server: u64 },
        Goes { room: u64, server: u64 },
        Fails { server: u64 },
        Returns { server: u64 },
        Said { room: u64 },
    }

    fn event() -> impl Strategy<Value = Event> {
        let (room, server) = (0..ROOMS, 0..SERVERS);
        prop_oneof![
            (room.clone(), server.clone()).prop_map(|(room, server)| Event::Comes { room, server }),
            (room.clone(), server.clone()).prop_map(|(room, server)| Event::Goes { room, server }),
            server.clone().prop_map(|server| Event::Fails { server }),
            server.prop_map(|server| Event::Returns { server }),
            room.clone().prop_map(|room| Event::Said { room }),
            room.prop_map(|room| Event::Said { room }),
        ]
    }

    fn name(server: u64) -> OwnedServerName {
        ServerName::parse(format!("s{server}.org")).unwrap()
    }

    /// Storage as rooms leave it, and who is away.
    struct World {
        store: Store,
        writer: parlour_storage::Writer,
        away: BTreeSet<OwnedServerName>,
        returns: u64,
    }

    impl World {
        fn change(&mut self, room: u64, server: u64, comes: bool) {
            let room = RoomNum(room);
            let pos = self.writer.next_pos();
            let stay = outbox::stay(room, name(server).as_str(), None);
            let value = pos.0.to_be_bytes().to_vec().into();
            let put = |key| Op::Put { key, value };
            let stay = if comes { put(stay) } else { Op::Delete { key: stay } };
            let value = pos.0.to_be_bytes().to_vec().into();
            let changed = Op::Put { key: outbox::stays_changed(room), value };
            let ops = vec![stay, changed];
            self.writer.commit(&[Record { pos, ops, announcement: Default::default() }]).unwrap();
        }

        /// Who is in a room and not away, by storage alone.
        fn expected(&self, room: u64) -> BTreeSet<OwnedServerName> {
            let stays = self.store.stays_in(RoomNum(room), usize::MAX).unwrap();
            let names = stays.into_iter().map(|(name, _)| ServerName::parse(name).unwrap());
            names.filter(|name| !self.away.contains(name)).collect()
        }
    }

    proptest! {
        #[test]
        fn whoever_is_there_is_reached_and_nobody_else(
            events in prop::collection::vec(event(), 1..80),
            most in 1_usize..20,
        ) {
            let (store, writer) = Store::in_memory();
            let mut world = World { store, writer, away: BTreeSet::new(), returns: 0 };
            let mut audiences = Audiences::with_room_for(most);
            for event in events {
                match event {
                    Event::Comes { room, server } => world.change(room, server, true),
                    Event::Goes { room, server } => world.change(room, server, false),
                    Event::Fails { server } => drop(world.away.insert(name(server))),
                    Event::Returns { server } => {
                        world.returns += u64::from(world.away.remove(&name(server)));
                    }
                    Event::Said { room } => {
                        let expected = world.expected(room);
                        let mut reached = BTreeMap::<OwnedServerName, usize>::new();
                        let num = RoomNum(room);
                        let all =
                            audiences.of(&world.store, num, world.returns, |_| true).unwrap();
                        all.reach(|server, _| {
                            *reached.entry(server.to_owned()).or_default() += 1;
                            Ok::<_, ()>(!world.away.contains(server))
                        }).unwrap();
                        prop_assert!(reached.values().all(|times| *times == 1));
                        reached.retain(|server, _| !world.away.contains(server));
                        prop_assert_eq!(reached.into_keys().collect::<BTreeSet<_>>(), expected);
                        let held: usize =
                            audiences.by_room.iter().map(|(_, all)| all.stays.len() + 1).sum();
                        prop_assert_eq!(audiences.remembered, held);
                        prop_assert!(held <= most || audiences.by_room.len() == 1);
                    }
                }
            }
        }
    }

    #[test]
    fn who_is_away_costs_nothing_until_somebody_comes_back() {
        let (store, writer) = Store::in_memory();
        let mut world = World { store, writer, away: BTreeSet::new(), returns: 0 };
        (0..SERVERS).for_each(|server| world.change(1, server, true));
        let mut audiences = Audiences::default();
        let mut asked = |returns| {
            let mut asked = 0;
            let may_send = |server: &ServerName| *server != name(0);
            let all = audiences.of(&world.store, RoomNum(1), returns, may_send).unwrap();
            all.reach(|server, _| {
                asked += 1;
                Ok::<_, ()>(*server == name(1))
            })
            .unwrap();
            asked
        };
        assert_eq!([asked(0), asked(0), asked(0)], [5, 1, 1]);
        assert_eq!([asked(1), asked(1)], [5, 1]);
    }
}
