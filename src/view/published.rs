//! The list of published rooms, in the order in which it is shown: most members first.
//!
//! It stands in memory, with what each room's entry says. A request brings up to date what has
//! changed since the last one, so its cost follows that and not the number of rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use parlour_actors::{changes::Changes, directory::Directory};
use parlour_event::{RoomNum, StreamPos, state::StateRoot};
use ruma::{
    OwnedRoomId,
    directory::{Filter, PublicRoomsChunk, RoomTypeFilter},
};

use super::{TokenError, View, ViewError};

/// If more rooms than this have changed, those that are published are looked at instead.
const MANY: usize = 1_000;

/// A room's place in the list.
type Rank = (Reverse<u64>, OwnedRoomId);

/// The list. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PublishedRooms {
    view: View,
    directory: Directory,
    changes: Arc<Changes>,
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    /// Up to here it is true; `None` before the first look.
    until: Option<StreamPos>,
    ranks: HashMap<RoomNum, Rank>,
    entries: BTreeMap<Rank, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// What the entry was made from.
    state: StateRoot,
    chunk: PublicRoomsChunk,
    /// What is searched, in lower case.
    text: String,
    /// Whether users of other servers may come in.
    federates: bool,
}

/// Who reads the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Users of this server.
    Users,
    /// Other servers: they get the rooms that their users may come into.
    Servers,
}

/// Which part of the list is wanted.
#[derive(Debug)]
pub struct Excerpt {
    /// Where it begins; at the beginning, if nothing is said.
    pub from: Option<ListToken>,
    /// How many rooms at most.
    pub limit: usize,
    /// Who reads it.
    pub audience: Audience,
}

/// A place in the list from which it goes on in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListToken {
    /// The rooms after this one.
    After(Rank),
    /// The rooms before this one.
    Before(Rank),
}

/// A part of the list.
#[derive(Debug)]
pub struct ListPage {
    /// The rooms.
    pub rooms: Vec<PublicRoomsChunk>,
    /// Where those before begin, if there are any.
    pub before: Option<ListToken>,
    /// Where those after begin, if there are any.
    pub after: Option<ListToken>,
    /// How many rooms there are altogether.
    pub total: usize,
}

impl PublishedRooms {
    /// An empty list, which is filled when somebody asks for it.
    #[must_use]
    pub fn new(view: View, directory: Directory, changes: Arc<Changes>) -> Self {
        Self { view, directory, changes, list: Arc::default() }
    }

    /// Fills the list before somebody has to wait for it: ten thousand rooms take seconds.
    pub fn prepare(&self) {
        let this = self.clone();
        drop(actix_web::rt::spawn(async move {
            let view = this.view.clone();
            let nothing = Excerpt { from: None, limit: 0, audience: Audience::Users };
            let filled = view.run(move |_| this.page(&Filter::new(), &nothing)).await;
            if let Err(error) = filled {
                tracing::warn!(%error, "the list of published rooms could not be prepared");
            }
        }));
    }

