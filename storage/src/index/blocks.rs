//! Neighbouring keys in one value, in front of an engine for which every key has its price.
//!
//! sled keeps at most sixteen keys on a page, whatever their size: most of what a commit costs there
//! is finding, linking and splitting pages. The keys that grow with every event come in rows (a
//! room's events in the order of arrival, events by number), so a row is kept in blocks of up to
//! sixteen neighbours. A block stands under the key of its first member and reaches to the next
//! block of the row. Blocks of different rows never overlap, so the order of the engine's keys is the
//! order of the members.
//!
//! ```text
//! block = per member: length of the rest of its key, the rest of its key (without the row's prefix),
//!         length of its value, its value                                        (lengths: varints)
//! ```

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;

use super::{
    Direction, Index, IndexBatch, KeyRange, borrow, is_empty_range, is_in, to_owned,
    without_own_keys,
};
use crate::{
    StorageError,
    codec::{self, Reader},
    log::End,
};

/// The most members of a block.
const MEMBERS: usize = 16;

/// A block of so many bytes takes no more members.
const BYTES: usize = 4 << 10;

/// Says how many bytes the keys of a row have in common, for a key that stands in a row.
pub(crate) type Rows = fn(&[u8]) -> Option<usize>;

/// See the module.
#[derive(Debug)]
pub(crate) struct BlockIndex {
    engine: Box<dyn Index>,
    rows: Rows,
    /// Held for writing while blocks change, since a member may go from one to another.
    changing: RwLock<()>,
}

/// A key and its value.
type Member = (Bytes, Bytes);

impl BlockIndex {
    /// Keeps the rows that `rows` tells of in blocks.
    pub(crate) fn new(engine: Box<dyn Index>, rows: Rows) -> Self {
        Self { engine, rows, changing: RwLock::new(()) }
    }

    /// The prefix of the row in which a key stands.
    fn row<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        (self.rows)(key).and_then(|len| key.get(..len))
    }

    /// The block in which a key of a row would be, with its own key.
    fn block_of(&self, row: &[u8], key: &[u8]) -> Result<Option<Member>, StorageError> {
        let range = (Bound::Included(row), Bound::Included(key));
        Ok(self.engine.scan(range, Direction::Backward, 1)?.pop())
    }

    /// The members of what the engine has under a key: those of a block, or the key itself.
    fn members(&self, (key, value): Member) -> Result<Vec<Member>, StorageError> {
        match self.row(&key) {
            Some(row) => decode(row, &value),
            None => Ok(vec![(key, value)]),
        }
    }

    /// Turns the changes of one row into changes of its blocks. Goes from the highest key down:
    /// so one look finds the block of a key, and which of the other keys are in it.
    fn change_row(
        &self,
        row: &[u8],
        mut changes: BTreeMap<Bytes, Option<Bytes>>,
        batch: &mut IndexBatch,
    ) -> Result<(), StorageError> {
        while let Some((highest, _)) = changes.last_key_value() {
            let (old, members) = match self.block_of(row, highest)? {
                Some((key, block)) => (Some(key), decode(row, &block)?),
                None => (None, Vec::new()),
            };
            let here = match &old {
                Some(first) => changes.split_off(first),
                None => std::mem::take(&mut changes),
            };
            let is_append = members.last().map(|(key, _)| key) < here.keys().next();
            let mut members: BTreeMap<_, _> = members.into_iter().collect();
            for (key, value) in here {
                match value {
                    Some(value) => members.insert(key, value),
                    None => members.remove(&key),
                };
            }
            if let Some(old) = old
                && members.keys().next() != Some(&old)
            {
                batch.push((old, None));
            }
            put_blocks(row, members.into_iter().collect(), is_append, batch);
        }
        Ok(())
    }

    /// Where the engine must begin so that the block that reaches into a range from below is seen.
    fn begin(&self, low: Bound<&[u8]>) -> Result<Option<Bytes>, StorageError> {
        let (Bound::Included(key) | Bound::Excluded(key)) = low else { return Ok(None) };
        match self.row(key) {
            Some(row) => Ok(self.block_of(row, key)?.map(|(key, _)| key)),
            None => Ok(None),
        }
    }

    fn scan_blocks(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Member>, StorageError> {
        let begin = self.begin(range.0)?;
        let (mut low, mut high) =
            (begin.clone().map_or(to_owned(range.0), Bound::Included), to_owned(range.1));
        let mut found = Vec::new();
        loop {
            // Blocks that are half full are usual, those of one member are not.
            let left = limit - found.len();
            let step = if self.begins_in_rows(range) { left.div_ceil(MEMBERS / 2) } else { left };
            let some = self.engine.scan((borrow(&low), borrow(&high)), direction, step)?;
            let is_all = some.len() < step;
            match (some.last(), direction) {
                (Some((last, _)), Direction::Forward) => low = Bound::Excluded(last.clone()),
                (Some((last, _)), Direction::Backward) => high = Bound::Excluded(last.clone()),
                (None, _) => {}
            }
            for entry in some {
                let mut members = self.members(entry)?;
                if direction == Direction::Backward {
                    members.reverse();
                }
                found.extend(members.into_iter().filter(|(key, _)| is_in(range, key)));
                if found.len() >= limit {
                    found.truncate(limit);
                    return Ok(found);
                }
            }
            if is_all {
                return Ok(found);
            }
        }
    }

    /// Whether a range begins within a keyspace of rows.
    fn begins_in_rows(&self, range: KeyRange<'_>) -> bool {
        match range.0 {
            Bound::Included(low) | Bound::Excluded(low) => (self.rows)(low).is_some(),
            Bound::Unbounded => false,
        }
    }
}

