//! The power goes at any moment; disks fill up; flushes fail. Nothing acknowledged is lost.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::{path::Path, sync::Arc};

use parlour_event::StreamPos;
use parlour_storage::{IndexEngine, MemoryEngine, StorageError, Store, StoreOptions};
use rand::RngExt;
use support::{
    LaggingEngine, Model, fill, options, put, random_group, record, rng,
    simfs::{Fault, SimFs},
};

fn sim_options(dir: &Path, files: &SimFs, index: impl IndexEngine + 'static) -> StoreOptions {
    StoreOptions { files: Arc::new(files.clone()), index: Arc::new(index), ..options(dir) }
}

fn rounds() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

/// One life of a server: opens, checks that everything acknowledged is there and nothing else,
/// commits until the power goes. `model` holds what was acknowledged; returned is the group that
/// was on its way.
fn live(
    options: &StoreOptions,
    files: &SimFs,
    model: &mut Model,
    in_flight: &[parlour_storage::Record],
    rng: &mut rand::rngs::StdRng,
) -> Result<Vec<parlour_storage::Record>, StorageError> {
    let (store, mut writer) = Store::open(options.clone())?;
    let found = usize::try_from(store.applied().0).unwrap();
    let acknowledged = model.records.len();
    assert!(found >= acknowledged, "{found} records, but {acknowledged} were acknowledged");
    assert!(found <= acknowledged + in_flight.len(), "records that nobody wrote");
    model.apply(&in_flight[..found - acknowledged]);
    model.check(&store);
    assert_eq!(store.recovery().index_was_ahead, None);
    files.cut_after(rng.random_range(0..60));
    for _ in 0..60 {
        let group = random_group(rng, writer.next_pos(), 5);
        match writer.commit(&group) {
            Ok(_) => model.apply(&group),
            Err(_) => return Ok(group),
        }
    }
    Ok(Vec::new())
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut caught_up, mut torn, mut packed) = (0, 0, 0);
    for round in 0..rounds() {
        let mut rng = rng(round);
        let files = SimFs::default();
        let engine = LaggingEngine::default();
        let options = sim_options(dir.path(), &files, engine.clone());
        let mut model = Model::default();
        let mut in_flight = Vec::new();
        for _ in 0..6 {
            match live(&options, &files, &mut model, &in_flight, &mut rng) {
                Ok(group) => in_flight = group,
                Err(StorageError::Io { .. } | StorageError::Stopped(_)) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
            files.power_cut(&mut rng);
            engine.lose(&mut rng);
            // At times the power goes again during the start.
            if rng.random_ratio(1, 4) {
                files.cut_after(rng.random_range(0..8));
                match Store::open(options.clone()) {
                    Ok(_) | Err(StorageError::Io { .. }) => {}
                    Err(error) => panic!("round {round}, start: {error}"),
                }
                files.power_cut(&mut rng);
                engine.lose(&mut rng);
            }
        }
        let (store, writer) = Store::open(options.clone()).unwrap();
        let extra = store.applied().0.checked_sub(model.records.len() as u64).unwrap();
        model.apply(&in_flight[..usize::try_from(extra).unwrap()]);
        model.check(&store);
        caught_up += u64::from(store.recovery().replayed > 0);
        torn += u64::from(store.recovery().torn_bytes.is_some());
        let first = dir.path().join("log/0000000000000001.seg");
        writer.close();
        packed += u64::from(model.records.len() > 100 && files.read(&first)[11] == 1);
    }
    // The test must have tested something.
    assert!(caught_up > rounds() / 4, "{caught_up} rounds with an older index");
    assert!(torn > 0, "no round with a torn tail");
    assert!(packed > 0, "no round with a packed segment");
}

