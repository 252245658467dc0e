use crate::json::Value;
use crate::version::RoomVersion;

/// The largest integer of canonical JSON, 2^53 - 1, which limits power levels as well.
const MAX_SAFE: i64 = (1 << 53) - 1;

/// What counts as a power level: an integer; up to room version 9 also a string with an integer in
/// it; up to room version 5 also a number with a fraction, which is cut off.
///
/// Room versions 1 to 5 know no limit. Levels beyond an `i64` become the nearest `i64`, so they
/// still compare rightly with every level that means anything.
pub(crate) fn parse_level(version: &RoomVersion, value: &Value) -> Option<i64> {
    let rules = &version.rules().authorization;
    let level = match value {
        Value::Integer(level) => *level,
        Value::String(text) if !rules.integer_power_levels => parse_text(text)?,
        Value::BigInteger(number) if !rules.strict_canonical_json => parse_text(number.as_str())?,
        Value::Float(number) if !rules.strict_canonical_json && number.is_finite() => {
            #[expect(clippy::cast_possible_truncation, reason = "saturates, as described")]
            let level = number.trunc() as i64;
            level
        }
        _ => return None,
    };
    if rules.strict_canonical_json && !(-MAX_SAFE..=MAX_SAFE).contains(&level) {
        return None;
    }
    Some(level)
}

/// Blanks, one sign, zeros and digits; nothing else.
fn parse_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Only digits are left, so the one thing that can fail is the size.
    let size = digits.parse::<i64>().unwrap_or(i64::MAX);
    Some(if negative { -size } else { size })
}
