//! How a filter wants events to look: `event_format` and `event_fields`.

use std::{borrow::Cow, collections::BTreeMap};

use parlour_storage::schema::StoredEvent;
use ruma::{
    api::client::filter::{EventFormat as Wanted, FilterDefinition},
    serde::Raw,
};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use crate::view::{EventFormat, Fields, Reader, Seen, View, ViewError};

/// What makes an event an event: these fields are there whatever the filter says.
const ALWAYS: [&str; 6] =
    ["content", "event_id", "origin_server_ts", "sender", "state_key", "type"];

/// See the module.
#[derive(Debug)]
pub(super) struct Shape {
    federation: bool,
    /// Paths of field names; `None` for all fields.
    fields: Option<Vec<Vec<String>>>,
}

impl Shape {
    pub(super) fn of(filter: &FilterDefinition) -> Self {
        let fields = filter.event_fields.as_ref();
        Self {
            federation: filter.event_format == Wanted::Federation,
            fields: fields.map(|fields| fields.iter().map(|field| path(field)).collect()),
        }
    }

    /// An event of a timeline.
    pub(super) fn timeline_event<T>(
        &self,
        reader: &mut Reader,
        event: &StoredEvent,
        fields: &Fields<'_>,
        seen: Seen,
    ) -> Result<Raw<T>, ViewError> {
        let json = match self.federation {
            true => {
                let rest = reader.rest_of_erased(fields, seen)?;
                Raw::from_json(federated(event, rest.as_deref())?)
            }
            false => reader.render(event, fields, seen, EventFormat::Sync)?,
        };
        self.cut(event, json)
    }

    /// An event of a state.
    pub(super) fn state_event<T>(
        &self,
        reader: &mut Reader,
        event: &StoredEvent,
    ) -> Result<Raw<T>, ViewError> {
        let json = match self.federation {
            true => {
                let content = reader.state_content(event, &Fields::of(event)?)?;
                Raw::from_json(federated(event, Some(&content))?)
            }
            false => reader.state_event(event, EventFormat::Sync)?,
        };
        self.cut(event, json)
    }

    /// An event of a room of which nothing else is here.
    pub(super) fn lone_event<T>(
        &self,
        view: &View,
        event: &StoredEvent,
    ) -> Result<Raw<T>, ViewError> {
        let json = match self.federation {
            true => Raw::from_json(federated(event, None)?),
            false => view.lone_event(event)?,
        };
        self.cut(event, json)
    }

    fn cut<T>(&self, event: &StoredEvent, json: Raw<T>) -> Result<Raw<T>, ViewError> {
        let Some(paths) = &self.fields else { return Ok(json) };
        let whole: Map<String, Value> = json
            .deserialize_as_unchecked()
            .map_err(|error: serde_json::Error| unreadable(event, error))?;
        let cut = to_raw_value(&cut(&whole, paths)).map_err(|error| unreadable(event, error))?;
        Ok(Raw::from_json(cut))
    }
}

/// The event as servers send it to each other, with its id, which is not in it from room version
/// 3 on and without which no client could make use of it, and perhaps with another content.
fn federated(event: &StoredEvent, content: Option<&RawValue>) -> Result<Box<RawValue>, ViewError> {
    let id = to_raw_value(&event.meta.event_id).map_err(|error| unreadable(event, error))?;
    let mut fields: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(&event.json).map_err(|error| unreadable(event, error))?;
    fields.insert("event_id".into(), &id);
    fields.extend(content.map(|content| ("content".into(), content)));
    to_raw_value(&fields).map_err(|error| unreadable(event, error))
}

fn unreadable(event: &StoredEvent, error: serde_json::Error) -> ViewError {
    ViewError::Event { event_id: event.meta.event_id.clone(), what: error.to_string() }
}

/// Splits a path at its dots; a backslash before a dot or a backslash makes it part of a name.
fn path(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let char = match char {
            '.' => {
                parts.push(String::new());
                continue;
            }
            '\\' => chars.next().unwrap_or('\\'),
            char => char,
        };
        if let Some(part) = parts.last_mut() {
            part.push(char);
        }
    }
    parts
}

fn cut(whole: &Map<String, Value>, paths: &[Vec<String>]) -> Map<String, Value> {
    let mut kept = Map::new();
    for path in paths {
        copy(whole, &mut kept, path);
    }
    for key in ALWAYS {
        if let Some(value) = whole.get(key)
            && !kept.contains_key(key)
        {
            let is_content = key == "content";
            let value = if is_content { Value::Object(Map::new()) } else { value.clone() };
            kept.insert(key.to_owned(), value);
        }
    }
    kept
}

/// Copies what a path leads to. Its depth is bounded by that of the event.
fn copy(from: &Map<String, Value>, to: &mut Map<String, Value>, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some(value) = from.get(first) else { return };
    if rest.is_empty() {
        to.insert(first.clone(), value.clone());
        return;
    }
    let Value::Object(inner) = value else { return };
    let entry = to.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(entry) = entry {
        copy(inner, entry, rest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_split_at_dots() {
        for (text, parts) in [
            ("type", vec!["type"]),
            ("content.body", vec!["content", "body"]),
            (r"content.m\.relates_to", vec!["content", "m.relates_to"]),
            (r"a\\.b", vec![r"a\", "b"]),
            (r"a\", vec![r"a\"]),
            ("", vec![""]),
        ] {
            assert_eq!(path(text), parts, "{text}");
        }
    }

    #[test]
    fn fields_are_kept_by_path() {
        let event = json!({ "type": "m.x", "sender": "@a:b", "event_id": "$e", "unsigned": { "age": 1 },
            "origin_server_ts": 1, "content": { "body": "text", "m.in": { "a": 1, "b": 2 }, "more": 3 } });
        let Value::Object(event) = event else { unreachable!() };
        let keep = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|text| path(text)).collect();
            Value::Object(cut(&event, &paths))
        };
        let with = |content: Value| {
            json!({ "type": "m.x", "sender": "@a:b", "event_id": "$e", "origin_server_ts": 1,
                "content": content })
        };
        assert_eq!(keep(&["content.body"]), with(json!({ "body": "text" })));
        assert_eq!(
            keep(&["content.body", r"content.m\.in.b", "content.body.deeper"]),
            with(json!({ "body": "text", "m.in": { "b": 2 } }))
        );
        assert_eq!(keep(&["type", "nothing.there"]), with(json!({})));
        assert_eq!(keep(&["unsigned"])["unsigned"]["age"], 1);
    }
}
