//! What a simulated server does about events that build on what it does not know, and what it
//! answers to those who ask: as a real one does, without its limits and its care.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parlour_event::Pdu;
use ruma::OwnedEventId;

use super::{
    network::{Answer, Packet, PastEvent, Question},
    server::{PATIENCE, Server},
};
use crate::room::messages::{Backfilled, Entrance, Input, LocalEvent, Output, RoomError};

/// How many events an answer to `get_missing_events` or `backfill` has.
const PAGE: usize = 10;

/// How often something is asked for before it is given up.
const ATTEMPTS: usize = 40;

/// An event that builds on something unknown.
#[derive(Debug)]
pub(super) struct Parked {
    /// What has to come in before it, oldest first, and itself.
    chain: VecDeque<Arc<Pdu>>,
    from: usize,
    attempts: usize,
    /// Whether the events between have been asked for.
    asked_missing: bool,
}

/// What an answer is awaited for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) since: u64,
    pub(super) purpose: Purpose,
}

#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// A parked event.
    Event(OwnedEventId),
    /// Older history.
    History,
    /// A local user's join.
    Join { join: Option<Arc<Pdu>> },
}

impl Server {
    /// Takes an event in that another server has sent, or parks it.
    pub(super) fn take(&mut self, pdu: Arc<Pdu>, from: usize) {
        // Whatever else is wrong with it, it is dropped.
        let Err(RoomError::Missing(_)) = self.perform(Input::Received(pdu.clone())) else { return };
        let id = pdu.event_id().clone();
        if !self.parked.contains_key(&id) {
            let chain = VecDeque::from([pdu]);
            let parked = Parked { chain, from, attempts: 0, asked_missing: false };
            self.parked.insert(id.clone(), parked);
            self.seek(&id);
        }
    }

    /// Asks for what a parked event needs.
    fn seek(&mut self, id: &OwnedEventId) {
        let Some(core) = &self.core else { return };
        let earliest = core.tips.iter().map(|tip| tip.event_id().clone()).collect();
        let Some(parked) = self.parked.get_mut(id) else { return };
        parked.attempts += 1;
        if parked.attempts > ATTEMPTS {
            self.parked.remove(id);
            return;
        }
        let question = match parked.chain.front() {
            Some(first) if parked.asked_missing => Question::StateAt(first.event_id().clone()),
            _ => Question::Missing { latest: id.clone(), earliest },
        };
        // The one who has sent it, and then the others in turn.
        let others = self.others();
        let to = match self.parked[id].attempts {
            1 | 2 => self.parked[id].from,
            attempts => {
                *others.get(attempts % others.len().max(1)).unwrap_or(&self.parked[id].from)
            }
        };
        let purpose = Purpose::Event(id.clone());
        self.ask(to, question, |since| Asked { since, purpose });
    }

    /// Takes in what can be taken in of what a parked event waits for.
    fn proceed(&mut self, id: &OwnedEventId) {
        while let Some(first) = self.parked.get(id).and_then(|parked| parked.chain.front()) {
            match self.perform(Input::Received(first.clone())) {
                Err(RoomError::Missing(_)) => return self.seek(id),
                Ok(_) | Err(_) => {
                    let parked = self.parked.get_mut(id);
                    parked.map(|parked| parked.chain.pop_front());
                }
            }
        }
        self.parked.remove(id);
    }

    /// Asks again for what was not answered in time.
    pub(super) fn look_after_questions(&mut self) {
        let late: Vec<_> =
            self.asked.iter().filter(|(_, a)| a.since + PATIENCE < self.now).collect();
        let late: Vec<_> =
            late.into_iter().map(|(id, asked)| (*id, asked.purpose.clone())).collect();
        for (id, purpose) in late {
            self.asked.remove(&id);
            if let Purpose::Event(event) = purpose {
                self.seek(&event);
            }
        }
    }

