//! How many commits per second become durable and readable, and how many can be read.
//!
//! The file system is the one that holds the temporary directory: set `TMPDIR` to a disk.
#![allow(clippy::disallowed_methods, missing_docs, reason = "a benchmark measures")]

use std::{hint::black_box, path::Path};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use parlour_event::StreamPos;
use parlour_storage::{Direction, Op, Record, Store, StoreOptions, Writer};

/// What one message in a room costs: the event with its body, its id, two timelines, the room's
/// head, the transaction.
fn commit(pos: StreamPos) -> Record {
    let n = pos.0;
    let room = (n % 100).to_be_bytes();
    let key = |prefix: u8, parts: &[&[u8]]| -> Bytes {
        [prefix].into_iter().chain(parts.iter().flat_map(|part| part.iter().copied())).collect()
    };
    // As hard to compress as an event with ids, hashes and a signature is.
    let noise: String = (0..9)
        .map(|i| format!("{:016x}", (n * 9 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let body = format!(
        "{{\"auth_events\":[\"${noise}\"],\"content\":{{\"body\":\"Message number {n}\",\
         \"msgtype\":\"m.text\"}},\"depth\":{n},\"hashes\":{{\"sha256\":\"{noise}\"}},\
         \"origin_server_ts\":{n},\"prev_events\":[\"${}\"],\"room_id\":\"!{}:example.org\",\
         \"sender\":\"@user{}:example.org\",\"type\":\"m.room.message\",\"signatures\":{{}}}}",
        &noise[..43],
        n % 100,
        n % 1000
    );
    let put = |key, value: &[u8]| Op::Put { key, value: Bytes::copy_from_slice(value) };
    let number = n.to_be_bytes();
    let ops = vec![
        Op::PutBlob { key: key(b'E', &[&number]), value: vec![1; 40].into(), blob: body.into() },
        put(key(b'I', &[&noise.as_bytes()[..43]]), &number),
        put(key(b'T', &[&room, &number]), &number),
        put(key(b'G', &[&room, &number, &number]), &number),
        put(key(b'H', &[&room]), &[7; 200]),
        put(key(b'X', &[&noise.as_bytes()[60..92]]), &[3; 50]),
    ];
    Record { pos, ops, announcement: vec![0; 12].into() }
}

fn group(writer: &Writer, size: u64) -> Vec<Record> {
    let next = writer.next_pos().0;
    (next..next + size).map(|pos| commit(StreamPos(pos))).collect()
}

fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

fn open(dir: &Path) -> (Store, Writer) {
    let started = std::time::Instant::now();
    let clock = std::sync::Arc::new(move || started.elapsed());
    let options = StoreOptions { clock: Some(clock), ..StoreOptions::new(dir) };
    Store::open(options).expect("the store opens")
}

fn commits(c: &mut Criterion) {
    let mut bench = c.benchmark_group("durable commits");
    for size in [1, 16, 64] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (_, mut writer) = open(dir.path());
        bench.throughput(Throughput::Elements(size));
        bench.bench_function(format!("batches of {size}"), |b| {
            b.iter_batched(
                || size,
                |size| {
                    let records = group(&writer, size);
                    writer.commit(&records).expect("it commits")
                },
                BatchSize::PerIteration,
            );
        });
        writer.close();
    }
}

fn reads(c: &mut Criterion) {
    const EVENTS: u64 = 200_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, mut writer) = open(dir.path());
    let mut parts = [std::time::Duration::ZERO; 3];
    for _ in 0..EVENTS / 64 {
        let timings = writer.commit(&group(&writer, 64)).expect("it commits");
        parts[0] += timings.write;
        parts[1] += timings.flush;
        parts[2] += timings.index;
    }
    println!("time in write, flush, index: {parts:?} for {} events", store.applied());
    let per_event = |name: &str| disk_bytes(&dir.path().join(name)) / store.applied().0;
    println!("bytes on disk per event: log {}, index {}", per_event("log"), per_event("index"));
    let mut bench = c.benchmark_group("reads");
    let mut n = 0u64;
    for (name, among) in [("newest 20,000", 20_000), ("all 200,000", EVENTS - 64)] {
        bench.throughput(Throughput::Elements(1));
        bench.bench_function(format!("event with body, {name}"), |b| {
            b.iter(|| {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let event = store.applied().0 - (n >> 33) % among;
                let mut key = vec![b'E'];
                key.extend(event.to_be_bytes());
                let entry = store.get(&key).expect("it reads").expect("it is there");
                black_box(store.blob(&entry.blob.expect("it has a body")).expect("it reads"))
            });
        });
    }
    bench.throughput(Throughput::Elements(20));
    bench.bench_function("the last 20 of a room's timeline", |b| {
        b.iter(|| {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut key = vec![b'T'];
            key.extend(((n >> 33) % 100).to_be_bytes());
            black_box(store.scan_prefix(&key, Direction::Backward, 20).expect("it reads"))
        });
    });
    bench.finish();
    writer.close();
    let started = std::time::Instant::now();
    let (_, writer) = open(dir.path());
    println!("opened again in {:?}", started.elapsed());
    writer.close();
}

criterion_group!(benches, commits, reads);
criterion_main!(benches);
