//! State resolution v1 on cases worked out by hand.
//!
//! Each case says which events conflict, in which order the algorithm takes them (ascending depth,
//! then descending SHA-1 of the event id), and what comes out.
#![allow(clippy::unwrap_used)]

mod dag;

use std::collections::BTreeMap;

use dag::{NewEvent, Room, event, member};
use parlour_event::{
    EventNum,
    resolve::resolve,
    state::{Overlay, ReadState, StateRoot},
};
use serde_json::json;
use sha1::{Digest, Sha1};

const ALICE: &str = "@alice:one.test";
const BOB: &str = "@bob:one.test";
const CAROL: &str = "@carol:one.test";
const DAVE: &str = "@dave:one.test";

/// A version 1 room: Alice made it (power 100), Bob has power 50, Carol has none; all are joined,
/// anybody may join. The events have depths 1 to 6.
struct Case {
    room: Room,
    start: StateRoot,
}

impl Case {
    fn new() -> Self {
        let mut case = Self { room: Room::new(1, 1), start: StateRoot::EMPTY };
        let levels = json!({ "users": { ALICE: 100, BOB: 50 } });
        let founding = [
            event(ALICE, "m.room.create", "", json!({ "creator": ALICE })),
            member(ALICE, ALICE, "join"),
            event(ALICE, "m.room.power_levels", "", levels),
            event(ALICE, "m.room.join_rules", "", json!({ "join_rule": "public" })),
            member(BOB, BOB, "join"),
            member(CAROL, CAROL, "join"),
        ];
        for (index, new) in founding.into_iter().enumerate() {
            (_, case.start) = case.add(case.start, index as u64 + 1, new);
        }
        case
    }

    /// Adds an event that the state allows, at a depth; says the event and the state after it.
    fn add(&mut self, state: StateRoot, depth: u64, new: NewEvent) -> (EventNum, StateRoot) {
        self.room.add_on(state, &NewEvent { depth, ..new })
    }

    /// Resolves in both orders and says what differs from the start.
    fn resolve(&self, states: &[StateRoot]) -> BTreeMap<String, EventNum> {
        let mut overlay = Overlay::new(&self.room.nodes);
        let root = resolve(self.room.version, &self.room, &mut overlay, states).unwrap();
        let reversed: Vec<_> = states.iter().rev().copied().collect();
        let again = resolve(self.room.version, &self.room, &mut overlay, &reversed).unwrap();
        assert_eq!(root, again, "the order of the states must not matter");
        let changes = overlay.diff(self.start, root).unwrap();
        let events = changes.into_iter().map(|(_, _, now)| now.expect("nothing is removed here"));
        events
            .map(|num| {
                let event = &self.room.events[num.0 as usize];
                (format!("{} {}", event.event_type(), event.state_key().unwrap()), num)
            })
            .collect()
    }

    fn sha1(&self, num: EventNum) -> Vec<u8> {
        Sha1::digest(self.room.events[num.0 as usize].event_id().as_bytes()).to_vec()
    }
}

fn topic(sender: &str, text: &str) -> NewEvent {
    event(sender, "m.room.topic", "", json!({ "topic": text }))
}

fn changed<const N: usize>(list: [(&str, EventNum); N]) -> BTreeMap<String, EventNum> {
    list.into_iter().map(|(key, num)| (key.to_owned(), num)).collect()
}

/// Topics at depths 7 and 8. No auth conflict. "Pick the event with the highest depth": Bob's
/// (depth 8); Bob is joined with power 50, so it passes.
// Checklist 14.1
#[test]
fn the_deeper_topic_wins() {
    let mut case = Case::new();
    let (_, one) = case.add(case.start, 7, topic(ALICE, "one"));
    let (deeper, two) = case.add(case.start, 8, topic(BOB, "two"));
    assert_eq!(case.resolve(&[one, two]), changed([("m.room.topic ", deeper)]));
}

/// Two topics at depth 7. The depths are equal, so "lowest sha1(event_id)" decides.
// Checklist 14.1
#[test]
fn of_equally_deep_topics_the_lower_hash_wins() {
    let mut case = Case::new();
    let (first, one) = case.add(case.start, 7, topic(ALICE, "one"));
    let (second, two) = case.add(case.start, 7, topic(BOB, "two"));
    let lower = if case.sha1(first) < case.sha1(second) { first } else { second };
    assert_eq!(case.resolve(&[one, two]), changed([("m.room.topic ", lower)]));
}

