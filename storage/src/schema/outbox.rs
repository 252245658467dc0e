//! What goes to other servers, in the index: events that wait to be sent, which server is to get
//! the events of which room, and how far each has got.

use std::ops::Bound;

use bytes::Bytes;
use parlour_event::{EventNum, RoomNum, StreamPos};
use serde::{Deserialize, Serialize};

use super::{
    codec::{Stored, decode_number},
    keys::{KeyBuilder, KeyReader, OUTBOX, ROOM_OF_SERVER, SERVER_STAY, last_numbers},
};
use crate::{Direction, StorageError, Store};

/// An event that goes to the other servers in its room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The room.
    pub room: RoomNum,
    /// The event.
    pub event: EventNum,
    /// The server that has it already, since it brought it.
    pub except: Option<String>,
    /// Servers whose last member is out of the room by this very event. They get it, too.
    pub left: Vec<String>,
}

impl Stored for OutboxEntry {}

/// Since when and until when another server has had joined members in a room. A server that comes
/// back has more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerStay {
    /// The event with which it came in; not known any more of a stay that is over.
    pub since: StreamPos,
    /// The event, made here, with which it was put out. Such a stay is kept until the server has
    /// got that event.
    pub until: Option<StreamPos>,
}

impl ServerStay {
    /// Whether an event at this position goes to the server.
    #[must_use]
    pub fn covers(&self, pos: StreamPos) -> bool {
        self.since <= pos && self.until.is_none_or(|until| pos <= until)
    }
}

/// A room whose events a server gets, and until when if it has been put out: the end of a
/// [`ROOM_OF_SERVER`] key.
pub type RoomStay = (RoomNum, Option<StreamPos>);

/// How far another server has got, and whether it can be reached. Times are milliseconds since the
/// epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationEntry {
    /// The server has got everything for it up to here.
    pub acknowledged: StreamPos,
    /// It knows of all changes of keys up to here.
    pub keys: StreamPos,
    /// What it has not heard of them since is looked up.
    pub is_behind: bool,
    /// Events that it has missed are looked up.
    pub misses_events: bool,
    /// It has ever shown that it is there.
    pub was_reached: bool,
    /// How many attempts in a row have failed.
    pub failures: u32,
    /// When the first of them was made.
    pub failing_since: u64,
    /// When the last of them was made.
    pub last_attempt: u64,
    /// When the next one is due.
    pub retry_at: u64,
}

impl Stored for DestinationEntry {}

/// [`OUTBOX`], an event.
#[must_use]
pub fn waiting(pos: StreamPos) -> Bytes {
    KeyBuilder::new(OUTBOX).kind(b'e').number(pos.0).build()
}

/// [`OUTBOX`], a destination.
#[must_use]
pub fn destination(server: &str) -> Bytes {
    KeyBuilder::new(OUTBOX).kind(b'd').text(server).build()
}

/// The common start of the [`SERVER_STAY`] keys of a room's servers.
#[must_use]
pub fn stays_in(room: RoomNum) -> Bytes {
    KeyBuilder::new(SERVER_STAY).number(room.0).kind(b's').build()
}

/// The common start of the [`SERVER_STAY`] keys of a server in a room.
#[must_use]
pub fn stays_of(room: RoomNum, server: &str) -> Bytes {
    KeyBuilder::new(SERVER_STAY).number(room.0).kind(b's').text(server).build()
}

/// [`SERVER_STAY`], a server's stay in a room that ends there, or has not ended. The value is the
/// position at which it began.
#[must_use]
pub fn stay(room: RoomNum, server: &str, until: Option<StreamPos>) -> Bytes {
    let key = KeyBuilder::new(SERVER_STAY).number(room.0).kind(b's').text(server);
    key.number(end(until)).build()
}

/// How the end of a stay stands in keys.
fn end(until: Option<StreamPos>) -> u64 {
    until.map_or(u64::MAX, |until| until.0)
}

fn read_end(number: u64) -> Option<StreamPos> {
    (number != u64::MAX).then_some(StreamPos(number))
}

/// The server in a [`SERVER_STAY`] key of a stay, and its end; `None` if the key is of something
/// else.
#[must_use]
pub fn read_stay(key: &[u8]) -> Option<(String, Option<StreamPos>)> {
    // The keyspace, the room, the kind.
    let (start, _) = key.split_at_checked(10)?;
    let is_stay = start.first() == Some(&SERVER_STAY) && start.last() == Some(&b's');
    let mut reader = is_stay.then(|| KeyReader::new(&key[9..]))?;
    Some((reader.text()?, read_end(reader.number()?)))
}

/// [`SERVER_STAY`], the position of a room's newest event that goes to other servers.
#[must_use]
pub fn newest_outgoing(room: RoomNum) -> Bytes {
    KeyBuilder::new(SERVER_STAY).number(room.0).kind(b'n').build()
}

