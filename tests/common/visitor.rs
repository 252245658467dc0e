//! A user of another server in a room, whose events a test makes by hand, right or wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object, Value as Json},
    signing,
};
use serde_json::{Value, json};

use super::{
    Answer, Origin, Server, User,
    federation::{canonical, parse},
    path,
    user::fresh_txn,
};

/// The depth of the next event that is made.
static DEPTH: AtomicU64 = AtomicU64::new(1_000);

/// See the module.
pub(crate) struct Visitor<'a> {
    /// The server that has the room.
    pub(crate) near: &'a Server,
    /// A user of that server who sees all of the room's state.
    pub(crate) host: &'a User,
    /// The room.
    pub(crate) room: String,
    /// The room's version.
    pub(crate) version: &'static RoomVersion,
    /// The server of the visitor.
    pub(crate) origin: Origin,
    /// Who visits.
    pub(crate) user: String,
}

impl<'a> Visitor<'a> {
    /// A user of `origin` who has joined a new public room of `host`.
    #[track_caller]
    pub(crate) fn new(near: &'a Server, host: &'a User, origin: &Origin, version: &str) -> Self {
        let request = json!({ "preset": "public_chat", "room_version": version });
        Self::in_room(near, host, origin, version, host.create_room(request).room_id())
    }

    /// A user of `origin` who joins a room.
    #[track_caller]
    pub(crate) fn in_room(
        near: &'a Server,
        host: &'a User,
        origin: &Origin,
        version: &str,
        room: String,
    ) -> Self {
        let user = format!("@visitor:{}", origin.name);
        let version = RoomVersion::parse(version).unwrap();
        let visitor = Self { near, host, room, version, origin: origin.clone(), user };
        visitor.accepted(&[visitor.member("join")]);
        visitor
    }

    /// The event that the room's newest one is, as its users see it.
    #[track_caller]
    pub(crate) fn newest(&self) -> String {
        let page = self.host.room(&self.room, "messages?dir=b&limit=1").ok();
        page.chunk()[0]["event_id"].as_str().unwrap().to_owned()
    }

