//! How an event looks to a client.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>

use std::borrow::Cow;

use parlour_event::{EventNum, StreamPos, content::Membership, state::ReadState as _};
use parlour_storage::schema::StoredEvent;
use ruma::serde::Raw;
use serde::{Deserialize, Serialize};
use serde_json::{
    Deserializer,
    value::{RawValue, to_raw_value},
};

use super::{Reader, View, ViewError, bundle::Bundle, reader::Seen};

/// How much of an event the client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFormat {
    /// All of it: `ClientEvent`.
    Full,
    /// Without the room id, as in `/sync`.
    Sync,
}

/// The fields of a stored PDU that clients and filters look at, borrowed from its JSON.
#[derive(Debug, Clone, Deserialize)]
pub struct Fields<'a> {
    /// The type.
    #[serde(rename = "type", borrow)]
    pub event_type: Cow<'a, str>,
    /// The sender.
    #[serde(borrow)]
    pub sender: Cow<'a, str>,
    /// The content, unread.
    #[serde(borrow)]
    pub content: &'a RawValue,
    /// The state key, for a state event.
    #[serde(borrow, default)]
    pub state_key: Option<Cow<'a, str>>,
    /// Milliseconds since the epoch.
    pub origin_server_ts: u64,
    /// What a redaction redacts, in room versions 1 to 10.
    #[serde(borrow, default)]
    pub redacts: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// Reads the fields of a stored event.
    ///
    /// # Errors
    ///
    /// If it is not an event.
    pub fn of(event: &'a StoredEvent) -> Result<Self, ViewError> {
        serde_json::from_slice(&event.json).map_err(|error| unreadable(event, error))
    }

    /// Reads the content as a type.
    ///
    /// # Errors
    ///
    /// If the content is something else; it comes from anybody, so that is no fault of storage.
    pub fn content_as<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content.get())
    }

    /// What a redaction redacts, wherever its room version has that.
    fn any_redacts(&self) -> Option<Cow<'a, str>> {
        self.redacts.clone().or_else(|| self.inner_redacts())
    }

    fn inner_redacts(&self) -> Option<Cow<'a, str>> {
        self.content_as::<Redacts<'a>>().ok().and_then(|content| content.redacts)
    }

    /// Whether the event relates to another one.
    pub(super) fn relates(&self) -> bool {
        Relating::of(self).is_some()
    }

    /// Whether this is the member event of a user.
    #[must_use]
    pub fn is_member_event_of(&self, user: &str) -> bool {
        self.event_type == "m.room.member" && self.state_key.as_deref() == Some(user)
    }
}

fn unreadable(event: &StoredEvent, error: impl std::fmt::Display) -> ViewError {
    ViewError::Event { event_id: event.meta.event_id.clone(), what: error.to_string() }
}

/// An event as clients get it. The order of fields is that of the specification.
#[derive(Serialize)]
struct ClientEvent<'a> {
    content: Cow<'a, RawValue>,
    event_id: &'a str,
    origin_server_ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsigned: Option<Unsigned<'a>>,
}

#[derive(Serialize, Default)]
struct Unsigned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<i64>,
    #[serde(rename = "m.relations", skip_serializing_if = "Option::is_none")]
    relations: Option<Bundle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_content: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_because: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
}

/// An event as it goes into invites and knocks: four fields and no more.
#[derive(Serialize)]
struct Stripped<'a> {
    content: &'a RawValue,
    sender: &'a str,
    state_key: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
}

/// The part of a relation that is looked at here.
#[derive(Deserialize)]
pub(super) struct Relating<'a> {
    #[serde(borrow)]
    pub(super) rel_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) event_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RelatesTo<'a> {
    #[serde(rename = "m.relates_to", borrow)]
    relation: Relating<'a>,
}

impl<'a> Relating<'a> {
    /// What an event is to another one.
    pub(super) fn of(fields: &Fields<'a>) -> Option<Self> {
        fields.content_as::<RelatesTo<'a>>().ok().map(|content| content.relation)
    }
}

/// The `redacts` that a content may have from room version 11 on.
#[derive(Deserialize)]
struct Redacts<'a> {
    #[serde(borrow, default)]
    redacts: Option<Cow<'a, str>>,
}

impl Reader {
    /// An event as this reader gets it in a timeline. `seen` is what [`Reader::judge`] said of it.
    ///
    /// # Errors
    ///
    /// If storage cannot be read or the event is not one.
    pub fn client_event<T>(
        &mut self,
        event: &StoredEvent,
        seen: Seen,
        format: EventFormat,
    ) -> Result<Raw<T>, ViewError> {
        self.render(event, &Fields::of(event)?, seen, format)
    }

