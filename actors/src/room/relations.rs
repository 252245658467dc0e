//! What an event is to others: reactions, edits, replies in threads.
//!
//! A few small keys per event that relates to another; counts of threads go on from what they
//! were. So whoever reads never counts children, and nothing here grows with the room.

use std::ops::Bound;

use bytes::Bytes;
use parlour_event::{
    EventNum, Pdu,
    content::{Relation, RelationKind},
    json::Value,
};
use parlour_storage::{
    Direction, Op, StorageError,
    schema::{
        Hop, NumberedPlace, RelationEntry, RelationGroup, Stored, ThreadEntry,
        relations::{self as keys},
    },
};
use sha2::{Digest, Sha256};

use super::{
    change::OnOthers,
    core::{Pending, RoomCore},
    messages::{LocalEvent, RoomError},
};

/// How many relations are followed from an event to its ancestors.
pub const MAX_HOPS: usize = 3;

/// Why an event may not relate to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// The user has annotated the event in the same way.
    #[error("you have annotated this event in the same way already")]
    Duplicate,
    /// The root of the thread relates to another event itself.
    #[error("a thread cannot start from an event that relates to another one")]
    NoRoot,
}

/// An event whose relation is written or taken back.
struct Child<'a> {
    num: EventNum,
    /// Where it stands in the room's history, before its position.
    depth: u64,
    pdu: &'a Pdu,
    relation: Relation<'a>,
}

impl Child<'_> {
    /// Whether it is an edit, as far as that can be told without the original.
    fn is_edit(&self) -> bool {
        let replaces = matches!(self.pdu.content().get("m.new_content"), Some(Value::Object(_)))
            || self.pdu.event_type() == "m.room.encrypted";
        self.relation.kind() == RelationKind::Replace && replaces && self.pdu.state_key().is_none()
    }
}

