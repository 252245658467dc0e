//! A user of the server under test, with verbs, so that tests read like a story.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    answer::Answer,
    http::{Client, path},
    server::{PASSWORD, deadline},
};

static TRANSACTIONS: AtomicU64 = AtomicU64::new(1);

/// A logged-in device.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// `@name:server`.
    pub(crate) id: String,
    /// The device's id.
    pub(crate) device: String,
    /// The access token.
    pub(crate) token: String,
    /// The connection, with the token.
    pub(crate) http: Client,
}

/// What a `/sync` asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    since: Option<String>,
    timeout_ms: u64,
    filter: Option<Value>,
    more: String,
}

impl Ask {
    /// The first sync of a client.
    pub(crate) fn initial() -> Self {
        Self::default()
    }

    /// What is new after a token; does not wait.
    pub(crate) fn since(token: &str) -> Self {
        Self { since: Some(token.to_owned()), ..Self::default() }
    }

    /// Waits this long, in milliseconds, for something new.
    pub(crate) fn wait(self, timeout_ms: u64) -> Self {
        Self { timeout_ms, ..self }
    }

    /// With an inline filter.
    pub(crate) fn filter(self, filter: Value) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// With any further parameter, such as `full_state=true`.
    pub(crate) fn with(self, parameter: &str) -> Self {
        Self { more: format!("{}&{parameter}", self.more), ..self }
    }

    /// The request as a path.
    pub(crate) fn path(&self) -> String {
        let timeout = self.timeout_ms.to_string();
        let mut all = path("/_matrix/client/v3/sync?timeout={}", &[&timeout]);
        if let Some(since) = &self.since {
            all += &path("&since={}", &[since]);
        }
        if let Some(filter) = &self.filter {
            all += &path("&filter={}", &[&filter.to_string()]);
        }
        all + &self.more
    }
}

/// A transaction id that no other test uses.
pub(crate) fn fresh_txn() -> String {
    format!("t{}", TRANSACTIONS.fetch_add(1, Ordering::Relaxed))
}

fn room_path(room: &str, verb: &str) -> String {
    path("/_matrix/client/v3/rooms/{}/", &[room]) + verb
}

impl User {
    /// The user that an answer of `/register` or `/login` is about.
    #[track_caller]
    pub(crate) fn from_login(http: &Client, answer: &Answer) -> Self {
        let text = |key: &str| answer.clone().text(key);
        let token = text("access_token");
        let http = http.with_token(&token);
        Self { id: text("user_id"), device: text("device_id"), token, http }
    }

    /// What `m.login.password` wants to know, in a session of user-interactive authentication.
    pub(crate) fn password_stage(&self, session: &Value) -> Value {
        json!({ "type": "m.login.password", "password": PASSWORD, "session": session,
            "identifier": { "type": "m.id.user", "user": self.id } })
    }

    /// A request that has to be confirmed with the password: asks, and confirms.
    #[track_caller]
    pub(crate) fn confirmed(&self, method: &str, path: &str, mut body: Value) -> Answer {
        let asked = self.http.send(method, path, body.to_string().as_bytes());
        assert_eq!(asked.status, 401, "{path}: {}", asked.body);
        body["auth"] = self.password_stage(&asked["session"]);
        self.http.send(method, path, body.to_string().as_bytes())
    }

    /// `POST /createRoom`.
    #[track_caller]
    pub(crate) fn create_room(&self, body: Value) -> Answer {
        self.http.post("/_matrix/client/v3/createRoom", &body)
    }

    /// A public room, whose id it gives.
    #[track_caller]
    pub(crate) fn public_room(&self) -> String {
        self.create_room(json!({ "preset": "public_chat" })).room_id()
    }

    /// `POST /rooms/{room}/invite`.
    #[track_caller]
    pub(crate) fn invite(&self, room: &str, whom: &Self) -> Answer {
        self.membership(room, "invite", json!({ "user_id": whom.id }))
    }

    /// `POST /rooms/{room}/join`.
    #[track_caller]
    pub(crate) fn join(&self, room: &str) -> Answer {
        self.membership(room, "join", json!({}))
    }

    /// `POST /rooms/{room}/leave`.
    #[track_caller]
    pub(crate) fn leave(&self, room: &str) -> Answer {
        self.membership(room, "leave", json!({}))
    }

    /// `POST /rooms/{room}/{verb}`: `kick`, `ban`, `unban`, `forget`, ...
    #[track_caller]
    pub(crate) fn membership(&self, room: &str, verb: &str, body: Value) -> Answer {
        self.http.post(&room_path(room, verb), &body)
    }

    /// Sends a text message under a fresh transaction id.
    #[track_caller]
    pub(crate) fn say(&self, room: &str, text: &str) -> Answer {
        self.send(room, "m.room.message", json!({ "msgtype": "m.text", "body": text }))
    }

    /// Sends an event under a fresh transaction id.
    #[track_caller]
    pub(crate) fn send(&self, room: &str, kind: &str, content: Value) -> Answer {
        self.send_as(room, kind, &fresh_txn(), content)
    }

    /// Sends an event under this transaction id.
    #[track_caller]
    pub(crate) fn send_as(&self, room: &str, kind: &str, txn: &str, content: Value) -> Answer {
        self.http.put(&(room_path(room, "send/") + &path("{}/{}", &[kind, txn])), &content)
    }

    /// Redacts an event.
    #[track_caller]
    pub(crate) fn redact(&self, room: &str, event: &str, reason: &str) -> Answer {
        let verb = path("redact/{}/{}", &[event, &fresh_txn()]);
        self.http.put(&room_path(room, &verb), &json!({ "reason": reason }))
    }

    /// Sets a piece of state.
    #[track_caller]
    pub(crate) fn set_state(&self, room: &str, kind: &str, key: &str, content: Value) -> Answer {
        self.http.put(&(room_path(room, "state/") + &path("{}/{}", &[kind, key])), &content)
    }

    /// Reads the content of a piece of state.
    #[track_caller]
    pub(crate) fn state(&self, room: &str, kind: &str, key: &str) -> Answer {
        self.http.get(&(room_path(room, "state/") + &path("{}/{}", &[kind, key])))
    }

    /// `GET` of something below the room: `state`, `members`, `messages?dir=b`, `event/...`.
    #[track_caller]
    pub(crate) fn room(&self, room: &str, what: &str) -> Answer {
        self.http.get(&room_path(room, what))
    }

    /// One `/sync`.
    #[track_caller]
    pub(crate) fn sync(&self, ask: Ask) -> Answer {
        self.http.get(&ask.path())
    }

    /// Syncs on from a token until the answer has what is wanted; fails after 30 seconds.
    #[track_caller]
    pub(crate) fn sync_until(&self, since: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let until = deadline(Duration::from_secs(30));
        let mut since = since.to_owned();
        while !until.passed() {
            let answer = self.sync(Ask::since(&since).wait(5_000)).ok();
            if wanted(&answer) {
                return answer;
            }
            since = answer.next_batch();
        }
        panic!("{}: the sync never had what was wanted", self.id);
    }
}
