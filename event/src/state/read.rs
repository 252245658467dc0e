//! Reading states.

use std::sync::Arc;

use super::{
    Entry, Link, Node, NodeId, NodeStore, StateError, StateRoot,
    node::{FANOUT, Kind, MAX_LEVEL, child_index, place},
};
use crate::{EventNum, StateKeyNum};

/// One difference between two states: the key, the event in the first, the event in the second.
pub type Difference = (StateKeyNum, Option<EventNum>, Option<EventNum>);

/// The reading operations on states, for every node store.
///
/// All of them fail if a node cannot be read ([`StateError::Store`]) or the store gives a node
/// that does not belong there ([`StateError::Misplaced`]).
pub trait ReadState: NodeStore {
    /// The event in this place of the state. Reads one node per level.
    ///
    /// # Errors
    ///
    /// See [`ReadState`].
    fn get(
        &self,
        root: StateRoot,
        key: StateKeyNum,
    ) -> Result<Option<EventNum>, StateError<Self::Error>> {
        let place = place(key);
        let mut link = root.side(key.is_member());
        let mut level = 0;
        while !link.is_empty() {
            match &load(self, link.id, level)?.0 {
                Kind::Branch(branch) => link = branch.child(child_index(place, level)),
                Kind::Leaf(entries) => return Ok(find(entries, key)),
            }
            level += 1;
        }
        Ok(None)
    }

    /// What differs between two states, in no particular order. Parts that are equal are not
    /// walked: the cost follows the number of differences.
    ///
    /// # Errors
    ///
    /// See [`ReadState`].
    fn diff(
        &self,
        first: StateRoot,
        second: StateRoot,
    ) -> Result<Vec<Difference>, StateError<Self::Error>> {
        let mut found = Vec::new();
        let mut pairs = vec![(first.members, second.members, 0), (first.others, second.others, 0)];
        while let Some((left, right, level)) = pairs.pop() {
            if left.id == right.id {
                continue;
            }
            let left_node = load_link(self, left, level)?;
            let right_node = load_link(self, right, level)?;
            if let (Some(Kind::Branch(left)), Some(Kind::Branch(right))) =
                (left_node.as_deref().map(|n| &n.0), right_node.as_deref().map(|n| &n.0))
            {
                let children = left.children().into_iter().zip(right.children());
                pairs.extend(children.map(|(left, right)| (left, right, level + 1)));
            } else {
                // One side has at most 16 entries, so nearly all of the other is a difference.
                let left = all_below(self, left_node, level)?;
                compare(left, all_below(self, right_node, level)?, &mut found);
            }
        }
        Ok(found)
    }

    /// All entries of the state, in no particular but always the same order: first those that are
    /// not members.
    fn iter(&self, root: StateRoot) -> Entries<'_, Self> {
        Entries::new(self, &[root.members, root.others])
    }

    /// The `m.room.member` entries alone.
    fn iter_members(&self, root: StateRoot) -> Entries<'_, Self> {
        Entries::new(self, &[root.members])
    }

    /// The entries other than `m.room.member` alone.
    fn iter_others(&self, root: StateRoot) -> Entries<'_, Self> {
        Entries::new(self, &[root.others])
    }

    /// Walks the nodes of a state. `enter` is asked before each node is read and says whether to
    /// go there: a garbage collector says no to what it has seen already, so that the shared parts
    /// of many states are walked once.
    ///
    /// # Errors
    ///
    /// See [`ReadState`].
    fn walk_nodes(
        &self,
        root: StateRoot,
        enter: &mut dyn FnMut(NodeId) -> bool,
    ) -> Result<(), StateError<Self::Error>> {
        let mut links = vec![(root.members, 0), (root.others, 0)];
        while let Some((link, level)) = links.pop() {
            if !link.is_empty()
                && enter(link.id)
                && let Kind::Branch(branch) = &load(self, link.id, level)?.0
            {
                links.extend(branch.links().iter().map(|link| (*link, level + 1)));
            }
        }
        Ok(())
    }
}

impl<S: NodeStore + ?Sized> ReadState for S {}

/// An iterator over entries of a state; see [`ReadState::iter`]. It reads nodes as it goes.
#[derive(Debug)]
pub struct Entries<'a, S: ?Sized> {
    store: &'a S,
    links: Vec<(Link, u32)>,
    leaf: Option<Arc<Node>>,
    next: usize,
}

