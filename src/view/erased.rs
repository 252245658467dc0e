//! Users who wished to be forgotten: their events are shown redacted to those who were not in the
//! room when they were sent.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use std::borrow::Cow;

use parlour_event::{content::Membership, json, redaction};
use parlour_storage::{
    Direction,
    schema::{StoredEvent, keys},
};
use serde_json::value::RawValue;

use super::{Fields, Reader, Seen, ViewError};

impl Reader {
    /// What is left of an event's content for this reader, where its sender has been erased.
    ///
    /// State stays as it is, except for what a user has said about itself: a room goes on with
    /// the rules and the encryption that it has.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub(crate) fn rest_of_erased(
        &mut self,
        fields: &Fields<'_>,
        seen: Seen,
    ) -> Result<Option<Box<RawValue>>, ViewError> {
        let is_own = fields.is_member_event_of(&fields.sender) || fields.state_key.is_none();
        if seen.membership == Some(Membership::Join)
            || !is_own
            || !self.is_erased(&fields.sender)?
        {
            return Ok(None);
        }
        let version = self.room().version;
        let Ok(mut content) = json::parse_object(version, fields.content.get().as_bytes()) else {
            return Ok(None);
        };
        redaction::redact_content(version, &fields.event_type, &mut content);
        Ok(serde_json::value::to_raw_value(&content).ok())
    }

    /// The content of an event of a room's state, as far as the reader may know it. Nothing is
    /// looked up for it unless its sender has been erased.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn state_content<'a>(
        &mut self,
        event: &StoredEvent,
        fields: &Fields<'a>,
    ) -> Result<Cow<'a, RawValue>, ViewError> {
        if !fields.is_member_event_of(&fields.sender) || !self.is_erased(&fields.sender)? {
            return Ok(Cow::Borrowed(fields.content));
        }
        let seen = self.judge(event)?;
        let rest = self.rest_of_erased(fields, seen)?;
        Ok(rest.map_or(Cow::Borrowed(fields.content), Cow::Owned))
    }

    fn is_erased(&mut self, user: &str) -> Result<bool, ViewError> {
        if !self.anybody_erased()? {
            return Ok(false);
        }
        if let Some(known) = self.erased.get(user) {
            return Ok(*known);
        }
        let is_erased = self.view().store.get(&keys::erased(user))?.is_some();
        self.erased.insert(user.to_owned(), is_erased);
        Ok(is_erased)
    }

    /// Most servers have nobody who was: then not each member of a large room is looked up.
    fn anybody_erased(&mut self) -> Result<bool, ViewError> {
        if let Some(known) = self.anybody_erased {
            return Ok(known);
        }
        let first = self.view().store.scan_prefix(&[keys::ERASED], Direction::Forward, 1)?;
        self.anybody_erased = Some(!first.is_empty());
        Ok(!first.is_empty())
    }
}
