//! Messages that are known again, whoever reads them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The key in a message's content.
const KEY: &str = "parlour.load";

/// What a message says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Which run it belongs to.
    pub(crate) run: String,
    /// Which of the run's senders has sent it.
    pub(crate) sender: usize,
    /// Which of the sender's messages it is. They are sent one after the other.
    pub(crate) number: u64,
    /// When it was due, in microseconds since the run began.
    pub(crate) at: u64,
    /// Whether the warm-up was over.
    pub(crate) counted: bool,
}

/// The content of a message whose text has this many bytes.
pub(crate) fn content(mark: &Mark, size: usize) -> Value {
    let text: String =
        "a message of the usual kind, more or less ".chars().cycle().take(size).collect();
    json!({ "msgtype": "m.text", "body": text, KEY: mark })
}

/// An event as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Event {
    #[serde(default)]
    pub(crate) event_id: String,
    #[serde(default)]
    content: Content,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Content {
    // What others have sent may hold anything.
    #[serde(default, rename = "parlour.load", deserialize_with = "lenient")]
    mark: Option<Mark>,
}

fn lenient<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Mark>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(input)?).ok())
}

impl Event {
    /// What it says of itself, if it is a message of this run.
    pub(crate) fn mark(&self, run: &str) -> Option<&Mark> {
        self.content.mark.as_ref().filter(|mark| mark.run == run)
    }
}

/// A page of `/messages`.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    pub(crate) chunk: Vec<Event>,
    pub(crate) end: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_known_again() {
        let mark = Mark { run: "r".to_owned(), sender: 1, number: 2, at: 3, counted: true };
        let event = json!({ "event_id": "$a", "content": content(&mark, 100) });
        assert_eq!(event["content"]["body"].as_str().map(str::len), Some(100));
        let event: Event = serde_json::from_value(event).expect("an event");
        assert_eq!(event.mark("r"), Some(&mark));
        assert_eq!(event.mark("other"), None);
        let foreign = json!({ "event_id": "$b", "content": { KEY: "x" } });
        let foreign: Event = serde_json::from_value(foreign).expect("an event");
        assert_eq!(foreign.mark("r"), None);
    }
}
