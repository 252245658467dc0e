//! What is searched for, and from where on.

use std::{fmt, str::FromStr};

use parlour_event::{RoomNum, StreamPos};

use crate::view::TokenError;

/// How many words are searched for at most.
const MAX_WORDS: usize = 64;

/// Which text of which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `content.body` of `m.room.message`.
    Body,
    /// `content.name` of `m.room.name`.
    Name,
    /// The plain text of `m.room.topic`.
    Topic,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Body, Self::Name, Self::Topic];

    /// The type of the events that have it.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Body => "m.room.message",
            Self::Name => "m.room.name",
            Self::Topic => "m.room.topic",
        }
    }
}

/// In which order results come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What fits best.
    Rank,
    /// What is newest.
    Recent,
}

/// A part of all results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// Of one room.
    Room(RoomNum),
    /// By one sender.
    Sender(String),
}

/// Where a page of results begins: `f1_{until}_{offset}`, and behind that the group, if it is a
/// page of one. Results that came after the first page do not move the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchToken {
    /// Events until here are searched.
    pub until: StreamPos,
    /// How many entries of the index come before.
    pub offset: u64,
    /// Within which group.
    pub group: Option<Group>,
}

impl fmt::Display for SearchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f1_{}_{}", self.until, self.offset)?;
        match &self.group {
            None => Ok(()),
            Some(Group::Room(room)) => write!(f, "_r{}", room.0),
            Some(Group::Sender(user)) => write!(f, "_s{user}"),
        }
    }
}

impl FromStr for SearchToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.splitn(4, '_');
        if parts.next() != Some("f1") {
            return Err(TokenError::Unknown);
        }
        let number = |text: Option<&str>| {
            let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(TokenError::Unknown)
        };
        let (until, offset) = (number(parts.next())?, number(parts.next())?);
        let group = match parts.next().map(|group| group.split_at_checked(1)) {
            None => None,
            Some(Some(("r", room))) => Some(Group::Room(RoomNum(number(Some(room))?))),
            Some(Some(("s", user))) => Some(Group::Sender(user.to_owned())),
            Some(_) => return Err(TokenError::Unknown),
        };
        Ok(Self { until: StreamPos(until), offset, group })
    }
}

/// What a user typed, as an expression of the index: all words, and between quotes all in a row.
/// `None` if there is no word in it.
#[must_use]
pub fn expression(term: &str) -> Option<String> {
    // To SQLite an expression ends there.
    let term = term.replace('\0', " ");
    let mut phrases = Vec::new();
    for (number, part) in term.split('"').enumerate() {
        match number % 2 {
            0 => phrases.extend(part.split_whitespace()),
            _ => phrases.push(part.trim()),
        }
    }
    let words = phrases.into_iter().filter(|phrase| phrase.chars().any(char::is_alphanumeric));
    let quoted: Vec<_> = words.take(MAX_WORDS).map(|phrase| format!("\"{phrase}\"")).collect();
    if quoted.is_empty() { None } else { Some(quoted.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_and_phrases_kept() {
        for (term, expected) in [
            ("martians and men", Some(r#""martians" "and" "men""#)),
            (r#"say "hello  world" now"#, Some(r#""say" "hello  world" "now""#)),
            (r#"an "open end"#, Some(r#""an" "open end""#)),
            ("a* OR b:c NEAR(-x)", Some(r#""a*" "OR" "b:c" "NEAR(-x)""#)),
            ("é", Some("\"é\"")),
            ("", None),
            (" \" \" * -", None),
            ("a\0b", Some("\"a\" \"b\"")),
        ] {
            assert_eq!(expression(term).as_deref(), expected, "{term}");
        }
    }

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let user = Group::Sender("@a_b_c:x".to_owned());
        for group in [None, Some(Group::Room(RoomNum(7))), Some(user)] {
            let token = SearchToken { until: StreamPos(12), offset: 3, group };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for text in
            ["", "f1", "f1_1", "f1_1_", "f1_1_-2", "f1_1_2_", "f1_1_2_x3", "s1_1_2", "f1_1_2_r"]
        {
            assert_eq!(text.parse::<SearchToken>(), Err(TokenError::Unknown), "{text}");
        }
    }
}
