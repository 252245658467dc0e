//! Which servers may take part in which rooms: access control lists, and who has users there.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls>

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use parlour_event::{
    EventNum,
    json::{Object, Value},
};
use ruma::{
    OwnedServerName, RoomId, ServerName, events::room::server_acl::RoomServerAclEventContent,
};

use crate::{
    error::ApiError,
    view::{RoomView, View, ViewError},
};

/// How many verdicts are remembered: a list may have thousands of patterns, and it is looked at for
/// each event.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not 0");

/// A list, as it was sent or redacted, and a server.
type Case = (EventNum, bool, OwnedServerName);

/// Keeps servers out of rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RoomGuard {
    view: View,
    verdicts: Arc<Mutex<LruCache<Case, bool>>>,
}

impl RoomGuard {
    /// A guard who knows rooms as this view does.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self { view, verdicts: Arc::new(Mutex::new(LruCache::new(REMEMBERED))) }
    }

    /// Whether a room's access control list, as it is now, lets a server take part.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn admits(&self, room: &RoomView, server: &ServerName) -> Result<bool, ViewError> {
        let View { store, .. } = &self.view;
        let list = self.view.state_num(room.head.state, "m.room.server_acl", "")?;
        let Some(num) = list else { return Ok(true) };
        let redacted = store.event_meta(num)?.is_some_and(|meta| meta.redacted_because.is_some());
        let case = (num, redacted, server.to_owned());
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verdicts.get(&case) {
            return Ok(*known);
        }
        let Some(event) = store.event(num)? else { return Ok(true) };
        let verdict = list_in(event.pdu(room.version)?.content()).is_allowed(server);
        verdicts.put(case, verdict);
        Ok(verdict)
    }

    /// A room that a server asks about, which may take part in it.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if the room is not known here, 403 `M_FORBIDDEN` if its access control
    /// list keeps the server out.
    pub fn room(&self, room_id: &RoomId, server: &ServerName) -> Result<RoomView, ApiError> {
        let unknown = || ApiError::not_found("The room is not known here");
        let room = self.view.room(room_id)?.ok_or_else(unknown)?;
        if self.admits(&room, server)? { Ok(room) } else { Err(kept_out()) }
    }

    /// A room that a server is in.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN`, also for rooms that are not known here: strangers are not told which are.
    pub fn enter(&self, room_id: &RoomId, server: &ServerName) -> Result<RoomView, ApiError> {
        let stranger = || ApiError::forbidden("Your server is not in this room");
        let room = self.view.room(room_id)?.ok_or_else(stranger)?;
        if self.view.store.joined_from(room.num, server.as_str())? == 0 {
            return Err(stranger());
        }
        if self.admits(&room, server)? { Ok(room) } else { Err(kept_out()) }
    }
}

fn kept_out() -> ApiError {
    ApiError::forbidden("The room's access control list keeps your server out")
}

/// A list as far as it can be understood: what is no list is an empty one, what is no text in it
/// does not count.
fn list_in(content: &Object) -> RoomServerAclEventContent {
    let patterns = |key: &str| {
        let list = content.get(key).and_then(Value::as_array).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let ip_literals = content.get("allow_ip_literals").and_then(Value::as_bool).unwrap_or(true);
    RoomServerAclEventContent::new(ip_literals, patterns("allow"), patterns("deny"))
}

#[cfg(test)]
mod tests {
    use parlour_event::json;

    use super::*;

    // Checklist 12.7
    #[test]
    fn lists_are_read_as_the_specification_says() {
        let cases = [
            (r#"{"allow":["*"]}"#, "good.example.org", true),
            (r#"{"allow":["*"],"deny":["*.evil.org"]}"#, "very.evil.org", false),
            (r#"{"allow":["*"],"deny":["*.evil.org"]}"#, "evil.org", true),
            (r#"{"allow":["*"],"deny":["EVIL.org"]}"#, "eviL.ORG", false),
            (r#"{"allow":["*"],"deny":["evil.org"]}"#, "evil.org:1234", false),
            (r#"{"allow":["*"],"deny":["evil.org:1234"]}"#, "evil.org:1234", true),
            (r#"{"allow":["evil.org"],"deny":["evil.???"]}"#, "evil.org", false),
            (r#"{"allow":["only.org"]}"#, "other.org", false),
            (r#"{"allow":["*"],"allow_ip_literals":false}"#, "1.2.3.4:8448", false),
            (r#"{"allow":["*"],"allow_ip_literals":false}"#, "[::1]:8448", false),
            (r#"{"allow":["*"],"allow_ip_literals":"no"}"#, "1.2.3.4", true),
            (r#"{"allow":["*"],"deny":["1.2.3.*"]}"#, "1.2.3.4", false),
            // Without a list nobody may.
            ("{}", "good.org", false),
            (r#"{"allow":"*"}"#, "good.org", false),
            (r#"{"allow":[1,"*"],"deny":[null,{}]}"#, "good.org", true),
            (r#"{"allow":["*"],"deny":"*"}"#, "good.org", true),
        ];
        for (content, server, expected) in cases {
            let parsed = json::parse_lax(content.as_bytes()).unwrap();
            let list = list_in(parsed.as_object().unwrap());
            let server = <&ServerName>::try_from(server).unwrap();
            assert_eq!(list.is_allowed(server), expected, "{content} {server}");
        }
    }
}
