//! Who is found by everybody: users in rooms that anybody may enter or read.
//!
//! Which rooms are open stands in the record that opens or closes them. Who is in them, and under
//! which words they are found, follows behind: what has changed is written down as *news*, and
//! whoever wants it exactly looks at the news as well.

use std::{
    collections::BTreeSet,
    iter,
    ops::Bound::{Excluded, Included},
};

use bytes::Bytes;
use parlour_event::{RoomNum, StateKeyNum, StreamPos};
use serde::{Deserialize, Serialize};

use super::{
    codec::Stored,
    keys::{self, KeyBuilder, KeyReader, OPEN_PEOPLE, PEOPLE_NEWS},
    rooms::MembershipEntry,
};
use crate::{Direction, Op, StorageError, Store};

/// How many keys are read at once.
const BATCH: usize = 256;

/// How many of a user's rooms are looked at first.
const FIRST_LOOK: usize = 16;

/// That people have come into open rooms or left them, or that rooms have become open or closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeopleNews {
    /// Whoever is in these rooms may be concerned.
    pub rooms: Vec<RoomNum>,
    /// Further users who may be concerned.
    pub users: Vec<String>,
}

impl Stored for PeopleNews {}

/// The words under which a user is found by everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Words(BTreeSet<String>);

impl Stored for Words {}

/// [`PEOPLE_NEWS`]
#[must_use]
pub fn news(pos: StreamPos) -> Bytes {
    KeyBuilder::new(PEOPLE_NEWS).number(pos.0).build()
}

/// [`OPEN_PEOPLE`]: that anybody may enter or read a room.
#[must_use]
pub fn open_room(room: RoomNum) -> Bytes {
    KeyBuilder::new(OPEN_PEOPLE).kind(b'o').number(room.0).build()
}

/// [`OPEN_PEOPLE`]: the words of a user.
fn open_user(user: &str) -> Bytes {
    KeyBuilder::new(OPEN_PEOPLE).kind(b'u').text(user).build()
}

/// [`OPEN_PEOPLE`]: a word of a user.
fn open_word(word: &str, user: &str) -> Bytes {
    KeyBuilder::new(OPEN_PEOPLE).kind(b'w').text(word).text(user).build()
}

/// Of whom an index of words is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordIndex {
    /// Users of this server, and whoever of other servers has been in a room here.
    Everybody,
    /// Users in rooms that anybody may enter or read.
    Open,
}

impl WordIndex {
    /// The common start of the keys of all its words, which have letters and digits alone: nothing
    /// in them is escaped.
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Everybody => &[keys::USER_WORD],
            Self::Open => &[OPEN_PEOPLE, b'w'],
        }
    }
}

