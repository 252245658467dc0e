//! One who talks in a room, and what must be in that room afterwards.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::json;

use crate::common::{Ask, Server, User, fresh_txn, path};

/// A room with two members. One of them talks; every word is unique.
pub(super) struct Chat {
    pub(super) alice: User,
    pub(super) room: String,
    /// What was acknowledged, in order: text and event id.
    said: Mutex<Vec<(String, String)>>,
}

impl Chat {
    /// Registers the two, and opens the room.
    pub(super) fn new(server: &Server) -> Self {
        let (alice, bob) = (server.user("alice"), server.user("bob"));
        let room = alice.public_room();
        bob.join(&room).ok();
        Self { alice, room, said: Mutex::default() }
    }

    /// How much has been acknowledged.
    pub(super) fn count(&self) -> usize {
        self.said().len()
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says the next word; false if the connection broke.
    fn say(&self) -> bool {
        let text = format!("word-{:04}", self.count());
        let template = "/_matrix/client/v3/rooms/{}/send/m.room.message/{}";
        let body = json!({ "msgtype": "m.text", "body": text }).to_string();
        let at = path(template, &[&self.room, &text]);
        let Ok(answer) = self.alice.http.try_send("PUT", &at, body.as_bytes()) else {
            return false;
        };
        self.said().push((text, answer.event_id()));
        true
    }

    /// Says so many words.
    pub(super) fn talk(&self, words: usize) {
        (0..words).for_each(|_| assert!(self.say(), "the server is up"));
    }

    /// Says words until somebody has enough.
    pub(super) fn talk_until(&self, enough: impl Fn() -> bool) {
        while !enough() {
            assert!(self.say(), "the server is up");
        }
    }

    /// Says words until the server has gone.
    pub(super) fn talk_until_lost(&self) {
        while self.say() {}
    }

    /// All words in the room, as a server tells them, with their ids, oldest first.
    pub(super) fn words(&self, server: &Server) -> Vec<(String, String)> {
        let alice = server.again(&self.alice);
        let (mut words, mut from) = (Vec::new(), String::new());
        loop {
            let page = alice.room(&self.room, &format!("messages?dir=f&limit=100{from}")).ok();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let messages = page.chunk().into_iter().filter(|event| {
                event["content"]["body"].as_str().is_some_and(|body| body.starts_with("word-"))
            });
            words.extend(messages.map(|e| (text(&e["content"]["body"]), text(&e["event_id"]))));
            match page["end"].as_str() {
                Some(end) if !page.chunk().is_empty() => from = path("&from={}", &[end]),
                _ => return words,
            }
        }
    }

    /// Checks that a server has the words that were acknowledged first, each once, in order, under
    /// its id, and says how many. One more may be there: the one that got no answer.
    #[track_caller]
    pub(super) fn check(&self, server: &Server) -> usize {
        let (words, said) = (self.words(server), self.said());
        for (number, (word, said)) in words.iter().zip(said.iter()).enumerate() {
            assert_eq!(word, said, "word {number}");
        }
        assert!(words.len() <= said.len() + 1, "{} words, {} said", words.len(), said.len());
        words.len().min(said.len())
    }

    /// Checks that of the words that were acknowledged exactly these are missing.
    #[track_caller]
    pub(super) fn check_lost(&self, server: &Server, lost: &[usize]) {
        let kept: Vec<_> = self.said().clone();
        let kept = kept.into_iter().enumerate().filter(|(at, _)| !lost.contains(at));
        assert_eq!(self.words(server), kept.map(|(_, word)| word).collect::<Vec<_>>());
    }

    /// Old logins work, new ones too, and the talk goes on.
    #[track_caller]
    pub(super) fn goes_on(&self, server: &Server) {
        let alice = server.again(&self.alice);
        let whoami = alice.http.get("/_matrix/client/v3/account/whoami").ok();
        assert_eq!(
            (&whoami["user_id"], &whoami["device_id"]),
            (&json!(alice.id), &json!(alice.device))
        );
        let bob = server.login("bob");
        let token = bob.sync(Ask::initial()).ok().next_batch();
        let event = alice.say(&self.room, "still here").event_id();
        let seen = bob.sync_until(&token, |answer| {
            answer.timeline(&self.room).iter().any(|seen| seen["event_id"] == json!(event))
        });
        let events: HashMap<_, _> =
            seen.timeline(&self.room).into_iter().map(|e| (e["event_id"].clone(), e)).collect();
        assert_eq!(events[&json!(event)]["content"]["body"], "still here");
        let newcomer = server.user(&format!("newcomer-{}", fresh_txn()));
        assert_eq!(newcomer.join(&self.room).ok().room_id(), self.room);
    }
}
