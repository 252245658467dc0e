//! Writing to rooms: what each endpoint does, and what it refuses with which error.

mod content;
mod create;
mod invites;
mod knock;
mod markers;
mod membership;
mod state;
mod upgrade;

use serde_json::{Value, json};

use crate::common::{Answer, User, path};

/// The types of a room's events, oldest first.
fn kinds(user: &User, room: &str) -> Vec<String> {
    let page = user.room(room, "messages?dir=f&limit=100").ok().chunk();
    page.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// The content of the user's member event.
fn member(reader: &User, room: &str, of: &User) -> Value {
    reader.state(room, "m.room.member", &of.id).ok().body
}

fn set_name(user: &User, name: &str) {
    let at = path("/_matrix/client/v3/profile/{}/displayname", &[&user.id]);
    user.http.put(&at, &json!({ "displayname": name })).ok();
}

fn joined_rooms(user: &User) -> Value {
    user.http.get("/_matrix/client/v3/joined_rooms").ok()["joined_rooms"].clone()
}

fn alias_path(alias: &str) -> String {
    path("/_matrix/client/v3/directory/room/{}", &[alias])
}

fn put_alias(user: &User, alias: &str, room: &str) -> Answer {
    user.http.put(&alias_path(alias), &json!({ "room_id": room }))
}

fn join_path(user: &User, room_or_alias: &str) -> Answer {
    user.http.post(&path("/_matrix/client/v3/join/{}", &[room_or_alias]), &json!({}))
}
