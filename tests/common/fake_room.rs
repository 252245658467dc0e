//! A room that does not exist but for what a fake server tells of it.

use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object, Value as Json},
    pdu::{EventReference, PduBuilder},
};
use ruma::ServerName;
use serde_json::{Value, json};

use super::{
    fake_server::{Asked, bytes},
    federation::{Origin, parse},
};

/// See the module. It has version 10, anybody may join, and `@eve` of the fake server made it.
pub(crate) struct FakeRoom {
    version: &'static RoomVersion,
    origin: Origin,
    /// Its id.
    pub(crate) room_id: String,
    /// Its state.
    pub(crate) events: Vec<Pdu>,
}

impl FakeRoom {
    /// A room of this server.
    pub(crate) fn new(origin: &Origin, room_id: &str) -> Self {
        let version = RoomVersion::parse("10").unwrap();
        let (origin, room_id, events) = (origin.clone(), room_id.to_owned(), Vec::new());
        let mut room = Self { version, origin, room_id, events };
        let eve = room.user("eve");
        room.add(&eve, "m.room.create", "", json!({ "creator": eve, "room_version": "10" }));
        room.join(&eve);
        room.add(&eve, "m.room.power_levels", "", json!({ "users": { eve.clone(): 100 } }));
        room.add(&eve, "m.room.join_rules", "", json!({ "join_rule": "public" }));
        room
    }

    /// A user of the fake server.
    pub(crate) fn user(&self, name: &str) -> String {
        format!("@{name}:{}", self.origin.name)
    }

    /// Lets somebody join.
    pub(crate) fn join(&mut self, user: &str) {
        self.add(user, "m.room.member", user, json!({ "membership": "join" }));
    }

    /// Sets state, as the one who made the room.
    pub(crate) fn set(&mut self, kind: &str, content: Value) {
        let eve = self.user("eve");
        self.add(&eve, kind, "", content);
    }

    fn add(&mut self, sender: &str, kind: &str, key: &str, content: Value) {
        let builder = self.builder(sender, kind, key, &content);
        let event = builder.build_and_sign(self.version, self.server(), &self.origin.key).unwrap();
        self.events.push(event);
    }

    fn server(&self) -> &ServerName {
        self.origin.name.as_str().try_into().unwrap()
    }

    fn builder(&self, sender: &str, kind: &str, key: &str, content: &Value) -> PduBuilder {
        let reference = |event: &Pdu| EventReference::from(event.event_id().clone());
        // Who comes is allowed by the rules, not by who is there.
        let is_named = |event: &&Pdu| match event.event_type() {
            "m.room.member" => event.state_key() == Some(sender),
            kind => kind != "m.room.policy",
        };
        let named = self.events.iter().take(8).filter(is_named).map(reference);
        PduBuilder {
            room_id: Some(self.room_id.as_str().try_into().unwrap()),
            sender: sender.try_into().unwrap(),
            event_type: kind.to_owned(),
            state_key: Some(key.to_owned()),
            content: parse(content),
            prev_events: self.events.last().map(reference).into_iter().collect(),
            auth_events: named.collect(),
            depth: self.events.len() as u64 + 1,
            origin_server_ts: 1_700_000_000_000,
            redacts: None,
            event_localpart: None,
        }
    }

    /// A template for a user's member event.
    pub(crate) fn template(&self, user: &str, membership: &str) -> Object {
        let builder =
            self.builder(user, "m.room.member", user, &json!({ "membership": membership }));
        builder.into_template(self.version, self.server()).unwrap()
    }

    /// An answer to `make_join`.
    pub(crate) fn offer(version: &str, template: Object) -> Vec<u8> {
        let event = json::to_canonical_string(&Json::Object(template));
        format!(r#"{{"room_version":"{version}","event":{event}}}"#).into_bytes()
    }

    /// An answer to `send_join` with these events.
    pub(crate) fn answer(events: Vec<Object>) -> Object {
        let events = Json::Array(events.into_iter().map(Json::Object).collect());
        Object::from([("state".to_owned(), events.clone()), ("auth_chain".to_owned(), events)])
    }

    /// What an honest server answers.
    pub(crate) fn honest(&self, asked: &Asked) -> Option<(u16, Vec<u8>)> {
        if asked.is("v1/make_join") {
            return Some((200, Self::offer("10", self.template(&asked.part(6), "join"))));
        }
        let events = || self.events.iter().map(|event| event.json().clone()).collect();
        asked.is("v2/send_join").then(|| (200, bytes(Self::answer(events()))))
    }
}