    /// The same, where the event's fields have been read already. Of its children it tells if it
    /// has been looked up by [`Reader::note_parents`].
    ///
    /// # Errors
    ///
    /// As [`Reader::client_event`].
    pub fn render<T>(
        &mut self,
        event: &StoredEvent,
        fields: &Fields<'_>,
        seen: Seen,
        format: EventFormat,
    ) -> Result<Raw<T>, ViewError> {
        let relations = self.bundle(event, fields, format, true)?;
        self.rendered(event, fields, seen, format, relations).map(Raw::from_json)
    }

    /// The same, with these aggregations of its children.
    pub(super) fn rendered(
        &mut self,
        event: &StoredEvent,
        fields: &Fields<'_>,
        seen: Seen,
        format: EventFormat,
        relations: Option<Bundle>,
    ) -> Result<Box<RawValue>, ViewError> {
        let mut unsigned = self.plain_unsigned(event, fields, format)?;
        unsigned.relations = relations;
        unsigned.membership = seen.membership.map(Membership::as_str);
        if let Some(replaced) = self.replaced(event)? {
            // What it said is told only to those who may see the earlier event itself; what became
            // of themselves, an invite, say, they have been told anyway.
            let seen = self.judge_replaced(&replaced, event)?;
            let fields = Fields::of(&replaced)?;
            let is_own = || fields.is_member_event_of(self.user());
            if seen.visible || replaced.meta.flags.is_visible() && is_own() {
                let rest = self.rest_of_erased(&fields, seen)?;
                unsigned.prev_content = Some(rest.unwrap_or_else(|| fields.content.to_owned()));
            }
            unsigned.replaces_state = Some(replaced.meta.event_id);
        }
        let rest = self.rest_of_erased(fields, seen)?;
        let content = rest.as_deref().unwrap_or(fields.content);
        let fields = Fields { content, ..fields.clone() };
        render(event, &fields, unsigned, self.room_id(), format)
    }

    /// An event as part of a room's state. It comes without those fields of `unsigned` that would
    /// need a look into the state around it: in a large room that is a state for each member.
    ///
    /// # Errors
    ///
    /// As [`Reader::client_event`].
    pub fn state_event<T>(
        &mut self,
        event: &StoredEvent,
        format: EventFormat,
    ) -> Result<Raw<T>, ViewError> {
        let fields = Fields::of(event)?;
        let unsigned = self.plain_unsigned(event, &fields, format)?;
        let content = self.state_content(event, &fields)?;
        let fields = Fields { content: &content, ..fields.clone() };
        Ok(Raw::from_json(render(event, &fields, unsigned, self.room_id(), format)?))
    }

    /// What needs no look into states.
    fn plain_unsigned<'a>(
        &mut self,
        event: &'a StoredEvent,
        fields: &Fields<'_>,
        format: EventFormat,
    ) -> Result<Unsigned<'a>, ViewError> {
        let redacted_because = self.redaction_of(event, format)?;
        Ok(Unsigned { redacted_because, ..self.own(event, fields) })
    }

    /// What is known from the event alone.
    fn own<'a>(&self, event: &'a StoredEvent, fields: &Fields<'_>) -> Unsigned<'a> {
        let transaction = event.meta.transaction.as_ref().filter(|sent| {
            self.user() == fields.sender && self.device() == Some(sent.device.as_str())
        });
        Unsigned {
            age: Some(self.view().age(fields)),
            transaction_id: transaction.map(|sent| sent.txn_id.as_str()),
            ..Unsigned::default()
        }
    }

    /// The redaction that was applied to an event. It does not tell by what it was redacted
    /// itself: redactions of redactions may go on for ever. Who may not see it learns only that
    /// it is there, so that clients know why the event is empty.
    fn redaction_of(
        &mut self,
        event: &StoredEvent,
        format: EventFormat,
    ) -> Result<Option<Box<RawValue>>, ViewError> {
        let Some(num) = event.meta.redacted_because else { return Ok(None) };
        let Some(redaction) = self.view().store.event(num)? else { return Ok(None) };
        let seen = self.judge(&redaction)?;
        let mut fields = Fields::of(&redaction)?;
        if !seen.visible {
            fields.redacts = fields.any_redacts();
            fields.content = Deserialize::deserialize(&mut Deserializer::from_str("{}"))
                .map_err(|error| unreadable(&redaction, error))?;
        }
        let membership = seen.membership.map(Membership::as_str);
        let unsigned = Unsigned { membership, ..self.own(&redaction, &fields) };
        render(&redaction, &fields, unsigned, self.room_id(), format).map(Some)
    }

    /// The state event that a state event took the place of.
    fn replaced(&self, event: &StoredEvent) -> Result<Option<StoredEvent>, ViewError> {
        let Some(key) = event.meta.state_key else { return Ok(None) };
        match self.view().nodes.get(event.meta.state_before, key)? {
            Some(num) => Ok(self.view().store.event(num)?),
            None => Ok(None),
        }
    }
}