/// Puts members, in their order, into as many blocks as they need: full ones where a row grows at
/// its end, else equal ones, so that each has room for more.
fn put_blocks(row: &[u8], members: Vec<Member>, is_append: bool, batch: &mut IndexBatch) {
    let blocks = members.len().div_ceil(MEMBERS).max(1);
    let share = if is_append { MEMBERS } else { members.len().div_ceil(blocks) };
    let mut block: Option<(Bytes, Vec<u8>, usize)> = None;
    for (key, value) in members {
        let rest = key.get(row.len()..).unwrap_or_default();
        let (first, mut bytes, count) =
            block.take().unwrap_or_else(|| (key.clone(), Vec::new(), 0));
        codec::put_varint(&mut bytes, rest.len() as u64);
        bytes.extend_from_slice(rest);
        codec::put_varint(&mut bytes, value.len() as u64);
        bytes.extend_from_slice(&value);
        if count + 1 >= share || bytes.len() >= BYTES {
            batch.push((first, Some(bytes.into())));
        } else {
            block = Some((first, bytes, count + 1));
        }
    }
    batch.extend(block.map(|(first, bytes, _)| (first, Some(bytes.into()))));
}

/// The members of a block.
fn decode(row: &[u8], block: &Bytes) -> Result<Vec<Member>, StorageError> {
    let mut members = Vec::with_capacity(MEMBERS);
    walk(block, |rest, value| {
        members.push((Bytes::from([row, rest].concat()), value()));
        true
    })?;
    Ok(members)
}

/// The value of one member of a block, by the rest of its key.
fn find(block: &Bytes, wanted: &[u8]) -> Result<Option<Bytes>, StorageError> {
    let mut found = None;
    walk(block, |rest, value| {
        if rest == wanted {
            found = Some(value());
        }
        rest < wanted
    })?;
    Ok(found)
}

/// Visits the members of a block until it is told that this is enough.
fn walk(
    block: &Bytes,
    mut visit: impl FnMut(&[u8], &dyn Fn() -> Bytes) -> bool,
) -> Result<(), StorageError> {
    let bad = |what: String| StorageError::Index(format!("a block makes no sense: {what}"));
    let mut reader = Reader { bytes: block, at: 0 };
    while reader.at < block.len() {
        let rest = reader.span().map_err(bad)?;
        let value = reader.span().map_err(bad)?;
        let rest = block.get(rest).unwrap_or_default();
        if !visit(rest, &|| block.slice(value.clone())) {
            break;
        }
    }
    Ok(())
}

