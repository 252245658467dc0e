//! State resolution v2 and v2.1 against `ruma-state-res` on random histories, key by key.
//!
//! `PROPTEST_CASES` sets how many histories are made.
#![allow(clippy::unwrap_used)]

mod dag;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use dag::{
    Room,
    history::{History, Map, Shape},
};
use parlour_event::{
    EventNum, Pdu, StateKeyNum, json,
    resolve::{AuthCover, ResolveLimits, resolve, resolve_with},
    state::{MemoryNodes, Overlay, ReadState, StateRoot},
};
use proptest::prelude::*;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
};
use ruma_state_res::{Event, StateMap, utils::event_id_set::EventIdSet};
use serde_json::value::RawValue;

/// An event as the oracle wants it.
#[derive(Debug, Clone)]
struct Theirs {
    pdu: Arc<Pdu>,
    event_type: TimelineEventType,
    content: Box<RawValue>,
    rejected: bool,
    has_room_id: bool,
}

impl Theirs {
    fn new(room: &Room, num: EventNum) -> Self {
        let pdu = Arc::clone(&room.events[num.0 as usize]);
        let mut content = Vec::new();
        json::write_canonical(pdu.content(), &mut content);
        Self {
            event_type: pdu.event_type().into(),
            content: RawValue::from_string(String::from_utf8(content).unwrap()).unwrap(),
            rejected: room.rejected[num.0 as usize],
            has_room_id: pdu.json().contains_key("room_id"),
            pdu,
        }
    }
}

impl Event for Theirs {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        self.pdu.event_id()
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.has_room_id.then(|| &**self.pdu.room_id())
    }

    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new(self.pdu.origin_server_ts()).unwrap())
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.pdu.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.prev_events().iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.auth_events().iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.pdu.redacts()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

/// The auth chain of some events, those excluded unless they are in the chain of another.
fn chain(room: &Room, events: impl IntoIterator<Item = EventNum>) -> BTreeSet<EventNum> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<_> = events.into_iter().collect();
    while let Some(num) = waiting.pop() {
        waiting.extend(room.auth[num.0 as usize].iter().filter(|auth| found.insert(**auth)));
    }
    found
}

fn ids(room: &Room, nums: impl IntoIterator<Item = EventNum>) -> EventIdSet<OwnedEventId> {
    nums.into_iter().map(|num| room.events[num.0 as usize].event_id().clone()).collect()
}

/// The conflicted state subgraph by its definition: what is below one conflicted event and above
/// another.
fn subgraph(room: &Room, conflicted: &HashSet<EventNum>) -> HashSet<EventNum> {
    let below = chain(room, conflicted.iter().copied());
    let between = below
        .into_iter()
        .filter(|num| chain(room, [*num]).iter().any(|below| conflicted.contains(below)));
    conflicted.iter().copied().chain(between).collect()
}

/// What the oracle is not told, to see whether it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Omit {
    Nothing,
    AuthDifference,
    Subgraph,
}

fn their_result(room: &Room, forks: &[Map], omit: Omit) -> HashMap<StateKeyNum, OwnedEventId> {
    let id = |num: &EventNum| room.events[num.0 as usize].event_id().clone();
    let their_key = |num: &EventNum| {
        let event = &room.events[num.0 as usize];
        (StateEventType::from(event.event_type()), event.state_key().unwrap().to_owned())
    };
    let maps: Vec<StateMap<OwnedEventId>> = forks
        .iter()
        .map(|fork| fork.values().map(|num| (their_key(num), id(num))).collect())
        .collect();
    let chain_of = |fork: &Map| match omit {
        Omit::AuthDifference => ids(room, []),
        _ => ids(room, chain(room, fork.values().copied())),
    };
    let chains = forks.iter().map(chain_of).collect();
    let rules = room.version.rules();
    ruma_state_res::resolve(
        &rules.authorization,
        rules.state_res.v2_rules().unwrap(),
        &maps,
        chains,
        |id: &EventId| room.nums.get(id).map(|num| Theirs::new(room, *num)),
        |conflicted| {
            let conflicted = conflicted.values().flatten().map(|id| room.nums[id]).collect();
            let subgraph = match omit {
                Omit::Subgraph => conflicted,
                _ => subgraph(room, &conflicted),
            };
            Some(ids(room, subgraph))
        },
    )
    .unwrap()
    .into_iter()
    .map(|((event_type, key), id)| (room.keys[&event_type.to_string()][&key], id))
    .collect()
}

