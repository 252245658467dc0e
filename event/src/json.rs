//! JSON as Matrix needs it: strict from room version 6, lax before, canonical always.
//!
//! Why not `serde_json::Value`: it keeps neither integers beyond 64 bits nor the difference
//! between `1` and `1.0` that strict rooms must refuse and lax rooms must hash as it was sent.
//!
//! Specification: <https://spec.matrix.org/v1.19/appendices/#canonical-json>

mod canonical;
mod number;
mod parse;

use std::collections::BTreeMap;

use serde::ser::{Error as _, Serialize, Serializer};

pub use self::{
    canonical::{
        to_canonical, to_canonical_string, write_canonical, write_canonical_object_without,
    },
    number::BigInteger,
    parse::{
        JsonError, MAX_DEPTH, MAX_INTEGER, NotAllowed, canonicalise, check_strict, parse,
        parse_lax, parse_object, parse_strict,
    },
};

pub(crate) use self::{
    canonical::{write_string, write_value},
    parse::check_strict_below,
};

/// A JSON object; `BTreeMap` orders keys by code point, which is the canonical order.
pub type Object = BTreeMap<String, Value>;

/// A JSON value.
///
/// ruma's `CanonicalJsonValue` cannot hold what room versions 1 to 5 allow (fractions and integers
/// beyond 2^53), so Parlour has its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer. Strict parsing limits it to ±(2^53 - 1).
    Integer(i64),
    /// An integer beyond `i64`: only room versions 1 to 5 let it through.
    BigInteger(BigInteger),
    /// A finite number with a fraction or an exponent: only room versions 1 to 5 let it through.
    Float(f64),
    /// A string
    String(String),
    /// An array
    Array(Vec<Value>),
    /// An object
    Object(Object),
}

/// How many bytes of memory an object takes beyond itself, roughly: `BTreeMap` takes room for eleven
/// members at once.
#[must_use]
pub fn memory_bytes(object: &Object) -> usize {
    const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 16;
    let of = |value: &Value| match value {
        Value::String(text) => text.capacity(),
        Value::Array(values) => {
            let arrays = |value: &Value| match value {
                Value::Object(object) => memory_bytes(object),
                Value::String(text) => text.capacity(),
                _ => 0,
            };
            values.capacity() * size_of::<Value>() + values.iter().map(arrays).sum::<usize>()
        }
        Value::Object(object) => memory_bytes(object),
        _ => 0,
    };
    let members = object.iter().map(|(key, value)| key.capacity() + of(value)).sum::<usize>();
    // Nodes are about two thirds full.
    object.len().div_ceil(7) * NODE + members
}

impl Value {
    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is an integer that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if this is an integer that fits and is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_i64().and_then(|number| u64::try_from(number).ok())
    }

    /// The truth value, if this is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members, if this is an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The members for changing, if this is an object.
    #[must_use]
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The member with this name, if this is an object that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.get(key)
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// What kind of value this is, for error messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::BigInteger(_) => "an integer",
            Self::Float(_) => "a number with a fraction or an exponent",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

macro_rules! from {
    ($($type:ty => |$value:ident| $expression:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $expression
            }
        }
    )*};
}

from! {
    bool => |value| Self::Bool(value);
    i64 => |value| Self::Integer(value);
    i32 => |value| Self::Integer(value.into());
    u32 => |value| Self::Integer(value.into());
    &str => |value| Self::String(value.to_owned());
    String => |value| Self::String(value);
    Vec<Value> => |value| Self::Array(value);
    Object => |value| Self::Object(value);
}

/// Takes a value over as it is: floats and integers beyond 2^53 stay, so what comes from outside
/// and must be strict needs [`check_strict`] afterwards.
impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(truth),
            serde_json::Value::Number(number) => number::from_serde(&number),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(elements) => {
                Self::Array(elements.into_iter().map(Self::from).collect())
            }
            serde_json::Value::Object(members) => Self::Object(
                members.into_iter().map(|(key, value)| (key, Self::from(value))).collect(),
            ),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Integer(number) => serializer.serialize_i64(*number),
            // Serde has no type for it; a raw value carries the digits through `serde_json`.
            Self::BigInteger(number) => {
                serde_json::value::RawValue::from_string(number.as_str().to_owned())
                    .map_err(S::Error::custom)?
                    .serialize(serializer)
            }
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(elements) => serializer.collect_seq(elements),
            Self::Object(members) => serializer.collect_map(members),
        }
    }
}