    /// The ids of the state events that allow an event.
    #[track_caller]
    pub(crate) fn auth_events(
        &self,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Vec<String> {
        let state = self.host.room(&self.room, "state").ok();
        let names_create = !self.version.rules().authorization.room_create_event_id_as_room_id;
        let is_one = |event: &&Value| match event["type"].as_str().unwrap() {
            "m.room.create" => names_create,
            "m.room.power_levels" => true,
            "m.room.join_rules" => content["membership"] == "join",
            "m.room.member" => {
                let whose = event["state_key"].as_str();
                whose == Some(&self.user) || kind == "m.room.member" && whose == state_key
            }
            _ => false,
        };
        let events = state.body.as_array().unwrap().iter().filter(is_one);
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    }

    /// An event without hashes and signatures, that follows these.
    #[track_caller]
    pub(crate) fn draft(
        &self,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        prev: &[&str],
    ) -> Object {
        let with_hash = self.version.rules().event_format.require_event_id;
        let reference = |id: &str| match with_hash {
            true => json!([id, { "sha256": "" }]),
            false => json!(id),
        };
        let auth = self.auth_events(kind, state_key, &content);
        // Pages go by depth: each event is deeper than those before it.
        let depth = DEPTH.fetch_add(1_000, Ordering::Relaxed);
        let mut event = json!({
            "room_id": self.room,
            "sender": self.user,
            "type": kind,
            "content": content,
            "origin_server_ts": 1_700_000_000_000_u64,
            "depth": depth,
            "prev_events": prev.iter().map(|id| reference(id)).collect::<Vec<_>>(),
            "auth_events": auth.iter().map(|id| reference(id)).collect::<Vec<_>>(),
        });
        if let Some(state_key) = state_key {
            event["state_key"] = state_key.into();
        }
        if with_hash {
            event["event_id"] = format!("${}:{}", fresh_txn(), self.origin.name).into();
        }
        parse(&event)
    }

    /// A draft, hashed and signed.
    pub(crate) fn sign(&self, mut draft: Object) -> Object {
        let Origin { name, key } = &self.origin;
        signing::hash_and_sign_event(self.version, &mut draft, name, key);
        draft
    }

    /// A message that follows these events.
    #[track_caller]
    pub(crate) fn message(&self, text: &str, prev: &[&str]) -> Object {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.sign(self.draft("m.room.message", None, content, prev))
    }

    /// The visitor's membership, behind the newest event.
    #[track_caller]
    pub(crate) fn member(&self, membership: &str) -> Object {
        let content = json!({ "membership": membership });
        let user = Some(self.user.as_str());
        self.sign(self.draft("m.room.member", user, content, &[&self.newest()]))
    }

    /// The id of an event.
    pub(crate) fn id(&self, event: &Object) -> String {
        Pdu::id_of(self.version, event).unwrap().to_string()
    }

    /// A transaction's body.
    pub(crate) fn body(&self, pdus: &[Object], edus: &[Value]) -> String {
        let list = pdus.iter().map(|pdu| json::to_canonical_string(&Json::Object(pdu.clone())));
        let edus = edus.iter().map(canonical).collect::<Vec<_>>().join(",");
        format!(
            r#"{{"edus":[{edus}],"origin":"{}","origin_server_ts":1,"pdus":[{}]}}"#,
            self.origin.name,
            list.collect::<Vec<_>>().join(",")
        )
    }

    /// Sends a transaction.
    #[track_caller]
    pub(crate) fn transact(&self, pdus: &[Object], edus: &[Value]) -> Answer {
        self.transact_as(&fresh_txn(), &self.body(pdus, edus))
    }

    /// Sends a transaction with this id and body.
    #[track_caller]
    pub(crate) fn transact_as(&self, txn: &str, body: &str) -> Answer {
        let at = path("/_matrix/federation/v1/send/{}", &[txn]);
        self.origin.send(self.near, "PUT", &at, body.as_bytes())
    }

    /// Sends events, none of which is refused.
    #[track_caller]
    pub(crate) fn accepted(&self, pdus: &[Object]) {
        let answer = self.transact(pdus, &[]).ok();
        for pdu in pdus {
            assert_eq!(answer.body["pdus"][self.id(pdu)], json!({}), "{}", answer.body);
        }
    }

    /// Sends one event, which is refused with a text that has this in it.
    #[track_caller]
    pub(crate) fn refused(&self, pdu: &Object, why: &str) {
        let answer = self.transact(std::slice::from_ref(pdu), &[]).ok();
        let error = answer.body["pdus"][self.id(pdu)]["error"].as_str().unwrap_or_default();
        assert!(error.contains(why) && !error.is_empty(), "{}", answer.body);
    }

    /// What has been said in the room, oldest first, as its host sees it.
    #[track_caller]
    pub(crate) fn said(&self) -> Vec<String> {
        let page = self.host.room(&self.room, "messages?dir=b&limit=200").ok();
        let said = page.chunk().into_iter().filter(|event| event["type"] == "m.room.message");
        let text = |event: Value| event["content"]["body"].as_str().unwrap_or("(none)").to_owned();
        let mut texts: Vec<_> = said.map(text).collect();
        texts.reverse();
        texts
    }
}

/// Somebody in a room that has nothing to do with what happens elsewhere.
pub(crate) struct Bystander {
    user: User,
    room: String,
}

impl Bystander {
    /// A new user alone in a room.
    #[track_caller]
    pub(crate) fn of(server: &Server) -> Self {
        let user = server.user(&format!("bystander{}", fresh_txn().to_lowercase()));
        let room = user.create_room(json!({ "preset": "private_chat" })).room_id();
        Self { user, room }
    }

    /// What is said in the room is there at once.
    #[track_caller]
    pub(crate) fn is_served(&self) {
        let said = self.user.say(&self.room, "still here").event_id();
        let page = self.user.room(&self.room, "messages?dir=b&limit=1").ok();
        assert_eq!(page.chunk()[0]["event_id"], said);
    }
}
