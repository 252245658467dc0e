//! What an event's children come to, as it is told along with the event.
//!
//! Events that have children worth aggregating are found by one look-up for a whole page
//! ([`Reader::note_parents`]); only for those is more read. Counts are kept with the thread, and
//! edits are stored in the order in which they win, so that no children are counted or compared.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>

use std::ops::Bound;

use parlour_event::{EventNum, content::RelationKind};
use parlour_storage::{
    Direction,
    schema::{
        RelationEntry, RelationGroup, Stored as _, StoredEvent, ThreadEntry, relations as keys,
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{EventFormat, Fields, Reader, ViewError, event::Relating};

/// How many edits are looked at to find one that counts.
const MAX_EDITS: usize = 16;

/// How many references are listed: the newest.
const MAX_REFERENCES: usize = 256;

/// How many replies are looked at to find one that the reader may see.
const MAX_REPLIES: usize = 64;

/// `m.relations`
#[derive(Default, Serialize)]
pub(super) struct Bundle {
    #[serde(rename = "m.reference", skip_serializing_if = "Option::is_none")]
    references: Option<References>,
    #[serde(rename = "m.replace", skip_serializing_if = "Option::is_none")]
    edit: Option<Box<RawValue>>,
    #[serde(rename = "m.thread", skip_serializing_if = "Option::is_none")]
    pub(super) thread: Option<Thread>,
}

#[derive(Serialize)]
struct References {
    chunk: Vec<Reference>,
}

#[derive(Serialize)]
struct Reference {
    event_id: String,
}

#[derive(Serialize)]
pub(super) struct Thread {
    latest_event: Box<RawValue>,
    count: u64,
    pub(super) current_user_participated: bool,
}

impl Reader {
    /// Looks up which of these events have children to aggregate. Events that are rendered later
    /// bring their aggregations only if they have been looked up here.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn note_parents<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a StoredEvent>,
    ) -> Result<(), ViewError> {
        let room = self.room().num;
        // State events get no aggregations.
        let events = events.into_iter().filter(|event| event.meta.state_key.is_none());
        let (nums, keys): (Vec<_>, Vec<_>) =
            events.map(|event| (event.num, keys::aggregated(room, &event.meta.event_id))).unzip();
        let found = self.view().store.multi_get(&keys)?;
        let parents = nums.into_iter().zip(found).filter(|(_, found)| found.is_some());
        self.parents.extend(parents.map(|(num, _)| num));
        Ok(())
    }

    /// Whether an event that has been looked up has children to aggregate.
    #[must_use]
    pub fn is_parent(&self, num: EventNum) -> bool {
        self.parents.contains(&num)
    }

    /// The aggregations of an event's children; `None` if it has none. A thread's latest reply
    /// comes without a thread of its own, since those might go on for ever.
    pub(super) fn bundle(
        &mut self,
        event: &StoredEvent,
        fields: &Fields<'_>,
        format: EventFormat,
        with_thread: bool,
    ) -> Result<Option<Bundle>, ViewError> {
        if !self.parents.contains(&event.num) {
            return Ok(None);
        }
        let bundle = Bundle {
            edit: self.newest_edit(event, fields, format)?,
            references: self.references(event)?,
            thread: match with_thread {
                true => self.thread(event, &fields.sender, format)?,
                false => None,
            },
        };
        let is_empty =
            bundle.edit.is_none() && bundle.references.is_none() && bundle.thread.is_none();
        Ok((!is_empty).then_some(bundle))
    }

    /// The valid replacement that counts. A redacted event has none, nor has a replacement, nor
    /// what an ignored user has said.
    fn newest_edit(
        &mut self,
        event: &StoredEvent,
        fields: &Fields<'_>,
        format: EventFormat,
    ) -> Result<Option<Box<RawValue>>, ViewError> {
        let is_edit = Relating::of(fields).is_some_and(|relation| relation.rel_type == "m.replace");
        let is_ignored = self.ignored()?.contains(&fields.sender);
        if event.meta.redacted_because.is_some() || is_edit || is_ignored {
            return Ok(None);
        }
        let (store, room) = (self.view().store.clone(), self.room().num);
        let id = &event.meta.event_id;
        let nums = store.newest_edits(room, id, &fields.sender, MAX_EDITS)?;
        for num in nums {
            let Some(edit) = store.event(num)? else { continue };
            let edit_fields = Fields::of(&edit)?;
            if edit_fields.event_type != fields.event_type || edit.meta.redacted_because.is_some() {
                continue;
            }
            let seen = self.judge(&edit)?;
            if seen.visible {
                return self.rendered(&edit, &edit_fields, seen, format, None).map(Some);
            }
        }
        Ok(None)
    }

    fn references(&mut self, event: &StoredEvent) -> Result<Option<References>, ViewError> {
        let group = RelationGroup::Direct(RelationKind::Reference);
        let mut children = self.newest_children(event, group, MAX_REFERENCES)?;
        children.reverse();
        let nums = self.heard(children)?;
        let mut chunk = Vec::new();
        for child in self.view().store.events(&nums)?.into_iter().flatten() {
            if child.meta.redacted_because.is_none() && self.judge(&child)?.visible {
                chunk.push(Reference { event_id: child.meta.event_id });
            }
        }
        Ok((!chunk.is_empty()).then_some(References { chunk }))
    }

    /// What is to be told of the thread of which an event is the root.
    fn thread(
        &mut self,
        root: &StoredEvent,
        sender: &str,
        format: EventFormat,
    ) -> Result<Option<Thread>, ViewError> {
        let Some((count, own)) = self.count_replies(&root.meta.event_id)? else { return Ok(None) };
        let Some(latest_event) = self.latest_reply(root, format)? else { return Ok(None) };
        let current_user_participated = own > 0 || sender == self.user();
        Ok(Some(Thread { latest_event, count, current_user_participated }))
    }

    /// How many replies a thread has without those of ignored users, and how many are the
    /// reader's own; `None` if there are none.
    fn count_replies(&mut self, root: &str) -> Result<Option<(u64, u64)>, ViewError> {
        let room = self.room().num;
        let ignored = self.ignored()?;
        let of_user = |user: &str| keys::replies_of_user(room, root, user);
        let key = keys::thread(room, root);
        let mut all = vec![key.clone(), of_user(self.user())];
        all.extend(ignored.users().map(of_user));
        let mut found = self.view().store.multi_get(&all)?.into_iter();
        let Some(entry) = found.next().flatten() else { return Ok(None) };
        let count = ThreadEntry::decode(&key, &entry.value)?.count;
        let mut replies = found.map(|entry| {
            let value = entry.and_then(|entry| entry.value.as_ref().try_into().ok());
            value.map_or(0, u64::from_be_bytes)
        });
        let own = replies.next().unwrap_or_default();
        let count = count.saturating_sub(replies.sum());
        Ok((count > 0).then_some((count, own)))
    }

    /// The newest reply that the reader may see and wants to hear.
    fn latest_reply(
        &mut self,
        root: &StoredEvent,
        format: EventFormat,
    ) -> Result<Option<Box<RawValue>>, ViewError> {
        let group = RelationGroup::Direct(RelationKind::Thread);
        let store = self.view().store.clone();
        // Nearly always the very newest will do.
        for limit in [1, MAX_REPLIES] {
            let children = self.newest_children(root, group, limit)?;
            for num in self.heard(children)? {
                let Some(reply) = store.event(num)? else { continue };
                let seen = self.judge(&reply)?;
                if seen.visible && reply.meta.redacted_because.is_none() {
                    self.note_parents([&reply])?;
                    let fields = Fields::of(&reply)?;
                    let relations = self.bundle(&reply, &fields, format, false)?;
                    let json = self.rendered(&reply, &fields, seen, format, relations)?;
                    return Ok(Some(json));
                }
            }
        }
        Ok(None)
    }

    fn newest_children(
        &self,
        parent: &StoredEvent,
        group: RelationGroup,
        limit: usize,
    ) -> Result<Vec<RelationEntry>, ViewError> {
        let parent = (self.room().num, parent.meta.event_id.as_str());
        let range = (Bound::Unbounded, Bound::Unbounded);
        let store = &self.view().store;
        let found = store.relations(parent, group, range, Direction::Backward, limit)?;
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Those that are not of users whom the reader ignores.
    fn heard(&mut self, children: Vec<RelationEntry>) -> Result<Vec<EventNum>, ViewError> {
        let ignored = self.ignored()?;
        let heard = children.into_iter().filter(|entry| !ignored.contains(&entry.sender));
        Ok(heard.map(|entry| entry.event).collect())
    }
}