    /// Another server has answered.
    pub(super) fn answered(&mut self, from: usize, id: u64, answer: Answer) {
        let Some(Asked { purpose, .. }) = self.asked.remove(&id) else { return };
        match (purpose, answer) {
            (Purpose::Event(event), Answer::Events(found)) => {
                let found = self.checked(&found);
                if let Some(parked) = self.parked.get_mut(&event) {
                    parked.asked_missing = true;
                    found.into_iter().rev().for_each(|pdu| parked.chain.push_front(pdu));
                }
                self.proceed(&event);
            }
            (Purpose::Event(event), Answer::State { ids, events }) => {
                let outliers = self.checked(&events);
                drop(self.perform(Input::Outliers(outliers)));
                let first = self.parked.get(&event).and_then(|parked| parked.chain.front());
                if let Some(first) = first.cloned() {
                    let result = self.perform(Input::ReceivedAt(first, ids));
                    if !matches!(result, Err(RoomError::Missing(_))) {
                        self.parked.get_mut(&event).map(|parked| parked.chain.pop_front());
                    }
                }
                self.proceed(&event);
            }
            (Purpose::Event(event), _) => self.seek(&event),
            (Purpose::History, Answer::Past { events, outliers }) => {
                let outliers = self.checked(&outliers);
                drop(self.perform(Input::Outliers(outliers)));
                let common = self.common.clone();
                let past = events.into_iter().filter_map(|(bytes, state_before)| {
                    Some(Backfilled { pdu: common.check(&bytes)?, state_before })
                });
                let past = past.collect();
                drop(self.perform(Input::Backfill(past)));
            }
            (Purpose::Join { join: None }, Answer::Template(template)) => {
                let mut template = *template;
                if self.common.version.rules().event_format.require_event_id {
                    let event_id = format!("$join{id}x{}:{}", self.place, self.name());
                    template.insert("event_id".to_owned(), event_id.into());
                }
                let key = self.signing_key();
                let join = Pdu::hash_and_sign(self.common.version, template, self.name(), key);
                let Ok(join) = join.map(Arc::new) else { return };
                let question = Question::SendJoin(join.to_bytes().into());
                let purpose = Purpose::Join { join: Some(join) };
                self.ask(from, question, |since| Asked { since, purpose });
            }
            (Purpose::Join { join: Some(join) }, Answer::Entrance { state, auth_chain }) => {
                let room_id = join.room_id().clone();
                self.open(&room_id);
                let entrance = Entrance {
                    room_id,
                    version: self.common.version,
                    join,
                    state: self.checked(&state),
                    auth_chain: self.checked(&auth_chain),
                };
                let was_in = self.is_in();
                match self.perform(Input::Enter(Box::new(entrance))) {
                    Ok(_) if !was_in => self.is_back(),
                    Err(_) if self.core.as_ref().is_some_and(|core| core.is_unborn()) => {
                        self.core = None;
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            (Purpose::History | Purpose::Join { .. }, _) => {}
        }
    }

    fn checked(&self, events: &[Bytes]) -> Vec<Arc<Pdu>> {
        events.iter().filter_map(|bytes| self.common.check(bytes)).collect()
    }

    /// Asks another server to let a local user in.
    pub(super) fn join_through(&mut self, through: usize, event: LocalEvent) {
        let question = Question::MakeJoin(Box::new(event));
        self.ask(through, question, |since| Asked { since, purpose: Purpose::Join { join: None } });
    }

    /// Asks another server for what is behind the known history; says whether there is anything.
    pub(super) fn page_back(&mut self, through: usize) -> bool {
        let Some(core) = &self.core else { return false };
        let gaps = self.store.backward_extremities(core.num, PAGE).unwrap();
        let gaps: Vec<_> =
            gaps.into_iter().map(|(id, _)| OwnedEventId::try_from(id).unwrap()).collect();
        let is_any = !gaps.is_empty();
        if is_any {
            let purpose = Purpose::History;
            self.ask(through, Question::Backfill(gaps), |since| Asked { since, purpose });
        }
        is_any
    }

    /// Answers another server.
    pub(super) fn asked_by(&mut self, from: usize, id: u64, question: Question) {
        let answer = match self.is_asked_rightly(from, &question) {
            true => self.answer(from, question),
            false => None,
        };
        let answer = answer.unwrap_or(Answer::Nothing);
        self.mail.push((from, Packet::Answer { id, answer }));
    }

    /// Only who is in the room can let others in. What it has of the room's history it tells those
    /// of whom it believes that they are in the room, whether it is itself or not.
    fn is_asked_rightly(&self, from: usize, question: &Question) -> bool {
        match question {
            Question::MakeJoin(_) | Question::SendJoin(_) => self.is_in(),
            Question::Missing { .. } | Question::StateAt(_) | Question::Backfill(_) => {
                self.others().contains(&from)
            }
        }
    }

    fn answer(&mut self, from: usize, question: Question) -> Option<Answer> {
        Some(match question {
            Question::Missing { latest, earliest } => {
                let num = self.placed(&latest)?;
                let start = self.stored(num).prev_events().to_vec();
                Answer::Events(bytes(&self.before(start, &earliest)))
            }
            Question::StateAt(id) => {
                let num = self.placed(&id)?;
                let state = self.state(self.core.as_ref()?.meta(num).ok()?.state_before);
                let mut events = self.auth_chain(&[&state[..], &[self.stored(num)]].concat());
                events.extend(state.iter().cloned());
                let ids = state.iter().map(|pdu| pdu.event_id().clone()).collect();
                Answer::State { ids, events: bytes(&events) }
            }
            Question::Backfill(gaps) => self.past(gaps)?,
            Question::MakeJoin(event) => match self.perform(Input::Template(event)) {
                Ok(Output::Template(template)) => Answer::Template(Box::new(template.event)),
                _ => return None,
            },
            Question::SendJoin(bytes_of_join) => {
                let join = self.common.check(&bytes_of_join)?;
                let id = join.event_id().clone();
                self.publish(
                    Input::Bring(join.clone(), Some(self.common.names[from].clone())),
                    Some(from),
                )
                .ok()?;
                // A power cut must not take back what others have been told.
                self.flush();
                let core = self.core.as_ref()?;
                let num = core.event_num(id.as_str()).ok()??;
                let state = self.state(core.meta(num).ok()?.state_before);
                let auth_chain = self.auth_chain(&[&state[..], &[join]].concat());
                Answer::Entrance { state: bytes(&state), auth_chain: bytes(&auth_chain) }
            }
        })
    }

    /// Events from these on back, a page of them, oldest first.
    fn before(&self, start: Vec<OwnedEventId>, stop: &[OwnedEventId]) -> Vec<Arc<Pdu>> {
        let mut seen: HashSet<_> = stop.iter().cloned().collect();
        let mut queue = VecDeque::from(start);
        let mut found = Vec::new();
        while let Some(id) = queue.pop_front()
            && found.len() < PAGE
        {
            if let Some(num) = self.placed(&id)
                && seen.insert(id)
            {
                let pdu = self.stored(num);
                queue.extend(pdu.prev_events().iter().cloned());
                found.push(pdu);
            }
        }
        found
            .sort_by(|a, b| a.depth().cmp(&b.depth()).then_with(|| a.event_id().cmp(b.event_id())));
        found
    }

    fn past(&self, gaps: Vec<OwnedEventId>) -> Option<Answer> {
        let page = self.before(gaps, &[]);
        let core = self.core.as_ref()?;
        let mut outliers = Vec::new();
        let events: Vec<PastEvent> = page
            .iter()
            .map(|pdu| {
                let num = self.placed(pdu.event_id()).unwrap();
                let state = self.state(core.meta(num).unwrap().state_before);
                outliers.extend(self.auth_chain(&[&state[..], std::slice::from_ref(pdu)].concat()));
                let ids = state.iter().map(|pdu| pdu.event_id().clone()).collect();
                outliers.extend(state);
                (Bytes::from(pdu.to_bytes()), Some(ids))
            })
            .collect();
        Some(Answer::Past { events, outliers: bytes(&outliers) })
    }
}

fn bytes(events: &[Arc<Pdu>]) -> Vec<Bytes> {
    events.iter().map(|pdu| Bytes::from(pdu.to_bytes())).collect()
}