/// [`SERVER_STAY`], the position at which the stays in a room last changed, but for those that are
/// forgotten after their end.
#[must_use]
pub fn stays_changed(room: RoomNum) -> Bytes {
    KeyBuilder::new(SERVER_STAY).number(room.0).kind(b'v').build()
}

/// [`ROOM_OF_SERVER`]
#[must_use]
pub fn room_of(server: &str, (room, until): RoomStay) -> Bytes {
    KeyBuilder::new(ROOM_OF_SERVER).text(server).number(room.0).number(end(until)).build()
}

impl Store {
    /// The events after a position that go to other servers, in order.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn outbox(
        &self,
        after: StreamPos,
        limit: usize,
    ) -> Result<Vec<(StreamPos, OutboxEntry)>, StorageError> {
        let (low, high) = (waiting(after), waiting(StreamPos(u64::MAX)));
        let range = (Bound::Excluded(&low[..]), Bound::Included(&high[..]));
        let found = self.scan(range, Direction::Forward, limit)?.into_iter();
        let read = |(key, entry): (Bytes, crate::Entry)| {
            let pos = key.last_chunk::<8>().map_or(0, |pos| u64::from_be_bytes(*pos));
            Ok((StreamPos(pos), OutboxEntry::decode(&key, &entry.value)?))
        };
        found.map(read).collect()
    }

    /// The other servers that get a room's events, or some that waited when they were put out: at
    /// most `most`, in alphabetical order.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn stays_in(
        &self,
        room: RoomNum,
        most: usize,
    ) -> Result<Vec<(String, ServerStay)>, StorageError> {
        self.stays(&stays_in(room), most)
    }

    /// A server's stays in a room.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn stays_of(&self, room: RoomNum, server: &str) -> Result<Vec<ServerStay>, StorageError> {
        let stays = self.stays(&stays_of(room, server), usize::MAX)?;
        Ok(stays.into_iter().map(|(_, stay)| stay).collect())
    }

    fn stays(&self, prefix: &[u8], most: usize) -> Result<Vec<(String, ServerStay)>, StorageError> {
        let found = self.scan_prefix(prefix, Direction::Forward, most)?.into_iter();
        let read = |(key, entry): (Bytes, crate::Entry)| {
            let (server, until) = read_stay(&key).unwrap_or_default();
            let since = StreamPos(decode_number(&key, &entry.value)?);
            Ok((server, ServerStay { since, until }))
        };
        found.map(read).collect()
    }

    /// The position of a room's newest event that goes to other servers.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn newest_outgoing(&self, room: RoomNum) -> Result<StreamPos, StorageError> {
        self.position(&newest_outgoing(room))
    }

    /// The position at which the stays in a room last changed, but for those that are forgotten
    /// after their end.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn stays_changed(&self, room: RoomNum) -> Result<StreamPos, StorageError> {
        self.position(&stays_changed(room))
    }

    fn position(&self, key: &[u8]) -> Result<StreamPos, StorageError> {
        let entry = self.get(key)?;
        entry.map_or(Ok(StreamPos(0)), |entry| decode_number(key, &entry.value).map(StreamPos))
    }

    /// The rooms whose events a server gets, after one of them: at most `limit`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn rooms_of_server(
        &self,
        server: &str,
        after: RoomStay,
        limit: usize,
    ) -> Result<Vec<RoomStay>, StorageError> {
        let (low, high) = (room_of(server, after), room_of(server, (RoomNum(u64::MAX), None)));
        let range = (Bound::Excluded(&low[..]), Bound::Included(&high[..]));
        let found = self.scan(range, Direction::Forward, limit)?;
        let read = |key: &[u8]| last_numbers(key).unwrap_or_default();
        let numbers = found.iter().map(|(key, _)| read(key));
        Ok(numbers.map(|(room, until)| (RoomNum(room), read_end(until))).collect())
    }

    /// The names of servers that get a room's events, after one of them: at most `limit`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn servers_with_rooms(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let mut servers = Vec::<String>::new();
        let high = KeyBuilder::new(ROOM_OF_SERVER + 1).build();
        while servers.len() < limit {
            let last = servers.last().map_or(after, String::as_str);
            let low = room_of(last, (RoomNum(u64::MAX), None));
            let range = (Bound::Excluded(&low[..]), Bound::Excluded(&high[..]));
            let found = self.scan(range, Direction::Forward, 1)?;
            let name = found.first().and_then(|(key, _)| KeyReader::new(key).text());
            match name {
                Some(name) => servers.push(name),
                None => break,
            }
        }
        Ok(servers)
    }

    /// What is known of the servers to which something was sent, by name after one of them: at
    /// most `limit`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn destinations(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, DestinationEntry)>, StorageError> {
        let (low, high) = (destination(after), KeyBuilder::new(OUTBOX).kind(b'e').build());
        let range = (Bound::Excluded(&low[..]), Bound::Excluded(&high[..]));
        let found = self.scan(range, Direction::Forward, limit)?.into_iter();
        let read = |(key, entry): (Bytes, crate::Entry)| {
            let server = KeyReader::new(key.get(1..).unwrap_or_default()).text();
            Ok((server.unwrap_or_default(), DestinationEntry::decode(&key, &entry.value)?))
        };
        found.map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Record};

    fn store(puts: Vec<(Bytes, Bytes)>) -> Store {
        let (store, mut writer) = Store::in_memory();
        let ops = puts.into_iter().map(|(key, value)| Op::Put { key, value }).collect();
        let record = Record { pos: writer.next_pos(), ops, announcement: Bytes::new() };
        writer.commit(&[record]).expect("commit");
        store
    }

    #[test]
    fn what_waits_is_read_in_order() {
        let entry = |event| OutboxEntry {
            room: RoomNum(1),
            event: EventNum(event),
            except: None,
            left: Vec::new(),
        };
        let puts = [300, 2, 70].map(|pos| (waiting(StreamPos(pos)), entry(pos).encode()));
        let store = store(puts.into());
        let read = |after, limit| -> Vec<u64> {
            let found = store.outbox(StreamPos(after), limit).expect("read");
            found
                .iter()
                .map(|(pos, entry)| {
                    assert_eq!(pos.0, entry.event.0);
                    pos.0
                })
                .collect()
        };
        assert_eq!(read(0, 10), [2, 70, 300]);
        assert_eq!(read(2, 1), [70]);
        assert!(read(300, 10).is_empty());
    }

    #[test]
    fn servers_rooms_and_destinations_are_kept_apart() {
        let number = |number: u64| Bytes::from(number.to_be_bytes().to_vec());
        let entry = DestinationEntry { acknowledged: StreamPos(7), ..DestinationEntry::default() };
        let (one, other, left) = (RoomNum(1), RoomNum(2), Some(StreamPos(6)));
        let store = store(vec![
            (stay(one, "a.org", None), number(8)),
            (stay(one, "a.org", left), number(0)),
            (stay(one, "b.org:8448", None), number(4)),
            (stay(other, "a.org", None), number(5)),
            (newest_outgoing(one), number(9)),
            (room_of("a.org", (one, None)), Bytes::new()),
            (room_of("a.org", (one, left)), Bytes::new()),
            (room_of("a.org", (other, None)), Bytes::new()),
            (room_of("a.organic", (other, None)), Bytes::new()),
            (destination("a.org"), entry.encode()),
            (destination("b.org:8448"), entry.encode()),
            (waiting(StreamPos(1)), Bytes::new()),
        ]);
        let stays = |since, until| ServerStay { since: StreamPos(since), until };
        let expected = [("a.org", stays(0, left)), ("a.org", stays(8, None))];
        let of_b = ("b.org:8448", stays(4, None));
        let in_one = expected.into_iter().chain([of_b]).map(|(name, stay)| (name.to_owned(), stay));
        assert_eq!(store.stays_in(one, 10).expect("read"), in_one.collect::<Vec<_>>());
        assert_eq!(store.stays_of(one, "a.org").expect("read"), expected.map(|(_, stay)| stay));
        assert_eq!(store.newest_outgoing(one).expect("read"), StreamPos(9));
        assert_eq!(store.newest_outgoing(other).expect("read"), StreamPos(0));
        let rooms = |after, most| store.rooms_of_server("a.org", after, most).expect("read");
        let all = [(one, left), (one, None), (other, None)];
        assert_eq!(rooms((RoomNum(0), None), 9), all);
        assert_eq!(rooms(all[0], 1), [all[1]]);
        assert_eq!(rooms(all[1], 9), [all[2]]);
        let servers = |after, most| store.servers_with_rooms(after, most).expect("read");
        assert_eq!(servers("", 9), ["a.org", "a.organic"]);
        assert_eq!(
            (servers("", 1), servers("a.org", 9)),
            (vec!["a.org".into()], vec!["a.organic".into()])
        );
        let names = |after| -> Vec<_> {
            let found = store.destinations(after, 9).expect("read");
            found.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(""), ["a.org", "b.org:8448"]);
        assert_eq!(names("a.org"), ["b.org:8448"]);
    }

    #[test]
    fn a_stay_covers_the_events_at_both_of_its_ends() {
        let stay = ServerStay { since: StreamPos(3), until: Some(StreamPos(5)) };
        let covered: Vec<_> = (1..8).filter(|pos| stay.covers(StreamPos(*pos))).collect();
        assert_eq!(covered, [3, 4, 5]);
    }
}
