//! What a key costs in the log and the index: in a row with its neighbours, anywhere among others, and
//! anywhere but in runs. CPU, memory and disk for each, and how long reading takes. Each line is a
//! process of its own: `cargo bench --bench keys -- [how many events]`.
//!
//! Set `TMPDIR` to a file system in memory, or the disk is measured, too.
#![allow(clippy::disallowed_methods, missing_docs, reason = "a benchmark measures")]

use std::{env, fs, hint::black_box, path::Path, process::Command, time::Instant};

use bytes::Bytes;
use parlour_event::StreamPos;
use parlour_storage::{Op, Record, Store, StoreOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the processes tell each other in.
const CHILD: &str = "PARLOUR_BENCH_KEYS";

/// Under which keyspaces an event's two keys are, and whether these are kept in rows or in runs.
const KINDS: [(&str, [u8; 2]); 3] =
    [("in a row", *b"EE"), ("each on its own", *b"JY"), ("in runs", *b"IX")];

fn noise(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 32
}

/// `$` and 43 letters.
fn event_id(number: u64) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let words = (0..5).map(|word| noise(number * 5 + word));
    let letters =
        words.flat_map(|word| (0..10).map(move |at| letters[(word >> (6 * at)) as usize % 64]));
    std::iter::once('$').chain(letters.take(43).map(char::from)).collect()
}

/// An event's two keys.
fn keys([id, transaction]: [u8; 2], number: u64) -> [Bytes; 2] {
    if id == b'E' {
        let row = |number: u64| [&[id], &number.to_be_bytes()[..], &[0; 21]].concat().into();
        return [row(2 * number), row(2 * number + 1)];
    }
    let hash = [noise(!number * 2).to_le_bytes(), noise(!number * 2 + 1).to_le_bytes()];
    let transaction = [&[transaction], &hash.concat()[..]].concat();
    [[&[id], event_id(number).as_bytes()].concat().into(), transaction.into()]
}

fn record(number: u64, keyspaces: [u8; 2]) -> Record {
    let answer = [&[1, 44], event_id(number).as_bytes(), &[7; 6]].concat();
    let number_of = [&[1][..], &number.to_le_bytes()[..4]].concat();
    let ops = keys(keyspaces, number).into_iter().zip([number_of, answer]);
    let ops = ops.map(|(key, value)| Op::Put { key, value: value.into() }).collect();
    Record { pos: StreamPos(number), ops, announcement: Bytes::new() }
}

/// CPU of this process in microseconds.
fn cpu() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let times = stat.rsplit(')').next().expect("it has a name").split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<u64>().expect("a number") * 10_000).sum()
}

/// Bytes of memory of this process.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("it says so");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<u64>().expect("a number") << 10
}

fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// Microseconds that each of some reads takes.
fn time(reads: u64, read: impl Fn(u64)) -> f64 {
    let started = Instant::now();
    (0..reads).for_each(read);
    started.elapsed().as_secs_f64() * 1e6 / reads as f64
}

/// Writes events, reads some, and prints what it took.
fn measure(keyspaces: [u8; 2], events: u64, in_commit: u64) {
    const READS: u64 = 100_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = StoreOptions::new(dir.path());
    let (store, mut writer) = Store::open(options.clone()).expect("the store opens");
    let (before, started) = (cpu(), Instant::now());
    for first in (1..=events).step_by(in_commit as usize) {
        let last = events.min(first + in_commit - 1);
        let records: Vec<_> = (first..=last).map(|number| record(number, keyspaces)).collect();
        writer.commit(&records).expect("it commits");
    }
    let wall = started.elapsed().as_secs_f64();
    writer.close();
    let (wrote, after_writing) = (cpu() - before, memory());
    let disk = disk_bytes(&dir.path().join("index"));
    drop(store);
    let started = Instant::now();
    let (store, writer) = Store::open(options).expect("the store opens");
    let opened = started.elapsed().as_secs_f64();
    let has = |key: &Bytes| store.get(key).expect("it reads").is_some();
    let some = |n: u64| assert!(has(&keys(keyspaces, 1 + noise(n) % events)[0]), "it is there");
    let none = |n: u64| assert!(!black_box(has(&keys(keyspaces, events + 1 + n)[1])));
    let (found, absent) = (time(READS, some), time(READS, none));
    let after_reading = memory();
    writer.close();
    println!(
        "{wrote} {after_writing} {after_reading} {disk} {wall:.1} {opened:.1} {found:.1} {absent:.1}"
    );
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let Ok(child) = env::var(CHILD) {
        let numbers: Vec<u64> = child.split(' ').map(|n| n.parse().expect("a number")).collect();
        return measure(KINDS[numbers[0] as usize].1, numbers[1], numbers[2]);
    }
    let events = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(200_000_u64);
    println!("{events} events, two keys each");
    println!(
        "in a commit  kept              CPU us/key  write MB  read MB  disk B/key  total s  open s  get us  \
         absent us"
    );
    for in_commit in [1, 16, 256] {
        for (kind, (name, _)) in KINDS.iter().enumerate() {
            let child = format!("{kind} {events} {in_commit}");
            let me = env::current_exe().expect("this program");
            let output = Command::new(me).env(CHILD, child).output().expect("it runs");
            let output = String::from_utf8(output.stdout).expect("text");
            let told: Vec<f64> = output.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let [wrote, wrote_in, read_in, disk, wall, opened, found, absent] = told[..] else {
                panic!("a part failed: {output}")
            };
            let keys = 2.0 * events as f64;
            let (cpu, disk) = (wrote / keys, disk / keys);
            let (wrote_in, read_in) = (wrote_in / 1e6, read_in / 1e6);
            println!(
                "{in_commit:11}  {name:16}  {cpu:10.2}  {wrote_in:8.0}  {read_in:7.0}  {disk:10.0}  \
                 {wall:7.1}  {opened:6.1}  {found:6.1}  {absent:9.1}"
            );
        }
    }
}