impl Index for BlockIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let Some(row) = self.row(key) else { return self.engine.get(key) };
        match self.block_of(row, key)? {
            Some((_, block)) => find(&block, key.get(row.len()..).unwrap_or_default()),
            None => Ok(None),
        }
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        // The block of the last key often has the next one, too.
        let mut last: Option<Member> = None;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(row) = self.row(key) else {
                values.push(self.engine.get(key)?);
                continue;
            };
            let rest = key.get(row.len()..).unwrap_or_default();
            let known = last.as_ref().filter(|(first, _)| first.starts_with(row));
            let mut value = known.map(|(_, block)| find(block, rest)).transpose()?.flatten();
            if value.is_none() {
                last = self.block_of(row, key)?;
                value = last.as_ref().map(|(_, block)| find(block, rest)).transpose()?.flatten();
            }
            values.push(value);
        }
        Ok(values)
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let range = without_own_keys(range);
        if is_empty_range(&range) || limit == 0 {
            return Ok(Vec::new());
        }
        let _unchanged = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        self.scan_blocks(range, direction, limit)
    }

    fn apply(&self, changes: IndexBatch, applied: End) -> Result<(), StorageError> {
        let mut batch = IndexBatch::with_capacity(changes.len());
        let mut rows: BTreeMap<Bytes, BTreeMap<Bytes, Option<Bytes>>> = BTreeMap::new();
        for (key, value) in changes {
            match self.row(&key).map(<[u8]>::len) {
                Some(len) => {
                    let row = rows.entry(key.slice(..len)).or_default();
                    row.insert(key, value);
                }
                None => batch.push((key, value)),
            }
        }
        for (row, changes) in rows {
            self.change_row(&row, changes, &mut batch)?;
        }
        let _changing = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        self.engine.apply(batch, applied)
    }

    fn applied(&self) -> Result<Option<End>, StorageError> {
        self.engine.applied()
    }

    fn disk_bytes(&self) -> u64 {
        self.engine.disk_bytes()
    }

    fn memory_bytes(&self) -> u64 {
        self.engine.memory_bytes()
    }

    fn close(self: Box<Self>) {
        self.engine.close();
    }
}

#[cfg(test)]
mod tests {
    use parlour_event::StreamPos;
    use proptest::prelude::*;

    use super::{
        super::{
            memory::MemoryIndex,
            tests::{Model, direction},
        },
        *,
    };

    #[derive(Debug, Clone)]
    enum Step {
        /// Keys of two rows and of none, with the length of their value.
        Change(Vec<(u8, u16, Option<u16>)>),
        /// A row grows at its end.
        Append(u8, u8),
        Scan {
            low: (u8, u16),
            high: (u8, u16),
            direction: Direction,
            limit: usize,
        },
        Get(Vec<(u8, u16)>),
    }

    fn rows(key: &[u8]) -> Option<usize> {
        matches!(key.first(), Some(b'b' | b'c')).then_some(2)
    }

    /// Rows are `b0`, `b1`, `c0`, ...; keys that begin with `a` or `d` stand alone.
    fn key((row, number): (u8, u16)) -> Bytes {
        let [high, low] = number.to_be_bytes();
        vec![b'a' + row / 2, b'0' + row % 2, high, low].into()
    }

    fn place() -> impl Strategy<Value = (u8, u16)> {
        (0..8_u8, prop_oneof![0..40_u16, 0..2000_u16])
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = proptest::option::weighted(0.8, prop_oneof![9 => 0..40_u16, 1 => 0..3000_u16]);
        let change = (place(), value).prop_map(|((row, number), value)| (row, number, value));
        prop_oneof![
            3 => proptest::collection::vec(change, 1..30).prop_map(Step::Change),
            2 => (0..8_u8, 1..50_u8).prop_map(|(row, count)| Step::Append(row, count)),
            3 => (place(), place(), direction(), 0..60_usize).prop_map(
                |(low, high, direction, limit)| Step::Scan { low, high, direction, limit }
            ),
            2 => proptest::collection::vec(place(), 1..20).prop_map(Step::Get),
        ]
    }

