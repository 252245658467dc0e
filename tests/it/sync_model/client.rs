//! A client that believes what `/sync` tells it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::{prelude::Strategy, sample::select};
use serde_json::{Value, json};

use super::truth::{Place, Room};
use crate::common::{Ask, User, path};

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The most events of a timeline.
    limit: u64,
    /// Members as they are needed.
    lazy: bool,
    /// The state at the end of the timeline.
    after: bool,
    /// Of the timeline messages alone, and of the state everything but topics. With the state at
    /// the start of a timeline such a client would miss what its timeline leaves out.
    narrow: bool,
}

pub(super) fn kind() -> impl Strategy<Value = Kind> {
    let plain = Kind { limit: 20, lazy: false, after: false, narrow: false };
    let after = Kind { after: true, ..plain };
    select(vec![
        plain,
        Kind { limit: 1, ..plain },
        Kind { limit: 3, ..plain },
        after,
        Kind { limit: 2, ..after },
        Kind { lazy: true, ..plain },
        Kind { lazy: true, limit: 2, ..plain },
        Kind { lazy: true, limit: 2, ..after },
        Kind { narrow: true, limit: 2, ..after },
    ])
}

impl Kind {
    fn timeline(self) -> Value {
        let mut filter = json!({ "limit": self.limit, "lazy_load_members": self.lazy });
        if self.narrow {
            filter["types"] = json!(["m.room.message"]);
        }
        filter
    }

    fn filter(self) -> Value {
        let mut state = json!({ "lazy_load_members": self.lazy });
        if self.narrow {
            state["not_types"] = json!(["m.room.topic"]);
        }
        json!({ "room": { "timeline": self.timeline(), "state": state } })
    }
}

/// What a client has of a room.
#[derive(Clone, Debug, Default)]
struct Seen {
    timeline: Vec<String>,
    /// Who sent what is in the timeline of the last answers, and since the room is known.
    senders: BTreeSet<String>,
    empty: BTreeSet<String>,
    /// The user's own member events: `/sync` tells them even where the history does not show them.
    own: BTreeSet<String>,
    state: BTreeMap<Place, String>,
    receipts: BTreeMap<(String, String), String>,
    data: BTreeMap<String, Value>,
    summary: BTreeMap<String, Value>,
    unread: Value,
}

/// One device and all it has been told.
pub(super) struct Client {
    pub(super) user: User,
    pub(super) kind: Kind,
    since: Option<String>,
    rooms: HashMap<String, Seen>,
    /// `join`, `invite` or `knock`, of the rooms that are listed.
    sections: HashMap<String, &'static str>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

impl Seen {
    fn apply(&mut self, events: &[Value]) {
        for event in events.iter().filter(|event| event["state_key"].is_string()) {
            let place = (text(&event["type"]), text(&event["state_key"]));
            self.state.insert(place, text(&event["event_id"]));
        }
    }

    /// Adds events to the end of the timeline.
    fn append(&mut self, events: &[Value], client: &Client) {
        for event in events {
            let (id, who) = (text(&event["event_id"]), &client.user.id);
            assert!(!self.timeline.contains(&id), "{who} got {id} twice");
            if event["content"] == json!({}) {
                self.empty.insert(id.clone());
            }
            if event["type"] == "m.room.redaction" {
                self.empty.insert(text(&event["content"]["redacts"]));
            }
            if event["state_key"] == who.as_str() {
                self.own.insert(id.clone());
            }
            self.timeline.push(id);
        }
    }

    /// What has come does not continue what is there: as real clients do, pages back from it. All
    /// that was known must be found again, in the same order.
    fn begin_anew(&mut self, history: Vec<Value>, events: &[Value], client: &Client) {
        let known = std::mem::take(&mut self.timeline);
        self.append(&history, client);
        self.append(events, client);
        let mut found = self.timeline.iter();
        for id in known.iter().filter(|id| !self.own.contains(*id)) {
            assert!(found.any(|other| other == id), "{} has lost {id}", client.user.id);
        }
    }

    fn hear(&mut self, events: &[Value]) {
        for event in events.iter().filter(|event| event["type"] == "m.receipt") {
            for (id, kinds) in event["content"].as_object().into_iter().flatten() {
                for (kind, users) in kinds.as_object().into_iter().flatten() {
                    for user in users.as_object().into_iter().flatten() {
                        self.receipts.insert((user.0.clone(), kind.clone()), id.clone());
                    }
                }
            }
        }
    }
}

impl Client {
    pub(super) fn new(user: User, kind: Kind) -> Self {
        Self { user, kind, since: None, rooms: HashMap::new(), sections: HashMap::new() }
    }

    pub(super) fn sync(&mut self, answer_is_lost: bool, full_state: bool) {
        let ask = self.since.as_deref().map_or_else(Ask::initial, Ask::since);
        let mut ask = ask.filter(self.kind.filter());
        if self.kind.after {
            ask = ask.with("use_state_after=true");
        }
        if full_state {
            ask = ask.with("full_state=true");
        }
        if answer_is_lost {
            self.user.sync(ask.clone()).ok();
        }
        let answer = self.user.sync(ask).ok();
        for section in ["join", "leave", "invite", "knock"] {
            for (room, about) in answer["rooms"][section].as_object().into_iter().flatten() {
                if matches!(section, "join" | "leave") {
                    self.take(room, about, section == "join");
                }
                if section != "join"
                    && let Some(seen) = self.rooms.get_mut(room)
                {
                    // A client that is not in a room forgets who was there: whoever was sent away
                    // and invited at once is told of the invite alone.
                    seen.state.clear();
                    seen.senders.clear();
                }
                match section {
                    "leave" => drop(self.sections.remove(room)),
                    _ => drop(self.sections.insert(room.clone(), section)),
                }
            }
        }
        self.since = Some(answer.next_batch());
    }

