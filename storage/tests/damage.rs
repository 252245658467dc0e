//! Damage of the log: found, with its position; never a panic, never silent.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parlour_event::StreamPos;
use parlour_storage::{Direction, MemoryEngine, SledEngine, StorageError, Store, StoreOptions};
use support::{
    LaggingEngine, Model, fill, options, put_blob, random_group, record, rng, simfs::SimFs,
};

fn sim_options(files: &SimFs) -> StoreOptions {
    StoreOptions {
        files: Arc::new(files.clone()),
        index: Arc::new(MemoryEngine),
        segment_bytes: 900,
        ..options(Path::new("/sim"))
    }
}

fn segment(number: u64) -> PathBuf {
    PathBuf::from(format!("/sim/log/{number:016}.seg"))
}

/// A log with some packed segments and a plain last one, and the sizes of its groups.
fn log(seed: u64) -> (SimFs, Model, Vec<u64>, u64) {
    let files = SimFs::default();
    let (mut model, mut rng, mut groups) = (Model::default(), rng(seed), Vec::new());
    let mut last = 1;
    while last < 4 || groups.len() < 12 {
        let (_, mut writer) = Store::open(sim_options(&files)).unwrap();
        let group = random_group(&mut rng, writer.next_pos(), 3);
        writer.commit(&group).unwrap();
        model.apply(&group);
        groups.push(group.len() as u64);
        // Not more than one job can wait, so closing does not leave it undone for ever.
        writer.close();
        while exists(&files, last + 1) {
            last += 1;
        }
        assert!(groups.len() < 200);
    }
    wait_until_packed(&files, last);
    (files, model, groups, last)
}

fn exists(files: &SimFs, number: u64) -> bool {
    use parlour_storage::fs::FileSystem;
    files.open(&segment(number), false).is_ok()
}

fn is_packed(files: &SimFs, number: u64) -> bool {
    files.read(&segment(number))[11] == 1
}

/// Keeps the store open until its thread has packed all segments but the last.
fn wait_until_packed(files: &SimFs, last: u64) {
    let (_store, writer) = Store::open(sim_options(files)).unwrap();
    while !(1..last).all(|number| is_packed(files, number)) {
        std::thread::yield_now();
    }
    writer.close();
}

