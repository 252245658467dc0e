//! Pagination tokens: places in the history that clients hand back to us.
//!
//! Clients must not look into them; the first two characters say which kind and which version of
//! it a token is, so that what is inside can change without breaking clients that hold old ones.
//!
//! | text | token |
//! |---|---|
//! | `s2_{pos}_{typing}_{presence}` | [`SyncToken`]: `next_batch` and `prev_batch` of `/sync` |
//! | `s3_{pos}_{typing}_{presence}_{inbox}` | the same, while messages for the device wait |
//! | `s1_{pos}_{typing}` | the same, as it was before presence; it is still read |
//! | `g1_{depth}_{pos}` | [`GraphToken`]: `start` and `end` of `/messages` and `/context`, `/relations` |
//! | `t1_{depth}_{event}` | [`ThreadsToken`]: `next_batch` of `/threads` |
//!
//! The first two kinds are accepted wherever history is paged
//! ([`View::graph_point`](super::View::graph_point)); `since` takes a [`SyncToken`] only, and
//! `/threads`, which has an order of its own, a [`ThreadsToken`] only.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use parlour_event::{EventNum, StreamPos};
use parlour_storage::{
    Direction,
    schema::{GraphPlace, NumberedPlace},
};

use crate::error::ApiError;

/// A moment in the stream of everything. What is at or before `pos` has been seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SyncToken {
    /// The last position that has been seen.
    pub pos: StreamPos,
    /// The last change of typing that has been seen; its counter lives in memory.
    pub typing: u64,
    /// The last change of presence that has been seen; its counter lives in memory, too.
    pub presence: u64,
    /// The last message for the device that has been seen, if others that had come by then have
    /// not: there were too many for one answer.
    pub inbox: Option<StreamPos>,
}

/// A place between two events of one room's history: events at or before `(depth, pos)` are on its
/// older side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GraphToken {
    /// Depth, as [`EventMeta`](parlour_storage::schema::EventMeta::depth) has it.
    pub depth: u64,
    /// Position of arrival, which orders events of the same depth.
    pub pos: StreamPos,
}

/// A thread in the list of a room's threads, by its latest reply. What is behind it comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThreadsToken(pub NumberedPlace);

/// Any token that pages through history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Token {
    /// From `/sync`.
    Sync(SyncToken),
    /// From `/messages` or `/context`.
    Graph(GraphToken),
}

/// Somebody's text that is no token of ours, or not of the kind that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not one of ours, or of a version that this server no longer knows.
    #[error("This is not a token of this server")]
    Unknown,
    /// A token, but one that pages through a room.
    #[error("This token does not come from /sync")]
    NotFromSync,
}

impl SyncToken {
    /// The moment at a position, with no regard to typing and presence.
    #[must_use]
    pub fn at(pos: StreamPos) -> Self {
        Self { pos, ..Self::default() }
    }
}

impl GraphToken {
    /// The place just behind an event, on its newer side.
    #[must_use]
    pub fn after(depth: u64, pos: StreamPos) -> Self {
        Self { depth, pos }
    }

    /// The place just before an event, on its older side.
    #[must_use]
    pub fn before(depth: u64, pos: StreamPos) -> Self {
        match pos.0.checked_sub(1) {
            Some(pos) => Self { depth, pos: StreamPos(pos) },
            None => Self { depth: depth.saturating_sub(1), pos: StreamPos(u64::MAX) },
        }
    }

    /// The place on the far side of an event.
    #[must_use]
    pub fn beyond((depth, pos): GraphPlace, direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self::after(depth, pos),
            Direction::Backward => Self::before(depth, pos),
        }
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.split('_');
        let kind = parts.next();
        let mut number = || parts.next().and_then(number_of).ok_or(TokenError::Unknown);
        let (first, second) = (number()?, number()?);
        let token = match kind {
            Some("s2") => {
                let (pos, typing) = (StreamPos(first), second);
                Self::Sync(SyncToken { pos, typing, presence: number()?, inbox: None })
            }
            Some("s3") => {
                let (pos, typing, presence) = (StreamPos(first), second, number()?);
                let inbox = Some(StreamPos(number()?));
                Self::Sync(SyncToken { pos, typing, presence, inbox })
            }
            Some("s1") => {
                let (pos, typing) = (StreamPos(first), second);
                Self::Sync(SyncToken { pos, typing, presence: 0, inbox: None })
            }
            Some("g1") => Self::Graph(GraphToken { depth: first, pos: StreamPos(second) }),
            _ => return Err(TokenError::Unknown),
        };
        if parts.next().is_some() { Err(TokenError::Unknown) } else { Ok(token) }
    }
}

