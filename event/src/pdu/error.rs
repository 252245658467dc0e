//! What can be wrong with the format of an event.

use crate::json::JsonError;

/// Why something is no valid event of its room version. Such an event is dropped when it comes
/// over federation, and is a client's error (`M_BAD_JSON`, `M_TOO_LARGE`) when it is our own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A required field is not there.
    #[error("the event has no `{field}`")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// A field has a type that the room version does not allow.
    #[error("`{field}` must be {expected}")]
    WrongType {
        /// The field's name.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// An identifier does not follow its grammar.
    #[error("`{field}` is not a valid identifier: {reason}")]
    BadIdentifier {
        /// The field that holds it.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A number lies outside its range.
    #[error("`{field}` is out of range")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
    },
    /// An array has too many elements.
    #[error("`{field}` has {count} entries, {limit} are allowed")]
    TooMany {
        /// The field's name.
        field: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A field of limited length is longer.
    #[error("`{field}` has {bytes} bytes, 255 are allowed")]
    FieldTooLong {
        /// The field's name.
        field: &'static str,
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// The whole event is larger than 65,536 bytes in canonical federation format.
    #[error("the event has {bytes} bytes, 65536 are allowed")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// The JSON breaks the rules of canonical JSON that apply.
    #[error(transparent)]
    Json(#[from] JsonError),
}

impl FormatError {
    /// Whether a size limit is what is exceeded: `M_TOO_LARGE` towards a client.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::FieldTooLong { .. })
    }
}