#[test]
fn a_log_cut_anywhere_in_its_last_segment_holds_the_commits_before() {
    for seed in 0..3 {
        let (files, model, _, last) = log(seed);
        let whole = files.read(&segment(last));
        let mut seen = 0;
        for len in (0..whole.len()).rev() {
            let cut = files.fork();
            cut.write(&segment(last), whole[..len].to_vec());
            let (store, mut writer) = Store::open(sim_options(&cut)).unwrap();
            let applied = store.applied().0;
            let mut prefix = model.prefix(applied);
            prefix.check(&store);
            if applied != seen {
                // And it goes on from there.
                seen = applied;
                fill(&mut writer, &mut prefix, &mut rng(9), 3);
                prefix.check(&store);
                writer.close();
                prefix.check(&Store::open(sim_options(&cut)).unwrap().0);
            }
        }
        assert!(seen < model.records.len() as u64);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (files, model, groups, last) = log(7);
    let before_last_group = model.records.len() as u64 - groups.last().unwrap();
    let (mut stopped, mut torn) = (0, 0);
    for number in 1..=last {
        let whole = files.read(&segment(number));
        for at in 0..whole.len() {
            let mut content = whole.clone();
            content[at] ^= 1 << (at % 8);
            let damaged = files.fork();
            damaged.write(&segment(number), content);
            match Store::open(sim_options(&damaged)) {
                Err(StorageError::Damaged { segment, after, .. }) => {
                    // A joint that does not fit may be blamed on the segment after it.
                    assert!(segment == number || segment == number + 1, "{segment} for {number}");
                    assert!(after.0 < model.records.len() as u64);
                    stopped += 1;
                }
                Err(error) => panic!("byte {at} of segment {number}: {error}"),
                Ok((store, _writer)) => {
                    // Only what a torn group looks like may be cut off, and is reported.
                    assert_eq!(number, last, "byte {at} of segment {number} was not noticed");
                    assert!(store.recovery().torn_bytes.is_some());
                    assert!(store.applied().0 >= before_last_group);
                    assert!(store.applied().0 < model.records.len() as u64);
                    model.prefix(store.applied().0).check(&store);
                    torn += 1;
                }
            }
        }
    }
    assert!(stopped > 500 && torn > 20, "{stopped} stops, {torn} torn tails");
}

#[test]
fn zeros_written_ahead_are_no_records() {
    let files = SimFs::default();
    let options = StoreOptions { segment_bytes: 1 << 20, ..sim_options(&files) };
    let mut model = Model::default();
    let (store, mut writer) = Store::open(options.clone()).unwrap();
    fill(&mut writer, &mut model, &mut rng(3), 10);
    // What a kill leaves: nobody closed anything.
    let (killed, cut) = (files.fork(), files.fork());
    let content = files.read(&segment(1));
    let used = content.len() - content.iter().rev().take_while(|byte| **byte == 0).count();
    assert!(used < content.len() / 2, "{used} of {}", content.len());
    drop(store);
    writer.close();
    assert!(files.read(&segment(1)).len() < used + 8, "a stopped server leaves no zeros");

    let options_of =
        |files: &SimFs| StoreOptions { files: Arc::new(files.clone()), ..options.clone() };
    let (store, mut writer) = Store::open(options_of(&killed)).unwrap();
    assert_eq!(store.recovery().torn_bytes, None);
    model.check(&store);
    fill(&mut writer, &mut model.clone(), &mut rng(4), 3);

    // Something else than zeros there was part of no commit that was acknowledged.
    let mut content = content;
    content[used + 1000] = 1;
    cut.write(&segment(1), content);
    let (store, mut writer) = Store::open(options_of(&cut)).unwrap();
    assert!(store.recovery().torn_bytes.is_some());
    model.check(&store);
    fill(&mut writer, &mut model, &mut rng(5), 3);
    model.check(&store);
}

#[test]
fn a_missing_segment_is_found() {
    use parlour_storage::fs::FileSystem;
    let (files, ..) = log(8);
    for number in [1, 2, 3] {
        let damaged = files.fork();
        damaged.remove(&segment(number)).unwrap();
        let error = Store::open(sim_options(&damaged)).unwrap_err();
        assert!(
            matches!(error, StorageError::Damaged { segment, .. } if segment == number),
            "{error}"
        );
    }
}

#[test]
fn segments_that_changed_places_are_found() {
    let (files, ..) = log(8);
    let (one, two) = (files.read(&segment(1)), files.read(&segment(2)));
    files.write(&segment(1), two);
    files.write(&segment(2), one);
    let error = Store::open(sim_options(&files)).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { segment: 1, .. }), "{error}");
}

#[test]
fn what_the_index_knows_of_is_never_cut_off_as_torn() {
    let files = SimFs::default();
    let engine = LaggingEngine::default();
    let options = StoreOptions { index: Arc::new(engine), ..sim_options(&files) };
    let (_, mut writer) = Store::open(options.clone()).unwrap();
    let ops = vec![put_blob("a", "v", "body")];
    writer.commit(&[record(StreamPos(1), ops)]).unwrap();
    writer.close();
    let mut content = files.read(&segment(1));
    let at = content.len() - 3;
    content[at] ^= 1;
    files.write(&segment(1), content.clone());
    for _ in 0..2 {
        let error = Store::open(options.clone()).unwrap_err();
        let StorageError::Damaged { segment, offset, after, .. } = error else { panic!("{error}") };
        assert_eq!((segment, offset, after), (1, 64, StreamPos(0)));
    }
    content[at] ^= 1;
    files.write(&segment(1), content);
    assert_eq!(Store::open(options).unwrap().0.applied(), StreamPos(1));
}

#[test]
fn a_body_that_goes_bad_while_the_store_is_open_is_found() {
    use rand::RngExt;
    let (files, mut rng) = (SimFs::default(), rng(1));
    let (store, mut writer) = Store::open(sim_options(&files)).unwrap();
    // Each in a segment of its own, and together more than the cache holds.
    for pos in 1..=8 {
        let body: String = (0..150_000).map(|_| rng.random_range('a'..='z')).collect();
        let ops = vec![put_blob(&format!("k{pos}"), "v", &body)];
        writer.commit(&[record(StreamPos(pos), ops)]).unwrap();
    }
    drop(store);
    writer.close();
    wait_until_packed(&files, 8);
    let (store, _writer) = Store::open(sim_options(&files)).unwrap();
    for (number, packed) in [(1, true), (8, false)] {
        assert_eq!(is_packed(&files, number), packed);
        let place = store.get(format!("k{number}").as_bytes()).unwrap().unwrap().blob.unwrap();
        assert_eq!(store.blob(&place).unwrap().len(), 150_000);
        let mut content = files.read(&segment(number));
        // Some frames may still be in the cache, not all.
        content.iter_mut().skip(100).step_by(1000).for_each(|byte| *byte ^= 1);
        files.write(&segment(number), content);
        (1..8).for_each(|n| drop(store.records(StreamPos(n)).map(Iterator::count)));
        let error = store.blob(&place).unwrap_err();
        let StorageError::Damaged { segment, after, .. } = error else { panic!("{error}") };
        assert_eq!((segment, after), (number, StreamPos(number - 1)));
        assert!(store.records(StreamPos(0)).unwrap().any(|record| record.is_err()));
    }
}

