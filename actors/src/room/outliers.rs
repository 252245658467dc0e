//! Events without a place in the graph: somebody's auth chain, or a state that is told.
//!
//! They are judged by their auth events alone, and stored many in one commit: none of them changes
//! anything that readers see.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parlour_event::{
    EventNum, Pdu,
    state::{Overlay, ReadState as _, StateRoot},
};
use parlour_storage::{
    Op,
    schema::{EventFlags, EventMeta, Stored as _, keys},
};
use ruma::{EventId, OwnedEventId};

use super::{
    change::Effect,
    commits::CommitPos,
    core::{InFlight, Pending, RoomCore},
    messages::RoomError,
    received::{Named, allowed_by},
    take_in::{Fresh, Place, Step},
};

/// About how many bytes of events one commit has.
const COMMIT_BYTES: usize = 1 << 20;

/// Outliers that are being judged.
struct Batch<'a> {
    core: &'a RoomCore,
    /// The room's create event.
    create: Option<Arc<Pdu>>,
    /// What is known of the events that others name.
    known: HashMap<OwnedEventId, Option<Named>>,
}

/// An outlier and what was decided about it.
struct Outlier {
    num: EventNum,
    pdu: Arc<Pdu>,
    auth_events: Vec<EventNum>,
    rejected: bool,
}

impl RoomCore {
    /// Judges and stores events without a place in the graph. Left out is what is known already,
    /// what is of another room, and what names auth events that are not known. `create` stands in
    /// for the room's create event while it has none.
    pub(crate) fn outliers(
        &mut self,
        pdus: Vec<Arc<Pdu>>,
        create: Option<Arc<Pdu>>,
    ) -> Result<Vec<Step>, RoomError> {
        let create = match create {
            Some(create) => Some(create),
            None => Some(self.event(self.create)?),
        };
        let new = self.unknown(pdus)?;
        let mut batch = Batch { core: self, create, known: HashMap::new() };
        let mut judged = Vec::with_capacity(new.len());
        for pdu in by_auth_events(new) {
            judged.extend(batch.judge(pdu)?);
        }
        let mark = self.next_seq;
        self.store_outliers(judged).inspect_err(|_| self.abandon_since(mark))
    }

    /// Those events of this room that are not known, each once.
    fn unknown(&self, pdus: Vec<Arc<Pdu>>) -> Result<Vec<Arc<Pdu>>, RoomError> {
        let mut seen = HashSet::new();
        let mut own: Vec<_> = pdus
            .into_iter()
            .filter(|pdu| *pdu.room_id() == self.room_id && seen.insert(pdu.event_id().clone()))
            .collect();
        let ids: Vec<_> = own.iter().map(|pdu| &**pdu.event_id()).collect();
        let known = self.known_events(&ids)?;
        let mut known = known.into_iter();
        own.retain(|_| known.next().is_some_and(|known| known.is_none()));
        Ok(own)
    }

    /// As `known_event`, for many. An event of another room that is there counts as known, too: it
    /// is in the way.
    fn known_events(
        &self,
        ids: &[&EventId],
    ) -> Result<Vec<Option<(EventNum, EventMeta)>>, RoomError> {
        let texts: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
        let mut nums = self.deps.store.event_nums(&texts)?;
        for (num, id) in nums.iter_mut().zip(ids) {
            *num = self.pending_ids.get(*id).copied().or(*num);
        }
        let present: Vec<_> = nums.iter().flatten().copied().collect();
        let mut metas = self.metas(&present)?.into_iter();
        let mut found = Vec::with_capacity(nums.len());
        for num in nums {
            let known = num.and_then(|num| Some((num, metas.next()?)));
            found.push(match known {
                Some((_, meta)) if meta.room != self.num && self.is_gone(&meta)? => None,
                known => known,
            });
        }
        Ok(found)
    }

    fn is_gone(&self, meta: &EventMeta) -> Result<bool, RoomError> {
        Ok(self.deps.store.room_head(meta.room)?.is_none())
    }

    /// What is known of many events, durable or not.
    fn metas(&self, nums: &[EventNum]) -> Result<Vec<EventMeta>, RoomError> {
        let stored = self.deps.store.event_metas(nums)?.into_iter();
        let newest =
            |(num, stored): (&EventNum, Option<EventMeta>)| match (self.pending.get(num), stored) {
                (Some(pending), _) => Ok(pending.meta.clone()),
                (None, Some(stored)) => Ok(stored),
                (None, None) => self.meta(*num),
            };
        nums.iter().zip(stored).map(newest).collect()
    }

