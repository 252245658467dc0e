//! Push rules at work: which events of a room a user has yet to notice.
//!
//! | module | question |
//! |---|---|
//! | [`counts`] | how many unread events there are |
//! | [`rules`] | what a user's rules say of an event |
//! | [`stored`] | which rules a user has |
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

pub mod counts;
pub mod rules;
pub mod stored;

pub use counts::{Count, Unread, UnreadCounts};
