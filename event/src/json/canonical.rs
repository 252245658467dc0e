//! Writing canonical JSON.

use super::{Object, Value, number};

/// The canonical form of a value, as bytes of UTF-8.
///
/// Numbers that canonical JSON proper does not allow are written as Python's `json` writes them.
#[must_use]
pub fn to_canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_value(value, &mut out);
    out
}

/// The canonical form of a value, as text.
#[must_use]
pub fn to_canonical_string(value: &Value) -> String {
    String::from_utf8(to_canonical(value)).expect("text and ASCII were written")
}

/// Appends the canonical form of an object.
pub fn write_canonical(object: &Object, out: &mut Vec<u8>) {
    write_members(object.iter(), out);
}

/// Appends the canonical form of an object without the members named in `skip_keys`: hashing and
/// signing need the event without some fields, and this way no copy of it.
pub fn write_canonical_object_without(object: &Object, skip_keys: &[&str], out: &mut Vec<u8>) {
    write_members(object.iter().filter(|(key, _)| !skip_keys.contains(&key.as_str())), out);
}

fn write_members<'a>(members: impl Iterator<Item = (&'a String, &'a Value)>, out: &mut Vec<u8>) {
    let mut separator = b'{';
    for (key, value) in members {
        out.push(separator);
        separator = b',';
        write_string(key, out);
        out.push(b':');
        write_value(value, out);
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

/// Appends the canonical form of any value.
pub(crate) fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Integer(number) => write_integer(*number, out),
        Value::BigInteger(number) => out.extend_from_slice(number.as_str().as_bytes()),
        Value::Float(number) => number::write_float(*number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(elements) => write_array(elements, out),
        Value::Object(members) => write_canonical(members, out),
    }
}

fn write_array(elements: &[Value], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_value(element, out);
    }
    out.push(b']');
}

fn write_integer(number: i64, out: &mut Vec<u8>) {
    // 20 bytes hold the longest i64, sign included.
    let mut digits = [0_u8; 20];
    let mut rest = number.unsigned_abs();
    let mut start = digits.len();
    for (index, place) in digits.iter_mut().enumerate().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        start = index;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend(digits.iter().skip(start));
}

/// Appends a string in quotes, escaping only what must be escaped.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(plain) = rest.iter().position(|&byte| needs_escape(byte)) {
        let (before, from) = rest.split_at(plain);
        out.extend_from_slice(before);
        if let Some((&byte, after)) = from.split_first() {
            write_escape(byte, out);
            rest = after;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            let low = char::from_digit(u32::from(byte & 0xf), 16).unwrap_or('0');
            out.extend_from_slice(if byte < 0x10 { b"\\u000" } else { b"\\u001" });
            out.push(low as u8);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
