//! Who sends the garbage: a user with rooms and events of their own, so that what is garbage is
//! the only thing wrong with a request.

use serde_json::{Value, json};

use super::operations::Operation;
use crate::common::{Client, Server, User, fresh_txn, path};

/// A user up to no good.
pub(super) struct Hostile<'a> {
    server: &'a Server,
    user: User,
    /// Of healthy people; the user is a member there, too.
    others: String,
    room: String,
    event: String,
    users: u32,
}

impl<'a> Hostile<'a> {
    pub(super) fn new(server: &'a Server, others: &str) -> Self {
        let user = server.user("mallory");
        let empty = String::new;
        let others = others.to_owned();
        let mut hostile = Self { server, user, others, room: empty(), event: empty(), users: 0 };
        hostile.refresh();
        hostile
    }

    /// A new user in a new room, since endpoints are there that throw both away.
    pub(super) fn refresh(&mut self) {
        self.users += 1;
        self.user = self.server.user(&format!("mallory{}", self.users));
        self.user.join(&self.others).ok();
        self.room = self.user.public_room();
        self.event = self.user.say(&self.room, "still harmless").event_id();
    }

    /// What a request may have taken away is given back.
    pub(super) fn after(&mut self, operation: &Operation, status: u16) {
        let lost = ["logout", "leave", "forget", "ban", "kick"];
        if status == 401 && operation.authenticated
            || (status == 200 && lost.iter().any(|end| operation.template.contains(end)))
        {
            self.refresh();
        }
    }

    /// With the user's token, where the endpoint looks at one.
    pub(super) fn client(&self, operation: &Operation) -> Client {
        if operation.authenticated { self.user.http.clone() } else { self.server.http.clone() }
    }

    /// The endpoint's path with variables that are as they should be.
    pub(super) fn path(&self, operation: &Operation) -> String {
        let values: Vec<_> =
            operation.variables().map(|name| self.value(operation, name)).collect();
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        path(&operation.blank(), &values)
    }

    /// The same, but one of the variables (by number) is this text as it stands.
    pub(super) fn path_with(&self, operation: &Operation, number: usize, text: &str) -> String {
        let mut filled = String::new();
        let blank = operation.blank();
        let mut pieces = blank.split("{}");
        filled += pieces.next().unwrap_or_default();
        for (index, (name, piece)) in operation.variables().zip(pieces).enumerate() {
            if index == number {
                filled += text;
            } else {
                filled += &path("{}", &[&self.value(operation, name)]);
            }
            filled += piece;
        }
        filled
    }

    fn value(&self, operation: &Operation, variable: &str) -> String {
        match variable {
            "room_id" | "room_id_or_alias" => self.room.clone(),
            "user_id" => self.user.id.clone(),
            "event_id" | "thread_root" => self.event.clone(),
            "kind" if operation.template.contains("/pushrules/") => "content".to_owned(),
            "event_type" if operation.template.contains("/state/") => "m.room.topic".to_owned(),
            "event_type" if operation.template.contains("account_data") => "org.example".to_owned(),
            "event_type" => "m.room.message".to_owned(),
            "state_key" => String::new(),
            "txn_id" => fresh_txn(),
            "action" => "cancel".to_owned(),
            "rel_type" => "m.reference".to_owned(),
            "receipt_type" => "m.read".to_owned(),
            "room_alias" => format!("#{}:localhost", fresh_txn()),
            "field" => "displayname".to_owned(),
            _ => "0".to_owned(),
        }
    }

    /// A body that the endpoint would take, or nearly.
    pub(super) fn sample(&self, operation: &Operation) -> Value {
        let other = json!({ "user_id": format!("@alice:{}", "localhost"), "reason": "none" });
        let last = operation.template.rsplit('/').next().unwrap_or_default();
        match last {
            "invite" | "kick" | "ban" | "unban" if operation.method == "POST" => other,
            "join" | "leave" | "forget" | "{room_id_or_alias}" => json!({ "reason": "none" }),
            "createRoom" => create_room(),
            "filter" => super::values::filter(),
            "login" => json!({ "type": "m.login.password", "password": "none", "device_id": "D",
                "identifier": { "type": "m.id.user", "user": "mallory" },
                "initial_device_display_name": "device" }),
            "read_markers" => json!({ "m.fully_read": self.event, "m.read": self.event,
                "m.read.private": self.event }),
            "{room_alias}" => json!({ "room_id": self.room }),
            _ if operation.template.contains("/state/") => json!({ "topic": "weather" }),
            _ if operation.sample == Value::Null => json!({}),
            _ => operation.sample.clone(),
        }
    }
}

fn create_room() -> Value {
    json!({
        "preset": "public_chat", "name": "name", "topic": "topic", "room_version": "11",
        "visibility": "private", "is_direct": true, "room_alias_name": fresh_txn(),
        "invite": ["@alice:localhost"],
        "invite_3pid": [{ "id_server": "example.org", "id_access_token": "t", "medium": "email",
            "address": "a@example.org" }],
        "creation_content": { "m.federate": false, "type": "m.space", "additional_creators": [],
            "predecessor": { "room_id": "!a:b", "event_id": "$c" } },
        "initial_state": [{ "type": "m.room.join_rules", "state_key": "",
            "content": { "join_rule": "public" } }],
        "power_level_content_override": { "users_default": 5, "events": { "m.room.name": 50 },
            "users": { "@alice:localhost": 1 }, "notifications": { "room": 20 } },
    })
}
