//! What an event is to others: reactions, edits, replies in threads.
//!
//! A few small keys per event that relates to another; counts of threads go on from what they
//! were. So whoever reads never counts children, and nothing here grows with the room.

use bytes::Bytes;
use parlour_event::{
    EventNum, Pdu,
    content::{Relation, RelationKind},
    json::Value,
};
use parlour_storage::{
    Op, StorageError,
    schema::{
        Hop, RelationEntry, RelationGroup, RelationPlace, Stored, ThreadEntry,
        keys::last_numbers,
        relations::{self as keys},
    },
};
use sha2::{Digest, Sha256};

use super::{
    core::RoomCore,
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
    /// Where it stands in the room's history, before its number.
    depth: u64,
    pdu: &'a Pdu,
    relation: Relation<'a>,
}

impl Child<'_> {
    fn place(&self) -> RelationPlace {
        (self.depth, self.num)
    }

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
                match self.unsettled.last(&self.deps.store, &same, &[])? {
                    Some(_) => Err(RelationError::Duplicate.into()),
                    None => Ok(()),
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

    /// What the relation of a new event changes in the index.
    pub(crate) fn relate(&mut self, num: EventNum, pdu: &Pdu) -> Result<Vec<Op>, RoomError> {
        let Some(child) = self.child(num, pdu)? else { return Ok(Vec::new()) };
        let relation = child.relation;
        let mut ops = Vec::new();
        for (key, entry) in self.entries(&child)? {
            ops.push(Op::Put { key, value: entry.encode() });
        }
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
        Ok(ops)
    }

    /// What changes in the index when an event is redacted that relates to another one.
    pub(crate) fn unrelate(&mut self, num: EventNum, pdu: &Pdu) -> Result<Vec<Op>, RoomError> {
        let Some(child) = self.child(num, pdu)? else { return Ok(Vec::new()) };
        let entries = self.entries(&child)?;
        let gone = entries.into_iter().map(|(key, _)| key).chain(self.own_key(&child));
        let mut ops: Vec<_> = gone.map(|key| Op::Delete { key }).collect();
        if child.relation.kind() == RelationKind::Thread {
            self.discount_reply(&child, &mut ops)?;
        }
        Ok(ops)
    }

    fn child<'a>(&self, num: EventNum, pdu: &'a Pdu) -> Result<Option<Child<'a>>, RoomError> {
        let Some(relation) = Relation::of(pdu.content()) else { return Ok(None) };
        let depth = self.meta(num)?.depth;
        Ok(Some(Child { num, depth, pdu, relation }))
    }

    /// The child's entries under its ancestors.
    fn entries(&mut self, child: &Child<'_>) -> Result<Vec<(Bytes, RelationEntry)>, RoomError> {
        let mut entries = Vec::with_capacity(MAX_HOPS);
        let mut via = Vec::new();
        let mut parent = child.relation.parent.to_owned();
        let mut group = RelationGroup::Direct(child.relation.kind());
        loop {
            let key = keys::relation(self.num, &parent, group, child.place());
            let entry = RelationEntry {
                sender: child.pdu.sender().to_string(),
                rel_type: child.relation.rel_type.to_owned(),
                event_type: child.pdu.event_type().to_owned(),
                via: via.clone(),
            };
            entries.push((key, entry));
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
        let (root, place) = (child.relation.parent, child.place());
        let known = self.thread(root)?;
        let latest = known.map_or(place, |thread| thread.latest.max(place));
        let count = known.map_or(0, |thread| thread.count).saturating_add(1);
        self.set_thread(root, known, Some(ThreadEntry { count, latest }), ops);
        let (key, replies) = self.replies(child)?;
        ops.push(Op::Put { key, value: number(replies.saturating_add(1)) });
        Ok(())
    }

    fn discount_reply(&self, child: &Child<'_>, ops: &mut Vec<Op>) -> Result<(), RoomError> {
        let root = child.relation.parent;
        let Some(known) = self.thread(root)? else { return Ok(()) };
        let group = RelationGroup::Direct(RelationKind::Thread);
        let all = keys::relations(self.num, root, group);
        let own = keys::relation(self.num, root, group, child.place());
        let latest = self.unsettled.last(&self.deps.store, &all, &own)?;
        let latest = latest.as_deref().and_then(last_numbers);
        let now = latest.map(|(depth, num)| ThreadEntry {
            count: known.count.saturating_sub(1).max(1),
            latest: (depth, EventNum(num)),
        });
        self.set_thread(root, Some(known), now, ops);
        let (key, replies) = self.replies(child)?;
        ops.push(match replies {
            0 | 1 => Op::Delete { key },
            replies => Op::Put { key, value: number(replies - 1) },
        });
        Ok(())
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
