//! EDUs that wait for other servers and must not be lost, in the index.

use std::ops::Bound::{Excluded, Included};

use bytes::Bytes;
use parlour_event::StreamPos;

use super::keys::{EDU_OUTBOX, KeyBuilder, KeyReader, last_numbers};
use crate::{BlobRef, Direction, StorageError, Store};

/// Where an EDU stands among those for its server: when it came, and its number among them.
pub type EduPlace = (StreamPos, u64);

/// Before the first place of all.
pub const FIRST: EduPlace = (StreamPos(0), 0);

/// [`EDU_OUTBOX`]
#[must_use]
pub fn waiting_edu(server: &str, (pos, number): EduPlace) -> Bytes {
    KeyBuilder::new(EDU_OUTBOX).text(server).number(pos.0).number(number).build()
}

/// The common start of a server's [`EDU_OUTBOX`] keys.
#[must_use]
pub fn waiting_edus(server: &str) -> Bytes {
    KeyBuilder::new(EDU_OUTBOX).text(server).build()
}

/// The place in an [`EDU_OUTBOX`] key.
#[must_use]
pub fn edu_place(key: &[u8]) -> EduPlace {
    let (pos, number) = last_numbers(key).unwrap_or_default();
    (StreamPos(pos), number)
}

impl Store {
    /// The EDUs that wait for a server within `(after, until]`, oldest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn waiting_edus(
        &self,
        server: &str,
        (after, until): (EduPlace, EduPlace),
        limit: usize,
    ) -> Result<Vec<(EduPlace, BlobRef)>, StorageError> {
        if after >= until {
            return Ok(Vec::new());
        }
        let (low, high) = (waiting_edu(server, after), waiting_edu(server, until));
        let found = self.scan((Excluded(&low), Included(&high)), Direction::Forward, limit)?;
        let read = |(key, entry): (Bytes, crate::Entry)| Some((edu_place(&key), entry.blob?));
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// EDUs that wait for a server, as JSON, without those that are not there any more.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn edus_at(&self, server: &str, places: &[EduPlace]) -> Result<Vec<Bytes>, StorageError> {
        let keys: Vec<_> = places.iter().map(|place| waiting_edu(server, *place)).collect();
        let found = self.multi_get(&keys)?.into_iter().flatten();
        self.blobs(&found.filter_map(|entry| entry.blob).collect::<Vec<_>>())
    }

    /// The next server by name after one for which EDUs wait.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn next_with_edus(&self, after: &str) -> Result<Option<String>, StorageError> {
        let low = waiting_edu(after, (StreamPos(u64::MAX), u64::MAX));
        let high = KeyBuilder::new(EDU_OUTBOX + 1).build();
        let found = self.scan((Excluded(&low), Excluded(&high)), Direction::Forward, 1)?;
        Ok(found.first().and_then(|(key, _)| KeyReader::new(key).text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Record};

    #[test]
    fn edus_are_read_by_server_in_order() {
        let (store, mut writer) = Store::in_memory();
        let places = [("b.org", 9, 1), ("a.org", 300, 0), ("a.org", 2, 7), ("a.org", 2, 1)];
        let put = |(server, pos, number): (&str, u64, u64)| Op::PutBlob {
            key: waiting_edu(server, (StreamPos(pos), number)),
            value: Bytes::new(),
            blob: format!("{server} {pos} {number}").into(),
        };
        let ops = places.map(put).into();
        let record = Record { pos: writer.next_pos(), ops, announcement: Bytes::new() };
        writer.commit(&[record]).expect("commit");
        let end = (StreamPos(u64::MAX), u64::MAX);
        let read = |after, until, limit| -> Vec<_> {
            let found = store.waiting_edus("a.org", (after, until), limit).expect("read");
            found.into_iter().map(|((pos, number), _)| (pos.0, number)).collect()
        };
        assert_eq!(read(FIRST, end, 9), [(2, 1), (2, 7), (300, 0)]);
        assert_eq!(read((StreamPos(2), 1), end, 1), [(2, 7)]);
        assert_eq!(read(FIRST, (StreamPos(2), 1), 9), [(2, 1)]);
        let texts = store.edus_at("a.org", &[(StreamPos(300), 0), (StreamPos(4), 4)]);
        assert_eq!(texts.expect("read"), ["a.org 300 0"]);
        let next = |after| store.next_with_edus(after).expect("read");
        assert_eq!(next(""), Some("a.org".to_owned()));
        assert_eq!(next("a.org"), Some("b.org".to_owned()));
        assert_eq!(next("b.org"), None);
    }
}