impl View {
    /// The event, with its position, that this one has redacted.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn redacted_by(
        &self,
        event: &StoredEvent,
        fields: &Fields<'_>,
    ) -> Result<Option<(EventNum, StreamPos)>, ViewError> {
        if fields.event_type != "m.room.redaction" {
            return Ok(None);
        }
        let Some(target) = fields.any_redacts() else { return Ok(None) };
        let Some(num) = self.store.event_num(&target)? else { return Ok(None) };
        let meta = self.store.event_meta(num)?;
        let meta = meta.filter(|meta| meta.redacted_because == Some(event.num));
        Ok(meta.map(|meta| (num, meta.pos)))
    }

    /// How long ago an event was made, in milliseconds, as far as clocks agree.
    fn age(&self, fields: &Fields<'_>) -> i64 {
        self.age_of(fields.origin_server_ts)
    }

    /// How long a time is ago, in milliseconds.
    pub(super) fn age_of(&self, origin_server_ts: u64) -> i64 {
        let now = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX);
        now.saturating_sub(i64::try_from(origin_server_ts).unwrap_or(i64::MAX))
    }

    /// An event of a room that this server is not in, as part of a timeline: nothing around it is
    /// known.
    ///
    /// # Errors
    ///
    /// If the event is not one.
    pub fn lone_event<T>(&self, event: &StoredEvent) -> Result<Raw<T>, ViewError> {
        let fields = Fields::of(event)?;
        let unsigned = Unsigned { age: Some(self.age(&fields)), ..Unsigned::default() };
        render(event, &fields, unsigned, "", EventFormat::Sync).map(Raw::from_json)
    }

    /// A state event as it goes into an invite or a knock.
    ///
    /// # Errors
    ///
    /// If the event is not one.
    pub fn stripped<T>(&self, event: &StoredEvent) -> Result<Raw<T>, ViewError> {
        let fields = Fields::of(event)?;
        let stripped = Stripped {
            content: fields.content,
            sender: &fields.sender,
            state_key: fields.state_key.as_deref().unwrap_or_default(),
            event_type: &fields.event_type,
        };
        let json = to_raw_value(&stripped).map_err(|error| unreadable(event, error))?;
        Ok(Raw::from_json(json))
    }
}

/// Puts the parts together. `redacts` goes to both places, whatever the room version, since
/// clients know one or the other.
fn render<'a>(
    event: &'a StoredEvent,
    fields: &'a Fields<'_>,
    unsigned: impl Into<Option<Unsigned<'a>>>,
    room_id: &str,
    format: EventFormat,
) -> Result<Box<RawValue>, ViewError> {
    let mut content = Cow::Borrowed(fields.content);
    let mut redacts = None;
    if fields.event_type == "m.room.redaction" {
        redacts = fields.any_redacts();
        if let (Some(redacts), None) = (&redacts, fields.inner_redacts()) {
            let both = with_redacts(fields.content, redacts);
            content = Cow::Owned(both.map_err(|error| unreadable(event, error))?);
        }
    }
    let client_event = ClientEvent {
        content,
        event_id: &event.meta.event_id,
        origin_server_ts: fields.origin_server_ts,
        redacts: redacts.as_deref(),
        room_id: (format == EventFormat::Full).then_some(room_id),
        sender: &fields.sender,
        state_key: fields.state_key.as_deref(),
        event_type: &fields.event_type,
        unsigned: unsigned.into(),
    };
    to_raw_value(&client_event).map_err(|error| unreadable(event, error))
}

/// An event in the format of `/sync`, without `unsigned`: that part is the same for all who see it.
#[derive(Debug)]
pub(super) struct Common {
    /// Without the brace at its end.
    open: String,
}

impl Common {
    pub(super) fn of(event: &StoredEvent, fields: &Fields<'_>) -> Result<Self, ViewError> {
        let mut open = String::from(render(event, fields, None, "", EventFormat::Sync)?.get());
        open.pop();
        Ok(Self { open })
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The event for somebody who was joined to the room when it was sent.
    pub(super) fn addressed<T>(
        &self,
        age: i64,
        transaction_id: Option<&str>,
    ) -> serde_json::Result<Raw<T>> {
        let membership = Some(Membership::Join.as_str());
        let unsigned =
            Unsigned { age: Some(age), membership, transaction_id, ..Unsigned::default() };
        let unsigned = serde_json::to_string(&unsigned)?;
        let whole = format!("{},\"unsigned\":{unsigned}}}", self.open);
        Ok(Raw::from_json(RawValue::from_string(whole)?))
    }
}

fn with_redacts(content: &RawValue, redacts: &str) -> serde_json::Result<Box<RawValue>> {
    let mut content: std::collections::BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(content.get())?;
    let redacts = to_raw_value(redacts)?;
    content.insert("redacts".into(), &redacts);
    to_raw_value(&content)
}