    /// A part of those rooms that a filter lets through.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn page(&self, filter: &Filter, excerpt: &Excerpt) -> Result<ListPage, ViewError> {
        let Excerpt { from, limit, audience } = excerpt;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.bring_up_to_date(&mut list)?;
        let wanted = Wanted::of(filter, *audience);
        let rooms: Vec<_> = list.entries.iter().filter(|(_, entry)| wanted.has(entry)).collect();
        let (first, end) = match from {
            None => (0, *limit),
            Some(ListToken::After(rank)) => {
                let first = rooms.partition_point(|(other, _)| *other <= rank);
                (first, first.saturating_add(*limit))
            }
            Some(ListToken::Before(rank)) => {
                let end = rooms.partition_point(|(other, _)| *other < rank);
                (end.saturating_sub(*limit), end)
            }
        };
        let end = end.min(rooms.len());
        let page = rooms.get(first..end).unwrap_or_default();
        let before = page.first().filter(|_| first > 0);
        let after = page.last().filter(|_| end < rooms.len());
        Ok(ListPage {
            before: before.map(|(rank, _)| ListToken::Before((*rank).clone())),
            after: after.map(|(rank, _)| ListToken::After((*rank).clone())),
            rooms: page.iter().map(|(_, entry)| entry.chunk.clone()).collect(),
            total: rooms.len(),
        })
    }

    fn bring_up_to_date(&self, list: &mut List) -> Result<(), ViewError> {
        let now = self.changes.current();
        let changed = list.until.and_then(|until| self.changes.rooms_since(until));
        let rooms: HashSet<_> = match changed.filter(|changed| changed.len() <= MANY) {
            Some(changed) => changed.into_iter().collect(),
            None => {
                self.directory.published()?.into_iter().chain(list.ranks.keys().copied()).collect()
            }
        };
        for room in rooms {
            self.look_at(list, room)?;
        }
        list.until = Some(now);
        Ok(())
    }

    /// Takes a room in, or out, as it is now. Rooms that everybody has left are not shown.
    fn look_at(&self, list: &mut List, num: RoomNum) -> Result<(), ViewError> {
        let room = match self.directory.is_published(num)? {
            true => self.view.room_by_num(num)?.filter(|room| room.head.joined > 0),
            false => None,
        };
        let known = list.ranks.get(&num).and_then(|rank| list.entries.get(rank));
        if let (Some(known), Some(room)) = (known, &room)
            && known.state == room.head.state
        {
            return Ok(());
        }
        if let Some(rank) = list.ranks.remove(&num) {
            list.entries.remove(&rank);
        }
        if let Some(room) = room {
            let chunk = PublicRoomsChunk::from(self.view.preview(&room)?);
            let entry = Entry::new(room.head.state, chunk, self.view.federates(&room)?);
            let rank = (Reverse(room.head.joined), room.room_id);
            list.ranks.insert(num, rank.clone());
            list.entries.insert(rank, entry);
        }
        Ok(())
    }
}

impl Entry {
    fn new(state: StateRoot, chunk: PublicRoomsChunk, federates: bool) -> Self {
        let alias = chunk.canonical_alias.as_ref().map(|alias| alias.as_str());
        let texts = [chunk.name.as_deref(), chunk.topic.as_deref(), alias];
        let texts: Vec<_> = texts.into_iter().flatten().map(str::to_lowercase).collect();
        Self { state, text: texts.join("\n"), chunk, federates }
    }
}

/// A filter, made ready.
struct Wanted<'a> {
    text: Option<String>,
    types: &'a [RoomTypeFilter],
    audience: Audience,
}

impl<'a> Wanted<'a> {
    fn of(filter: &'a Filter, audience: Audience) -> Self {
        let text = filter.generic_search_term.as_deref().map(|term| term.trim().to_lowercase());
        Self { text, types: &filter.room_types, audience }
    }

    fn has(&self, entry: &Entry) -> bool {
        let room_type = || RoomTypeFilter::from(entry.chunk.room_type.clone());
        (entry.federates || self.audience == Audience::Users)
            && self.text.as_ref().is_none_or(|text| entry.text.contains(text))
            && (self.types.is_empty() || self.types.contains(&room_type()))
    }
}

impl fmt::Display for ListToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, (Reverse(joined), room)) = match self {
            Self::After(rank) => ("a", rank),
            Self::Before(rank) => ("b", rank),
        };
        write!(f, "p1_{direction}_{joined}_{room}")
    }
}

impl FromStr for ListToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.splitn(4, '_');
        let mut next = || parts.next().ok_or(TokenError::Unknown);
        let (kind, direction, joined, room) = (next()?, next()?, next()?, next()?);
        let joined = joined.parse().map_err(|_| TokenError::Unknown)?;
        let room = OwnedRoomId::try_from(room).map_err(|_| TokenError::Unknown)?;
        let rank = (Reverse(joined), room);
        match (kind, direction) {
            ("p1", "a") => Ok(Self::After(rank)),
            ("p1", "b") => Ok(Self::Before(rank)),
            _ => Err(TokenError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_room_id;

    use super::*;

    #[test]
    fn tokens_are_read_back() {
        let rank = (Reverse(7), owned_room_id!("!a_b:example.org"));
        for token in [ListToken::After(rank.clone()), ListToken::Before(rank)] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for text in
            ["", "p1", "p1_a_7", "p1_a_x_!a:b", "p1_a_-1_!a:b", "p2_a_7_!a:b", "p1_c_7_!a:b"]
        {
            assert_eq!(text.parse::<ListToken>(), Err(TokenError::Unknown), "{text}");
        }
    }
}
