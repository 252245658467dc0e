//! One answer of the server, already checked against the specification.

use std::{collections::BTreeMap, ops::Index};

use serde_json::Value;

/// Status, headers (names in lower case) and parsed body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// What was asked, for messages: `GET /path`.
    pub(crate) asked: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// The headers; of repeated ones the last.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body; `Null` where it is empty or not JSON.
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) page: String,
}

impl Answer {
    /// The answer itself, which must be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status == 200, "{}: {} {}", self.asked, self.status, self.body);
        self
    }

    /// The answer itself, which must be this error.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, errcode: &str) -> Self {
        let got = (self.status, self.body["errcode"].as_str());
        assert!(got == (status, Some(errcode)), "{}: {} {}", self.asked, self.status, self.body);
        self
    }

    /// The string at a key of a successful answer.
    #[track_caller]
    pub(crate) fn text(self, key: &str) -> String {
        let answer = self.ok();
        let text = answer.body[key].as_str();
        text.unwrap_or_else(|| panic!("{}: no {key} in {}", answer.asked, answer.body)).to_owned()
    }

    /// The `event_id` of a successful answer.
    #[track_caller]
    pub(crate) fn event_id(self) -> String {
        self.text("event_id")
    }

    /// The `room_id` of a successful answer.
    #[track_caller]
    pub(crate) fn room_id(self) -> String {
        self.text("room_id")
    }

    /// The `next_batch` of a `/sync`.
    #[track_caller]
    pub(crate) fn next_batch(&self) -> String {
        self.clone().text("next_batch")
    }

    /// The timeline of a joined room in a `/sync`; empty where the room isn't mentioned.
    pub(crate) fn timeline(&self, room: &str) -> Vec<Value> {
        list(&self.body["rooms"]["join"][room]["timeline"]["events"])
    }

    /// The `state` of a joined room in a `/sync`; empty where the room isn't mentioned.
    pub(crate) fn state_before(&self, room: &str) -> Vec<Value> {
        list(&self.body["rooms"]["join"][room]["state"]["events"])
    }

    /// The ephemeral events of a joined room in a `/sync`.
    pub(crate) fn ephemeral(&self, room: &str) -> Vec<Value> {
        list(&self.body["rooms"]["join"][room]["ephemeral"]["events"])
    }

    /// The events of `/messages`.
    pub(crate) fn chunk(&self) -> Vec<Value> {
        list(&self.body["chunk"])
    }
}

impl Index<&str> for Answer {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        &self.body[key]
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
