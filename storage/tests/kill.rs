//! The process is killed at any moment, with sled under the index and runs that are written and
//! merged all the time. Nothing acknowledged is lost, and nothing else is there.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use parlour_event::StreamPos;
use parlour_storage::{Record, Store, StoreOptions};
use rand::RngExt;
use support::{Model, options, random_record, rng};

/// Tells the process that is killed where its store is.
const DIR: &str = "PARLOUR_TEST_KILLED_STORE";
const TEST: &str = "nothing_acknowledged_is_lost_when_the_process_is_killed";
const ROUNDS: u64 = 10;
const MOST_COMMITS: usize = 1_500;

fn options_of(dir: &Path) -> StoreOptions {
    StoreOptions { segment_bytes: 64 << 10, ..options(dir) }
}

/// What is committed at a position, in every life.
fn record_at(pos: u64) -> Record {
    random_record(&mut rng(pos), StreamPos(pos))
}

/// Commits until it is killed, and says what is durable.
fn live(dir: &Path) {
    let (_, mut writer) = Store::open(options_of(dir)).unwrap();
    loop {
        let pos = writer.next_pos();
        writer.commit(&[record_at(pos.0)]).unwrap();
        println!("durable {pos}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    if let Ok(dir) = env::var(DIR) {
        return live(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut rng, mut kept) = (rng(1), 0);
    for round in 0..ROUNDS {
        let mut life = Command::new(env::current_exe().unwrap());
        life.args(["--exact", TEST, "--nocapture"]).env(DIR, dir.path()).stdout(Stdio::piped());
        let mut life = life.spawn().unwrap();
        let lines = BufReader::new(life.stdout.take().unwrap()).lines().map(Result::unwrap);
        let durable = lines.filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        let acknowledged = durable.take(rng.random_range(1..MOST_COMMITS)).last().unwrap();
        life.kill().unwrap();
        life.wait().unwrap();
        let (store, writer) = Store::open(options_of(dir.path())).unwrap();
        assert!(store.applied().0 >= acknowledged, "round {round}");
        let records: Vec<_> = (1..=store.applied().0).map(record_at).collect();
        Model::of(&records).check(&store);
        kept += u64::from(store.recovery().rebuilt.is_none());
        writer.close();
    }
    assert!(kept > ROUNDS / 2, "the index was rebuilt in {} of {ROUNDS} rounds", ROUNDS - kept);
}
