//! What is told to other servers beside events, and is not worth being kept: who types, who has
//! read what, who is online. Of each thing the newest state waits, and no more than
//! [`MAX_WAITING`] of them for one server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::presence::{State, Status};

/// How many things may wait for one server; what comes on top is dropped.
const MAX_WAITING: usize = 1_000;

/// How many receipts, or users' presences, one EDU has at most.
const MAX_IN_ONE: usize = 100;

/// Something that is told to other servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edu {
    Typing { room: Arc<str>, user: Arc<str>, is_typing: bool },
    Receipt { reader: Reader, read: Read },
    Presence { user: Arc<str>, status: Status },
}

/// Who has read something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reader {
    pub(super) room: Arc<str>,
    pub(super) user: Arc<str>,
    /// Empty for a receipt that belongs to no thread.
    pub(super) thread: Arc<str>,
}

/// What has been read, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) event_id: Arc<str>,
    pub(super) ts: u64,
}

/// What waits for one server.
#[derive(Debug, Default)]
pub(super) struct Edus {
    typing: BTreeMap<(Arc<str>, Arc<str>), bool>,
    receipts: BTreeMap<Reader, Read>,
    presence: BTreeMap<Arc<str>, Status>,
}

impl Edus {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.typing.len() + self.receipts.len() + self.presence.len()
    }

    /// Has something wait, in the place of what is not true any more. Returns whether there was
    /// room.
    pub(super) fn put(&mut self, edu: Edu) -> bool {
        if self.len() >= MAX_WAITING && !self.knows(&edu) {
            return false;
        }
        match edu {
            Edu::Typing { room, user, is_typing } => {
                self.typing.insert((room, user), is_typing);
            }
            Edu::Receipt { reader, read } => {
                self.receipts.insert(reader, read);
            }
            Edu::Presence { user, status } => {
                self.presence.insert(user, status);
            }
        }
        true
    }

    fn knows(&self, edu: &Edu) -> bool {
        match edu {
            Edu::Typing { room, user, .. } => {
                self.typing.contains_key(&(room.clone(), user.clone()))
            }
            Edu::Receipt { reader, .. } => self.receipts.contains_key(reader),
            Edu::Presence { user, .. } => self.presence.contains_key(user),
        }
    }

    /// Takes what one transaction may have: at most `most` EDUs, as JSON.
    pub(super) fn take(&mut self, most: usize, now: u64) -> Vec<Bytes> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let next = self.next_receipts().or_else(|| self.next_presence(now));
            let Some(next) = next.or_else(|| self.next_typing()) else { break };
            taken.push(next.to_string().into());
        }
        taken
    }

    fn next_typing(&mut self) -> Option<Value> {
        let ((room, user), is_typing) = self.typing.pop_first()?;
        let content = json!({ "room_id": &*room, "user_id": &*user, "typing": is_typing });
        Some(json!({ "edu_type": "m.typing", "content": content }))
    }

    /// One receipt of each user in each room: there is no place for those of more threads.
    fn next_receipts(&mut self) -> Option<Value> {
        let mut one_of_each = BTreeSet::new();
        let keys = self.receipts.keys();
        let first_of_user = keys.filter(|reader| one_of_each.insert((&reader.room, &reader.user)));
        let chosen: Vec<_> = first_of_user.take(MAX_IN_ONE).cloned().collect();
        let mut content = BTreeMap::<String, BTreeMap<String, Value>>::new();
        for key in chosen {
            let Some(Read { event_id, ts }) = self.receipts.remove(&key) else { continue };
            let Reader { room, user, thread } = key;
            let mut data = json!({ "ts": ts });
            if !thread.is_empty() {
                data["thread_id"] = (*thread).into();
            }
            let receipt = json!({ "event_ids": [&*event_id], "data": data });
            content.entry(room.to_string()).or_default().insert(user.to_string(), receipt);
        }
        let content: BTreeMap<_, _> =
            content.into_iter().map(|(room, users)| (room, json!({ "m.read": users }))).collect();
        let is_any = !content.is_empty();
        is_any.then(|| json!({ "edu_type": "m.receipt", "content": content }))
    }

    fn next_presence(&mut self, now: u64) -> Option<Value> {
        let mut push = Vec::new();
        while push.len() < MAX_IN_ONE
            && let Some((user, status)) = self.presence.pop_first()
        {
            push.push(presence(&user, status, now));
        }
        let is_any = !push.is_empty();
        is_any.then(|| json!({ "edu_type": "m.presence", "content": { "push": push } }))
    }
}