fn our_result(
    room: &Room,
    root: StateRoot,
    nodes: &Overlay<'_, MemoryNodes>,
) -> HashMap<StateKeyNum, OwnedEventId> {
    nodes
        .iter(root)
        .map(Result::unwrap)
        .map(|(key, num)| (key, room.events[num.0 as usize].event_id().clone()))
        .collect()
}

/// What differs, in words.
fn explain(
    room: &Room,
    ours: &HashMap<StateKeyNum, OwnedEventId>,
    theirs: &HashMap<StateKeyNum, OwnedEventId>,
) -> String {
    let name = |id: Option<&OwnedEventId>| {
        let num = room.nums[id?];
        let event = &room.events[num.0 as usize];
        let rejected = room.rejected[num.0 as usize];
        let json = String::from_utf8(event.to_bytes()).unwrap();
        Some(format!("{num} {} rejected: {rejected} {json}", event.event_id()))
    };
    let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    keys.into_iter()
        .filter(|key| ours.get(key) != theirs.get(key))
        .map(|key| {
            format!("\n ours: {:?}\n theirs: {:?}", name(ours.get(key)), name(theirs.get(key)))
        })
        .collect()
}

/// Same result as the oracle, whatever the order of the states and the state of the cover; and
/// once more with the result as one of the states, as after a merge in the graph.
fn check(shape: &Shape) -> Result<(), TestCaseError> {
    let mut history = History::new(shape);
    let mut cover = AuthCover::new();
    for _ in 0..2 {
        let mut roots = history.roots();
        let room = &history.room;
        let expected = their_result(room, &history.forks, Omit::Nothing);
        let mut overlay = Overlay::new(&room.nodes);
        let root = resolve(room.version, room, &mut overlay, &roots).unwrap();
        let ours = our_result(room, root, &overlay);
        prop_assert!(ours == expected, "{}", explain(room, &ours, &expected));

        roots.reverse();
        let limits = ResolveLimits::NONE;
        let warm = resolve_with(room.version, room, &mut overlay, &roots, &mut cover, limits);
        prop_assert_eq!(warm.unwrap(), root, "with a cover, in another order");
        let merged: Map = overlay.iter(root).map(Result::unwrap).collect();
        history.forks.pop();
        history.forks.push(merged);
        for _ in 0..shape.steps / 2 {
            history.go_on();
        }
    }
    Ok(())
}

fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = (0..40_usize, 2..6_usize, 0..80_usize);
    let odds = (0..100_usize, prop_oneof![Just(0), 0..60_usize], prop_oneof![Just(0), 0..30_usize]);
    (2..=12_u8, any::<u64>(), sizes, odds, prop_oneof![Just(1), Just(20), Just(100_000)]).prop_map(
        |(version, seed, (common, forks, steps), (power, stale, forbidden), clock)| Shape {
            version,
            seed,
            common,
            forks,
            steps,
            power,
            stale,
            forbidden,
            clock,
        },
    )
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    // Checklist 14.2, 14.3, 14.4, 14.5, 14.6
    #[test]
    fn resolves_as_ruma_does(shape in shapes()) {
        check(&shape)?;
    }
}

/// The histories must tell right from wrong: some of their results change when a part of the full
/// conflicted set is left out.
#[test]
fn the_histories_depend_on_every_part_of_the_algorithm() {
    for (version, omit) in
        [(6, Omit::AuthDifference), (12, Omit::AuthDifference), (12, Omit::Subgraph)]
    {
        let differ = (0..150)
            .filter(|seed| {
                let (common, forks, steps) = (25, 3, 50);
                let (power, stale, forbidden, clock) = (50, 15, 10, 100_000);
                let history = History::new(&Shape {
                    version,
                    seed: *seed,
                    common,
                    forks,
                    steps,
                    power,
                    stale,
                    forbidden,
                    clock,
                });
                let right = their_result(&history.room, &history.forks, Omit::Nothing);
                their_result(&history.room, &history.forks, omit) != right
            })
            .count();
        println!("version {version}, without {omit:?}: {differ} of 150 differ");
        assert!(differ > 0, "version {version}, without {omit:?}");
    }
}
