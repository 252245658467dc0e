//! The state map against a `BTreeMap`, and what makes it canonical, small and safe.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use parlour_event::{
    EventNum, StateKeyNum,
    state::{MemoryNodes, Node, NodeId, NodeStore, Overlay, ReadState, StateError, StateRoot},
};
use proptest::prelude::*;

type Model = BTreeMap<StateKeyNum, EventNum>;

fn key() -> impl Strategy<Value = StateKeyNum> {
    prop_oneof![
        4 => (0..60_u64, any::<bool>()).prop_map(|(n, member)| StateKeyNum::new(n, member)),
        1 => (0..100_000_u64, any::<bool>()).prop_map(|(n, member)| StateKeyNum::new(n, member)),
        1 => any::<u64>().prop_map(StateKeyNum),
    ]
}

fn model(max: usize) -> impl Strategy<Value = Model> {
    let event = prop_oneof![0..500_u64, any::<u64>()].prop_map(EventNum);
    prop::collection::btree_map(key(), event, 0..max)
}

fn build(nodes: &MemoryNodes, model: &Model) -> StateRoot {
    let mut overlay = Overlay::new(nodes);
    let root = overlay.from_entries(model.iter().map(|(key, event)| (*key, *event)));
    nodes.extend(overlay.into_new_nodes(&[root]));
    root
}

