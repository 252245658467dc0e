//! State resolution in rooms of 10, 1,000 and 50,000 members with 2, 10 and 50 forks.
//!
//! `warm` keeps the room's auth cover between resolutions, as a room does; `cold` builds it anew.
//! `expensive` is a conflict whose cost lies in itself.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/dag/mod.rs"]
mod dag;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dag::scale::{self, Scene};
use parlour_event::{
    resolve::{AuthCover, ResolveLimits, resolve_with},
    state::{Overlay, StateRoot},
};

fn run(scene: &Scene, cover: &mut AuthCover) -> StateRoot {
    let mut overlay = Overlay::new(&scene.room.nodes);
    let (room, states) = (&scene.room, black_box(&scene.states));
    resolve_with(room.version, room, &mut overlay, states, cover, ResolveLimits::NONE).unwrap()
}

fn resolution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resolve");
    group.sample_size(20);
    for version in [11, 12] {
        for members in [10, 1_000, 50_000] {
            for forks in [2, 10, 50] {
                let scene = scale::room(version, members.max(forks), forks).fork(forks);
                let name = format!("v{version}/{members} members");
                let mut cover = AuthCover::new();
                group.bench_function(BenchmarkId::new(format!("warm/{name}"), forks), |bencher| {
                    bencher.iter(|| run(&scene, &mut cover));
                });
                if forks == 2 {
                    group.bench_function(
                        BenchmarkId::new(format!("cold/{name}"), forks),
                        |bencher| bencher.iter(|| run(&scene, &mut AuthCover::new())),
                    );
                }
            }
        }
        group.sample_size(10);
        let scene = scale::expensive(version, 10, 10, 20);
        group.bench_function(BenchmarkId::new("expensive/4,000 events", version), |bencher| {
            bencher.iter(|| run(&scene, &mut AuthCover::new()));
        });
    }
    group.finish();
}

criterion_group!(benches, resolution);
criterion_main!(benches);
