//! Backup while writing, restore, reindex, repair.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::{fs, path::Path};

use parlour_event::StreamPos;
use parlour_storage::{Quiet, RepairMode, StorageError, Store, backup, reindex, repair, restore};
use rand::RngExt;
use support::{Model, fill, options, quiet, random_group, rng};

/// A store with several segments, closed.
fn filled(dir: &Path, seed: u64) -> Model {
    let mut model = Model::default();
    let (_, mut writer) = Store::open(options(dir)).unwrap();
    fill(&mut writer, &mut model, &mut rng(seed), 60);
    writer.close();
    model
}

fn segment(dir: &Path, number: u64) -> std::path::PathBuf {
    dir.join(format!("log/{number:016}.seg"))
}

fn flip(path: &Path, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1;
    fs::write(path, content).unwrap();
}

#[test]
fn a_backup_taken_while_writing_is_one_moment_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copies) = (dir.path().join("data"), dir.path().join("copies"));
    let (store, mut writer) = Store::open(options(&data)).unwrap();
    let mut model = Model::default();
    fill(&mut writer, &mut model, &mut rng(1), 5);
    let (stop, stopped) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut rng = rng(2);
        while stopped.try_recv().is_err() {
            let group = random_group(&mut rng, writer.next_pos(), 4);
            writer.commit(&group).unwrap();
            model.apply(&group);
        }
        (writer, model)
    });
    let mut taken = Vec::new();
    for number in 0..6 {
        let target = copies.join(number.to_string());
        let before = store.applied();
        let report = backup(&data, &target, &Quiet).unwrap();
        assert!(report.through >= before, "everything acknowledged before is in it");
        taken.push((target, report));
        while store.applied() == before && !thread.is_finished() {
            std::thread::yield_now();
        }
    }
    stop.send(()).unwrap();
    let (writer, model) = thread.join().unwrap();
    assert!(taken[5].1.through > taken[0].1.through);
    for (target, report) in taken {
        let restored = target.with_extension("restored");
        assert_eq!(restore(&target, &restored, &quiet()).unwrap().through, report.through);
        let (store, mut writer) = Store::open(options(&restored)).unwrap();
        let mut prefix = model.prefix(report.through.0);
        prefix.check(&store);
        assert_eq!(store.recovery().replayed, 0, "the index was built by the restore");
        fill(&mut writer, &mut prefix, &mut rng(4), 3);
        prefix.check(&store);
    }
    model.check(&store);
    writer.close();
}

#[test]
fn a_backup_of_an_empty_store_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let [data, copy, restored] = ["data", "copy", "restored"].map(|name| dir.path().join(name));
    let (_, writer) = Store::open(options(&data)).unwrap();
    writer.close();
    assert_eq!(backup(&data, &copy, &Quiet).unwrap().through, StreamPos(0));
    restore(&copy, &restored, &quiet()).unwrap();
    Model::default().check(&Store::open(options(&restored)).unwrap().0);
}

#[test]
fn a_backup_that_is_damaged_or_incomplete_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    filled(&data, 1);
    let report = backup(&data, &copy, &Quiet).unwrap();
    assert!(report.segments > 3);
    let last = report.segments;
    type Harm<'a> = (&'static str, &'a dyn Fn(&Path));
    let harm: [Harm<'_>; 6] = [
        ("no manifest", &|copy| fs::remove_file(copy.join("parlour-backup")).unwrap()),
        ("manifest", &|copy| flip(&copy.join("parlour-backup"), 2)),
        ("first segment", &|copy| fs::remove_file(segment(copy, 1)).unwrap()),
        ("last segment", &|copy| fs::remove_file(segment(copy, last)).unwrap()),
        ("flipped", &|copy| flip(&segment(copy, 2), 100)),
        ("cut", &|copy| {
            let content = fs::read(segment(copy, last)).unwrap();
            fs::write(segment(copy, last), &content[..content.len() - 1]).unwrap();
        }),
    ];
    for (number, (what, harm)) in harm.into_iter().enumerate() {
        let (harmed, target) =
            (dir.path().join(format!("h{number}")), dir.path().join(format!("t{number}")));
        support::copy_dir(&copy, &harmed);
        harm(&harmed);
        let error = restore(&harmed, &target, &quiet()).unwrap_err();
        let fits = matches!(error, StorageError::Refused(_) | StorageError::Damaged { .. });
        assert!(fits, "{what}: {error}");
        assert!(!target.join("log").exists(), "{what}");
    }
}

#[test]
fn nothing_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let [data, copy, other] = ["data", "copy", "other"].map(|name| dir.path().join(name));
    filled(&data, 1);
    backup(&data, &copy, &Quiet).unwrap();
    filled(&other, 2);
    let refused = |result: Result<_, StorageError>| {
        assert!(matches!(result, Err(StorageError::Refused(_))), "{result:?}");
    };
    refused(backup(&data, &copy, &Quiet));
    refused(restore(&copy, &other, &quiet()));
    refused(reindex(dir.path(), &quiet()).map(|_| restore(&copy, &other, &quiet()).unwrap()));
    let (_store, _writer) = Store::open(options(&data)).unwrap();
    assert!(matches!(reindex(&data, &quiet()), Err(StorageError::Locked { .. })));
    let report = repair(&data, RepairMode::Report, &quiet());
    assert!(matches!(report, Err(StorageError::Locked { .. })));
}