fn entries(nodes: &impl NodeStore<Error: std::fmt::Debug>, root: StateRoot) -> Model {
    let list: Vec<_> = nodes.iter(root).map(Result::unwrap).collect();
    let map: Model = list.iter().copied().collect();
    assert_eq!(list.len(), map.len(), "an entry came twice");
    map
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any changes in any order, one by one or together, give the root of the entries that are left.
    #[test]
    fn roots_are_canonical(
        start in model(200),
        changes in prop::collection::vec((key(), prop::option::of(any::<u64>())), 0..80),
    ) {
        let nodes = MemoryNodes::new();
        let root = build(&nodes, &start);
        let changes: Vec<_> =
            changes.into_iter().map(|(key, event)| (key, event.map(EventNum))).collect();
        let mut expected = start;
        let mut overlay = Overlay::new(&nodes);
        let mut step_by_step = root;
        for (key, event) in &changes {
            step_by_step = match event {
                Some(event) => {
                    expected.insert(*key, *event);
                    overlay.insert(step_by_step, *key, *event).unwrap()
                }
                None => {
                    expected.remove(key);
                    overlay.remove(step_by_step, *key).unwrap()
                }
            };
        }
        let at_once = overlay.insert_many(root, &changes).unwrap();
        let bulk = build(&nodes, &expected);
        prop_assert_eq!(step_by_step, bulk);
        prop_assert_eq!(at_once, bulk);
        prop_assert_eq!(entries(&overlay, at_once), expected.clone());
        prop_assert_eq!(bulk.len(), expected.len() as u64);
        let members = expected.keys().filter(|key| key.is_member()).count() as u64;
        prop_assert_eq!(bulk.member_len(), members);
        prop_assert_eq!(bulk.other_len(), expected.len() as u64 - members);
    }

    /// Look-ups, both halves, and the root's bytes.
    #[test]
    fn reads_agree_with_the_model(model in model(300), asked in prop::collection::vec(key(), 50)) {
        let nodes = MemoryNodes::new();
        let root = build(&nodes, &model);
        for key in asked.iter().chain(model.keys()) {
            prop_assert_eq!(nodes.get(root, *key).unwrap(), model.get(key).copied());
        }
        let members: BTreeSet<_> = nodes.iter_members(root).map(Result::unwrap).collect();
        let others: BTreeSet<_> = nodes.iter_others(root).map(Result::unwrap).collect();
        prop_assert!(members.iter().all(|(key, _)| key.is_member()));
        prop_assert!(others.iter().all(|(key, _)| !key.is_member()));
        prop_assert_eq!(members.union(&others).copied().collect::<Model>(), model);
        prop_assert_eq!(StateRoot::from_bytes(&root.to_bytes()), Some(root));
    }

    /// A diff says exactly what differs.
    #[test]
    fn diff_agrees_with_the_model(
        first in model(200),
        changes in prop::collection::btree_map(key(), prop::option::of(any::<u64>()), 0..150),
    ) {
        let nodes = MemoryNodes::new();
        let mut second = first.clone();
        for (key, event) in changes {
            match event {
                Some(event) => second.insert(key, EventNum(event)),
                None => second.remove(&key),
            };
        }
        let (a, b) = (build(&nodes, &first), build(&nodes, &second));
        let mut found = nodes.diff(a, b).unwrap();
        found.sort_unstable();
        let keys: BTreeSet<_> = first.keys().chain(second.keys()).copied().collect();
        let expected: Vec<_> = keys
            .into_iter()
            .map(|key| (key, first.get(&key).copied(), second.get(&key).copied()))
            .filter(|(_, old, new)| old != new)
            .collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(a == b, first == second);
    }

    /// What an overlay hands out is what the kept states need beyond what was stored.
    #[test]
    fn new_nodes_are_exactly_what_is_missing(
        first in model(200),
        steps in prop::collection::vec((key(), any::<u64>()), 1..30),
    ) {
        let nodes = MemoryNodes::new();
        let root = build(&nodes, &first);
        let mut overlay = Overlay::new(&nodes);
        let mut last = root;
        for (key, event) in steps {
            last = overlay.insert(last, key, EventNum(event)).unwrap();
        }
        let expected = entries(&overlay, last);
        nodes.extend(overlay.into_new_nodes(&[last]));
        prop_assert_eq!(entries(&nodes, last), expected);

        let mut reachable = HashSet::new();
        for root in [root, last] {
            nodes.walk_nodes(root, &mut |id| reachable.insert(id)).unwrap();
        }
        prop_assert_eq!(reachable.len(), nodes.len(), "a node that no state needs was stored");
    }

    /// Bytes are a node in one way only, and garbage is refused without a panic.
    #[test]
    fn decoding_is_strict(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        for kind in [1, 2] {
            let mut bytes = bytes.clone();
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
        prop_assert!(Node::decode(&bytes).is_ok_and(|node| node.encode() == bytes)
            || Node::decode(&bytes).is_err());
    }

    /// Every node comes back from its bytes; no part and no extension of the bytes is a node.
    #[test]
    fn nodes_survive_their_bytes(model in model(120), extra in any::<u8>()) {
        let nodes = MemoryNodes::new();
        let root = build(&nodes, &model);
        let mut ids = Vec::new();
        nodes.walk_nodes(root, &mut |id| { ids.push(id); true }).unwrap();
        for id in ids {
            let node = nodes.node(id).unwrap();
            let mut bytes = node.encode();
            prop_assert_eq!(Node::id_of(&bytes), id);
            prop_assert_eq!(&Node::decode(&bytes).unwrap(), &*node);
            for end in 0..bytes.len() {
                prop_assert!(Node::decode(&bytes[..end]).is_err());
            }
            bytes.push(extra);
            prop_assert!(Node::decode(&bytes).is_err());
        }
    }
}

/// A store that counts reads, so that costs can be asserted.
#[derive(Default)]
struct Counted {
    nodes: MemoryNodes,
    reads: Mutex<usize>,
}

impl NodeStore for Counted {
    type Error = parlour_event::state::MissingNode;

    fn node(&self, id: NodeId) -> Result<Arc<Node>, Self::Error> {
        *self.reads.lock().unwrap() += 1;
        self.nodes.node(id)
    }
}

impl Counted {
    fn take(&self) -> usize {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }
}

fn member(n: u64) -> StateKeyNum {
    StateKeyNum::new(n, true)
}

#[test]
fn costs_do_not_follow_the_size_of_the_room() {
    let store = Counted::default();
    let mut overlay = Overlay::new(&store);
    let root = overlay.from_entries((0..50_000).map(|n| (member(n), EventNum(n * 3))));
    let new = overlay.into_new_nodes(&[root]);
    let bytes: usize = new.iter().map(|(_, node)| node.encode().len()).sum();
    assert!(bytes / 50_000 < 16, "{bytes} bytes for 50,000 members");
    store.nodes.extend(new);

    let mut written = Vec::new();
    for n in (0..50_000).step_by(997) {
        let mut overlay = Overlay::new(&store);
        let changed = overlay.insert(root, member(n), EventNum(1_000_000 + n)).unwrap();
        assert!(store.take() <= 5, "a change reads one node per level");
        let new = overlay.into_new_nodes(&[changed]);
        assert!(new.len() <= 5, "a change writes one node per level");
        written.push(new.iter().map(|(_, node)| node.encode().len()).sum::<usize>());
        store.nodes.extend(new);
        assert_eq!(store.diff(root, changed).unwrap().len(), 1);
        assert!(store.take() <= 10, "a diff reads the changed nodes alone");
        assert!(store.get(changed, member(n)).unwrap().is_some());
        assert!(store.take() <= 5);
    }
    let average = written.iter().sum::<usize>() / written.len();
    assert!(average < 1_300, "a change writes {average} bytes");
}

#[test]
fn a_small_room_is_two_small_nodes() {
    let nodes = MemoryNodes::new();
    let mut overlay = Overlay::new(&nodes);
    let others = (0..12).map(|n| (StateKeyNum::new(n, false), EventNum(40_000 + n)));
    let members = (20..30).map(|n| (member(n), EventNum(41_000 + n)));
    let root = overlay.from_entries(others.chain(members));
    let new = overlay.into_new_nodes(&[root]);
    assert_eq!(new.len(), 2);
    let bytes: usize = new.iter().map(|(_, node)| node.encode().len()).sum();
    assert!(bytes < 100, "{bytes} bytes");
}

#[test]
fn the_empty_state_needs_no_nodes() {
    let nodes = MemoryNodes::new();
    let root = build(&nodes, &Model::new());
    assert_eq!(root, StateRoot::EMPTY);
    assert!(root.is_empty() && nodes.is_empty());
    assert_eq!(nodes.get(root, member(1)).unwrap(), None);
    let one = build(&nodes, &Model::from([(member(1), EventNum(5))]));
    let mut overlay = Overlay::new(&nodes);
    assert_eq!(overlay.remove(one, member(1)).unwrap(), StateRoot::EMPTY);
    assert_eq!(StateRoot::from_bytes(&[0; 39]), None);
    assert_eq!(StateRoot::from_bytes(&[0; 41]), None);
    assert_eq!(StateRoot::from_bytes(&[0; 40]), Some(StateRoot::EMPTY));
}

#[test]
fn a_missing_node_is_an_error_everywhere() {
    let nodes = MemoryNodes::new();
    let root = build(&nodes, &(0..100).map(|n| (member(n), EventNum(n))).collect());
    let lost = MemoryNodes::new();
    assert!(matches!(lost.get(root, member(1)), Err(StateError::Store(_))));
    assert!(matches!(lost.diff(root, StateRoot::EMPTY), Err(StateError::Store(_))));
    assert!(lost.iter(root).any(|entry| entry.is_err()));
    assert!(lost.walk_nodes(root, &mut |_| true).is_err());
    assert!(Overlay::new(&lost).insert(root, member(1), EventNum(1)).is_err());
}

/// A store that gives the same branch for every name.
struct Endless(Arc<Node>);

impl NodeStore for Endless {
    type Error = Infallible;

    fn node(&self, _: NodeId) -> Result<Arc<Node>, Infallible> {
        Ok(Arc::clone(&self.0))
    }
}

#[test]
fn a_store_that_gives_wrong_nodes_cannot_make_walks_endless() {
    let mut branch = vec![2, 0, 1];
    branch.extend([7; 16]);
    branch.push(17);
    let endless = Endless(Arc::new(Node::decode(&branch).unwrap()));
    let nodes = MemoryNodes::new();
    let root = build(&nodes, &(0..100).map(|n| (member(n), EventNum(n))).collect());
    assert!(endless.iter(root).any(|entry| matches!(entry, Err(StateError::Misplaced(_)))));
    assert!(endless.diff(root, StateRoot::EMPTY).is_err());
    assert!(endless.walk_nodes(root, &mut |_| true).is_err());
    for n in 0..100 {
        // Most paths leave the only child at once; none goes on for ever.
        let _ = endless.get(root, member(n));
        let _ = Overlay::new(&endless).insert(root, member(n), EventNum(1));
    }
}
