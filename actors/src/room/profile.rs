//! A user's new name or avatar comes into a room: as a member event, if the user is joined at the
//! very moment. Whoever has left meanwhile must not come back in by this.

use parlour_event::json::{Object, Value};

use super::{
    core::RoomCore,
    messages::{LocalEvent, ProfileUpdate, RoomError},
};

impl RoomCore {
    /// The member event that brings the profile in, or `None` if there is nothing to say.
    pub(crate) fn profile_event(
        &mut self,
        update: ProfileUpdate,
    ) -> Result<Option<LocalEvent>, RoomError> {
        let member = self.state_event(self.state, "m.room.member", update.user.as_str())?;
        let Some((_, member)) = member else { return Ok(None) };
        let current = member.content();
        if current.get("membership").and_then(Value::as_str) != Some("join") {
            return Ok(None);
        }
        let said = |key: &str| current.get(key).and_then(Value::as_str);
        let is_known = said("displayname") == update.display_name.as_deref()
            && said("avatar_url") == update.avatar_url.as_deref();
        if is_known {
            return Ok(None);
        }
        Ok(Some(LocalEvent {
            sender: update.user.clone(),
            event_type: "m.room.member".to_owned(),
            state_key: Some(update.user.to_string()),
            content: content(update),
            redacts: None,
            transaction: None,
            timestamp: None,
        }))
    }
}

/// What was said at the join (a reason, who vouched for it) belongs to that join and is left out.
fn content(update: ProfileUpdate) -> Object {
    let mut content = Object::new();
    let mut say = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            content.insert(key.to_owned(), Value::String(value));
        }
    };
    say("membership", Some("join".to_owned()));
    say("displayname", update.display_name);
    say("avatar_url", update.avatar_url);
    content
}