    /// The state that another server tells by the ids of its events.
    pub(crate) fn told_state(
        &mut self,
        ids: &[OwnedEventId],
        fresh: &mut Fresh,
    ) -> Result<StateRoot, RoomError> {
        let refs: Vec<_> = ids.iter().map(|id| &**id).collect();
        let known = self.known_events(&refs)?;
        let missing = ids.iter().zip(&known).filter(|(_, known)| known.is_none());
        let missing: Vec<_> = missing.map(|(id, _)| id.clone()).collect();
        if !missing.is_empty() {
            return Err(RoomError::Missing(missing));
        }
        self.state_of(known.into_iter().flatten(), fresh)
    }

    /// As `told_state`, without what is not known here.
    pub(crate) fn entered_state(
        &mut self,
        ids: &[OwnedEventId],
        fresh: &mut Fresh,
    ) -> Result<StateRoot, RoomError> {
        let refs: Vec<_> = ids.iter().map(|id| &**id).collect();
        let known = self.known_events(&refs)?.into_iter().flatten();
        let own = known.filter(|(_, meta)| meta.room == self.num).collect::<Vec<_>>();
        self.state_of(own.into_iter(), fresh)
    }

    /// The state with these events; rejected ones, and those that are no state events, are left
    /// out. Of several for one place the first one counts.
    pub(crate) fn state_of(
        &mut self,
        events: impl Iterator<Item = (EventNum, EventMeta)>,
        fresh: &mut Fresh,
    ) -> Result<StateRoot, RoomError> {
        let mut entries = HashMap::new();
        for (num, meta) in events {
            if meta.room != self.num {
                return Err(RoomError::OtherRoom);
            }
            if let Some(key) = meta.state_key.filter(|_| !meta.flags.rejected) {
                entries.entry(key).or_insert(num);
            }
        }
        // Made out of the current state, with which it has most in common: what is equal is not
        // written again.
        let mut changes = Vec::new();
        for entry in self.nodes.iter(self.state) {
            let (key, num) = entry?;
            match entries.get(&key) {
                Some(told) if *told == num => drop(entries.remove(&key)),
                Some(_) => {}
                None => changes.push((key, None)),
            }
        }
        changes.extend(entries.into_iter().map(|(key, num)| (key, Some(num))));
        let mut overlay = Overlay::new(&self.nodes);
        let state = overlay.insert_many(self.state, &changes)?;
        let nodes = overlay.into_new_nodes(&[state]);
        self.pin(nodes, fresh);
        Ok(state)
    }

    /// Commits with these outliers.
    fn store_outliers(&mut self, outliers: Vec<Outlier>) -> Result<Vec<Step>, RoomError> {
        let mut steps = Vec::new();
        let mut outliers = outliers.into_iter().peekable();
        while outliers.peek().is_some() {
            let (mut ops, mut bytes) = (Vec::new(), 0);
            let mut commit = InFlight { seq: self.next_seq, ..InFlight::default() };
            self.next_seq += 1;
            while bytes < COMMIT_BYTES
                && let Some(outlier) = outliers.next()
            {
                bytes += self.store_outlier(&outlier, &mut commit, &mut ops)?;
            }
            steps.push(Step {
                seq: commit.seq,
                effect: Effect::Quiet(ops),
                broken: self.broken.clone(),
            });
            self.in_flight.push_back(commit);
        }
        Ok(steps)
    }

    /// Adds an outlier to a commit; says how large it is.
    fn store_outlier(
        &mut self,
        outlier: &Outlier,
        commit: &mut InFlight,
        ops: &mut Vec<Op>,
    ) -> Result<usize, RoomError> {
        let Outlier { num, pdu, auth_events, rejected } = outlier;
        let state_key = self.state_key_num(pdu, ops)?;
        let flags = EventFlags { rejected: *rejected, outlier: true, ..EventFlags::default() };
        let redacted_because = self.redaction_of(pdu)?;
        let redacted = redacted_because.map(|_| self.redacted(pdu)).transpose()?.map(Arc::new);
        let pdu = redacted.as_ref().unwrap_or(pdu);
        let auth_events = auth_events.clone();
        let place = Place { auth_events, flags, redacted_because, ..Place::default() };
        let meta = self.meta_of(pdu, &place, state_key);
        let json = Bytes::from(pdu.to_bytes());
        let size = json.len();
        let value = Bytes::from(num.0.to_be_bytes().to_vec());
        ops.push(Op::Put { key: keys::event_id(pdu.event_id().as_str()), value });
        ops.push(Op::PutBlob { key: keys::event(*num), value: meta.encode(), blob: json });
        ops.push(Op::Put { key: keys::off_timeline(self.num, *num), value: Bytes::new() });
        let (seq, pos) = (commit.seq, CommitPos::default());
        self.remember(*num, Pending { pdu: pdu.clone(), meta, seq, pos });
        commit.events.push((*num, pdu.event_id().clone()));
        if let Some(key) = pdu.state_key() {
            commit.state_keys.push((pdu.event_type().to_owned(), key.to_owned()));
        }
        Ok(size)
    }
}