/// One state has a topic, the other has none. "A conflict occurs between states where those states
/// have different event_ids for the same key": there is none, and R starts as the union.
#[test]
fn what_only_one_state_has_is_not_in_conflict() {
    let mut case = Case::new();
    let (topic, one) = case.add(case.start, 7, topic(ALICE, "one"));
    let name = event(BOB, "m.room.name", "", json!({ "name": "two" }));
    let (name, two) = case.add(case.start, 7, name);
    let expected = changed([("m.room.topic ", topic), ("m.room.name ", name)]);
    assert_eq!(case.resolve(&[one, two]), expected);
}

/// Fork one: Alice demotes Bob (power levels P2, depth 7). Fork two: Bob sets the topic (depth 9);
/// fork one has a topic by Alice (depth 8).
///
/// Power levels: P1 (depth 3) and P2 (depth 7) conflict. R gets P1; P2 is by Alice with power 100
/// and allowed, so R has P2. Topics, deepest first: Bob's needs 50, he has 0 in R: refused.
/// Alice's passes.
#[test]
fn a_demotion_counts_for_the_other_fork() {
    let mut case = Case::new();
    let levels = event(ALICE, "m.room.power_levels", "", json!({ "users": { ALICE: 100 } }));
    let (levels, one) = case.add(case.start, 7, levels);
    let (by_alice, one) = case.add(one, 8, topic(ALICE, "one"));
    let (_, two) = case.add(case.start, 9, topic(BOB, "two"));
    let expected = changed([("m.room.power_levels ", levels), ("m.room.topic ", by_alice)]);
    assert_eq!(case.resolve(&[one, two]), expected);
}

/// Fork one: Alice demotes Bob to 0 (PA, depth 7). Fork two: Bob raises Carol to 50 (PB, depth 8).
///
/// Power levels in order: P1 (3), PA (7), PB (8). P1 goes to R; PA is allowed and replaces it; in
/// that state Bob has power 0 and may not change power levels: stop. PA stays.
#[test]
fn a_power_levels_event_is_checked_against_its_predecessor() {
    let mut case = Case::new();
    let demoted = event(ALICE, "m.room.power_levels", "", json!({ "users": { ALICE: 100 } }));
    let raised = json!({ "users": { ALICE: 100, BOB: 50, CAROL: 50 } });
    let raised = event(BOB, "m.room.power_levels", "", raised);
    let (by_alice, one) = case.add(case.start, 7, demoted);
    let (_, two) = case.add(case.start, 8, raised);
    assert_eq!(case.resolve(&[one, two]), changed([("m.room.power_levels ", by_alice)]));
}

/// The same race with the depths exchanged: P1 (3), PB (7), PA (8). PB is allowed after P1 (Bob
/// has 50), PA is allowed after PB (Alice has 100). The last one, PA, stays; Carol's power is gone.
// Checklist 14.1
#[test]
fn the_deepest_allowed_power_levels_win() {
    let mut case = Case::new();
    let raised = json!({ "users": { ALICE: 100, BOB: 50, CAROL: 50 } });
    let raised = event(BOB, "m.room.power_levels", "", raised);
    let demoted = event(ALICE, "m.room.power_levels", "", json!({ "users": { ALICE: 100 } }));
    let (_, one) = case.add(case.start, 7, raised);
    let (by_alice, two) = case.add(case.start, 8, demoted);
    assert_eq!(case.resolve(&[one, two]), changed([("m.room.power_levels ", by_alice)]));
}

/// Fork one: Bob bans Carol (depth 7). Fork two: Carol joins again (a new name, depth 8).
///
/// Members of Carol in order: her join (6), the ban (7), the new join (8). The first goes to R;
/// the ban by Bob (50) is allowed; a join of someone banned is not: stop. The ban stays.
#[test]
fn a_ban_beats_a_deeper_join() {
    let mut case = Case::new();
    let (ban, one) = case.add(case.start, 7, member(BOB, CAROL, "ban"));
    let (_, two) = case.add(case.start, 8, member(CAROL, CAROL, "join"));
    assert_eq!(case.resolve(&[one, two]), changed([("m.room.member @carol:one.test", ban)]));
}

