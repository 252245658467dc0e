use std::cmp::Ordering;

use ruma::UserId;

use super::{AuthError, Check, StateView};
use crate::content::{CreateContent, LevelField, PowerLevel, PowerLevels};
use crate::json::{Object, Value};

impl<S: StateView + ?Sized> Check<'_, S> {
    /// "If type is `m.room.power_levels`"
    pub(super) fn power_levels(&self, power: PowerLevel) -> Result<(), AuthError> {
        let new = PowerLevels::of_content(self.version, Some(self.create), self.event.content());
        // From version 10. If any of the properties users_default, events_default, state_default,
        // ban, redact, kick, or invite in content are present and not an integer, reject. If
        // either of the properties events or notifications in content are present and not an
        // object with values that are integers, reject.
        // If the users property in content is not an object with keys that are valid user IDs with
        // values that are integers (up to version 9: or a string that is an integer), reject.
        new.validate()?;
        // Version 12. If the users property in content contains the sender of the m.room.create
        // event or any of the additional_creators array (if present) from the content of the
        // m.room.create event, reject.
        if let Some(users) = new.map("users")?
            && let Some(user) = CreateContent::of(self.create)
                .privileged(self.version)
                .find(|&user| users.contains_key(user))
        {
            return Err(AuthError::CreatorInUsers { user: user.to_owned() });
        }
        // If there is no previous m.room.power_levels event in the room, allow.
        if !self.has_levels {
            return Ok(());
        }
        let change = Change { old: &self.levels, new: &new, power };
        change.fields()?;
        change.entries("events")?;
        if self.version.rules().authorization.limit_notifications_power_levels {
            change.entries("notifications")?;
        }
        // Otherwise, allow.
        change.users(self.event.sender())
    }
}

/// A change of the power levels by someone with this power.
struct Change<'a> {
    old: &'a PowerLevels<'a>,
    new: &'a PowerLevels<'a>,
    power: PowerLevel,
}

impl Change<'_> {
    /// For the properties users_default, events_default, state_default, ban, redact, kick, invite
    /// check if they were added, changed or removed. For each found alteration: If the current
    /// value is higher than the sender's current power level, reject. If the new value is higher
    /// than the sender's current power level, reject.
    ///
    /// A missing property has its default: "Power levels are inferred from defaults when not
    /// explicitly supplied."
    fn fields(&self) -> Result<(), AuthError> {
        for field in LevelField::ALL {
            let old = self.old.explicit_level(field)?;
            let new = self.new.explicit_level(field)?;
            if old == new {
                continue;
            }
            for level in [old, new] {
                let level = level.unwrap_or(field.default_level());
                self.must_reach(level, || field.as_str().to_owned())?;
            }
        }
        Ok(())
    }

    /// For each entry being changed in, or removed from, the events or notifications properties:
    /// If the current value is greater than the sender's current power level, reject. For each
    /// entry being added to, or changed in, [them]: If the new value is greater than the sender's
    /// current power level, reject.
    fn entries(&self, field: &'static str) -> Result<(), AuthError> {
        for (key, old, new) in union(self.old.map(field)?, self.new.map(field)?) {
            let old = old.map(|value| self.old.parse_entry(field, key, value)).transpose()?;
            let new = new.map(|value| self.new.parse_entry(field, key, value)).transpose()?;
            if old == new {
                continue;
            }
            for level in [old, new].into_iter().flatten() {
                self.must_reach(level, || format!("{field}.{key}"))?;
            }
        }
        Ok(())
    }

    /// For each entry being changed in, or removed from, the users property, other than the
    /// sender's own entry: If the current value is greater than or equal to the sender's current
    /// power level, reject. For each entry being added to, or changed in, the users property: If
    /// the new value is greater than the sender's current power level, reject.
    fn users(&self, sender: &UserId) -> Result<(), AuthError> {
        for (user, old, new) in union(self.old.map("users")?, self.new.map("users")?) {
            // The new levels are known to be well-formed, so these need no second look.
            if old == new {
                continue;
            }
            let old = old.map(|value| self.old.parse_entry("users", user, value)).transpose()?;
            let new = new.map(|value| self.new.parse_entry("users", user, value)).transpose()?;
            if old == new {
                continue;
            }
            if let Some(level) = old
                && user != sender.as_str()
                && PowerLevel::Int(level) >= self.power
            {
                let user = user.to_owned();
                return Err(AuthError::LevelOfPeer { user, level, have: self.power });
            }
            if let Some(level) = new {
                self.must_reach(level, || format!("users.{user}"))?;
            }
        }
        Ok(())
    }

    fn must_reach(&self, level: i64, field: impl FnOnce() -> String) -> Result<(), AuthError> {
        if self.power.reaches(level) {
            return Ok(());
        }
        Err(AuthError::LevelAbovePower { field: field(), level, have: self.power })
    }
}

/// The keys of two objects in order, each once, with what either object has under it: one walk
/// over both, instead of a look-up per key.
fn union<'a>(
    left: Option<&'a Object>,
    right: Option<&'a Object>,
) -> impl Iterator<Item = (&'a str, Option<&'a Value>, Option<&'a Value>)> {
    let mut left = left.into_iter().flatten().peekable();
    let mut right = right.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let left = if order.is_le() { left.next() } else { None };
        let right = if order.is_ge() { right.next() } else { None };
        let (key, _) = left.or(right)?;
        Some((key.as_str(), left.map(|(_, value)| value), right.map(|(_, value)| value)))
    })
}
