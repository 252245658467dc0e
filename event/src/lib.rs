//! Matrix events, purely: no I/O, no clock, no async.
//!
//! | module | what it knows |
//! |---|---|
//! | [`json`] | JSON values, strict and lax parsing, canonical form |
//! | [`version`] | the room versions 1 to 12, two unstable ones, and their rules |
//! | [`pdu`] | the PDU, its format checks and size limits, building one |
//! | [`hashes`], [`signing`], [`redaction`] | content hash, reference hash, signatures, redaction |
//! | [`content`] | typed views of the event contents that the auth rules read |
//! | [`auth`] | auth event selection and the authorisation rules |
//! | [`state`] | room state as a persistent, content-addressed map |
//! | [`resolve`] | state resolution v1, v2 and v2.1 |
//! | [`policy`] | policy servers: who must sign a room's events |
//! | [`visibility`] | who may see which event |
//! | [`ids`] | interned identifiers |

pub mod auth;
pub mod content;
pub mod hashes;
pub mod ids;
pub mod json;
pub mod pdu;
pub mod policy;
pub mod redaction;
pub mod resolve;
pub mod signing;
pub mod state;
pub mod version;
pub mod visibility;

pub use ids::{EventNum, RoomNum, StateKeyNum, StreamPos};
pub use pdu::Pdu;
pub use version::RoomVersion;
