//! The server-server API: one file per section of the specification, and [`outbound`], which asks
//! other servers.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/>

pub mod auth;
pub mod checks;
pub mod discovery;
pub mod keys;
pub mod openid;
pub mod outbound;
pub mod query;
mod x_matrix;
