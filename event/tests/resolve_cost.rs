//! What resolution costs: it follows the conflict, it is bounded, and no graph makes it explode.
#![allow(clippy::unwrap_used)]

mod dag;

use std::sync::atomic::Ordering;

use dag::{
    Room, event, member,
    scale::{self, Scene},
};
use parlour_event::{
    EventNum, StateKeyNum,
    resolve::{AuthCover, ResolveError, ResolveLimits, resolve, resolve_with},
    state::{Overlay, ReadState, StateRoot},
};
use serde_json::json;

const CREATOR: &str = "@creator:one.test";

/// Resolves twice with one cover and says how many events the second time read.
fn warm_reads(scene: &Scene) -> u64 {
    let mut cover = AuthCover::new();
    let mut reads = 0;
    for _ in 0..2 {
        let mut overlay = Overlay::new(&scene.room.nodes);
        let before = scene.room.reads.load(Ordering::Relaxed);
        let (version, limits) = (scene.room.version, ResolveLimits::NONE);
        resolve_with(version, &scene.room, &mut overlay, &scene.states, &mut cover, limits)
            .unwrap();
        reads = scene.room.reads.load(Ordering::Relaxed) - before;
    }
    reads
}

#[test]
fn the_number_of_members_does_not_matter() {
    for version in [11, 12] {
        let small = warm_reads(&scale::room(version, 50, 5).fork(5));
        let large = warm_reads(&scale::room(version, 5_000, 5).fork(5));
        assert!(large <= small + 20, "version {version}: {small} reads became {large}");
    }
}

#[test]
fn power_levels_of_one_fork_undo_bans_of_others_and_a_first_cover_costs_one_walk() {
    for version in [2, 11, 12] {
        let scene = scale::room(version, 500, 4).fork(4);
        let mut overlay = Overlay::new(&scene.room.nodes);
        let root = resolve(scene.room.version, &scene.room, &mut overlay, &scene.states).unwrap();
        let reads = scene.room.reads.load(Ordering::Relaxed);
        assert!(reads < 1_200, "version {version}: {reads} reads");
        for n in 0..4 {
            let key = scene.room.keys["m.room.member"][&format!("@visitor{n}:s{n}.test")];
            let num = overlay.get(root, key).unwrap().unwrap();
            let content = scene.room.events[num.0 as usize].content();
            // The first fork's power levels leave only the first moderator in power.
            let expected = if n == 0 { "ban" } else { "join" };
            assert_eq!(content["membership"].as_str(), Some(expected), "version {version}");
        }
        assert_eq!(root.member_len(), scene.states[0].member_len());
    }
}

#[test]
fn work_is_limited_and_a_limit_does_no_harm() {
    let scene = scale::room(11, 300, 4).fork(4);
    let mut cover = AuthCover::new();
    let mut run = |max_events| {
        let mut overlay = Overlay::new(&scene.room.nodes);
        let limits = ResolveLimits { max_events };
        let (room, states) = (&scene.room, &scene.states);
        resolve_with(room.version, room, &mut overlay, states, &mut cover, limits)
    };
    let expected = run(u64::MAX).unwrap();
    for max_events in [0, 1, 5, 20, 40] {
        assert_eq!(run(max_events), Err(ResolveError::TooLarge { max_events }));
    }
    assert_eq!(run(u64::MAX).unwrap(), expected);
}

#[test]
fn trivial_sets_of_states() {
    let scene = scale::room(11, 10, 1);
    let room = &scene.room;
    let mut overlay = Overlay::new(&room.nodes);
    let mut run = |states: &[StateRoot]| resolve(room.version, room, &mut overlay, states).unwrap();
    let root = scene.states[0];
    assert_eq!(run(&[]), StateRoot::EMPTY);
    assert_eq!(run(&[root]), root);
    assert_eq!(run(&[root, root, root]), root);
    assert_eq!(room.reads.load(Ordering::Relaxed), 0, "nothing is in conflict");
}

