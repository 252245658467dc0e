//! Changing states.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use super::{
    Entry, Link, Node, NodeId, NodeStore, StateError, StateRoot,
    node::{FANOUT, Kind, LEAF_MAX, MAX_LEVEL, child_index, place},
    read::{collect, group_end, load},
};
use crate::{EventNum, StateKeyNum};

/// New nodes, not stored yet, on top of a node store.
///
/// Everything that changes a state goes through an overlay; what it made is taken out with
/// [`Overlay::into_new_nodes`] and stored together with whatever names the new root.
pub struct Overlay<'a, S: ?Sized> {
    base: &'a S,
    new: HashMap<NodeId, Arc<Node>>,
}

impl<S: ?Sized> fmt::Debug for Overlay<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay").field("new", &self.new.len()).finish_non_exhaustive()
    }
}

impl<S: NodeStore + ?Sized> NodeStore for Overlay<'_, S> {
    type Error = S::Error;

    fn node(&self, id: NodeId) -> Result<Arc<Node>, S::Error> {
        self.new.get(&id).cloned().map_or_else(|| self.base.node(id), Ok)
    }
}

/// A change of one entry, with the key's place in the trie.
struct Edit {
    place: u64,
    key: StateKeyNum,
    event: Option<EventNum>,
}

impl<'a, S: NodeStore + ?Sized> Overlay<'a, S> {
    /// An overlay without new nodes.
    pub fn new(base: &'a S) -> Self {
        Self { base, new: HashMap::new() }
    }

    /// How many new nodes there are, unreachable ones included.
    #[must_use]
    pub fn new_node_count(&self) -> usize {
        self.new.len()
    }

    /// The state with this entry set.
    ///
    /// # Errors
    ///
    /// If a node cannot be read; see [`StateError`].
    pub fn insert(
        &mut self,
        root: StateRoot,
        key: StateKeyNum,
        event: EventNum,
    ) -> Result<StateRoot, StateError<S::Error>> {
        self.insert_many(root, &[(key, Some(event))])
    }

    /// The state without this entry; the same state if it has none.
    ///
    /// # Errors
    ///
    /// If a node cannot be read; see [`StateError`].
    pub fn remove(
        &mut self,
        root: StateRoot,
        key: StateKeyNum,
    ) -> Result<StateRoot, StateError<S::Error>> {
        self.insert_many(root, &[(key, None)])
    }

    /// The state with all these entries set (or removed where there is no event), in one pass. Of
    /// several changes of one key the last one counts.
    ///
    /// # Errors
    ///
    /// If a node cannot be read; see [`StateError`].
    pub fn insert_many(
        &mut self,
        root: StateRoot,
        changes: &[(StateKeyNum, Option<EventNum>)],
    ) -> Result<StateRoot, StateError<S::Error>> {
        let (members, others): (Vec<_>, Vec<_>) =
            changes.iter().copied().partition(|(key, _)| key.is_member());
        Ok(StateRoot {
            members: self.apply(root.members, 0, &edits(members))?,
            others: self.apply(root.others, 0, &edits(others))?,
        })
    }

    /// The state with exactly these entries. Of several entries with one key the last one counts.
    pub fn from_entries(&mut self, entries: impl IntoIterator<Item = Entry>) -> StateRoot {
        let entries = entries.into_iter().map(|(key, event)| (key, Some(event)));
        let (members, others): (Vec<_>, Vec<_>) = entries.partition(|(key, _)| key.is_member());
        StateRoot {
            members: self.build(0, &mut placed(edits(members))),
            others: self.build(0, &mut placed(edits(others))),
        }
    }

    /// The new nodes that these states need, and no others: intermediate states leave nodes
    /// behind that nobody wants stored.
    #[must_use]
    pub fn into_new_nodes(self, keep: &[StateRoot]) -> Vec<(NodeId, Arc<Node>)> {
        let mut wanted = Vec::new();
        let mut seen = HashSet::new();
        let mut ids: Vec<_> =
            keep.iter().flat_map(|root| [root.members.id, root.others.id]).collect();
        while let Some(id) = ids.pop() {
            // Below a node that is not new there is nothing new.
            let Some(node) = self.new.get(&id) else { continue };
            if !seen.insert(id) {
                continue;
            }
            if let Kind::Branch(branch) = &node.0 {
                ids.extend(branch.links().iter().map(|link| link.id));
            }
            wanted.push((id, Arc::clone(node)));
        }
        wanted
    }