    fn take(&mut self, room: &str, about: &Value, is_joined: bool) {
        let events = list(&about["timeline"]["events"]);
        let mut seen = self.rooms.remove(room).unwrap_or_default();
        if about["timeline"]["limited"] == true {
            seen.begin_anew(
                self.history(room, &text(&about["timeline"]["prev_batch"])),
                events,
                self,
            );
        } else {
            seen.append(events, self);
        }
        if is_joined {
            if self.kind.after {
                assert!(about["state_after"].is_object() && about["state"].is_null(), "{about}");
                seen.apply(list(&about["state_after"]["events"]));
            } else {
                assert!(about["state_after"].is_null(), "{about}");
                seen.apply(list(&about["state"]["events"]));
                seen.apply(events);
            }
            seen.senders.extend(events.iter().map(|event| text(&event["sender"])));
        }
        seen.hear(list(&about["ephemeral"]["events"]));
        for event in list(&about["account_data"]["events"]) {
            seen.data.insert(text(&event["type"]), event["content"].clone());
        }
        for (key, value) in about["summary"].as_object().into_iter().flatten() {
            seen.summary.insert(key.clone(), value.clone());
        }
        if about["unread_notifications"].is_object() {
            seen.unread = about["unread_notifications"].clone();
        }
        self.rooms.insert(room.to_owned(), seen);
    }

    /// All that is before a limited timeline, oldest first.
    fn history(&self, room: &str, from: &str) -> Vec<Value> {
        let filter = self.kind.timeline().to_string();
        let (mut from, mut found) = (from.to_owned(), Vec::new());
        loop {
            let what = path("messages?dir=b&limit=20&from={}&filter={}", &[&from, &filter]);
            let page = self.user.room(room, &what).ok();
            found.extend(page.chunk());
            match page["end"].as_str() {
                Some(end) => from = end.to_owned(),
                None => break,
            }
        }
        found.reverse();
        found
    }

    /// Holds what the client has of a room against what happened there.
    pub(super) fn must_have(&self, room: &Room, index: usize) {
        let who = format!("{} ({:?}) in {}", self.user.id, self.kind, room.id);
        let listed = self.sections.get(&room.id).copied();
        let expected = Some(room.membership(index)).filter(|one| !matches!(*one, "leave" | "ban"));
        assert_eq!(listed, expected, "the section of {who}");
        let Some(seen) = self.rooms.get(&room.id).filter(|_| listed == Some("join")) else {
            return;
        };

        let mut timeline = room.visible_to(index);
        timeline.retain(|id| !self.kind.narrow || room.is_message(id));
        let shown = |ids: &[String]| -> Vec<_> {
            ids.iter().filter(|id| !seen.own.contains(*id)).cloned().collect()
        };
        assert_eq!(shown(&seen.timeline), shown(&timeline), "the timeline of {who}");
        for id in timeline.iter().filter(|id| room.is_message(id) && !self.kind.narrow) {
            assert_eq!(
                seen.empty.contains(id),
                room.is_redacted(id),
                "whether {id} is redacted for {who}"
            );
        }
        self.must_have_state(room, seen, &who);
        assert_eq!(seen.receipts, room.receipts_for(index), "the receipts of {who}");
        assert_eq!(seen.data, room.account_data_of(index), "the account data of {who}");
        let count = |key: &str| seen.summary.get(key).and_then(Value::as_u64);
        let counts = (count("m.joined_member_count"), count("m.invited_member_count"));
        let (joined, invited) = room.counts();
        assert_eq!(counts, (Some(joined), Some(invited)), "the summary of {who}");
    }

    fn must_have_state(&self, room: &Room, seen: &Seen, who: &str) {
        let mut state = room.state();
        if self.kind.narrow {
            state.retain(|(kind, _), _| kind != "m.room.topic");
        }
        if self.kind.lazy {
            // It may know fewer members, but those of whom it sees something, and none wrongly.
            for sender in &seen.senders {
                let place = ("m.room.member".to_owned(), sender.clone());
                assert_eq!(
                    seen.state.get(&place),
                    room.member(sender).as_ref(),
                    "{sender} for {who}"
                );
            }
            let is_known =
                |place: &Place| place.0 != "m.room.member" || seen.state.contains_key(place);
            state.retain(|place, _| is_known(place));
        }
        assert_eq!(seen.state, state, "the state of {who}");
    }

    /// Holds what has come bit by bit against what comes at once.
    pub(super) fn must_equal(&self, fresh: &Self, room: &Room, index: usize) {
        let who = format!("{} ({:?}) in {}", self.user.id, self.kind, room.id);
        assert_eq!(
            self.sections.get(&room.id),
            fresh.sections.get(&room.id),
            "the section of {who}"
        );
        if !room.is_joined(index) {
            return;
        }
        let (own, other) = (&self.rooms[&room.id], &fresh.rooms[&room.id]);
        assert_eq!(own.summary, other.summary, "the summary of {who}");
        // A room of which the filter shows nothing new is not told, with its counts.
        if !self.kind.narrow {
            assert_eq!(own.unread, other.unread, "the unread counts of {who}");
        }
        if !self.kind.lazy {
            assert_eq!(own.state, other.state, "the state of {who}");
        }
        assert_eq!(own.receipts, other.receipts, "the receipts of {who}");
        assert_eq!(own.data, other.data, "the account data of {who}");
    }
}
