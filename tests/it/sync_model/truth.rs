//! What really happened in a room, and what the rules of the specification make of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::{User, path};

/// A piece of state: its type and its state key.
pub(super) type Place = (String, String);

/// What a user keeps about a room.
pub(super) enum Kept {
    Data(Value),
    Tag(bool),
}

/// One event of a room.
struct Event {
    /// Not known for member events until the end.
    id: Option<String>,
    what: What,
}

enum What {
    Message,
    Redaction { target: String },
    State { place: Place },
    Member { user: usize, membership: &'static str },
}

/// A room as it must be.
pub(super) struct Room {
    pub(super) id: String,
    users: Vec<String>,
    events: Vec<Event>,
    /// How many events were there before the story began.
    born_with: usize,
    memberships: Vec<&'static str>,
    visibility: &'static str,
    join_rule: &'static str,
    /// The visibility after each event that changed it.
    visibilities: BTreeMap<usize, &'static str>,
    /// By user and kind.
    receipts: BTreeMap<(usize, &'static str), String>,
    data: BTreeMap<usize, Value>,
    tags: BTreeMap<usize, bool>,
}

impl Room {
    /// A fresh public room of the first user.
    pub(super) fn new(id: String, users: &[String]) -> Self {
        let mut memberships = vec!["leave"; users.len()];
        memberships[0] = "join";
        Self {
            id,
            users: users.to_vec(),
            events: Vec::new(),
            born_with: 0,
            memberships,
            visibility: "shared",
            join_rule: "public",
            visibilities: BTreeMap::new(),
            receipts: BTreeMap::new(),
            data: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }

    pub(super) fn is_joined(&self, user: usize) -> bool {
        self.memberships[user] == "join"
    }

    pub(super) fn membership(&self, user: usize) -> &'static str {
        self.memberships[user]
    }

    pub(super) fn visibility(&self) -> &'static str {
        self.visibility
    }

    pub(super) fn join_rule(&self) -> &'static str {
        self.join_rule
    }

