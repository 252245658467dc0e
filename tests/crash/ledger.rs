//! What the watcher has seen by `/sync`, and what must hold of it.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::{
    common::{Answer, Ask, User, path},
    load::Sender,
};

/// The longest timeline that a sync is asked for; longer gaps are filled by `/messages`.
const TIMELINE: usize = 50;

/// One event of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    id: String,
    /// The body of a message; empty for other events.
    text: String,
}

/// All rooms as the watcher has seen them, through every crash, by one chain of sync tokens.
pub(crate) struct Ledger {
    rooms: Vec<String>,
    seen: Vec<Vec<Seen>>,
    ids: HashSet<String>,
    by_text: HashMap<(usize, String), String>,
    token: Option<String>,
}

impl Ledger {
    /// A watcher that has never synced.
    pub(crate) fn new(rooms: Vec<String>) -> Self {
        let seen = vec![Vec::new(); rooms.len()];
        Self { rooms, seen, ids: HashSet::new(), by_text: HashMap::new(), token: None }
    }

    /// The event that carries a text.
    pub(crate) fn find(&self, room: usize, text: &str) -> Option<String> {
        self.by_text.get(&(room, text.to_owned())).cloned()
    }

    /// Syncs while the load runs, until the connection breaks. A gap that could not be filled
    /// before the kill is left to the next sync: the token moves on only when all is taken in.
    pub(crate) fn watch_until_lost(&mut self, watcher: &User) {
        while let Ok(answer) = watcher.http.try_send("GET", &self.ask(200), b"") {
            if self.absorb(watcher, &answer.ok()).is_none() {
                return;
            }
        }
    }

    /// Syncs on from the last token until nothing is new.
    pub(crate) fn catch_up(&mut self, watcher: &User) {
        loop {
            let before = self.ids.len();
            let answer = watcher.http.get(&self.ask(0)).ok();
            self.absorb(watcher, &answer).expect("the server is up");
            if self.ids.len() == before {
                return;
            }
        }
    }

    fn ask(&self, wait_ms: u64) -> String {
        let ask = self.token.as_deref().map_or_else(Ask::initial, Ask::since).wait(wait_ms);
        ask.filter(json!({ "room": { "timeline": { "limit": TIMELINE } } })).path()
    }

    /// Takes one answer in whole or, if the server dies while a gap is filled, not at all.
    fn absorb(&mut self, watcher: &User, answer: &Answer) -> Option<()> {
        let mut new = Vec::new();
        for (number, room) in self.rooms.iter().enumerate() {
            let timeline = &answer["rooms"]["join"][room]["timeline"];
            let mut events = seen(&timeline["events"]);
            if timeline["limited"] == true {
                let from = timeline["prev_batch"].as_str()?;
                let mut whole = self.fill(watcher, room, from)?;
                whole.append(&mut events);
                events = whole;
            }
            new.push((number, events));
        }
        for (room, event) in
            new.into_iter().flat_map(|(n, all)| all.into_iter().map(move |e| (n, e)))
        {
            assert!(self.ids.insert(event.id.clone()), "/sync repeats {event:?}");
            if !event.text.is_empty() {
                let doubled = self.by_text.insert((room, event.text.clone()), event.id.clone());
                assert_eq!(doubled, None, "sent once, stored twice: {event:?}");
            }
            self.seen[room].push(event);
        }
        self.token = Some(answer.next_batch());
        Some(())
    }

    /// What lies between the newest event known and a limited timeline, oldest first.
    fn fill(&self, watcher: &User, room: &str, from: &str) -> Option<Vec<Seen>> {
        let mut gap = Vec::new();
        let mut from = from.to_owned();
        loop {
            let page = page(watcher, room, "b", TIMELINE, &from)?;
            let all = seen(&page["chunk"]);
            let count = all.len();
            gap.extend(all.into_iter().take_while(|event| !self.ids.contains(&event.id)));
            let reached_known = gap.last().is_none() || count == 0 || self.knows_any(&page);
            match page["end"].as_str() {
                Some(end) if !reached_known => from = end.to_owned(),
                _ => {
                    gap.reverse();
                    return Some(gap);
                }
            }
        }
    }

    fn knows_any(&self, page: &Answer) -> bool {
        seen(&page["chunk"]).iter().any(|event| self.ids.contains(&event.id))
    }

    /// Every acknowledged message of a sender is there, under its id, in the order of sending,
    /// and nothing is there that the sender never sent.
    pub(crate) fn check_sender(&self, sender: &Sender, rooms: &[String]) {
        for (room, name) in rooms.iter().enumerate() {
            let attempts = sender.attempts.iter().filter(|attempt| attempt.room == room);
            let mut order = HashMap::new();
            for (at, attempt) in attempts.enumerate() {
                let stored = self.by_text.get(&(room, attempt.text.clone()));
                let id = attempt.acknowledged.as_ref();
                assert!(id.is_none() || id == stored, "{name}: {} lost: {id:?}", attempt.text);
                order.insert(attempt.text.as_str(), at);
            }
            let found = self.seen[room].iter().filter_map(|event| order.get(event.text.as_str()));
            assert!(
                found.is_sorted(),
                "{name}: the messages of {} are out of order",
                sender.user.id
            );
        }
    }

    /// The newest events of every room, by `/messages`, are those that `/sync` gave.
    pub(crate) fn check_newest(&self, watcher: &User) {
        for (room, seen_by_sync) in self.rooms.iter().zip(&self.seen) {
            let page = page(watcher, room, "b", TIMELINE, "").expect("the server is up");
            let listed = seen(&page["chunk"]);
            let newest: Vec<_> = seen_by_sync.iter().rev().take(listed.len()).cloned().collect();
            assert_eq!(listed, newest, "{room}: /messages and /sync differ");
        }
    }

    /// The same for the rooms' whole history.
    pub(crate) fn check_whole_history(&self, watcher: &User) {
        for (room, seen_by_sync) in self.rooms.iter().zip(&self.seen) {
            let mut listed = Vec::new();
            let mut from = String::new();
            loop {
                let page = page(watcher, room, "f", 100, &from).expect("the server is up");
                listed.extend(seen(&page["chunk"]));
                let Some(end) = page["end"].as_str().filter(|_| !page.chunk().is_empty()) else {
                    break;
                };
                from = end.to_owned();
            }
            assert_eq!(&listed, seen_by_sync, "{room}: /messages and /sync differ");
        }
    }
}

/// One page of `/messages`; none if the connection breaks.
fn page(watcher: &User, room: &str, dir: &str, limit: usize, from: &str) -> Option<Answer> {
    let template = "/_matrix/client/v3/rooms/{}/messages?dir={}&limit={}";
    let mut at = path(template, &[room, dir, &limit.to_string()]);
    if !from.is_empty() {
        at += &path("&from={}", &[from]);
    }
    Some(watcher.http.try_send("GET", &at, b"").ok()?.ok())
}

fn seen(events: &Value) -> Vec<Seen> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = events.as_array().into_iter().flatten();
    events
        .map(|event| Seen { id: text(&event["event_id"]), text: text(&event["content"]["body"]) })
        .collect()
}