#[test]
fn the_index_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(dir.path(), 1);
    assert_eq!(reindex(dir.path(), &quiet()).unwrap().through.0, model.records.len() as u64);
    let (store, _writer) = Store::open(options(dir.path())).unwrap();
    model.check(&store);
    assert_eq!((store.recovery().replayed, store.recovery().rebuilt.as_ref()), (0, None));
}

#[test]
fn a_whole_log_needs_no_repair() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(dir.path(), 1);
    for mode in [RepairMode::Report, RepairMode::CutAtDamage, RepairMode::FillGaps] {
        let report = repair(dir.path(), mode, &quiet()).unwrap();
        assert_eq!(report.whole_through.0, model.records.len() as u64);
        assert_eq!(report.whole_records, model.records.len() as u64);
        assert!(report.losses.is_empty());
        assert_eq!((report.torn_bytes, report.set_aside), (None, None));
    }
}

/// What stands in the place of lost records.
fn with_gaps(model: &Model, lost: impl Fn(u64) -> bool, end: u64) -> Model {
    let mut records = model.prefix(end).records;
    for record in records.iter_mut().filter(|record| lost(record.pos.0)) {
        record.ops.clear();
        record.announcement = bytes::Bytes::new();
    }
    Model::of(&records)
}

#[test]
fn damage_anywhere_is_repaired_as_far_as_possible() {
    let base = tempfile::tempdir().unwrap();
    let model = filled(base.path(), 3);
    let segments = fs::read_dir(base.path().join("log")).unwrap().count() as u64;
    for round in 0..60 {
        let mut rng = rng(round);
        let dir = tempfile::tempdir().unwrap();
        support::copy_dir(base.path(), dir.path());
        let path = segment(dir.path(), rng.random_range(1..=segments));
        let len = fs::metadata(&path).unwrap().len();
        match round % 8 {
            0 => fs::remove_file(&path).unwrap(),
            1 => fs::write(&path, &fs::read(&path).unwrap()[..usize::try_from(len).unwrap() / 2])
                .unwrap(),
            2 => flip(&path, rng.random_range(0..64)),
            _ => flip(&path, rng.random_range(0..usize::try_from(len).unwrap())),
        }
        let report = repair(dir.path(), RepairMode::Report, &quiet()).unwrap();
        let cut = rng.random();
        let mode = if cut { RepairMode::CutAtDamage } else { RepairMode::FillGaps };
        let done = repair(dir.path(), mode, &quiet()).unwrap();
        assert_eq!(done.losses, report.losses, "round {round}");
        let wrong = !report.losses.is_empty() || report.torn_bytes.is_some();
        assert_eq!(done.set_aside.is_some(), wrong);
        // A last file that is gone, or cut between records, is only known to the index.
        let (store, mut writer) = Store::open(options(dir.path())).unwrap();
        let applied = store.applied().0;
        let in_loss = |pos: u64| {
            let within = |loss: &parlour_storage::Loss| {
                loss.first.0 <= pos && loss.last.is_none_or(|last| pos <= last.0)
            };
            report.losses.iter().any(within)
        };
        let mut expected = if cut {
            assert_eq!(applied, report.whole_through.0, "round {round}");
            model.prefix(applied)
        } else {
            assert!(applied >= report.whole_through.0);
            with_gaps(&model, in_loss, applied)
        };
        expected.check(&store);
        if !cut && done.torn_bytes.is_none() && !report.losses.iter().any(|l| l.last.is_none()) {
            let lost = (1..=applied).filter(|pos| in_loss(*pos)).count() as u64;
            assert_eq!(report.whole_records, applied - lost, "round {round}");
        }
        fill(&mut writer, &mut expected, &mut rng, 3);
        expected.check(&store);
        writer.close();
    }
}

#[test]
fn one_flipped_byte_costs_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    // One plain segment.
    let options = parlour_storage::StoreOptions { segment_bytes: 1 << 20, ..options(dir.path()) };
    let (store, mut writer) = Store::open(options.clone()).unwrap();
    for pos in 1..=20 {
        let ops = vec![support::put_blob(&format!("k{pos}"), "v", &format!("the body of {pos}"))];
        let record = support::record(StreamPos(pos), ops);
        writer.commit(std::slice::from_ref(&record)).unwrap();
        model.apply(&[record]);
    }
    let place = store.get(b"k8").unwrap().unwrap().blob.unwrap();
    writer.close();
    flip(&segment(dir.path(), 1), usize::try_from(place.offset).unwrap() + 2);
    let error = Store::open(options.clone()).unwrap_err();
    let StorageError::Damaged { segment: 1, offset, after: StreamPos(7), .. } = error else {
        panic!("{error}")
    };
    let report = repair(dir.path(), RepairMode::FillGaps, &quiet()).unwrap();
    let [loss] = report.losses.as_slice() else { panic!("{report:?}") };
    assert_eq!((loss.first, loss.last), (StreamPos(8), Some(StreamPos(8))));
    assert_eq!((loss.segment, loss.offset), (1, offset));
    assert_eq!((report.whole_through, report.whole_records), (StreamPos(7), 19));
    assert!(report.set_aside.unwrap().join("0000000000000001.seg").exists());
    let (store, _writer) = Store::open(options).unwrap();
    with_gaps(&model, |pos| pos == 8, 20).check(&store);
}
