//! Reading JSON.
//!
//! Our own parser, since the rules are about how numbers are written (`1.0`, `1e3`, `-0` and
//! integers of any length), which `serde_json` no longer knows once it has read them.

use super::{BigInteger, Object, Value};
use crate::RoomVersion;

mod number;
mod string;

/// The deepest nesting of arrays and objects that is read. Deeper input is refused, so that no
/// recursion over a value can exhaust the stack.
pub const MAX_DEPTH: usize = 100;

/// The largest integer of canonical JSON: 2^53 - 1. The smallest is its negative.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// Why bytes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are no JSON at all: `M_NOT_JSON` towards a client.
    #[error("not JSON at byte {at}: {what}")]
    NotJson {
        /// Offset of the offending byte.
        at: usize,
        /// What was found or missing there.
        what: &'static str,
    },
    /// The bytes are JSON, but not what is allowed here: `M_BAD_JSON` towards a client.
    #[error("JSON that is not allowed here, at byte {at}: {what}")]
    NotAllowed {
        /// Offset of the end of the offending value; 0 if it was checked after parsing.
        at: usize,
        /// Which rule is broken.
        what: NotAllowed,
    },
}

/// The rules that well-formed JSON can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// A fraction or an exponent in a strict room, even if the value is a whole number.
    #[error("a number with a fraction or an exponent")]
    Fraction,
    /// `-0` in a strict room.
    #[error("negative zero")]
    NegativeZero,
    /// An integer outside ±(2^53 - 1) in a strict room.
    #[error("an integer beyond 2^53 - 1")]
    IntegerRange,
    /// A number beyond 64-bit floats, or an integer of more than 4,300 digits: Python, in which
    /// the lax room versions were defined, refuses these too.
    #[error("a number that is too large")]
    TooLarge,
    /// A `\u` escape of half a surrogate pair, which no UTF-8 can express.
    #[error("a lone surrogate")]
    LoneSurrogate,
    /// More than [`MAX_DEPTH`] arrays and objects in each other.
    #[error("nested more than 100 levels deep")]
    TooDeep,
    /// Something else than an object where one must be.
    #[error("not an object")]
    NotAnObject,
}

/// How numbers are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Canonical JSON enforced: room versions from 6 on.
    Strict,
    /// As Python reads them: room versions 1 to 5.
    Lax,
    /// As the examples of the appendix: whole numbers become integers however they are written.
    Normalised,
}

/// Reads JSON under the rules of room versions 6 and later: integers within ±(2^53 - 1), never a
/// fraction, an exponent (`1.0` and `1e3` are refused, whole or not) or a negative zero.
///
/// Of duplicate keys the last wins, as in `serde_json` and Python.
///
/// # Errors
///
/// [`JsonError::NotJson`] if it is not JSON, else [`JsonError::NotAllowed`].
pub fn parse_strict(bytes: &[u8]) -> Result<Value, JsonError> {
    Parser::run(bytes, Numbers::Strict)
}

/// Reads JSON under the rules of room versions 1 to 5: every finite number, `-0` reads as 0.
///
/// Of duplicate keys the last wins, as in `serde_json` and Python.
///
/// # Errors
///
/// As [`parse_strict`].
pub fn parse_lax(bytes: &[u8]) -> Result<Value, JsonError> {
    Parser::run(bytes, Numbers::Lax)
}

/// Reads JSON under the rules of a room version.
///
/// # Errors
///
/// As [`parse_strict`].
pub fn parse(version: &RoomVersion, bytes: &[u8]) -> Result<Value, JsonError> {
    if version.rules().authorization.strict_canonical_json {
        parse_strict(bytes)
    } else {
        parse_lax(bytes)
    }
}

/// Reads an object, such as an event, under the rules of a room version.
///
/// # Errors
///
/// As [`parse_strict`]; any other JSON is [`NotAllowed::NotAnObject`].
pub fn parse_object(version: &RoomVersion, bytes: &[u8]) -> Result<Object, JsonError> {
    match parse(version, bytes)? {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotAllowed { at: bytes.len(), what: NotAllowed::NotAnObject }),
    }
}

