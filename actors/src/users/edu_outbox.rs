//! EDUs with messages for devices elsewhere: they wait in storage until their server has them.

use std::collections::BTreeMap;

use bytes::Bytes;
use parlour_event::StreamPos;
use parlour_storage::{Direction, Op, StorageError, Store, schema::edu_outbox as keys};

/// How many EDUs may wait for one server. When there are more, the oldest are dropped: nobody has
/// been there for long. What is new is not refused, since clients put the devices of many servers
/// into one request, and one dead server would keep all of them from their messages.
pub(super) const MAX_WAITING: u64 = 20_000;

/// An EDU for another server that must not be lost.
#[derive(Debug, Clone)]
pub struct OutgoingEdu {
    /// The server.
    pub server: String,
    /// The EDU.
    pub json: Bytes,
}

/// What is to be written of some EDUs.
#[derive(Debug, Default)]
pub(super) struct Posted {
    /// By server, with the number of the first of them.
    edus: BTreeMap<String, (u64, Vec<Bytes>)>,
    /// How many older ones have to go.
    pub(super) dropped: usize,
}

impl Posted {
    /// Finds the places. Those that come at the same time from others may get the same numbers, so
    /// that these bound only roughly how many there are.
    pub(super) fn plan(
        store: &Store,
        edus: Vec<OutgoingEdu>,
        ops: &mut Vec<Op>,
    ) -> Result<Self, StorageError> {
        let mut posted = Self::default();
        for OutgoingEdu { server, json } in edus {
            posted.edus.entry(server).or_default().1.push(json);
        }
        for (server, (first, edus)) in &mut posted.edus {
            let prefix = keys::waiting_edus(server);
            let number = |key: &Bytes| keys::edu_place(key).1;
            let newest = store.scan_prefix(&prefix, Direction::Backward, 1)?;
            *first = newest.first().map_or(0, |(key, _)| number(key) + 1);
            let next = *first + edus.len() as u64;
            if next > MAX_WAITING {
                // Twice as many, so that there are fewer some day, whatever was counted wrong.
                let oldest = store.scan_prefix(&prefix, Direction::Forward, 2 * edus.len())?;
                let surplus =
                    oldest.into_iter().filter(|(key, _)| number(key) + MAX_WAITING < next);
                let surplus: Vec<_> = surplus.map(|(key, _)| Op::Delete { key }).collect();
                posted.dropped += surplus.len();
                ops.extend(surplus);
            }
        }
        Ok(posted)
    }

    /// Adds the operations at a position; says for which servers something waits.
    pub(super) fn write(self, pos: StreamPos, ops: &mut Vec<Op>) -> Vec<String> {
        let mut servers = Vec::with_capacity(self.edus.len());
        for (server, (first, edus)) in self.edus {
            ops.extend((first..).zip(edus).map(|(number, blob)| Op::PutBlob {
                key: keys::waiting_edu(&server, (pos, number)),
                value: Bytes::new(),
                blob,
            }));
            servers.push(server);
        }
        servers
    }
}

#[cfg(test)]
mod tests {
    use parlour_storage::Record;

    use super::*;

    #[test]
    fn the_oldest_go_when_too_many_wait() {
        let (store, mut writer) = Store::in_memory();
        let mut post = |count: usize| {
            let edu = OutgoingEdu { server: "far.org".to_owned(), json: "{}".into() };
            let mut ops = Vec::new();
            let posted = Posted::plan(&store, vec![edu; count], &mut ops).expect("read");
            let dropped = posted.dropped;
            assert_eq!(posted.write(writer.next_pos(), &mut ops), ["far.org"]);
            let record = Record { pos: writer.next_pos(), ops, announcement: Bytes::new() };
            writer.commit(&[record]).expect("commit");
            dropped
        };
        assert_eq!((post(9_999), post(10_000), post(1), post(2)), (0, 0, 0, 2));
        let waiting = store.scan_prefix(&keys::waiting_edus("far.org"), Direction::Forward, 99_999);
        let waiting = waiting.expect("read");
        assert_eq!(waiting.len() as u64, MAX_WAITING);
        assert_eq!(keys::edu_place(&waiting[0].0).1, 2);
    }
}
