//! Memberships over federation: joining, leaving, inviting and knocking across servers.

mod handshakes;
mod invites;
mod joins;
mod knocks;
mod lies;
mod third_party;

use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object, Value as Json},
};
use serde_json::{Value, json};

use crate::common::{Answer, Ask, Origin, Server, User, path};

/// Joins by an id or an alias, through these servers.
#[track_caller]
fn join_via(user: &User, room_or_alias: &str, via: &[&str]) -> Answer {
    user.http.post(&with_via("join", room_or_alias, via), &json!({}))
}

/// Knocks in the same way.
#[track_caller]
fn knock_via(user: &User, room_or_alias: &str, via: &[&str]) -> Answer {
    user.http.post(&with_via("knock", room_or_alias, via), &json!({ "reason": "please" }))
}

fn with_via(verb: &str, room_or_alias: &str, via: &[&str]) -> String {
    let via: Vec<_> = via.iter().map(|server| path("via={}", &[server])).collect();
    let at = path("/_matrix/client/v3/{}/{}?", &[verb, room_or_alias]);
    at + &via.join("&")
}

/// The membership of a user in a room, as somebody sees it who is in it.
fn membership(reader: &User, room: &str, of: &User) -> String {
    let answer = reader.state(room, "m.room.member", &of.id);
    match answer.status {
        404 => "none".to_owned(),
        _ => answer.text("membership"),
    }
}

/// The current state of a room: types, state keys and event ids.
fn state_of(reader: &User, room: &str) -> Vec<(String, String, String)> {
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let state = reader.room(room, "state").ok().body;
    let mut state: Vec<_> = (state.as_array().unwrap().iter())
        .map(|event| (text(event, "type"), text(event, "state_key"), text(event, "event_id")))
        .collect();
    state.sort();
    state
}

/// The sections of `/sync` in which a room stands.
fn sections(sync: &Answer, room: &str) -> Vec<&'static str> {
    let all = ["join", "invite", "knock", "leave"];
    all.into_iter().filter(|section| !sync["rooms"][section][room].is_null()).collect()
}

/// Syncs until a room stands in a section.
#[track_caller]
fn sync_to(user: &User, since: &str, section: &str, room: &str) -> Answer {
    user.sync_until(since, |sync| sections(sync, room).contains(&section))
}

fn now(user: &User) -> String {
    user.sync(Ask::initial()).ok().next_batch()
}

/// The stripped state of an invite or a knock: contents by type.
fn told(sync: &Answer, section: &str, room: &str) -> Value {
    let events = &sync["rooms"][section][room][format!("{section}_state")]["events"];
    let events = events.as_array().unwrap().iter();
    events
        .map(|event| (event["type"].as_str().unwrap().to_owned(), event["content"].clone()))
        .collect()
}

/// A server's side of a handshake, by hand.
struct Door<'a> {
    at: &'a Server,
    origin: Origin,
}

impl<'a> Door<'a> {
    fn new(at: &'a Server, from: &Server) -> Self {
        Self { at, origin: from.origin() }
    }

    /// `make_join`, `make_leave`, `make_knock`
    #[track_caller]
    fn make(&self, what: &str, room: &str, user: &str, query: &str) -> Answer {
        let at = path("/_matrix/federation/v1/make_{}/{}/{}", &[what, room, user]);
        self.origin.get(self.at, &(at + query))
    }

    /// The same for a server that knows all versions.
    #[track_caller]
    fn template(&self, what: &str, room: &str, user: &str) -> Answer {
        let known: String = (1..=12).map(|number| format!("ver={number}&")).collect();
        self.make(what, room, user, &format!("?{known}"))
    }

    /// Makes an event of a template, changed by `edit`.
    fn event(&self, template: &Answer, edit: impl FnOnce(&mut Object)) -> Pdu {
        let version = template["room_version"].as_str().unwrap();
        let version = RoomVersion::parse(version).unwrap();
        let text = template["event"].to_string();
        let mut event = json::parse_object(version, text.as_bytes()).unwrap();
        event.insert("origin".to_owned(), self.origin.name.as_str().into());
        if version.rules().event_format.require_event_id {
            let id = format!("$by-hand:{}", self.origin.name);
            event.insert("event_id".to_owned(), id.into());
        }
        edit(&mut event);
        let server = self.origin.name.as_str().try_into().unwrap();
        Pdu::hash_and_sign(version, event, server, &self.origin.key).unwrap()
    }

    /// `v2/send_join` and the like.
    #[track_caller]
    fn send(&self, endpoint: &str, room: &str, pdu: &Pdu) -> Answer {
        self.send_as(endpoint, room, pdu.event_id().as_str(), &pdu.to_bytes(), "")
    }

    #[track_caller]
    fn send_as(&self, endpoint: &str, room: &str, id: &str, body: &[u8], query: &str) -> Answer {
        let at = format!("/_matrix/federation/{endpoint}/") + &path("{}/{}", &[room, id]) + query;
        self.origin.send(self.at, "PUT", &at, body)
    }
}

/// Sets a field of an event's content.
fn set(event: &mut Object, field: &str, value: impl Into<Json>) {
    let content = event.get_mut("content").and_then(Json::as_object_mut);
    content.unwrap().insert(field.to_owned(), value.into());
}

/// The types of the events in a list of PDUs.
fn kinds(events: &Value) -> Vec<&str> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}
