//! The senders: each knows what it asked for and what was acknowledged.

use serde_json::{Value, json};

use crate::{
    common::{Server, User, path},
    ledger::Ledger,
};

/// A bound for fast machines: what a sender sends in one round.
const MOST_PER_ROUND: usize = 400;

/// One message that was sent at least once.
pub(crate) struct Attempt {
    /// Which room.
    pub(crate) room: usize,
    /// Transaction id and body at once: unique.
    pub(crate) text: String,
    /// The event's id, once it was acknowledged.
    pub(crate) acknowledged: Option<String>,
}

impl Attempt {
    fn path(&self, rooms: &[String]) -> String {
        let template = "/_matrix/client/v3/rooms/{}/send/m.room.message/{}";
        path(template, &[&rooms[self.room], &self.text])
    }

    fn content(&self) -> Value {
        json!({ "msgtype": "m.text", "body": self.text })
    }
}

/// One user that sends as fast as it is answered.
pub(crate) struct Sender {
    /// The user.
    pub(crate) user: User,
    /// All messages so far, in the order of sending.
    pub(crate) attempts: Vec<Attempt>,
    number: usize,
}

impl Sender {
    /// A sender that has sent nothing.
    pub(crate) fn new(user: User, number: usize) -> Self {
        Self { user, attempts: Vec::new(), number }
    }

    /// How many messages were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.acknowledged.is_some()).count()
    }

    /// Connects to the restarted server.
    pub(crate) fn reconnect(&mut self, server: &Server) {
        self.user = server.again(&self.user);
    }

    /// Sends until the connection breaks, one message after the other.
    pub(crate) fn send_until_lost(&mut self, rooms: &[String], round: usize) {
        for count in 0..MOST_PER_ROUND {
            // Every sender writes to two rooms, so that each room has four senders.
            let room = (self.number + 3 * (count % 2)) % rooms.len();
            let text = format!("{}-{round}-{count}", self.number);
            self.attempts.push(Attempt { room, text, acknowledged: None });
            if !self.send_last(rooms) {
                return;
            }
        }
    }

    /// Sends the last attempt (again); false if the connection broke.
    fn send_last(&mut self, rooms: &[String]) -> bool {
        let Some(attempt) = self.attempts.last_mut() else { return true };
        let content = attempt.content().to_string();
        let sent = self.user.http.try_send("PUT", &attempt.path(rooms), content.as_bytes());
        let Ok(answer) = sent else { return false };
        attempt.acknowledged = Some(answer.event_id());
        true
    }

    /// Sends the newest message and the one before once more, under the same transaction ids:
    /// what was acknowledged has the same id again, what is in the room is not doubled.
    pub(crate) fn repeat_what_was_lost(&mut self, rooms: &[String], ledger: &Ledger) {
        let newest = self.attempts.len().saturating_sub(2);
        for attempt in &mut self.attempts[newest..] {
            let before = attempt.acknowledged.take();
            let stored = ledger.find(attempt.room, &attempt.text);
            let answer = self.user.http.put(&attempt.path(rooms), &attempt.content());
            let now = answer.event_id();
            if let Some(before) = before.or(stored) {
                assert_eq!(now, before, "transaction {} has another event now", attempt.text);
            }
            attempt.acknowledged = Some(now);
        }
    }
}