    fn apply(index: &BlockIndex, model: &mut Model, batch: IndexBatch) {
        model.change(&batch);
        index.apply(batch, End { pos: StreamPos(1), chain: 0 }).unwrap();
    }

    fn check(index: &BlockIndex, steps: Vec<Step>) {
        let mut model = Model::default();
        let mut ends = [2000_u16; 8];
        for step in steps {
            match step {
                Step::Change(changes) => {
                    let value = |len: u16| Bytes::from(vec![len as u8; usize::from(len)]);
                    let change = |(row, number, len): (u8, u16, Option<u16>)| {
                        (key((row, number)), len.map(value))
                    };
                    apply(index, &mut model, changes.into_iter().map(change).collect());
                }
                Step::Append(row, count) => {
                    let end = &mut ends[usize::from(row)];
                    let numbers = *end..*end + u16::from(count);
                    *end = numbers.end;
                    let put = |number| (key((row, number)), Some(Bytes::from_static(b"value")));
                    apply(index, &mut model, numbers.map(put).collect());
                }
                Step::Scan { low, high, direction, limit } => {
                    let (low, high) = (key(low.min(high)), key(low.max(high)));
                    for range in [
                        (Bound::Included(&low[..]), Bound::Excluded(&high[..])),
                        (Bound::Excluded(&low[..]), Bound::Included(&high[..])),
                        (Bound::Included(&low[..2]), Bound::Unbounded),
                        (Bound::Unbounded, Bound::Included(&high[..1])),
                    ] {
                        model.check_scan(index, range, direction, limit);
                    }
                }
                Step::Get(places) => model.check_keys(index, places.into_iter().map(key)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn reads_like_a_plain_map(steps in proptest::collection::vec(step(), 1..40)) {
            check(&BlockIndex::new(Box::new(MemoryIndex::default()), rows), steps);
        }
    }

    fn put(number: u16) -> (Bytes, Option<Bytes>) {
        (key((2, number)), Some(Bytes::from_static(b"value")))
    }

    fn blocks(index: &BlockIndex) -> usize {
        let all = (Bound::Unbounded, Bound::Unbounded);
        index.engine.scan(all, Direction::Forward, usize::MAX).unwrap().len()
    }

    #[test]
    fn a_row_that_grows_at_its_end_fills_its_blocks() {
        let index = BlockIndex::new(Box::new(MemoryIndex::default()), rows);
        for first in (0..3200).step_by(5) {
            index.apply((first..first + 5).map(put).collect(), End::default()).unwrap();
        }
        assert_eq!(blocks(&index), 3200 / MEMBERS);
    }

    #[test]
    fn a_row_that_fills_up_anyhow_has_blocks_that_are_half_full_at_least() {
        let index = BlockIndex::new(Box::new(MemoryIndex::default()), rows);
        for number in 0..3200_u16 {
            // Each number once, in no order.
            let number = u16::try_from(u32::from(number) * 1231 % 3200).unwrap();
            index.apply(vec![put(number)], End::default()).unwrap();
        }
        assert!(blocks(&index) <= 3200 / (MEMBERS / 2) + 1, "{}", blocks(&index));
    }

    #[test]
    fn what_is_no_block_is_an_error() {
        let engine = MemoryIndex::default();
        let bytes = Bytes::from_static(b"\x02ab\x90no");
        engine.apply(vec![(key((2, 7)), Some(bytes))], End::default()).unwrap();
        let index = BlockIndex::new(Box::new(engine), rows);
        assert!(matches!(index.get(&key((2, 8))), Err(StorageError::Index(_))));
        let all = (Bound::Unbounded, Bound::Unbounded);
        assert!(matches!(index.scan(all, Direction::Forward, 9), Err(StorageError::Index(_))));
        assert!(matches!(index.apply(vec![put(9)], End::default()), Err(StorageError::Index(_))));
    }
}
