//! Full text search in rooms.
//!
//! | module | question |
//! |---|---|
//! | [`index`] | where which words are |
//! | [`follow`] | how what happens in rooms gets into the index |
//! | [`query`] | what is searched for, and from where on |
//! | [`find`] | what of that a user may see |
//!
//! The index lies beside the log and can be thrown away: it knows up to which position it has
//! followed the rooms, goes on from there, and begins anew when it is missing or damaged. Nothing
//! waits for it but searches, and these for a bounded time.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

pub mod find;
pub mod follow;
pub mod index;
pub mod query;

pub use find::{Criteria, Found, Page};
pub use follow::Follower;
pub use index::{SearchError, TextIndex};
pub use query::{Field, Group, Order, SearchToken};