impl FromStr for SyncToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        match text.parse()? {
            Token::Sync(token) => Ok(token),
            Token::Graph(_) => Err(TokenError::NotFromSync),
        }
    }
}

impl FromStr for ThreadsToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let numbers = text.strip_prefix("t1_").ok_or(TokenError::Unknown)?;
        let numbers: Option<Vec<_>> = numbers.split('_').map(number_of).collect();
        match numbers.as_deref() {
            Some([depth, event]) => Ok(Self((*depth, EventNum(*event)))),
            _ => Err(TokenError::Unknown),
        }
    }
}

/// Digits alone: `u64::from_str` would take a `+`, and leading zeros would give one place two names.
fn number_of(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if plain && canonical { text.parse().ok() } else { None }
}

impl Display for SyncToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { pos, typing, presence, inbox } = self;
        match inbox {
            None => write!(f, "s2_{pos}_{typing}_{presence}"),
            Some(inbox) => write!(f, "s3_{pos}_{typing}_{presence}_{inbox}"),
        }
    }
}

impl Display for GraphToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "g1_{}_{}", self.depth, self.pos)
    }
}

impl Display for ThreadsToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self((depth, event)) = self;
        write!(f, "t1_{depth}_{event}")
    }
}

impl Display for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync(token) => token.fmt(f),
            Self::Graph(token) => token.fmt(f),
        }
    }
}

impl From<SyncToken> for Token {
    fn from(token: SyncToken) -> Self {
        Self::Sync(token)
    }
}

impl From<GraphToken> for Token {
    fn from(token: GraphToken) -> Self {
        Self::Graph(token)
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self::invalid_param(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn garbage_is_refused() {
        for text in [
            "",
            "_",
            "__",
            "s1",
            "s1_",
            "s1_1",
            "s1_1_",
            "s1__1",
            "s1_1_2_3",
            "s1_1_2_",
            "s1_+1_2",
            "s1_-1_2",
            "s1_01_2",
            "s1_1_ 2",
            "s2_1_2",
            "s2_1_2_3_4",
            "s3_1_2_3",
            "S1_1_2",
            "t1-2_0_0",
            "s1_18446744073709551616_0",
            "g1_1_x",
            "g1_1_\u{661}",
        ] {
            assert_eq!(text.parse::<Token>(), Err(TokenError::Unknown), "{text:?}");
        }
        for text in ["", "t1", "t1_", "t1_1", "t1_1_", "t1_1_2_", "t1_1_2_3", "t1_+1_2", "g1_1_2"] {
            assert_eq!(text.parse::<ThreadsToken>(), Err(TokenError::Unknown), "{text:?}");
        }
    }

    #[test]
    fn since_takes_no_graph_token() {
        let token = Token::from(GraphToken::after(3, StreamPos(4))).to_string();
        assert_eq!(token.parse::<SyncToken>(), Err(TokenError::NotFromSync));
        assert_eq!(ApiError::from(TokenError::NotFromSync).status().as_u16(), 400);
    }

    #[test]
    fn before_and_after_enclose_one_event() {
        for (depth, pos) in [(0, 1), (1, 0), (1, 1), (u64::MAX, u64::MAX)] {
            let event = GraphToken { depth, pos: StreamPos(pos) };
            assert!(GraphToken::before(depth, event.pos) < event, "{event}");
            assert!(GraphToken::after(depth, event.pos) >= event, "{event}");
        }
        assert_eq!(GraphToken::before(7, StreamPos(9)), GraphToken::after(7, StreamPos(8)));
    }

    proptest! {
        #[test]
        fn tokens_come_back(first: u64, second: u64, third: u64) {
            let pos = StreamPos(first);
            let sync = SyncToken { pos, typing: second, presence: third, inbox: None };
            let waiting = SyncToken { inbox: Some(StreamPos(third)), ..sync };
            prop_assert_eq!(waiting.to_string().parse(), Ok(waiting));
            let old = format!("s1_{first}_{second}");
            prop_assert_eq!(old.parse(), Ok(SyncToken { presence: 0, ..sync }));
            let graph = GraphToken { depth: first, pos: StreamPos(second) };
            for token in [Token::from(sync), Token::from(graph)] {
                prop_assert_eq!(token.to_string().parse(), Ok(token));
            }
            prop_assert_eq!(sync.to_string().parse(), Ok(sync));
            let threads = ThreadsToken((first, EventNum(second)));
            prop_assert_eq!(threads.to_string().parse(), Ok(threads));
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in "s2_[0-9_+-]{0,66}|g1_[0-9_+-]{0,45}|.{0,60}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
