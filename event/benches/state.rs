//! The state map: look-up, change and diff in rooms of 10, 1,000 and 50,000 members.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use parlour_event::{
    EventNum, StateKeyNum,
    state::{MemoryNodes, Overlay, ReadState, StateRoot},
};

fn room(members: u64) -> (MemoryNodes, StateRoot) {
    let nodes = MemoryNodes::new();
    let mut overlay = Overlay::new(&nodes);
    let others = (0..30).map(|n| (StateKeyNum::new(n, false), EventNum(n)));
    let members = (100..100 + members).map(|n| (StateKeyNum::new(n, true), EventNum(n)));
    let root = overlay.from_entries(others.chain(members));
    nodes.extend(overlay.into_new_nodes(&[root]));
    (nodes, root)
}

fn state(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state");
    for members in [10, 1_000, 50_000] {
        let (nodes, root) = room(members);
        let key = StateKeyNum::new(100 + members / 2, true);
        let event = EventNum(1_000_000);
        group.bench_function(BenchmarkId::new("get", members), |bencher| {
            bencher.iter(|| nodes.get(black_box(root), black_box(key)).unwrap());
        });
        group.bench_function(BenchmarkId::new("insert", members), |bencher| {
            bencher.iter(|| Overlay::new(&nodes).insert(black_box(root), key, event).unwrap());
        });
        let mut overlay = Overlay::new(&nodes);
        let changed = overlay.insert(root, key, event).unwrap();
        group.bench_function(BenchmarkId::new("diff", members), |bencher| {
            bencher.iter(|| overlay.diff(black_box(root), black_box(changed)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, state);
criterion_main!(benches);