#[test]
fn a_damaged_index_is_rebuilt() {
    let base = tempfile::tempdir().unwrap();
    let options = |dir: &Path| StoreOptions { index: Arc::new(SledEngine), ..options(dir) };
    let mut model = Model::default();
    for seed in 0..3 {
        let (_, mut writer) = Store::open(options(base.path())).unwrap();
        fill(&mut writer, &mut model, &mut rng(seed), 60);
        writer.close();
    }
    let mut rebuilt = 0;
    for round in 0..rounds() {
        let mut rng = rng(round);
        let dir = tempfile::tempdir().unwrap();
        support::copy_dir(base.path(), dir.path());
        damage_index(&dir.path().join("index"), &mut rng);
        let (store, mut writer) = Store::open(options(dir.path())).unwrap();
        model.check(&store);
        rebuilt += u64::from(store.recovery().rebuilt.is_some());
        let mut longer = model.clone();
        fill(&mut writer, &mut longer, &mut rng, 3);
        writer.close();
        let (store, writer) = Store::open(options(dir.path())).unwrap();
        longer.check(&store);
        assert_eq!(store.scan_prefix(b"", Direction::Forward, 9).unwrap().len(), 9);
        writer.close();
    }
    assert!(rebuilt > rounds() / 10, "{rebuilt} rebuilds");
}

fn rounds() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

/// Flips bytes, cuts, removes or overwrites files of the index.
fn damage_index(dir: &Path, rng: &mut rand::rngs::StdRng) {
    use rand::RngExt;
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let kind = rng.random_range(0..6);
    if kind == 0 {
        return std::fs::remove_dir_all(dir).unwrap();
    }
    let path = &files[rng.random_range(0..files.len())];
    let mut content = std::fs::read(path).unwrap();
    // Most of a sled file is empty; damage is to hit something.
    let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    match kind {
        1 => return std::fs::remove_file(path).unwrap(),
        2 => content.truncate(rng.random_range(0..=used)),
        3 => {
            let from = rng.random_range(0..=used);
            let until = rng.random_range(from..=used);
            content[from..until].fill(0);
        }
        _ => {
            for _ in 0..rng.random_range(1..20) {
                if used > 0 {
                    content[rng.random_range(0..used)] ^= 1 << rng.random_range(0..8);
                }
            }
        }
    }
    std::fs::write(path, content).unwrap();
}

#[test]
fn a_leftover_of_a_start_that_was_killed_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let (_, mut writer) = Store::open(options(dir.path())).unwrap();
    fill(&mut writer, &mut model, &mut rng(1), 20);
    writer.close();
    std::fs::write(dir.path().join("index/snap.0000000000000FFF.generating"), b"half").unwrap();
    std::fs::write(dir.path().join("log/0000000000000001.tmp"), b"half").unwrap();
    let (store, _writer) = Store::open(options(dir.path())).unwrap();
    model.check(&store);
    assert_eq!(store.recovery().rebuilt, None);
    assert!(!dir.path().join("log/0000000000000001.tmp").exists());
}

#[test]
fn an_index_that_failed_in_use_is_rebuilt_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    for round in 0..4 {
        let (store, mut writer) = Store::open(options(dir.path())).unwrap();
        assert_eq!(store.recovery().rebuilt.is_some(), round > 0);
        model.check(&store);
        fill(&mut writer, &mut model, &mut rng(round), 5);
        writer.close();
        std::fs::write(dir.path().join("index.suspect"), b"").unwrap();
    }
    // Only two broken ones are kept.
    let kept = |name: &str| dir.path().join(name).exists();
    assert_eq!([1, 2, 3].map(|n| kept(&format!("index.broken-{n}"))), [true, true, false]);
}