    /// What the user's membership becomes by this, if it is allowed and changes something.
    pub(super) fn may(&self, user: usize, verb: &str) -> Option<&'static str> {
        match (verb, self.memberships[user]) {
            ("join", "invite") => Some("join"),
            ("join", "leave" | "knock") if self.join_rule == "public" => Some("join"),
            ("leave", "join" | "invite" | "knock") => Some("leave"),
            ("invite", "leave" | "knock") => Some("invite"),
            ("kick", "join" | "invite") => Some("leave"),
            ("ban", "join" | "invite" | "knock" | "leave") => Some("ban"),
            ("unban", "ban") => Some("leave"),
            _ => None,
        }
    }

    pub(super) fn said(&mut self, id: String) {
        self.events.push(Event { id: Some(id), what: What::Message });
    }

    pub(super) fn set(&mut self, id: String, kind: &str, key: &str, content: Value) {
        let text = |key: &str| content[key].as_str().unwrap_or_default().to_owned();
        match kind {
            "m.room.history_visibility" => {
                let known = ["shared", "joined", "invited", "world_readable"];
                let new = text("history_visibility");
                self.visibility = known.into_iter().find(|one| *one == new).unwrap();
                self.visibilities.insert(self.events.len(), self.visibility);
            }
            "m.room.join_rules" => {
                let new = text("join_rule");
                self.join_rule =
                    ["public", "knock", "invite"].into_iter().find(|one| *one == new).unwrap();
            }
            _ => {}
        }
        let place = (kind.to_owned(), key.to_owned());
        self.events.push(Event { id: Some(id), what: What::State { place } });
    }

    pub(super) fn became(&mut self, user: usize, membership: &'static str) {
        self.memberships[user] = membership;
        self.events.push(Event { id: None, what: What::Member { user, membership } });
    }

    /// The nth message, counted round, that has not been redacted.
    pub(super) fn message(&self, nth: usize) -> Option<String> {
        let is_redacted = |id: &String| {
            self.events
                .iter()
                .any(|e| matches!(&e.what, What::Redaction { target } if target == id))
        };
        let messages = self.events.iter().filter(|event| matches!(event.what, What::Message));
        let ids: Vec<_> =
            messages.filter_map(|event| event.id.clone()).filter(|id| !is_redacted(id)).collect();
        ids.get(nth % ids.len().max(1)).cloned()
    }

    pub(super) fn newest_message(&self) -> Option<String> {
        let newest = self.events.iter().rev().find(|event| matches!(event.what, What::Message));
        newest.and_then(|event| event.id.clone())
    }

    pub(super) fn redacted(&mut self, id: String, target: String) {
        self.events.push(Event { id: Some(id), what: What::Redaction { target } });
    }

    pub(super) fn read(&mut self, user: usize, kind: &'static str, event: String) {
        self.receipts.insert((user, kind), event);
    }

    pub(super) fn keep(&mut self, user: usize, kept: Kept) {
        match kept {
            Kept::Data(content) => drop(self.data.insert(user, content)),
            Kept::Tag(is_set) => drop(self.tags.insert(user, is_set)),
        }
    }

    /// Reads the room's history as its creator, who sees all of it: it must be what happened.
    pub(super) fn learn_ids(&mut self, creator: &User) {
        let (mut all, mut from) = (Vec::new(), String::new());
        loop {
            let page = creator.room(&self.id, &format!("messages?dir=f&limit=50{from}")).ok();
            all.extend(page.chunk());
            let Some(end) = page["end"].as_str() else { break };
            from = path("&from={}", &[end]);
        }
        self.born_with = all.len().checked_sub(self.events.len()).unwrap();
        let id = |event: &Value| event["event_id"].as_str().map(str::to_owned);
        for (event, truth) in self.events.iter_mut().zip(&all[self.born_with..]) {
            match &event.what {
                What::Member { user, membership } => {
                    assert_eq!(truth["state_key"], self.users[*user].as_str(), "{truth}");
                    assert_eq!(truth["content"]["membership"], *membership, "{truth}");
                    event.id = id(truth);
                }
                _ => assert_eq!(event.id, id(truth), "{truth}"),
            }
        }
        let birth = all[..self.born_with].iter().map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let what = match event["type"].as_str() {
                Some("m.room.member") => What::Member { user: 0, membership: "join" },
                _ => What::State { place: (text("type"), text("state_key")) },
            };
            Event { id: id(event), what }
        });
        self.events = birth.chain(std::mem::take(&mut self.events)).collect();
        let moved = self.visibilities.iter().map(|(at, value)| (at + self.born_with, *value));
        self.visibilities = moved.collect();
    }

    /// The ids of the current state.
    pub(super) fn state(&self) -> BTreeMap<Place, String> {
        let events = self.events.iter().filter_map(|event| {
            let place = match &event.what {
                What::State { place } => place.clone(),
                What::Member { user, .. } => {
                    ("m.room.member".to_owned(), self.users[*user].clone())
                }
                _ => return None,
            };
            Some((place, event.id.clone().unwrap()))
        });
        events.collect()
    }

    /// The redacted messages.
    pub(super) fn is_redacted(&self, id: &str) -> bool {
        self.events
            .iter()
            .any(|event| matches!(&event.what, What::Redaction { target } if target == id))
    }

    /// Whether this is a message of the story.
    pub(super) fn is_message(&self, id: &str) -> bool {
        let is_it = |event: &&Event| event.id.as_deref() == Some(id);
        self.events.iter().find(is_it).is_some_and(|event| matches!(event.what, What::Message))
    }

    /// The member event of a user now, if there ever was one.
    pub(super) fn member(&self, user: &str) -> Option<String> {
        self.state().remove(&("m.room.member".to_owned(), user.to_owned()))
    }

    /// The events that a user who is joined may see, in order: the visibility and the membership
    /// at each event decide, and for those that change one of the two either value does.
    pub(super) fn visible_to(&self, reader: usize) -> Vec<String> {
        let mut seen = Vec::new();
        let (mut visibility, mut membership) = ("shared", "leave");
        for (index, event) in self.events.iter().enumerate() {
            let joins_later = self.events[index..].iter().any(|later| {
                matches!(later.what, What::Member { user, membership: "join" } if user == reader)
            });
            let allows = |visibility: &str, membership: &str| match visibility {
                "world_readable" => true,
                _ if membership == "join" => true,
                "shared" => joins_later,
                "invited" => membership == "invite",
                _ => false,
            };
            let mut is_visible = allows(visibility, membership);
            if let Some(new) = self.visibilities.get(&index) {
                visibility = new;
            }
            if let What::Member { user, membership: new } = event.what
                && user == reader
            {
                membership = new;
            }
            is_visible |= allows(visibility, membership);
            if is_visible {
                seen.push(event.id.clone().unwrap());
            }
        }
        seen
    }

    /// The receipts that a user may see, by user and kind.
    pub(super) fn receipts_for(&self, reader: usize) -> BTreeMap<(String, String), String> {
        let all = self.receipts.iter();
        all.filter(|((user, kind), _)| *kind == "m.read" || *user == reader)
            .map(|((user, kind), id)| ((self.users[*user].clone(), (*kind).to_owned()), id.clone()))
            .collect()
    }

    /// A user's account data in the room, by type.
    pub(super) fn account_data_of(&self, user: usize) -> BTreeMap<String, Value> {
        let data = self.data.get(&user).map(|data| ("org.example.data".to_owned(), data.clone()));
        let tags = self.tags.get(&user).map(|is_set| {
            let tags = if *is_set { json!({ "u.tag": { "order": 0.5 } }) } else { json!({}) };
            ("m.tag".to_owned(), json!({ "tags": tags }))
        });
        data.into_iter().chain(tags).collect()
    }

    /// How many are joined, and how many invited.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count = |wanted| self.memberships.iter().filter(|one| **one == wanted).count() as u64;
        (count("join"), count("invite"))
    }
}
