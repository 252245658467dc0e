//! What the storage tests share: a model of the store, and a file system that loses power.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]

pub mod simfs;
mod story;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use bytes::Bytes;
use parlour_event::StreamPos;
use parlour_storage::{
    Direction, End, Index, IndexBatch, IndexEngine, KeyRange, MemoryEngine, Op, Progress, Record,
    StorageError, Store, StoreOptions,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::story::Story;

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub fn quiet() -> Arc<dyn Progress> {
    Arc::new(parlour_storage::Quiet)
}

/// Small segments, so that a test has many, and little memory, so that the index makes and merges
/// runs.
pub fn options(dir: &Path) -> StoreOptions {
    StoreOptions { segment_bytes: 2000, cache_bytes: 16 << 10, ..StoreOptions::new(dir) }
}

pub fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned().into(), value: value.to_owned().into() }
}

pub fn put_blob(key: &str, value: &str, blob: &str) -> Op {
    Op::PutBlob {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        blob: blob.to_owned().into(),
    }
}

pub fn delete(key: &str) -> Op {
    Op::Delete { key: key.to_owned().into() }
}

pub fn record(pos: StreamPos, ops: Vec<Op>) -> Record {
    Record { pos, ops, announcement: format!("told {pos}").into() }
}

fn random_bytes(rng: &mut StdRng, max: usize) -> Bytes {
    let len = rng.random_range(0..=max);
    // Half random, half not, so that packing has something to do.
    (0..len).map(|at| if at % 2 == 0 { b'x' } else { rng.random() }).collect()
}

/// A record with random operations on few keys, so that they meet. Those of event ids and
/// transactions are kept in runs.
pub fn random_record(rng: &mut StdRng, pos: StreamPos) -> Record {
    let ops = (0..rng.random_range(0..5))
        .map(|_| {
            let keyspace = ["k", "I", "X"][rng.random_range(0..3)];
            let key = Bytes::from(format!("{keyspace}{}", rng.random_range(0..20)));
            let longest = if rng.random_ratio(1, 20) { 6000 } else { 60 };
            match rng.random_range(0..5) {
                0 => Op::Delete { key },
                1 | 2 => Op::Put { key, value: random_bytes(rng, longest) },
                _ => Op::PutBlob {
                    key,
                    value: random_bytes(rng, 20),
                    blob: random_bytes(rng, longest),
                },
            }
        })
        .collect();
    Record { pos, ops, announcement: random_bytes(rng, 30) }
}

pub fn random_group(rng: &mut StdRng, next: StreamPos, most: u64) -> Vec<Record> {
    (next.0..next.0 + rng.random_range(1..=most))
        .map(|p| random_record(rng, StreamPos(p)))
        .collect()
}

/// What a store should hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub records: Vec<Record>,
    pub map: BTreeMap<Bytes, (Bytes, Option<Bytes>)>,
}

impl Model {
    pub fn of(records: &[Record]) -> Self {
        let mut model = Self::default();
        model.apply(records);
        model
    }

    pub fn apply(&mut self, records: &[Record]) {
        for record in records {
            for op in record.ops.clone() {
                match op {
                    Op::Put { key, value } => self.map.insert(key, (value, None)),
                    Op::PutBlob { key, value, blob } => self.map.insert(key, (value, Some(blob))),
                    Op::Delete { key } => self.map.remove(&key),
                };
            }
            self.records.push(record.clone());
        }
    }

    /// The model as it was after that many records.
    pub fn prefix(&self, records: u64) -> Self {
        Self::of(&self.records[..usize::try_from(records).unwrap()])
    }

    /// Compares everything that can be read.
    pub fn check(&self, store: &Store) {
        assert_eq!(store.applied().0, self.records.len() as u64, "applied position");
        self.check_map(store);
        let records: Vec<_> = store.records(StreamPos(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(records, self.records, "records of the log");
    }

    /// Compares what the index leads to.
    pub fn check_map(&self, store: &Store) {
        let found = store.scan_prefix(b"", Direction::Forward, usize::MAX).unwrap();
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(|(key, entry)| {
                let blob = entry.blob.map(|place| store.blob(&place).unwrap());
                (key, (entry.value, blob))
            })
            .collect();
        assert_eq!(found, self.map, "keys, values and bodies");
    }
}

/// Commits random groups and keeps the model in step.
pub fn fill(
    store: &mut parlour_storage::Writer,
    model: &mut Model,
    rng: &mut StdRng,
    groups: usize,
) {
    for _ in 0..groups {
        let group = random_group(rng, store.next_pos(), 4);
        store.commit(&group).unwrap();
        model.apply(&group);
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An index that survives a restart, at any of its earlier moments.
#[derive(Debug, Clone, Default)]
pub struct LaggingEngine(Story);

impl LaggingEngine {
    /// Goes back to the state after that many changes, at most all.
    pub fn lose(&self, rng: &mut StdRng) {
        self.0.truncate(rng.random_range(0..=self.0.len()));
    }
}

impl IndexEngine for LaggingEngine {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Box<dyn Index>, StorageError> {
        Ok(self.0.happen(MemoryEngine.open(dir, cache_bytes)?))
    }

    fn set_aside(&self, _dir: &Path) -> Result<(), StorageError> {
        self.0.truncate(0);
        Ok(())
    }
}