fn presence(user: &str, status: Status, now: u64) -> Value {
    let presence = match status.state {
        State::Offline => "offline",
        State::Unavailable => "unavailable",
        State::Online => "online",
    };
    let mut update = json!({
        "user_id": user,
        "presence": presence,
        "last_active_ago": now.saturating_sub(status.last_active_ts),
        "currently_active": status.currently_active,
    });
    if let Some(status_msg) = status.status_msg {
        update["status_msg"] = status_msg.into();
    }
    update
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typing(user: &str, is_typing: bool) -> Edu {
        Edu::Typing { room: "!r".into(), user: user.into(), is_typing }
    }

    fn receipt(user: &str, thread: &str, event: &str) -> Edu {
        let reader = Reader { room: "!r".into(), user: user.into(), thread: thread.into() };
        Edu::Receipt { reader, read: Read { event_id: event.into(), ts: 5 } }
    }

    fn take(edus: &mut Edus) -> Vec<Value> {
        let taken = edus.take(100, 1_000).into_iter();
        taken.map(|edu| serde_json::from_slice(&edu).expect("JSON")).collect()
    }

    #[test]
    fn the_newest_of_each_thing_is_told() {
        let mut edus = Edus::default();
        assert!(edus.put(typing("@a:x", true)) && edus.put(typing("@a:x", false)));
        assert!(edus.put(receipt("@a:x", "", "$1")) && edus.put(receipt("@a:x", "", "$2")));
        let expected = [
            json!({ "edu_type": "m.receipt", "content": { "!r": { "m.read": {
                "@a:x": { "event_ids": ["$2"], "data": { "ts": 5 } }
            } } } }),
            json!({ "edu_type": "m.typing", "content": {
                "room_id": "!r", "user_id": "@a:x", "typing": false
            } }),
        ];
        assert_eq!(take(&mut edus), expected);
        assert!(edus.is_empty());
    }

    #[test]
    fn receipts_of_threads_follow_each_other() {
        let mut edus = Edus::default();
        for (user, thread) in [("@a:x", ""), ("@a:x", "main"), ("@b:x", "$root"), ("@a:x", "$root")]
        {
            assert!(edus.put(receipt(user, thread, "$1")));
        }
        let taken = take(&mut edus);
        let threads =
            |edu: &Value, user: &str| edu["content"]["!r"]["m.read"][user]["data"].clone();
        assert_eq!(taken.len(), 3);
        assert_eq!(threads(&taken[0], "@a:x"), json!({ "ts": 5 }));
        assert_eq!(threads(&taken[0], "@b:x"), json!({ "ts": 5, "thread_id": "$root" }));
        assert_eq!(threads(&taken[1], "@a:x"), json!({ "ts": 5, "thread_id": "$root" }));
        assert_eq!(threads(&taken[2], "@a:x"), json!({ "ts": 5, "thread_id": "main" }));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut edus = Edus::default();
        let taken = (0..2_000).filter(|n| edus.put(typing(&format!("@{n}:x"), true))).count();
        assert_eq!(taken, MAX_WAITING);
        assert!(edus.put(typing("@7:x", false)), "what is there already is replaced");
        assert_eq!(take(&mut edus).len(), 100);
    }

    #[test]
    fn presence_says_how_long_ago() {
        let mut edus = Edus::default();
        let status = Status {
            state: State::Online,
            currently_active: true,
            status_msg: Some("here".to_owned()),
            last_active_ts: 400,
        };
        assert!(edus.put(Edu::Presence { user: "@a:x".into(), status }));
        let push = json!([{
            "user_id": "@a:x", "presence": "online", "last_active_ago": 600,
            "currently_active": true, "status_msg": "here"
        }]);
        let expected = json!({ "edu_type": "m.presence", "content": { "push": push } });
        assert_eq!(take(&mut edus), [expected]);
    }
}