impl RoomCore {
    /// Whether a local user's event may relate to what it relates to. Relations that make no sense
    /// otherwise are no mistake, and mean nothing.
    pub(crate) fn check_relation(&mut self, event: &LocalEvent) -> Result<(), RoomError> {
        let Some(relation) = Relation::of(&event.content) else { return Ok(()) };
        match relation.kind() {
            RelationKind::Annotation => {
                let hash = annotation_hash(&event.event_type, relation.key);
                let (parent, sender) = (relation.parent, event.sender.as_str());
                let same = keys::annotations(self.num, parent, sender, &hash);
                match self.unsettled.has_any(&self.deps.store, &same)? {
                    true => Err(RelationError::Duplicate.into()),
                    false => Ok(()),
                }
            }
            RelationKind::Thread => match self.related(relation.parent)? {
                Some((_, root)) if Relation::of(root.content()).is_some() => {
                    Err(RelationError::NoRoot.into())
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What the relation of a new event does.
    pub(crate) fn relate(&mut self, num: EventNum, pdu: &Pdu) -> Result<OnOthers, RoomError> {
        let Some(child) = self.child(num, pdu)? else { return Ok(OnOthers::default()) };
        let relation = child.relation;
        let mut ops = Vec::new();
        let is_aggregated = match relation.kind() {
            RelationKind::Thread | RelationKind::Reference => true,
            RelationKind::Replace => child.is_edit(),
            RelationKind::Annotation | RelationKind::Other => false,
        };
        if is_aggregated {
            let key = keys::aggregated(self.num, relation.parent);
            ops.push(Op::Put { key, value: Bytes::new() });
        }
        if let Some(key) = self.own_key(&child) {
            ops.push(Op::Put { key, value: number(num.0) });
        }
        if relation.kind() == RelationKind::Thread {
            self.count_reply(&child, &mut ops)?;
        }
        Ok(OnOthers { relations: self.entries(&child)?, ops, ..OnOthers::default() })
    }

    /// What changes when an event is redacted that relates to another one: the groups of children
    /// that it leaves, and operations.
    pub(crate) fn unrelate(
        &mut self,
        num: EventNum,
        pdu: &Pdu,
        ops: &mut Vec<Op>,
    ) -> Result<Vec<Bytes>, RoomError> {
        let Some(child) = self.child(num, pdu)? else { return Ok(Vec::new()) };
        ops.extend(self.own_key(&child).map(|key| Op::Delete { key }));
        if child.relation.kind() == RelationKind::Thread {
            self.discount_reply(&child, ops)?;
        }
        Ok(self.entries(&child)?.into_iter().map(|(group, _)| group).collect())
    }

    fn child<'a>(&self, num: EventNum, pdu: &'a Pdu) -> Result<Option<Child<'a>>, RoomError> {
        let Some(relation) = Relation::of(pdu.content()) else { return Ok(None) };
        let depth = self.meta(num)?.depth;
        Ok(Some(Child { num, depth, pdu, relation }))
    }

    /// The child's entries under its ancestors, and in which groups of children they stand.
    fn entries(&mut self, child: &Child<'_>) -> Result<Vec<(Bytes, RelationEntry)>, RoomError> {
        let mut entries = Vec::with_capacity(MAX_HOPS);
        let mut via = Vec::new();
        let mut parent = child.relation.parent.to_owned();
        let mut group = RelationGroup::Direct(child.relation.kind());
        loop {
            let entry = RelationEntry {
                event: child.num,
                sender: child.pdu.sender().to_string(),
                rel_type: child.relation.rel_type.to_owned(),
                event_type: child.pdu.event_type().to_owned(),
                via: via.clone(),
            };
            entries.push((keys::relations(self.num, &parent, group), entry));
            if entries.len() == MAX_HOPS {
                return Ok(entries);
            }
            let Some((event, pdu)) = self.related(&parent)? else { return Ok(entries) };
            let Some(relation) = Relation::of(pdu.content()) else { return Ok(entries) };
            let (rel_type, event_type) =
                (relation.rel_type.to_owned(), pdu.event_type().to_owned());
            via.insert(0, Hop { event, rel_type, event_type });
            parent = relation.parent.to_owned();
            group = RelationGroup::Indirect;
        }
    }

    /// An event of this room that another one relates to.
    fn related(
        &mut self,
        event_id: &str,
    ) -> Result<Option<(EventNum, std::sync::Arc<Pdu>)>, RoomError> {
        let Some(num) = self.event_num(event_id)? else { return Ok(None) };
        let pdu = self.event(num)?;
        Ok((*pdu.room_id() == self.room_id).then_some((num, pdu)))
    }

    /// The key under which an edit or an annotation is found by its sender.
    fn own_key(&self, child: &Child<'_>) -> Option<Bytes> {
        let Child { num, pdu, relation, .. } = child;
        let (parent, sender) = (relation.parent, pdu.sender().as_str());
        match relation.kind() {
            RelationKind::Annotation => {
                let hash = annotation_hash(pdu.event_type(), relation.key);
                Some(keys::annotation(self.num, parent, sender, &hash, *num))
            }
            RelationKind::Replace => {
                let (time, id) = (pdu.origin_server_ts(), pdu.event_id().as_str());
                child.is_edit().then(|| keys::edit(self.num, parent, sender, time, id))
            }
            _ => None,
        }
    }

    fn count_reply(&self, child: &Child<'_>, ops: &mut Vec<Op>) -> Result<(), RoomError> {
        let root = child.relation.parent;
        let known = self.thread(root)?;
        // Of several with the same depth the one that comes last.
        let deeper = known.map(|thread| thread.latest).filter(|latest| latest.0 > child.depth);
        let latest = deeper.unwrap_or((child.depth, child.num));
        let count = known.map_or(0, |thread| thread.count).saturating_add(1);
        self.set_thread(root, known, Some(ThreadEntry { count, latest }), ops);
        let (key, replies) = self.replies(child)?;
        ops.push(Op::Put { key, value: number(replies.saturating_add(1)) });
        Ok(())
    }

    fn discount_reply(&self, child: &Child<'_>, ops: &mut Vec<Op>) -> Result<(), RoomError> {
        let root = child.relation.parent;
        let Some(known) = self.thread(root)? else { return Ok(()) };
        let count = known.count.saturating_sub(1).max(1);
        let latest = self.latest_reply(root, child.num)?;
        let now = latest.map(|latest| ThreadEntry { count, latest });
        self.set_thread(root, Some(known), now, ops);
        let (key, replies) = self.replies(child)?;
        ops.push(match replies {
            0 | 1 => Op::Delete { key },
            replies => Op::Put { key, value: number(replies - 1) },
        });
        Ok(())
    }

    /// A thread's latest reply once one of them is gone.
    fn latest_reply(
        &self,
        root: &str,
        gone: EventNum,
    ) -> Result<Option<NumberedPlace>, StorageError> {
        let is_redacted = |pending: &Pending| pending.meta.redacted_because.is_some();
        let own = (self.pending.iter())
            .filter(|(num, pending)| **num != gone && is_reply(pending, root))
            .max_by_key(|(_, pending)| (pending.meta.depth, pending.seq))
            .map(|(num, pending)| (pending.meta.depth, *num));
        let is_gone = |num| num == gone || self.pending.get(&num).is_some_and(is_redacted);
        // So many of the stored replies at most are known to go.
        let limit = self.pending.values().filter(|pending| is_redacted(pending)).count() + 2;
        let (parent, group) = ((self.num, root), RelationGroup::Direct(RelationKind::Thread));
        let all = (Bound::Unbounded, Bound::Unbounded);
        let stored = self.deps.store.relations(parent, group, all, Direction::Backward, limit)?;
        let mut stored = stored.into_iter().map(|((depth, _), entry)| (depth, entry.event));
        let stored = stored.find(|(_, num)| !is_gone(*num));
        // Of those with the same depth the ones that are on their way come last.
        let deeper = stored.filter(|stored| own.is_none_or(|own| own.0 < stored.0));
        Ok(deeper.or(own))
    }

    fn set_thread(
        &self,
        root: &str,
        was: Option<ThreadEntry>,
        is: Option<ThreadEntry>,
        ops: &mut Vec<Op>,
    ) {
        let order = |thread: ThreadEntry| keys::thread_order(self.num, thread.latest);
        ops.extend(was.map(|was| Op::Delete { key: order(was) }));
        let key = keys::thread(self.num, root);
        match is {
            Some(is) => {
                let value = Bytes::from(root.to_owned());
                ops.push(Op::Put { key: order(is), value });
                ops.push(Op::Put { key, value: is.encode() });
            }
            None => ops.push(Op::Delete { key }),
        }
    }

    fn thread(&self, root: &str) -> Result<Option<ThreadEntry>, StorageError> {
        let key = keys::thread(self.num, root);
        let value = self.unsettled.get(&self.deps.store, &key)?;
        value.map(|value| ThreadEntry::decode(&key, &value)).transpose()
    }

    /// How many replies the child's sender has in its thread, and under which key that stands.
    fn replies(&self, child: &Child<'_>) -> Result<(Bytes, u64), StorageError> {
        let sender = child.pdu.sender().as_str();
        let key = keys::replies_of_user(self.num, child.relation.parent, sender);
        let value = self.unsettled.get(&self.deps.store, &key)?;
        let replies = value.and_then(|value| value.as_ref().try_into().ok());
        Ok((key, replies.map_or(0, u64::from_be_bytes)))
    }
}

/// Whether an event of a commit in flight is a reply in a thread.
fn is_reply(pending: &Pending, root: &str) -> bool {
    let relation = Relation::of(pending.pdu.content());
    let in_thread =
        |relation: Relation<'_>| relation.kind() == RelationKind::Thread && relation.parent == root;
    let Pending { meta, .. } = pending;
    meta.flags.is_visible() && meta.redacted_because.is_none() && relation.is_some_and(in_thread)
}

/// A short name for what an annotation says: its key may be long.
fn annotation_hash(event_type: &str, key: Option<&str>) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update((event_type.len() as u64).to_be_bytes());
    hasher.update(event_type);
    hasher.update(key.unwrap_or_default());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut hash = [0; 16];
    hash.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    hash
}

fn number(number: u64) -> Bytes {
    Bytes::from(number.to_be_bytes().to_vec())
}
