use super::text;
use crate::json::{Object, Value};

/// The longest type of relation, in bytes; others have the same limit as types of events.
const MAX_REL_TYPE: usize = 255;

/// The types of relations that servers know something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// `m.replace`: an edit.
    Replace,
    /// `m.annotation`: a reaction.
    Annotation,
    /// `m.thread`: a reply in a thread.
    Thread,
    /// `m.reference`
    Reference,
    /// Any other.
    Other,
}

impl From<&str> for RelationKind {
    fn from(text: &str) -> Self {
        match text {
            "m.replace" => Self::Replace,
            "m.annotation" => Self::Annotation,
            "m.thread" => Self::Thread,
            "m.reference" => Self::Reference,
            _ => Self::Other,
        }
    }
}

/// What an event is to another one: the `m.relates_to` of its content. A rich reply alone is no
/// relation, since it has no type.
///
/// Specification:
/// <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The `rel_type`.
    pub rel_type: &'a str,
    /// The `event_id` of the parent.
    pub parent: &'a str,
    /// The `key` of an annotation.
    pub key: Option<&'a str>,
}

impl<'a> Relation<'a> {
    /// The relation that a content names; `None` if there is none or it is malformed.
    #[must_use]
    pub fn of(content: &'a Object) -> Option<Self> {
        let Some(Value::Object(relates_to)) = content.get("m.relates_to") else { return None };
        let rel_type = text(relates_to, "rel_type").filter(|kind| kind.len() <= MAX_REL_TYPE)?;
        let parent = text(relates_to, "event_id")?;
        <&ruma::EventId>::try_from(parent).ok().filter(|id| id.as_bytes().len() <= 255)?;
        Some(Self { rel_type, parent, key: text(relates_to, "key") })
    }

    /// The type, if it is a known one.
    #[must_use]
    pub fn kind(&self) -> RelationKind {
        self.rel_type.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_relation_has_a_type_and_a_parent() {
        for (content, expected) in [
            (r#"{}"#, None),
            (r#"{"m.relates_to":[]}"#, None),
            (r#"{"m.relates_to":{"m.in_reply_to":{"event_id":"$a"}}}"#, None),
            (r#"{"m.relates_to":{"rel_type":"m.thread"}}"#, None),
            (r#"{"m.relates_to":{"rel_type":1,"event_id":"$a"}}"#, None),
            (r#"{"m.relates_to":{"rel_type":"m.thread","event_id":"a"}}"#, None),
            (r#"{"m.relates_to":{"rel_type":"x","event_id":"$a"}}"#, Some(("x", "$a", None))),
            (
                r#"{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a","key":"k"}}"#,
                Some(("m.annotation", "$a", Some("k"))),
            ),
        ] {
            let parsed = json::parse_strict(content.as_bytes()).expect("JSON");
            let found = parsed.as_object().and_then(Relation::of);
            let found = found.map(|found| (found.rel_type, found.parent, found.key));
            assert_eq!(found, expected, "{content}");
        }
    }
}
