use std::collections::BTreeSet;

use parlour_event::StreamPos;
use proptest::prelude::*;

use super::{
    super::{
        memory::MemoryIndex,
        story::Story,
        tests::{Model, direction},
    },
    *,
};

/// So small that a few changes make runs, and a few runs several levels.
const TINY: Limits = Limits { recent: 600, filters: 2_000, block: 60, runs: 2, portion: 3 };

const KEYSPACES: &[u8] = b"bd";

fn open(story: &Story) -> RunIndex {
    try_open(story, TINY).unwrap()
}

fn try_open(story: &Story, limits: Limits) -> Result<RunIndex, StorageError> {
    RunIndex::new(story.happen(Box::<MemoryIndex>::default()), KEYSPACES, limits)
}

/// An engine to which this has happened.
fn with(batch: IndexBatch) -> Story {
    let story = Story::default();
    story.happen(Box::<MemoryIndex>::default()).apply(batch, End::default()).unwrap();
    story
}

/// Waits until the thread has nothing to do.
fn settle(index: &RunIndex) {
    let busy = |signal: &mut Signal| {
        assert_eq!(signal.failed, None);
        signal.has_work || !signal.is_idle
    };
    drop(index.shared.changed.wait_while(index.shared.signal(), busy).unwrap());
}

fn key((space, number): (u8, u16)) -> Bytes {
    let [high, low] = number.to_be_bytes();
    vec![b'a' + space, high, low].into()
}

/// Compares everything that can be read.
fn check(index: &RunIndex, model: &Model) {
    for direction in [Direction::Forward, Direction::Backward] {
        model.check_scan(index, ALL, direction, usize::MAX);
    }
    model.check_keys(index, (0..5).flat_map(|space| (0..60).map(move |n| key((space, n)))));
}

/// Nothing but what counts is in the engine.
fn check_swept(index: &RunIndex) {
    let view = index.shared.view();
    let live: BTreeSet<_> = view.runs.iter().map(|run| run.meta.number).collect();
    let engine = &index.shared.engine;
    let found = engine.scan(layout::runs_from(0).range(), Direction::Forward, usize::MAX).unwrap();
    let found: BTreeSet<_> = found.iter().map(|(key, _)| layout::number_of(key).unwrap()).collect();
    assert_eq!(found, live);
    let manifest = engine.get(layout::MANIFEST).unwrap();
    let manifest = manifest.map_or_else(Manifest::default, |it| Manifest::decode(&it).unwrap());
    assert!(manifest.runs.iter().eq(view.runs.iter().map(|run| &*run.meta)));
    let journal = engine.scan(layout::journal_from(0).range(), Direction::Forward, 1).unwrap();
    assert!(journal.iter().all(|(key, _)| layout::number_of(key).unwrap() >= manifest.journal));
    let levels: Vec<_> = view.runs.iter().map(|run| run.meta.level).collect();
    assert!(levels.is_sorted(), "{levels:?}");
    assert!(levels.chunk_by(u8::eq).all(|runs| runs.len() < TINY.runs), "{levels:?}");
}

#[derive(Debug, Clone)]
enum Step {
    /// Keys with the length of their value.
    Change(Vec<(u8, u16, Option<u8>)>),
    Scan {
        low: (u8, u16),
        high: (u8, u16),
        direction: Direction,
        limit: usize,
    },
    Check,
    Settle,
    /// The engine loses so many of what was applied last.
    Reopen(usize),
}

fn place() -> impl Strategy<Value = (u8, u16)> {
    (0..5_u8, prop_oneof![0..60_u16, 0..2000_u16])
}

fn step() -> impl Strategy<Value = Step> {
    let value = proptest::option::weighted(0.8, 0..40_u8);
    let change = (place(), value).prop_map(|((space, number), value)| (space, number, value));
    prop_oneof![
        6 => proptest::collection::vec(change, 1..30).prop_map(Step::Change),
        3 => (place(), place(), direction(), 0..60_usize).prop_map(
            |(low, high, direction, limit)| Step::Scan { low, high, direction, limit }
        ),
        1 => Just(Step::Check),
        1 => Just(Step::Settle),
        1 => prop_oneof![Just(0), 0..40_usize].prop_map(Step::Reopen),
    ]
}

