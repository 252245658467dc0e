//! Reading bodies: bounded in size, time and depth.

use std::{borrow::Cow, collections::HashMap, fmt, time::Duration};

use actix_web::{
    dev::Payload,
    http::header::{self, HeaderMap},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use parlour_actors::budget::Part;
use ruma::api::error::ErrorCode;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::ApiError;

/// How deep JSON may be nested. Canonical JSON and everything after it may recurse this deep.
const MAX_DEPTH: u8 = 100;

/// How long a body may take to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What a byte of a body takes until its request is answered: as it came, parsed, and on its way to
/// the log.
const COPIES: u64 = 3;

/// What clients are told to wait when there is no memory for their requests.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reads the whole body, for which there must be memory.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: Payload,
    max: usize,
    taken: &mut Part,
) -> Result<Bytes, ApiError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large(max));
    }
    match actix_web::rt::time::timeout(READ_TIMEOUT, collect(payload, max, taken)).await {
        Ok(body) => body,
        Err(_) => Err(ApiError::new(
            actix_web::http::StatusCode::REQUEST_TIMEOUT,
            ErrorCode::Unknown,
            "The request's body took too long to arrive",
        )),
    }
}

async fn collect(mut payload: Payload, max: usize, taken: &mut Part) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(
                actix_web::http::StatusCode::BAD_REQUEST,
                ErrorCode::Unknown,
                format!("The request's body could not be read: {error}"),
            )
        })?;
        if chunk.len() > max.saturating_sub(body.len()) {
            return Err(too_large(max));
        }
        if !taken.grow(COPIES * chunk.len() as u64) {
            return Err(ApiError::limit_exceeded(RETRY_AFTER));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn too_large(max: usize) -> ApiError {
    ApiError::too_large(format!("The request's body is longer than {max} bytes"))
}

/// Checks that a body is a JSON object and not nested too deeply, before any type sees it: so
/// that broken JSON is `M_NOT_JSON` even where its beginning already has the wrong shape, and
/// that parts which types keep unparsed are known to be sound.
pub(super) fn check_json(body: &[u8]) -> Result<(), ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let is_object = Sound { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    if is_object { Ok(()) } else { Err(ApiError::bad_json("The body must be a JSON object")) }
}

/// Checks that an object has a key.
pub(super) fn check_key(body: &[u8], key: &str) -> Result<(), ApiError> {
    let fields: HashMap<Cow<'_, str>, IgnoredAny> = serde_json::from_slice(body)?;
    if fields.contains_key(key) {
        return Ok(());
    }
    Err(ApiError::bad_json(format!("missing field `{key}`")))
}

/// Walks any JSON value; says whether it is an object.
#[derive(Clone, Copy)]
struct Sound {
    depth: u8,
}

impl Sound {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        while map.next_key_seed(inner)?.is_some() {
            map.next_value_seed(inner)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_checked_before_any_type_sees_it() {
        let deep = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let (at_limit, too_deep, absurd) = (deep(100), deep(101), deep(100_000));
        let cases: &[(&[u8], Option<ErrorCode>)] = &[
            (b"{}", None),
            (br#"{"a":[1,-1,1.5,null,true,"x",{"b":{}}]}"#, None),
            (at_limit.as_bytes(), None),
            (too_deep.as_bytes(), Some(ErrorCode::BadJson)),
            (absurd.as_bytes(), Some(ErrorCode::BadJson)),
            (b"[]", Some(ErrorCode::BadJson)),
            (b"\"text\"", Some(ErrorCode::BadJson)),
            (b"", Some(ErrorCode::NotJson)),
            (b"{", Some(ErrorCode::NotJson)),
            (b"{}{}", Some(ErrorCode::NotJson)),
            (b"{\"a\":1,}", Some(ErrorCode::NotJson)),
            (b"{\"a\":\"\xff\"}", Some(ErrorCode::NotJson)),
            (br#"{"a":"\ud800"}"#, Some(ErrorCode::NotJson)),
            (b"{\"a\":1e999}", Some(ErrorCode::NotJson)),
            (b"user=alice", Some(ErrorCode::NotJson)),
        ];
        for (body, errcode) in cases {
            let seen = check_json(body).err().and_then(|error| error.errcode().cloned());
            assert_eq!(
                seen,
                *errcode,
                "{}",
                String::from_utf8_lossy(body.get(..40).unwrap_or(body))
            );
        }
    }
}
