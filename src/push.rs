//! Push rules at work: which events of a room a user has yet to notice.
//!
//! | module | question |
//! |---|---|
//! | [`counts`] | how many unread events there are |
//! | [`countable`] | where they can be |
//! | [`notifications`] | which events the user was notified of |
//! | [`rules`] | what a user's rules say of an event |
//! | [`shared`] | the same for many users at once |
//!
//! Which rules a user has stands in [`parlour_actors::users`].
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

mod countable;
pub mod counts;
pub mod notifications;
pub mod rules;
pub mod shared;

pub use counts::{Count, Unread, UnreadCounts};
pub use notifications::{NotificationsAsk, NotificationsPage};
pub use shared::{Heard, Listener};