/// Brings any JSON into canonical form, as the examples of the appendix do: whole numbers are
/// written as integers however they came (`-0` as `0`, `1e10` as `10000000000`).
///
/// Not for events, where the way in which a number was written counts.
///
/// # Errors
///
/// As [`parse_strict`]; a number that is no whole number within ±(2^53 - 1) is refused.
pub fn canonicalise(bytes: &[u8]) -> Result<Vec<u8>, JsonError> {
    Parser::run(bytes, Numbers::Normalised).map(|value| super::to_canonical(&value))
}

/// Checks that a value that was not made by [`parse_strict`] keeps its rules.
///
/// # Errors
///
/// [`JsonError::NotAllowed`], with 0 as the place.
pub fn check_strict(value: &Value) -> Result<(), JsonError> {
    check_strict_below(value, 0)
}

/// [`check_strict`] for a value around which there will be `outer` more arrays or objects: what
/// is written must be within the depth that is read.
pub(crate) fn check_strict_below(value: &Value, outer: usize) -> Result<(), JsonError> {
    check_strict_within(value, MAX_DEPTH.saturating_sub(outer))
        .map_err(|what| JsonError::NotAllowed { at: 0, what })
}

fn check_strict_within(value: &Value, levels: usize) -> Result<(), NotAllowed> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Integer(number) if number.unsigned_abs() <= MAX_INTEGER.unsigned_abs() => Ok(()),
        Value::Integer(_) | Value::BigInteger(_) => Err(NotAllowed::IntegerRange),
        Value::Float(_) => Err(NotAllowed::Fraction),
        Value::Array(elements) => {
            let levels = levels.checked_sub(1).ok_or(NotAllowed::TooDeep)?;
            elements.iter().try_for_each(|element| check_strict_within(element, levels))
        }
        Value::Object(members) => {
            let levels = levels.checked_sub(1).ok_or(NotAllowed::TooDeep)?;
            members.values().try_for_each(|member| check_strict_within(member, levels))
        }
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many more levels may be opened.
    levels: usize,
    numbers: Numbers,
}

impl<'a> Parser<'a> {
    fn run(bytes: &'a [u8], numbers: Numbers) -> Result<Value, JsonError> {
        let mut parser = Self { bytes, at: 0, levels: MAX_DEPTH, numbers };
        parser.skip_space();
        let value = parser.value()?;
        parser.skip_space();
        if parser.at < bytes.len() {
            return Err(parser.not_json("something after the value"));
        }
        Ok(value)
    }

    fn not_json(&self, what: &'static str) -> JsonError {
        JsonError::NotJson { at: self.at, what }
    }

    fn not_allowed(&self, what: NotAllowed) -> JsonError {
        JsonError::NotAllowed { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The bytes from `start` to the current place.
    fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Value::Bool(true)),
            Some(b'f') => self.word(b"false", Value::Bool(false)),
            Some(b'n') => self.word(b"null", Value::Null),
            Some(_) => Err(self.not_json("a value must start here")),
            None => Err(self.not_json("the input ends where a value must start")),
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Result<Value, JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.not_json("a value must start here"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value, JsonError>,
    ) -> Result<Value, JsonError> {
        self.levels =
            self.levels.checked_sub(1).ok_or_else(|| self.not_allowed(NotAllowed::TooDeep))?;
        self.at += 1;
        let value = read(self)?;
        self.levels += 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        let mut elements = Vec::new();
        self.skip_space();
        if self.eat(b']') {
            return Ok(Value::Array(elements));
        }
        loop {
            self.skip_space();
            elements.push(self.value()?);
            self.skip_space();
            if self.eat(b']') {
                return Ok(Value::Array(elements));
            }
            if !self.eat(b',') {
                return Err(self.not_json("a comma or the array's end is missing"));
            }
        }
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        let mut members = Object::new();
        self.skip_space();
        if self.eat(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.not_json("a key must start here"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.eat(b':') {
                return Err(self.not_json("a colon is missing"));
            }
            self.skip_space();
            let value = self.value()?;
            members.insert(key, value);
            self.skip_space();
            if self.eat(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.eat(b',') {
                return Err(self.not_json("a comma or the object's end is missing"));
            }
        }
    }
}
