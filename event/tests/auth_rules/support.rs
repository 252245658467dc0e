//! Small rooms to check events against.

use std::{collections::BTreeMap, sync::Arc};

use parlour_event::{
    Pdu, RoomVersion,
    auth::{self, AuthError, StateView},
    json::{Object, Value},
};
use serde_json::json;

pub(crate) use serde_json::Value as Json;

/// The creator of every room.
pub(crate) const ALICE: &str = "@alice:a.org";
/// On the creator's server.
pub(crate) const BOB: &str = "@bob:a.org";
pub(crate) const CAROL: &str = "@carol:c.org";
pub(crate) const DAVE: &str = "@dave:d.org";

/// What a rule says: nothing against it, or an error whose text contains this.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Allow,
    Deny(&'static str),
}
pub(crate) use Verdict::{Allow, Deny};

impl Verdict {
    /// This verdict from room version `first` on, before it `other`.
    pub(crate) fn since(self, first: u8, version: u8, other: Self) -> Self {
        if version >= first { self } else { other }
    }

    #[track_caller]
    pub(crate) fn assert(self, result: &Result<(), AuthError>, what: &str) {
        match (self, result) {
            (Allow, Ok(())) => {}
            (Deny(part), Err(error)) if error.to_string().contains(part) => {}
            _ => panic!("{what}: expected {self:?}, got {result:?}"),
        }
    }
}

/// An event that is still to be made, in whatever version.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) sender: String,
    pub(crate) event_type: String,
    pub(crate) state_key: Option<String>,
    pub(crate) content: Json,
    pub(crate) prev_events: Vec<String>,
    pub(crate) extra: Vec<(&'static str, Json)>,
}

pub(crate) fn state(sender: &str, event_type: &str, state_key: &str, content: Json) -> Draft {
    Draft { state_key: Some(state_key.to_owned()), ..message(sender, event_type, content) }
}

pub(crate) fn message(sender: &str, event_type: &str, content: Json) -> Draft {
    Draft {
        sender: sender.to_owned(),
        event_type: event_type.to_owned(),
        state_key: None,
        content,
        prev_events: vec!["$prev".to_owned()],
        extra: Vec::new(),
    }
}

pub(crate) fn member(sender: &str, target: &str, membership: &str) -> Draft {
    state(sender, "m.room.member", target, json!({ "membership": membership }))
}

impl Draft {
    pub(crate) fn after(mut self, prev_events: &[&str]) -> Self {
        self.prev_events = prev_events.iter().map(|&id| id.to_owned()).collect();
        self
    }

    pub(crate) fn extra(mut self, key: &'static str, value: Json) -> Self {
        self.extra.push((key, value));
        self
    }

    /// The event with this id (without a domain), in a room of this version.
    pub(crate) fn build(&self, version: &RoomVersion, id: &str) -> Pdu {
        self.build_in(version, id, &room_id(version))
    }

    pub(crate) fn build_in(&self, version: &RoomVersion, id: &str, room_id: &str) -> Pdu {
        let references: Vec<Json> =
            self.prev_events.iter().map(|id| reference(version, id)).collect();
        let mut event = json!({
            "sender": self.sender,
            "type": self.event_type,
            "content": self.content,
            "prev_events": references,
            "auth_events": [],
            "depth": 7,
            "origin_server_ts": 1,
        });
        if version.number() < 12 || self.event_type != "m.room.create" {
            event["room_id"] = json!(room_id);
        }
        if let Some(state_key) = &self.state_key {
            event["state_key"] = json!(state_key);
        }
        for (key, value) in &self.extra {
            event[key] = value.clone();
        }
        let id = full_id(version, id);
        Pdu::from_trusted(version, id.try_into().unwrap(), object(event)).unwrap()
    }
}

pub(crate) fn object(value: Json) -> Object {
    match Value::from(value) {
        Value::Object(object) => object,
        other => panic!("{other:?} is no object"),
    }
}

pub(crate) fn room_id(version: &RoomVersion) -> String {
    if version.number() < 12 { "!room:a.org".to_owned() } else { "!create".to_owned() }
}

/// In versions 1 and 2 event ids have a domain.
pub(crate) fn full_id(version: &RoomVersion, id: &str) -> String {
    if version.number() < 3 && !id.contains(':') { format!("{id}:a.org") } else { id.to_owned() }
}

fn reference(version: &RoomVersion, id: &str) -> Json {
    let id = full_id(version, id);
    if version.number() < 3 { json!([id, { "sha256": "x" }]) } else { json!(id) }
}

pub(crate) fn version(number: u8) -> &'static RoomVersion {
    RoomVersion::parse(&number.to_string()).unwrap()
}

/// A room's state.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) version: &'static RoomVersion,
    pub(crate) state: BTreeMap<(String, String), Arc<Pdu>>,
}

impl Room {
    /// A room of which there is only the create event.
    pub(crate) fn new(number: u8) -> Self {
        Self::created(number, state(ALICE, "m.room.create", "", json!({ "creator": ALICE })))
    }

    pub(crate) fn created(number: u8, create: Draft) -> Self {
        let room = Self { version: version(number), state: BTreeMap::new() };
        room.with_id("$create", create.after(&[]))
    }

    /// A room with Alice in it and no power levels.
    pub(crate) fn joined(number: u8) -> Self {
        Self::new(number).member(ALICE, "join")
    }

    pub(crate) fn with(self, draft: Draft) -> Self {
        let id = format!("$state{}", self.state.len());
        self.with_id(&id, draft)
    }

    fn with_id(mut self, id: &str, draft: Draft) -> Self {
        let pdu = draft.build(self.version, id);
        let key = (draft.event_type, draft.state_key.unwrap());
        self.state.insert(key, Arc::new(pdu));
        self
    }

    pub(crate) fn member(self, user: &str, membership: &str) -> Self {
        self.with(member(user, user, membership))
    }

    pub(crate) fn levels(self, content: Json) -> Self {
        self.with(state(ALICE, "m.room.power_levels", "", content))
    }

    pub(crate) fn join_rule(self, join_rule: &str) -> Self {
        self.with(state(ALICE, "m.room.join_rules", "", json!({ "join_rule": join_rule })))
    }

    pub(crate) fn check(&self, draft: &Draft) -> Result<(), AuthError> {
        auth::check(self.version, &draft.build(self.version, "$event"), self)
    }

    /// Checks a table: what it is, the event, the verdict.
    #[track_caller]
    pub(crate) fn table(&self, cases: &[(&str, Draft, Verdict)]) {
        for (what, draft, verdict) in cases {
            let what = format!("version {}: {what}", self.version.number());
            verdict.assert(&self.check(draft), &what);
        }
    }
}

impl StateView for Room {
    fn event(&self, event_type: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.state.get(&(event_type.to_owned(), state_key.to_owned())).cloned()
    }
}