/// The operations after which a user is found by everybody under these words.
#[must_use]
pub fn open_ops(user: &str, before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<Op> {
    if before == now {
        return Vec::new();
    }
    let gone = before.difference(now).map(|word| Op::Delete { key: open_word(word, user) });
    let new = now.difference(before);
    let new = new.map(|word| Op::Put { key: open_word(word, user), value: Bytes::new() });
    let key = open_user(user);
    let whole = match now.is_empty() {
        true => Op::Delete { key },
        false => Op::Put { key, value: Words(now.clone()).encode() },
    };
    gone.chain(new).chain([whole]).collect()
}

impl Store {
    /// The first of these rooms that anybody may enter or read.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn open_room_among(&self, rooms: &[RoomNum]) -> Result<Option<RoomNum>, StorageError> {
        for rooms in rooms.chunks(BATCH) {
            let keys: Vec<_> = rooms.iter().map(|room| open_room(*room)).collect();
            let found = self.multi_get(&keys)?;
            let open = rooms.iter().zip(found).find(|(_, entry)| entry.is_some());
            if let Some((room, _)) = open {
                return Ok(Some(*room));
            }
        }
        Ok(None)
    }

    /// An open room that a user of this server is joined to. Reads no more of the user's rooms than
    /// it takes to find one: most who are in many rooms are in open ones.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn open_room_of(&self, user: &str) -> Result<Option<RoomNum>, StorageError> {
        let start = keys::memberships_of(user).len();
        let last = keys::membership(user, RoomNum(u64::MAX));
        let mut next = RoomNum(0);
        for limit in iter::once(FIRST_LOOK).chain(iter::repeat(BATCH)) {
            let first = keys::membership(user, next);
            let range = (Included(&first[..]), Included(&last[..]));
            let page = self.scan(range, Direction::Forward, limit)?;
            let mut joined = Vec::with_capacity(page.len());
            for (key, entry) in &page {
                let room = KeyReader::of_part(key.get(start..).unwrap_or_default()).number();
                let room = RoomNum(room.unwrap_or_default());
                next = RoomNum(room.0.saturating_add(1));
                if MembershipEntry::decode(key, &entry.value)?.membership == "join" {
                    joined.push(room);
                }
            }
            let open = self.open_room_among(&joined)?;
            if open.is_some() || page.len() < limit {
                return Ok(open);
            }
        }
        Ok(None)
    }

    /// The words under which a user is found by everybody, as far as the news have been followed.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn open_words_of(&self, user: &str) -> Result<BTreeSet<String>, StorageError> {
        Ok(self.typed::<Words>(&open_user(user))?.unwrap_or_default().0)
    }

    /// The oldest news of people that have not been followed.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn people_news(&self, limit: usize) -> Result<Vec<PeopleNews>, StorageError> {
        let found = self.scan_prefix(&[PEOPLE_NEWS], Direction::Forward, limit)?;
        found.iter().map(|(key, entry)| PeopleNews::decode(key, &entry.value)).collect()
    }

    /// The rooms that a user of this server is joined to.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn joined_rooms(&self, user: &str) -> Result<Vec<RoomNum>, StorageError> {
        let memberships = self.memberships(user)?.into_iter();
        let joined = memberships.filter(|(_, entry)| entry.membership == "join");
        Ok(joined.map(|(room, _)| room).collect())
    }

    /// Whose membership these places in a state are for.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn members_named(&self, places: &[StateKeyNum]) -> Result<Vec<String>, StorageError> {
        let mut names = Vec::with_capacity(places.len());
        for places in places.chunks(BATCH) {
            let keys: Vec<_> = places.iter().map(|place| keys::state_key_name(*place)).collect();
            let user = |name: &[u8]| {
                let mut reader = KeyReader::of_part(name);
                reader.text().and_then(|_type| reader.text())
            };
            let found = self.multi_get(&keys)?;
            names.extend(found.iter().flatten().filter_map(|entry| user(&entry.value)));
        }
        Ok(names)
    }

    /// A page of the users one of whose words begins like this; shorter words come first. `after`
    /// is where the page before ended, and becomes where this one does.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn users_by_word(
        &self,
        index: WordIndex,
        start: &str,
        after: &mut Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let prefix = index.prefix();
        let first = [prefix, start.as_bytes()].concat();
        // No byte of a text is 255.
        let end = [&first[..], &[u8::MAX]].concat();
        let low = after.as_deref().unwrap_or(&first);
        let entries = self.scan((Excluded(low), Excluded(&end[..])), Direction::Forward, limit)?;
        let user = |key: &[u8]| {
            let mut reader = KeyReader::of_part(key.get(prefix.len()..)?);
            reader.text().and_then(|_word| reader.text())
        };
        let users = entries.iter().filter_map(|(key, _)| user(key)).collect();
        *after = entries.into_iter().next_back().map(|(key, _)| key);
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use parlour_event::EventNum;

    use super::*;
    use crate::{Record, Writer};

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn write(writer: &mut Writer, ops: Vec<Op>) {
        let record = Record { pos: writer.next_pos(), ops, announcement: Bytes::new() };
        writer.commit(&[record]).expect("commit");
    }

    #[test]
    fn users_are_found_under_their_present_words() {
        let (store, mut writer) = Store::in_memory();
        let found = |start: &str| {
            let (mut after, mut users) = (None, Vec::new());
            loop {
                let page =
                    store.users_by_word(WordIndex::Open, start, &mut after, 1).expect("read");
                if page.is_empty() {
                    return users;
                }
                users.extend(page);
            }
        };
        write(&mut writer, open_ops("@a:a.org", &set(&[]), &set(&["al", "alice"])));
        write(&mut writer, open_ops("@b:a.org", &set(&[]), &set(&["alan"])));
        assert_eq!(found("al"), ["@a:a.org", "@b:a.org", "@a:a.org"]);
        assert_eq!(found("ali"), ["@a:a.org"]);
        let before = store.open_words_of("@a:a.org").expect("read");
        assert_eq!(before, set(&["al", "alice"]));
        write(&mut writer, open_ops("@a:a.org", &before, &set(&["al", "zoe"])));
        assert_eq!((found("ali"), found("z")), (vec![], vec!["@a:a.org".to_owned()]));
        assert_eq!(store.open_words_of("@a:a.org").expect("read"), set(&["al", "zoe"]));
        write(&mut writer, open_ops("@a:a.org", &set(&["al", "zoe"]), &set(&[])));
        assert_eq!(found("al"), ["@b:a.org"]);
        assert!(store.get(&open_user("@a:a.org")).expect("read").is_none());
        assert!(open_ops("@b:a.org", &set(&["alan"]), &set(&["alan"])).is_empty());
    }

    #[test]
    fn an_open_room_of_a_user_is_found_however_many_there_are() {
        let (store, mut writer) = Store::in_memory();
        let is = |user: &str, room: u64, membership: &str| {
            let (membership, event, pos) = (membership.to_owned(), EventNum(1), StreamPos(1));
            let entry = MembershipEntry { membership, event, pos };
            Op::Put { key: keys::membership(user, RoomNum(room)), value: entry.encode() }
        };
        for (rooms, open) in [(0, None), (15, None), (16, None), (17, Some(17)), (600, Some(600))] {
            let user = format!("@user{rooms}:a.org");
            write(&mut writer, (1..=rooms).map(|room| is(&user, room, "join")).collect());
            // Neighbours in the index have an open room each; left rooms do not count.
            write(
                &mut writer,
                vec![is(&format!("{user}0"), 9_000, "join"), is(&user, 9_001, "leave")],
            );
            assert_eq!(store.open_room_of(&user).expect("read"), None, "{rooms}");
            let opens = [9_000, 9_001].into_iter().chain(open);
            let ops =
                opens.map(|room| Op::Put { key: open_room(RoomNum(room)), value: Bytes::new() });
            write(&mut writer, ops.collect());
            assert_eq!(store.open_room_of(&user).expect("read"), open.map(RoomNum), "{rooms}");
            write(
                &mut writer,
                open.map(|room| Op::Delete { key: open_room(RoomNum(room)) }).into_iter().collect(),
            );
        }
    }

    #[test]
    fn the_first_open_room_is_found() {
        let (store, mut writer) = Store::in_memory();
        let open = Op::Put { key: open_room(RoomNum(700)), value: Bytes::new() };
        write(&mut writer, vec![open]);
        let rooms: Vec<_> = (1..1_000).map(RoomNum).collect();
        assert_eq!(store.open_room_among(&rooms).expect("read"), Some(RoomNum(700)));
        assert_eq!(store.open_room_among(&rooms[..699]).expect("read"), None);
    }
}
