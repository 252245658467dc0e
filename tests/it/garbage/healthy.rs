//! Two users who only talk to each other, whatever others do to the server.

use serde_json::Value;

use crate::common::{Ask, Server, User};

/// Two users in a room, and all that the server has acknowledged to them.
pub(super) struct Healthy {
    alice: User,
    pub(super) bob: User,
    pub(super) room: String,
    said: Vec<String>,
    since: String,
}

impl Healthy {
    pub(super) fn new(server: &Server) -> Self {
        let (alice, bob) = (server.user("alice"), server.user("bob"));
        let room = alice.public_room();
        bob.join(&room).ok();
        let since = bob.sync(Ask::initial()).ok().next_batch();
        let mut healthy = Self { alice, bob, room, said: Vec::new(), since };
        healthy.say("before all");
        healthy
    }

    /// Where Bob's client stands.
    pub(super) fn since(&self) -> &str {
        &self.since
    }

    /// An event of the room.
    pub(super) fn event(&self) -> &str {
        &self.said[0]
    }

    /// Alice says something, and it is acknowledged.
    pub(super) fn say(&mut self, text: &str) {
        self.said.push(self.alice.say(&self.room, text).event_id());
    }

    /// All that was acknowledged is there, once and in order; Bob gets what is new; and nothing
    /// went wrong inside the server.
    #[track_caller]
    pub(super) fn go_on(&mut self, server: &Server) {
        (self.alice, self.bob) = (server.again(&self.alice), server.again(&self.bob));
        self.say("after all");
        let last = self.said.last().unwrap().clone();
        let is_last = |event: &Value| event["event_id"] == last.as_str();
        let answer = self
            .bob
            .sync_until(&self.since, |answer| answer.timeline(&self.room).iter().any(is_last));
        self.since = answer.next_batch();
        assert_eq!(self.history(), self.said);
        let log = server.log();
        // What is not even HTTP ends in the HTTP library, which is loud about it.
        let bad: Vec<_> = log
            .lines()
            .filter(|line| {
                !line.contains("actix_http::h1::dispatcher: stream error: request parse")
            })
            .filter(|line| {
                ["panicked", "ERROR", "failed inside"].iter().any(|bad| line.contains(bad))
            })
            .take(20)
            .collect();
        assert!(bad.is_empty(), "the server's log:\n{}", bad.join("\n"));
    }

    /// The ids of Alice's messages, oldest first.
    fn history(&self) -> Vec<String> {
        let (mut from, mut ids) = (String::new(), Vec::new());
        loop {
            let page = self.bob.room(&self.room, &format!("messages?dir=f&limit=100{from}")).ok();
            let said = page.chunk().into_iter().filter(|event| {
                event["sender"] == self.alice.id.as_str() && event["type"] == "m.room.message"
            });
            ids.extend(said.map(|event| event["event_id"].as_str().unwrap().to_owned()));
            match page["end"].as_str() {
                Some(end) => from = format!("&from={end}"),
                None => return ids,
            }
        }
    }
}