/// A room in which every power levels event cites the last two: the number of paths through its
/// auth chains doubles with each.
fn ladder(version: u8, length: usize) -> Scene {
    let mut scene = scale::room(version, 3, 2);
    let root = scene.states[0];
    let key = scene.room.keys["m.room.power_levels"][""];
    let mut last = scene.room.select_auth(&event(CREATOR, "m.room.topic", "", json!({})), &|key| {
        scene.room.nodes.get(root, key).unwrap()
    });
    let base = last.clone();
    let mut chain: Vec<EventNum> = Vec::new();
    for n in 0..length {
        let users = if version < 12 { json!({ CREATOR: 100 }) } else { json!({}) };
        let levels = json!({ "users": users, "ban": n % 50 });
        let mut levels = event(CREATOR, "m.room.power_levels", "", levels);
        levels.ts = 10_000 + n as u64;
        let num = scene.room.add(&levels, &last, false);
        last = base.clone();
        last.extend(chain.last());
        last.push(num);
        chain.push(num);
    }
    let other = event(CREATOR, "m.room.topic", "", json!({}));
    let change = |num: &EventNum| scene.room.store_change(root, &[(key, Some(*num))]);
    let states = vec![change(&chain[length - 1]), change(&chain[length / 2])];
    let (_, third) = scene.room.add_on(root, &other);
    scene.states = states;
    scene.states.push(third);
    scene
}

#[test]
fn doubling_paths_are_walked_once() {
    for version in [2, 11, 12] {
        let scene = ladder(version, 3_000);
        let room = &scene.room;
        let mut overlay = Overlay::new(&room.nodes);
        let limits = ResolveLimits { max_events: 60_000 };
        let mut cover = AuthCover::new();
        let states = &scene.states;
        let root = resolve_with(room.version, room, &mut overlay, states, &mut cover, limits);
        assert!(root.is_ok(), "version {version}: {root:?}");
    }
}

/// In versions 1 and 2 event ids are no hashes, so events could claim to cite each other.
#[test]
fn events_that_cite_each_other_end_no_loop() {
    for version in [2, 11, 12] {
        let mut scene = scale::room(version, 3, 2);
        let root = scene.states[0];
        let key = scene.room.keys["m.room.power_levels"][""];
        let member_key = scene.room.keys["m.room.member"][CREATOR];
        let levels = event(CREATOR, "m.room.power_levels", "", json!({}));
        let (a, b, c) = (
            scene.room.add(&levels, &[EventNum(0)], false),
            scene.room.add(&levels, &[EventNum(0)], false),
            scene.room.add(&member(CREATOR, CREATOR, "join"), &[EventNum(0)], false),
        );
        scene.room.auth[a.0 as usize] = [b, EventNum(0)].into();
        scene.room.auth[b.0 as usize] = [a, c].into();
        scene.room.auth[c.0 as usize] = [c, a].into();
        let states = [(key, a), (key, b), (member_key, c)]
            .map(|(key, num)| scene.room.store_change(root, &[(key, Some(num))]));
        let mut overlay = Overlay::new(&scene.room.nodes);
        let limits = ResolveLimits { max_events: 1_000 };
        let mut cover = AuthCover::new();
        let room = &scene.room;
        let result = resolve_with(room.version, room, &mut overlay, &states, &mut cover, limits);
        assert!(result.is_ok(), "version {version}: {result:?}");
    }
}

#[test]
fn events_that_are_not_known_are_left_out() {
    let scene = scale::room(11, 3, 2).fork(2);
    let room: &Room = &scene.room;
    let key = room.keys["m.room.topic"][""];
    let known = room.nodes.get(scene.states[0], key).unwrap();
    let unknown = room.store_change(scene.states[0], &[(key, Some(EventNum(1 << 40)))]);
    let mut overlay = Overlay::new(&room.nodes);
    let states = [scene.states[0], unknown];
    let root = resolve(room.version, room, &mut overlay, &states).unwrap();
    assert_eq!(overlay.get(root, key).unwrap(), known);

    let nowhere = StateKeyNum::new(1 << 30, false);
    let only = room.store_change(scene.states[0], &[(nowhere, Some(EventNum(1 << 40)))]);
    let states = [scene.states[0], only];
    let root = resolve(room.version, room, &mut overlay, &states).unwrap();
    assert_eq!(root, scene.states[0]);
}