/// The same race with the depths exchanged: join (6), new join (7), ban (8): each is allowed after
/// the one before, the ban stays. The ban also takes effect on Carol's own entry in fork two,
/// which only she could set and which is the only one of its kind: it is not in conflict and stays.
#[test]
fn a_ban_does_not_remove_what_is_not_in_conflict() {
    let mut case = Case::new();
    let own = event(CAROL, "test.own", CAROL, json!({}));
    let levels = json!({ "users": { ALICE: 100, BOB: 50 }, "events": { "test.own": 0 } });
    let levels = event(ALICE, "m.room.power_levels", "", levels);
    let (_, start) = case.add(case.start, 7, levels);
    case.start = start;
    let (_, two) = case.add(start, 8, member(CAROL, CAROL, "join"));
    let (own, two) = case.add(two, 9, own);
    let (ban, one) = case.add(start, 10, member(BOB, CAROL, "ban"));
    let expected =
        changed([("m.room.member @carol:one.test", ban), ("test.own @carol:one.test", own)]);
    assert_eq!(case.resolve(&[one, two]), expected);
}

/// Fork one: Alice makes the room invite-only (depth 7), then the stranger Dave is invited (8) and
/// joins (9). Fork two: Dave joins while the room is public (8).
///
/// Join rules: public (4), invite (7): the later one is allowed and stays. Members of Dave: his
/// join in fork two (8), his join in fork one (9); the first one is added unchecked. The second is
/// checked in a state in which Dave is joined, which the rule `invite` allows: it stays.
// Checklist 14.1
#[test]
fn join_rules_come_before_members() {
    let mut case = Case::new();
    let rules = event(ALICE, "m.room.join_rules", "", json!({ "join_rule": "invite" }));
    let (rules, one) = case.add(case.start, 7, rules);
    let (_, one) = case.add(one, 8, member(ALICE, DAVE, "invite"));
    let (invited, one) = case.add(one, 9, member(DAVE, DAVE, "join"));
    let (_, two) = case.add(case.start, 8, member(DAVE, DAVE, "join"));
    let expected =
        changed([("m.room.join_rules ", rules), ("m.room.member @dave:one.test", invited)]);
    assert_eq!(case.resolve(&[one, two]), expected);
}

/// Bob is banned by Alice in fork one (depth 7) and bans Carol in fork two (8); Carol has a third
/// version of her membership in fork one (9).
///
/// Members are checked against the state before any member conflict is resolved. Members of Bob:
/// join (5), ban (7): the ban stays. Members of Carol: join (6), ban by Bob (8), new join (9). Bob
/// conflicts himself, so he has no membership in R: his ban is refused, stop. Her first join stays.
#[test]
fn conflicting_members_do_not_see_each_other() {
    let mut case = Case::new();
    let (ban, one) = case.add(case.start, 7, member(ALICE, BOB, "ban"));
    let (_, one) = case.add(one, 9, member(CAROL, CAROL, "join"));
    let (_, two) = case.add(case.start, 8, member(BOB, CAROL, "ban"));
    let third = case.start;
    let expected = changed([("m.room.member @bob:one.test", ban)]);
    assert_eq!(case.resolve(&[one, two, third]), expected);
}

/// Topics by Bob (depth 7) and Carol's (depth 8, allowed while the topic needed no power), but
/// Alice's power levels (depth 9) demand 100 for topics and demote Bob. Neither passes in R. The
/// specification is silent; the one that is tried last, with the lowest depth, stays.
#[test]
fn if_none_passes_the_shallowest_stays() {
    let mut case = Case::new();
    let open = json!({ "users": { ALICE: 100, BOB: 50 }, "events": { "m.room.topic": 0 } });
    let open = event(ALICE, "m.room.power_levels", "", open);
    let (_, start) = case.add(case.start, 7, open);
    case.start = start;
    let closed = json!({ "users": { ALICE: 100 }, "events": { "m.room.topic": 100 } });
    let (by_bob, one) = case.add(start, 8, topic(BOB, "one"));
    let (_, two) = case.add(start, 9, topic(CAROL, "two"));
    let closed = event(ALICE, "m.room.power_levels", "", closed);
    let (levels, three) = case.add(start, 10, closed);
    let expected = changed([("m.room.power_levels ", levels), ("m.room.topic ", by_bob)]);
    assert_eq!(case.resolve(&[one, two, three]), expected);
}
