//! Room tags: one piece of a room's account data, changed tag by tag.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>

use std::collections::BTreeMap;

use parlour_event::RoomNum;
use parlour_storage::StorageError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AccountDataError, Users};

/// The type of the account data that hold the tags.
pub const TAGS: &str = "m.tag";

/// How many bytes all tags of a room may have, written as JSON.
const MAX_TAGS: usize = 65_536;

/// A user's tags of a room, by name, each with what the client says of it.
pub type Tags = BTreeMap<String, Map<String, Value>>;

/// The content of `m.tag`. What a client has put there besides the tags is kept.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Content {
    #[serde(default)]
    tags: Tags,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Content {
    /// What is stored is the client's own writing; if it makes no sense there are no tags.
    fn read(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }

    /// Sets a tag or removes it (`None`); says whether that changes anything.
    fn set(&mut self, tag: String, about: Option<Map<String, Value>>) -> bool {
        match about {
            Some(about) if self.tags.get(&tag) == Some(&about) => false,
            Some(about) => {
                self.tags.insert(tag, about);
                true
            }
            None => self.tags.remove(&tag).is_some(),
        }
    }
}

impl Users {
    /// A user's tags of a room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn tags(&self, user: &str, room: RoomNum) -> Result<Tags, StorageError> {
        let stored = self.account_data(user, room, TAGS)?;
        Ok(stored.map(|json| Content::read(&json).tags).unwrap_or_default())
    }

    /// Sets a tag of a room, or removes it (`None`).
    ///
    /// # Errors
    ///
    /// [`AccountDataError`]
    pub async fn set_tag(
        &self,
        user: &str,
        room: RoomNum,
        tag: String,
        about: Option<Map<String, Value>>,
    ) -> Result<(), AccountDataError> {
        self.update_account_data(user, room, TAGS, move |old| {
            let mut content = old.map(|json| Content::read(&json)).unwrap_or_default();
            let grows = about.is_some();
            if !content.set(tag, about) {
                return Ok(None);
            }
            // Maps of strings and values can always be written.
            let json = serde_json::to_vec(&content).unwrap_or_default();
            if grows && json.len() > MAX_TAGS {
                return Err(AccountDataError::TooMuch);
            }
            Ok(Some(json.into()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_are_changed_one_by_one_and_the_rest_stays() {
        let mut content = Content::read(br#"{"tags":{"u.a":{"order":0.5}},"org.example":1}"#);
        let order = |order: f64| json!({ "order": order }).as_object().cloned();
        assert!(!content.set("u.a".to_owned(), order(0.5)));
        assert!(content.set("u.a".to_owned(), order(0.25)));
        assert!(content.set("u.b".to_owned(), order(1.0)));
        assert!(!content.set("u.c".to_owned(), None));
        assert!(content.set("u.a".to_owned(), None));
        let expected = json!({ "tags": { "u.b": { "order": 1.0 } }, "org.example": 1 });
        assert_eq!(serde_json::to_value(&content).ok(), Some(expected));
        for nonsense in ["[]", r#"{"tags":[]}"#, "", r#"{"tags":{"a":1}}"#] {
            assert_eq!(Content::read(nonsense.as_bytes()), Content::default(), "{nonsense}");
        }
    }
}