fn ranges<'a>(low: &'a [u8], high: &'a [u8]) -> [KeyRange<'a>; 5] {
    [
        (Bound::Included(low), Bound::Excluded(high)),
        (Bound::Excluded(low), Bound::Included(high)),
        (Bound::Included(&low[..1]), Bound::Unbounded),
        (Bound::Unbounded, Bound::Included(&high[..1])),
        (Bound::Excluded(&high[..1]), Bound::Excluded(&[OWN, 7])),
    ]
}

fn play(steps: Vec<Step>) {
    let story = Story::default();
    let mut index = open(&story);
    // What the index holds after each of its batches.
    let mut models = vec![Model::default()];
    for step in steps {
        let model = models.last().unwrap();
        match step {
            Step::Change(changes) => {
                let value = |len: u8| Bytes::from(vec![len; usize::from(len)]);
                let changes = changes.into_iter();
                let batch = changes.map(|(s, n, len)| (key((s, n)), len.map(value))).collect();
                let mut model = model.clone();
                model.change(&batch);
                let end = End { pos: StreamPos(models.len() as u64), chain: 0 };
                index.apply(batch, end).unwrap();
                models.push(model);
            }
            Step::Scan { low, high, direction, limit } => {
                let (low, high) = (key(low.min(high)), key(low.max(high)));
                for range in ranges(&low, &high) {
                    model.check_scan(&index, range, direction, limit);
                }
            }
            Step::Check => check(&index, model),
            Step::Settle => {
                settle(&index);
                check(&index, model);
                check_swept(&index);
            }
            Step::Reopen(lost) => {
                drop(index);
                story.truncate(story.len().saturating_sub(lost));
                index = open(&story);
                let end = index.applied().unwrap().unwrap_or_default();
                models.truncate(end.pos.0 as usize + 1);
                check(&index, models.last().unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn reads_like_a_plain_map(steps in proptest::collection::vec(step(), 1..60)) {
        play(steps);
    }
}

/// A story of spills and merges of several levels, and what the index holds after each batch.
fn long_story() -> (Story, Vec<Model>) {
    let story = Story::default();
    let index = open(&story);
    let mut models = vec![Model::default()];
    for number in 1..=120_u16 {
        let at = |step: u16| key(((step % 5) as u8, number * 37 % 60 + step));
        let value = Bytes::from(number.to_string());
        let batch = vec![(at(1), Some(value.clone())), (at(3), Some(value)), (at(13), None)];
        let mut model = models.last().unwrap().clone();
        model.change(&batch);
        models.push(model);
        index.apply(batch, End { pos: StreamPos(number.into()), chain: 0 }).unwrap();
        settle(&index);
    }
    assert!(index.shared.view().runs.iter().any(|run| run.meta.level > 1));
    (story, models)
}

#[test]
fn a_crash_at_any_moment_leaves_what_was_applied_and_nothing_else() {
    let (story, models) = long_story();
    assert!(story.len() > 3 * models.len(), "the thread has written, too");
    for kept in 0..=story.len() {
        let index = open(&story.first(kept));
        let model = &models[index.applied().unwrap().unwrap_or_default().pos.0 as usize];
        check(&index, model);
        settle(&index);
        check(&index, model);
        check_swept(&index);
    }
}

#[test]
fn filters_are_there_after_a_start_as_far_as_there_is_room_for_them() {
    let (story, _) = long_story();
    for (filters, all) in [(1 << 20, true), (0, false)] {
        let limits = Limits { filters, ..TINY };
        let index = try_open(&story.first(story.len()), limits).unwrap();
        settle(&index);
        let view = index.shared.view();
        assert!(view.runs.iter().all(|run| run.filter.is_some() == all));
        let filters: u64 = view.runs.iter().map(Run::filter_bytes).sum();
        let memory = view.recent.bytes() as u64 + filters;
        assert_eq!(index.memory_bytes(), memory);
    }
}

#[test]
fn what_has_gone_is_in_no_run_in_the_end() {
    let index = open(&Story::default());
    let apply = |value: Option<Bytes>| {
        for number in 0..200 {
            let batch = vec![(key((1, number)), value.clone())];
            index.apply(batch, End { pos: StreamPos(1), chain: 0 }).unwrap();
        }
        settle(&index);
    };
    apply(Some(Bytes::from_static(b"value")));
    let changes = || index.shared.view().runs.iter().map(|run| run.meta.changes).sum::<u64>();
    assert!(changes() > 150);
    for _ in 0..20 {
        apply(None);
    }
    assert!(index.scan(ALL, Direction::Forward, 1).unwrap().is_empty());
    assert!(changes() < 200, "{}", changes());
}

#[test]
fn a_run_that_is_read_stays_until_it_is_read() {
    let index = open(&Story::default());
    let put = |range: std::ops::Range<u16>| {
        let batch = range.map(|number| (key((1, number)), Some(Bytes::from_static(b"value"))));
        index.apply(batch.collect(), End { pos: StreamPos(1), chain: 0 }).unwrap();
    };
    (0..200).for_each(|number| put(number..number + 1));
    settle(&index);
    let view = index.shared.view();
    let read = |view: &View, number| view.get(&*index.shared.engine, &key((1, number))).unwrap();
    let old: Vec<_> = view.runs.iter().map(|run| run.meta.number).collect();
    let mut number = 200;
    while index.shared.view().runs.iter().any(|run| old.contains(&run.meta.number)) {
        put(number..number + 1);
        number += 1;
    }
    assert!((0..100).all(|number| read(&view, number).is_some()));
    drop(view);
    settle(&index);
    check_swept(&index);
}

#[test]
fn readers_find_what_is_there_while_it_moves() {
    let index = open(&Story::default());
    let written = AtomicU64::new(0);
    let count = 3_000_u16;
    // Each key once, in no order.
    let at = |number: u64| key((1, (number * 1231 % u64::from(count)) as u16));
    let read = |seed: u64| {
        for step in 0_u64.. {
            let there = written.load(Ordering::Acquire);
            if there == u64::from(count) {
                return;
            }
            let number = (step * 7919 + seed) % there.max(1);
            if number < there {
                assert_eq!(index.get(&at(number)).unwrap(), Some(at(number)));
            }
            if step % 100 == 0 {
                let found = index.scan(ALL, Direction::Forward, usize::MAX).unwrap();
                assert!(found.len() as u64 >= there && found.is_sorted());
            }
        }
    };
    thread::scope(|scope| {
        (0..2).for_each(|seed| _ = scope.spawn(move || read(seed)));
        for number in 0..u64::from(count) {
            let end = End { pos: StreamPos(number + 1), chain: 0 };
            index.apply(vec![(at(number), Some(at(number)))], end).unwrap();
            written.store(number + 1, Ordering::Release);
        }
    });
}

#[test]
fn a_failed_engine_is_told_to_the_next_writer_and_reading_goes_on() {
    let story = Story::default();
    let index = open(&story);
    let put = |number| {
        let batch = vec![(key((1, number)), Some(Bytes::from_static(b"value")))];
        index.apply(batch, End { pos: StreamPos(1), chain: 0 })
    };
    (0..100).for_each(|number| put(number).unwrap());
    settle(&index);
    story.fail(true);
    assert!(matches!(put(100), Err(StorageError::Index(_))));
    index.shared.send_off();
    index.shared.signal().has_work = true;
    index.shared.changed.notify_all();
    let running = |signal: &mut Signal| signal.failed.is_none();
    drop(index.shared.changed.wait_while(index.shared.signal(), running).unwrap());
    story.fail(false);
    assert!(matches!(put(100), Err(StorageError::Index(_))));
    assert!((0..100).all(|number| index.get(&key((1, number))).unwrap().is_some()));
}

#[test]
fn what_is_no_run_is_an_error() {
    let bad = Bytes::from_static(b"\x02ab\x90no");
    let manifest =
        Manifest { journal: 0, runs: vec![layout::RunMeta { number: 3, level: 0, changes: 1 }] };
    let mut batch = manifest.encode().unwrap();
    batch.push((layout::block_key(3, b"b").into(), Some(bad.clone())));
    let index = open(&with(batch));
    assert!(matches!(index.get(b"bb"), Err(StorageError::Index(_))));
    assert!(matches!(index.scan(ALL, Direction::Forward, 9), Err(StorageError::Index(_))));
    for key in [Bytes::from_static(layout::MANIFEST), layout::piece_key(7).into()] {
        let index = try_open(&with(vec![(key, Some(bad.clone()))]), TINY);
        assert!(matches!(index, Err(StorageError::Index(_))));
    }
}