impl Batch<'_> {
    /// Judges an event by its auth events; `None` if they are not all known.
    fn judge(&mut self, pdu: Arc<Pdu>) -> Result<Option<Outlier>, RoomError> {
        let mut named = Vec::with_capacity(pdu.auth_events().len());
        for id in pdu.auth_events() {
            let Some(known) = self.find(id)? else { return Ok(None) };
            named.push(known);
        }
        let allowed = allowed_by(self.core.version, &pdu, &named, self.create.as_ref());
        let num = self.core.deps.interner.new_event();
        let rejected = allowed.is_err();
        self.known.insert(pdu.event_id().clone(), Some((num, pdu.clone(), rejected)));
        let auth_events = named.into_iter().map(|(num, ..)| num).collect();
        Ok(Some(Outlier { num, pdu, auth_events, rejected }))
    }

    fn find(&mut self, id: &OwnedEventId) -> Result<Option<Named>, RoomError> {
        if let Some(known) = self.known.get(id) {
            return Ok(known.clone());
        }
        let known = match self.core.known_event(id) {
            Ok(Some((num, meta))) => Some((num, self.core.stored(num)?.0, meta.flags.rejected)),
            Ok(None) | Err(RoomError::OtherRoom) => None,
            Err(error) => return Err(error),
        };
        self.known.insert(id.clone(), known.clone());
        Ok(known)
    }
}

/// Puts events behind those among them that they name as auth events. What goes in circles, and
/// what builds on that, is left out.
fn by_auth_events(pdus: Vec<Arc<Pdu>>) -> Vec<Arc<Pdu>> {
    let places: HashMap<_, _> =
        pdus.iter().enumerate().map(|(place, pdu)| (pdu.event_id().clone(), place)).collect();
    let mut waits_for = vec![0_usize; pdus.len()];
    let mut waiting: HashMap<usize, Vec<usize>> = HashMap::new();
    for (place, pdu) in pdus.iter().enumerate() {
        let named: HashSet<_> = pdu.auth_events().iter().filter_map(|id| places.get(id)).collect();
        waits_for[place] = named.len();
        named.into_iter().for_each(|named| waiting.entry(*named).or_default().push(place));
    }
    let mut ready: VecDeque<_> = (0..pdus.len()).filter(|place| waits_for[*place] == 0).collect();
    let mut sorted = Vec::with_capacity(pdus.len());
    while let Some(place) = ready.pop_front() {
        sorted.push(pdus[place].clone());
        for next in waiting.remove(&place).unwrap_or_default() {
            waits_for[next] -= 1;
            if waits_for[next] == 0 {
                ready.push_back(next);
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use parlour_event::{RoomVersion, json};

    use super::*;

    fn event(id: &str, auth_events: &[&str]) -> Arc<Pdu> {
        let version = RoomVersion::parse("10").expect("a version");
        let auth_events: Vec<_> = auth_events.iter().map(|id| format!(r#""{id}""#)).collect();
        let text = format!(
            r#"{{"type":"m.x","room_id":"!r:x","sender":"@a:x","origin_server_ts":1,"depth":1,
                "content":{{}},"prev_events":[],"auth_events":[{}]}}"#,
            auth_events.join(",")
        );
        let json = json::parse_object(version, text.as_bytes()).expect("JSON");
        let id = EventId::parse(id).expect("an id");
        Arc::new(Pdu::from_trusted(version, id, json).expect("an event"))
    }

    #[test]
    fn what_is_named_comes_first_and_circles_are_left_out() {
        let events = vec![
            event("$c", &["$b", "$a"]),
            event("$x", &["$y"]),
            event("$a", &["$elsewhere"]),
            event("$y", &["$x"]),
            event("$on_x", &["$x"]),
            event("$self", &["$self"]),
            event("$b", &["$a", "$a"]),
        ];
        let sorted = by_auth_events(events);
        let ids: Vec<_> = sorted.iter().map(|pdu| pdu.event_id().as_str()).collect();
        assert_eq!(ids, ["$a", "$b", "$c"]);
    }
}
