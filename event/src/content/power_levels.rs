use std::fmt;

use ruma::UserId;

use super::{CreateContent, valid_user};
use crate::json::{Object, Value};
use crate::pdu::Pdu;
use crate::version::RoomVersion;

mod level;

pub(crate) use level::parse_level;

/// The level required to trigger a notification, where nothing else is said.
const DEFAULT_NOTIFICATION_LEVEL: i64 = 50;
/// The creator's level in a room without power levels, up to room version 11.
const DEFAULT_CREATOR_LEVEL: i64 = 100;

/// How much power a user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PowerLevel {
    /// A number from the room's power levels
    Int(i64),
    /// More than any number: the creators from room version 12 on
    Infinite,
}

impl PowerLevel {
    /// Whether the power is enough for what needs this level.
    #[must_use]
    pub fn reaches(self, needed: i64) -> bool {
        self >= Self::Int(needed)
    }
}

impl fmt::Display for PowerLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(level) => level.fmt(f),
            Self::Infinite => f.write_str("infinite power"),
        }
    }
}

/// A power levels content that breaks the rules of its room version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// A level is not an integer, nor what the room version takes for one.
    #[error("the power level `{field}` is not an integer")]
    NotAnInteger {
        /// The property, with its place: `users.@alice:example.org`
        field: String,
    },
    /// `users`, `events` or `notifications` is not an object.
    #[error("`{field}` in the power levels is not an object")]
    NotAnObject {
        /// The property
        field: &'static str,
    },
    /// A key of `users` is not a user id.
    #[error("`{key}` in the `users` of the power levels is not a user ID")]
    NotAUserId {
        /// The key
        key: String,
    },
}

/// The properties of the power levels that are one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LevelField {
    /// `users_default`
    UsersDefault,
    /// `events_default`
    EventsDefault,
    /// `state_default`
    StateDefault,
    /// `ban`
    Ban,
    /// `redact`
    Redact,
    /// `kick`
    Kick,
    /// `invite`
    Invite,
}

impl LevelField {
    /// All of them, in the order in which the rules name them.
    pub const ALL: [Self; 7] = [
        Self::UsersDefault,
        Self::EventsDefault,
        Self::StateDefault,
        Self::Ban,
        Self::Redact,
        Self::Kick,
        Self::Invite,
    ];

    /// The name of the property.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsersDefault => "users_default",
            Self::EventsDefault => "events_default",
            Self::StateDefault => "state_default",
            Self::Ban => "ban",
            Self::Redact => "redact",
            Self::Kick => "kick",
            Self::Invite => "invite",
        }
    }

    /// The level where the property is missing.
    #[must_use]
    pub fn default_level(self) -> i64 {
        match self {
            Self::UsersDefault | Self::EventsDefault | Self::Invite => 0,
            Self::StateDefault | Self::Ban | Self::Redact | Self::Kick => 50,
        }
    }
}

/// The power levels of a room: `m.room.power_levels`, the defaults, and the creators' privilege.
///
/// A view: nothing is parsed before it is asked for, so that a question about one user costs the
/// same whatever the number of users. Errors therefore concern only what was asked for;
/// [`PowerLevels::validate`] looks at everything that the room version demands.
///
/// Specification: <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>
#[derive(Debug, Clone, Copy)]
pub struct PowerLevels<'a> {
    version: &'a RoomVersion,
    create: Option<CreateContent<'a>>,
    content: Option<&'a Object>,
}

impl<'a> PowerLevels<'a> {
    /// The power levels that these two events make; without the create event nobody is creator.
    #[must_use]
    pub fn new(
        version: &'a RoomVersion,
        create: Option<&'a Pdu>,
        power_levels: Option<&'a Pdu>,
    ) -> Self {
        Self {
            version,
            create: create.map(CreateContent::of),
            content: power_levels.map(Pdu::content),
        }
    }

    /// Like [`PowerLevels::new`] for a content that is not yet an event.
    #[must_use]
    pub fn of_content(
        version: &'a RoomVersion,
        create: Option<&'a Pdu>,
        content: &'a Object,
    ) -> Self {
        Self { version, create: create.map(CreateContent::of), content: Some(content) }
    }

