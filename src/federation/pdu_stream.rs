//! Answers with very many events: they are read from storage while they are being sent, so that a
//! room's size is not what an answer takes in memory.

use std::collections::VecDeque;

use actix_web::{HttpResponse, http::header};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use parlour_event::EventNum;

use crate::{
    error::ApiError,
    view::{View, ViewError, resident::wire_bytes},
};

/// How many events are read at once.
const BATCH: usize = 200;

/// A part of an answer.
#[derive(Debug)]
pub enum Part {
    /// JSON as it stands.
    Text(Bytes),
    /// Events in federation format, with commas between them.
    Events(Vec<EventNum>),
    /// Their ids as strings, with commas between them.
    Ids(Vec<EventNum>),
}

impl From<&'static str> for Part {
    fn from(text: &'static str) -> Self {
        Self::Text(Bytes::from_static(text.as_bytes()))
    }
}

/// The rest of an answer.
struct Rest {
    parts: VecDeque<Part>,
    /// Whether an element has been written since the last text.
    begun: bool,
}

/// An answer made of these parts. If storage cannot be read in the middle of it, the connection
/// breaks: half a state must not look like a whole one.
#[must_use]
pub fn answer(view: View, parts: Vec<Part>) -> HttpResponse {
    let rest = Rest { parts: parts.into(), begun: false };
    let body = try_unfold(rest, move |rest| {
        let view = view.clone();
        async move {
            if rest.parts.is_empty() {
                return Ok(None);
            }
            view.run(move |view| next(view, rest)).await.map(Some)
        }
    });
    let json = (header::CONTENT_TYPE, "application/json");
    HttpResponse::Ok().insert_header(json).streaming::<_, ApiError>(body)
}

/// The next chunk, and what comes after it.
fn next(view: &View, mut rest: Rest) -> Result<(Bytes, Rest), ViewError> {
    let Some(part) = rest.parts.pop_front() else { return Ok((Bytes::new(), rest)) };
    let (mut nums, as_ids) = match part {
        Part::Text(text) => {
            rest.begun = false;
            return Ok((text, rest));
        }
        Part::Events(nums) => (nums, false),
        Part::Ids(nums) => (nums, true),
    };
    let later = nums.split_off(nums.len().min(BATCH));
    if !later.is_empty() {
        rest.parts.push_front(if as_ids { Part::Ids(later) } else { Part::Events(later) });
    }
    let mut out = Vec::new();
    for event in view.store.events(&nums)?.into_iter().flatten() {
        if rest.begun {
            out.push(b',');
        }
        rest.begun = true;
        match as_ids {
            true => out.extend(quoted(&event.meta.event_id)),
            false => out.extend_from_slice(&wire_bytes(&event)?),
        }
    }
    Ok((out.into(), rest))
}

fn quoted(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}