impl<'a, S: ?Sized> Entries<'a, S> {
    fn new(store: &'a S, links: &[Link]) -> Self {
        let links = links.iter().map(|link| (*link, 0)).collect();
        Self { store, links, leaf: None, next: 0 }
    }

    fn next_in_leaf(&mut self) -> Option<Entry> {
        let Kind::Leaf(entries) = &self.leaf.as_deref()?.0 else { return None };
        let entry = entries.get(self.next).copied();
        self.next += 1;
        entry
    }
}

impl<S: NodeStore + ?Sized> Iterator for Entries<'_, S> {
    type Item = Result<Entry, StateError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.next_in_leaf() {
                return Some(Ok(entry));
            }
            let (link, level) = self.links.pop()?;
            if link.is_empty() {
                continue;
            }
            let node = match load(self.store, link.id, level) {
                Ok(node) => node,
                Err(error) => {
                    // Going on without a part would look like a smaller state.
                    self.links.clear();
                    return Some(Err(error));
                }
            };
            if let Kind::Branch(branch) = &node.0 {
                self.links.extend(branch.links().iter().rev().map(|link| (*link, level + 1)));
            } else {
                self.leaf = Some(node);
                self.next = 0;
            }
        }
    }
}

/// Reads a node and checks that one of its kind can be at this level.
pub(super) fn load<S: NodeStore + ?Sized>(
    store: &S,
    id: NodeId,
    level: u32,
) -> Result<Arc<Node>, StateError<S::Error>> {
    let node = store.node(id).map_err(StateError::Store)?;
    match node.0 {
        Kind::Branch(_) if level >= MAX_LEVEL => Err(StateError::Misplaced(id)),
        _ => Ok(node),
    }
}

fn load_link<S: NodeStore + ?Sized>(
    store: &S,
    link: Link,
    level: u32,
) -> Result<Option<Arc<Node>>, StateError<S::Error>> {
    if link.is_empty() { Ok(None) } else { load(store, link.id, level).map(Some) }
}

/// All entries below a node that was read already.
fn all_below<S: NodeStore + ?Sized>(
    store: &S,
    node: Option<Arc<Node>>,
    level: u32,
) -> Result<Vec<Entry>, StateError<S::Error>> {
    let links = match node.as_deref().map(|node| &node.0) {
        None => return Ok(Vec::new()),
        Some(Kind::Leaf(entries)) => return Ok(entries.to_vec()),
        Some(Kind::Branch(branch)) => branch.links(),
    };
    let links = links.iter().map(|link| (*link, level + 1)).collect();
    Entries { store, links, leaf: None, next: 0 }.collect()
}

/// All entries below a link.
pub(super) fn collect<S: NodeStore + ?Sized>(
    store: &S,
    link: Link,
    level: u32,
) -> Result<Vec<Entry>, StateError<S::Error>> {
    Entries { store, links: vec![(link, level)], leaf: None, next: 0 }.collect()
}

fn find(entries: &[Entry], key: StateKeyNum) -> Option<EventNum> {
    let index = entries.binary_search_by_key(&key, |(key, _)| *key).ok()?;
    entries.get(index).map(|(_, event)| *event)
}

/// Compares two lists of entries.
fn compare(mut left: Vec<Entry>, mut right: Vec<Entry>, found: &mut Vec<Difference>) {
    left.sort_unstable_by_key(|(key, _)| *key);
    right.sort_unstable_by_key(|(key, _)| *key);
    for (key, old) in &left {
        let new = find(&right, *key);
        if new != Some(*old) {
            found.push((*key, Some(*old), new));
        }
    }
    for (key, new) in &right {
        if find(&left, *key).is_none() {
            found.push((*key, None, Some(*new)));
        }
    }
}

/// The children of a branch by the group of changes that concern them.
pub(super) fn group_end<T>(items: &[T], level: u32, place_of: impl Fn(&T) -> u64) -> usize {
    let Some(first) = items.first() else { return 0 };
    let index = child_index(place_of(first), level);
    debug_assert!(index < FANOUT);
    items.partition_point(|item| child_index(place_of(item), level) <= index)
}
