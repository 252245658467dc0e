//! The numbers that only room versions 1 to 5 let through.

use std::fmt;

use super::Value;

/// An integer beyond `i64`, kept as its decimal digits.
///
/// Nothing is ever computed with it; it only has to be written again as it was read, since the
/// event's hash was made from all its digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BigInteger(Box<str>);

impl BigInteger {
    /// `digits` is an optional minus sign and digits without leading zeros: the parser's grammar.
    pub(super) fn from_checked(digits: &str) -> Self {
        Self(digits.into())
    }

    /// The digits, with a minus sign before them if it is negative.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BigInteger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Takes a number over from `serde_json`, which holds `i64`, `u64` and finite `f64`.
pub(super) fn from_serde(number: &serde_json::Number) -> Value {
    if let Some(integer) = number.as_i64() {
        Value::Integer(integer)
    } else if let Some(integer) = number.as_u64() {
        Value::BigInteger(BigInteger(integer.to_string().into()))
    } else {
        Value::Float(number.as_f64().unwrap_or_default())
    }
}

/// Writes a float as Python's `repr` does, since the events with floats that exist were hashed
/// by Synapse: shortest digits that read back the same, an exponent below 1e-4 and from 1e16 on,
/// and always a sign that it is no integer.
pub(super) fn write_float(number: f64, out: &mut Vec<u8>) {
    // Rust's shortest digits are the same as Python's; only the layout differs.
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        out.extend_from_slice(plain.as_bytes());
        if !plain.contains('.') {
            out.extend_from_slice(b".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("{digits}e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
    }
}