    /// Carries out changes below one link. Recursion is bounded by [`MAX_LEVEL`].
    fn apply(
        &mut self,
        link: Link,
        level: u32,
        edits: &[Edit],
    ) -> Result<Link, StateError<S::Error>> {
        if edits.is_empty() {
            return Ok(link);
        }
        if link.is_empty() {
            return Ok(self.build(level, &mut merge(&[], edits)));
        }
        let node = load(&*self, link.id, level)?;
        match &node.0 {
            Kind::Leaf(entries) => {
                let mut merged = merge(entries, edits);
                if merged.len() > LEAF_MAX && level >= MAX_LEVEL {
                    return Err(StateError::Misplaced(link.id));
                }
                Ok(self.build(level, &mut merged))
            }
            Kind::Branch(branch) => {
                let before = branch.children();
                let mut children = before;
                let mut rest = edits;
                while let Some(first) = rest.first() {
                    let (group, others) = rest.split_at(group_end(rest, level, |edit| edit.place));
                    if let Some(child) = children.get_mut(child_index(first.place, level)) {
                        *child = self.apply(*child, level + 1, group)?;
                    }
                    rest = others;
                }
                if children == before { Ok(link) } else { self.join(level, &children) }
            }
        }
    }

    /// Makes one subtree of 16, which is a leaf again if few entries are left.
    fn join(
        &mut self,
        level: u32,
        children: &[Link; FANOUT],
    ) -> Result<Link, StateError<S::Error>> {
        let len = children.iter().fold(0_u32, |len, child| len.saturating_add(child.len));
        if len as usize > LEAF_MAX {
            return Ok(self.put(Node::branch(children), len));
        }
        let mut entries = Vec::with_capacity(LEAF_MAX);
        for child in children {
            entries.extend(collect(&*self, *child, level + 1)?);
        }
        Ok(self.put_leaf(entries))
    }

    /// Makes a subtree of these entries, which are ordered by place.
    fn build(&mut self, level: u32, entries: &mut [(u64, Entry)]) -> Link {
        if entries.len() <= LEAF_MAX || level >= MAX_LEVEL {
            return self.put_leaf(entries.iter().map(|(_, entry)| *entry).collect());
        }
        // Keys that were in a wrong leaf could be out of order at this level.
        entries.sort_by_key(|(place, _)| child_index(*place, level));
        let mut children = [Link::EMPTY; FANOUT];
        let len = entries.len() as u32;
        let mut rest = entries;
        while let Some((place, _)) = rest.first() {
            let index = child_index(*place, level);
            let end = group_end(rest, level, |(place, _)| *place);
            let (group, others) = rest.split_at_mut(end);
            if let Some(child) = children.get_mut(index) {
                *child = self.build(level + 1, group);
            }
            rest = others;
        }
        self.put(Node::branch(&children), len)
    }

    fn put_leaf(&mut self, entries: Vec<Entry>) -> Link {
        let len = entries.len() as u32;
        if len == 0 { Link::EMPTY } else { self.put(Node::leaf(entries), len) }
    }

    fn put(&mut self, node: Node, len: u32) -> Link {
        let id = node.id();
        self.new.entry(id).or_insert_with(|| Arc::new(node));
        Link { id, len }
    }
}

/// Orders changes by place, the last one of each key alone.
fn edits(changes: Vec<(StateKeyNum, Option<EventNum>)>) -> Vec<Edit> {
    let mut edits: Vec<_> =
        changes.into_iter().map(|(key, event)| Edit { place: place(key), key, event }).collect();
    // Stable, so that the last change of a key comes first and survives.
    edits.reverse();
    edits.sort_by_key(|edit| edit.place);
    edits.dedup_by_key(|edit| edit.key);
    edits
}

fn placed(edits: Vec<Edit>) -> Vec<(u64, Entry)> {
    edits.iter().filter_map(|edit| Some((edit.place, (edit.key, edit.event?)))).collect()
}

/// The entries of a leaf after some changes, ordered by place.
fn merge(entries: &[Entry], edits: &[Edit]) -> Vec<(u64, Entry)> {
    let mut merged: Vec<_> = entries
        .iter()
        .map(|(key, event)| (place(*key), (*key, *event)))
        .filter(|(place, _)| edits.binary_search_by_key(place, |edit| edit.place).is_err())
        .collect();
    merged.extend(edits.iter().filter_map(|edit| Some((edit.place, (edit.key, edit.event?)))));
    merged.sort_unstable_by_key(|(place, _)| *place);
    merged
}
