//! The server-server API: one file per section of the specification, and [`outbound`], which asks
//! other servers.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/>

pub mod acl;
pub mod auth;
pub mod backfill;
pub mod checks;
pub mod discovery;
pub mod events;
pub mod handshake;
pub mod invite;
pub mod join;
pub mod keys;
pub mod knock;
pub mod leave;
pub mod openid;
pub mod outbound;
pub mod outside;
pub mod pdu_stream;
pub mod public_rooms;
pub mod query;
pub mod receive;
pub mod send;
pub mod spaces;
pub mod state;
pub mod third_party;
pub mod told;
pub mod user_keys;
pub mod version_1;
mod x_matrix;