#[test]
fn a_write_that_fails_is_taken_back_and_another_may_succeed() {
    let dir = tempfile::tempdir().unwrap();
    for fault in [Fault::Write, Fault::Create] {
        let files = SimFs::default();
        let options = sim_options(dir.path(), &files, MemoryEngine);
        let (store, mut writer) = Store::open(options.clone()).unwrap();
        let (mut model, mut rng) = (Model::default(), rng(1));
        let mut failed = 0;
        for _ in 0..60 {
            files.fail_next(fault);
            let group = random_group(&mut rng, writer.next_pos(), 4);
            match writer.commit(&group) {
                // A new segment is not begun each time.
                Ok(_) => model.apply(&group),
                Err(error) => {
                    assert!(matches!(error, StorageError::Io { .. }), "{error}");
                    failed += 1;
                    fill(&mut writer, &mut model, &mut rng, 1);
                }
            }
            if fault == Fault::Write {
                model.check(&store);
            }
        }
        assert!(failed > 2, "{fault:?} never happened");
        model.check(&store);
        writer.close();
        model.check(&Store::open(options).unwrap().0);
    }
}

#[test]
fn a_flush_that_fails_stops_the_writer_for_good() {
    let dir = tempfile::tempdir().unwrap();
    for fault in [Fault::Sync, Fault::WriteAndTruncate] {
        let files = SimFs::default();
        let options = sim_options(dir.path(), &files, MemoryEngine);
        let (store, mut writer) = Store::open(options.clone()).unwrap();
        let (mut model, mut rng) = (Model::default(), rng(1));
        let first = record(StreamPos(1), vec![put("a", "1")]);
        writer.commit(std::slice::from_ref(&first)).unwrap();
        model.apply(&[first]);
        files.fail_next(fault);
        let lost = record(writer.next_pos(), vec![put("a", "lost")]);
        writer.commit(std::slice::from_ref(&lost)).unwrap_err();
        let error = writer.commit(&[lost]).unwrap_err();
        assert!(matches!(error, StorageError::Stopped(_)), "{error}");
        model.check(&store);
        writer.close();
        files.power_cut(&mut rng);
        let (store, mut writer) = Store::open(options).unwrap();
        model.check(&store);
        fill(&mut writer, &mut model, &mut rng, 5);
        model.check(&store);
    }
}

#[test]
fn an_index_that_is_ahead_of_the_log_is_replaced_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let files = SimFs::default();
    let engine = LaggingEngine::default();
    let (mut model, mut rng) = (Model::default(), rng(5));
    let options = sim_options(dir.path(), &files, engine.clone());
    let (_, mut writer) = Store::open(options.clone()).unwrap();
    fill(&mut writer, &mut model, &mut rng, 10);
    writer.close();
    let older = files.fork();
    let older_model = model.clone();
    let (_, mut writer) = Store::open(options).unwrap();
    fill(&mut writer, &mut model, &mut rng, 3);
    writer.close();
    let (store, _writer) = Store::open(sim_options(dir.path(), &older, engine)).unwrap();
    older_model.check(&store);
    let recovery = store.recovery();
    assert_eq!(recovery.index_was_ahead, Some(StreamPos(model.records.len() as u64)));
    assert!(recovery.rebuilt.is_some());
}

#[test]
fn an_index_of_another_log_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LaggingEngine::default();
    let mut model = Model::default();
    for (seed, groups) in [(1, 10), (2, 30)] {
        model = Model::default();
        let options = sim_options(dir.path(), &SimFs::default(), engine.clone());
        let (store, mut writer) = Store::open(options.clone()).unwrap();
        fill(&mut writer, &mut model, &mut rng(seed), groups);
        if seed == 1 {
            // This log's index stays behind for the next one.
            writer.close();
            continue;
        }
        model.check_map(&store);
        writer.close();
    }
    // The second log started with an index that was ahead of it; a third is longer from the start.
    let files = SimFs::default();
    let (_, mut writer) = Store::open(sim_options(dir.path(), &files, MemoryEngine)).unwrap();
    let mut third = Model::default();
    fill(&mut writer, &mut third, &mut rng(3), 60);
    writer.close();
    assert!(third.records.len() > model.records.len());
    let (store, _writer) = Store::open(sim_options(dir.path(), &files, engine)).unwrap();
    third.check(&store);
    assert!(store.recovery().rebuilt.as_ref().is_some_and(|why| why.contains("another log")));
}