    /// The power of a user.
    ///
    /// # Errors
    ///
    /// When the user's level, or else `users_default`, is malformed.
    pub fn user_level(&self, user: &UserId) -> Result<PowerLevel, LevelError> {
        let user = user.as_str();
        if self.create.is_some_and(|create| create.is_privileged(self.version, user)) {
            return Ok(PowerLevel::Infinite);
        }
        let level = if self.content.is_some() {
            match self.entry("users", user)? {
                Some(level) => level,
                None => self.level(LevelField::UsersDefault)?,
            }
        } else if self.create.is_some_and(|create| create.is_creator(self.version, user)) {
            DEFAULT_CREATOR_LEVEL
        } else {
            LevelField::UsersDefault.default_level()
        };
        Ok(PowerLevel::Int(level))
    }

    /// The level that is required to send an event of this type.
    ///
    /// # Errors
    ///
    /// When the type's level, or else the default, is malformed.
    pub fn event_level(&self, event_type: &str, is_state: bool) -> Result<i64, LevelError> {
        if let Some(level) = self.entry("events", event_type)? {
            return Ok(level);
        }
        self.level(if is_state { LevelField::StateDefault } else { LevelField::EventsDefault })
    }

    /// The level that is required to trigger the notification of this kind, such as `room`.
    ///
    /// # Errors
    ///
    /// When the kind's level is malformed.
    pub fn notification_level(&self, kind: &str) -> Result<i64, LevelError> {
        Ok(self.entry("notifications", kind)?.unwrap_or(DEFAULT_NOTIFICATION_LEVEL))
    }

    /// The level in this property, or its default.
    ///
    /// # Errors
    ///
    /// When it is malformed.
    pub fn level(&self, field: LevelField) -> Result<i64, LevelError> {
        Ok(self.explicit_level(field)?.unwrap_or(field.default_level()))
    }

    /// The level that is required to invite.
    ///
    /// # Errors
    ///
    /// When it is malformed.
    pub fn invite(&self) -> Result<i64, LevelError> {
        self.level(LevelField::Invite)
    }

    /// The level that is required to kick.
    ///
    /// # Errors
    ///
    /// When it is malformed.
    pub fn kick(&self) -> Result<i64, LevelError> {
        self.level(LevelField::Kick)
    }

    /// The level that is required to ban.
    ///
    /// # Errors
    ///
    /// When it is malformed.
    pub fn ban(&self) -> Result<i64, LevelError> {
        self.level(LevelField::Ban)
    }

    /// The level that is required to redact other users' events.
    ///
    /// # Errors
    ///
    /// When it is malformed.
    pub fn redact(&self) -> Result<i64, LevelError> {
        self.level(LevelField::Redact)
    }

    /// Whether the content is one that the room version accepts at all: integers (from room
    /// version 10 on in every property, before only in `users`) and valid user ids. That the
    /// creators must not be in `users` is another rule.
    ///
    /// # Errors
    ///
    /// Names the first property that is malformed.
    pub fn validate(&self) -> Result<(), LevelError> {
        if self.version.rules().authorization.integer_power_levels {
            for field in LevelField::ALL {
                self.explicit_level(field)?;
            }
            for field in ["events", "notifications"] {
                for (key, value) in self.map(field)?.into_iter().flatten() {
                    self.parse_entry(field, key, value)?;
                }
            }
        }
        for (key, value) in self.map("users")?.into_iter().flatten() {
            if valid_user(key).is_none() {
                return Err(LevelError::NotAUserId { key: key.clone() });
            }
            self.parse_entry("users", key, value)?;
        }
        Ok(())
    }

    /// The level in this property; `None` if it is missing.
    pub(crate) fn explicit_level(&self, field: LevelField) -> Result<Option<i64>, LevelError> {
        let field = field.as_str();
        let Some(value) = self.content.and_then(|content| content.get(field)) else {
            return Ok(None);
        };
        match parse_level(self.version, value) {
            Some(level) => Ok(Some(level)),
            None => Err(LevelError::NotAnInteger { field: field.to_owned() }),
        }
    }

    /// The object in this property; `None` if it is missing.
    pub(crate) fn map(&self, field: &'static str) -> Result<Option<&'a Object>, LevelError> {
        match self.content.and_then(|content| content.get(field)) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(LevelError::NotAnObject { field }),
        }
    }

    /// The level of a value inside the object `field`.
    pub(crate) fn parse_entry(
        &self,
        field: &str,
        key: &str,
        value: &Value,
    ) -> Result<i64, LevelError> {
        parse_level(self.version, value)
            .ok_or_else(|| LevelError::NotAnInteger { field: format!("{field}.{key}") })
    }

    fn entry(&self, field: &'static str, key: &str) -> Result<Option<i64>, LevelError> {
        match self.map(field)?.and_then(|map| map.get(key)) {
            None => Ok(None),
            Some(value) => self.parse_entry(field, key, value).map(Some),
        }
    }
}
