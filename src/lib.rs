//! Parlour: a Matrix homeserver whose rooms are actors.
//!
//! This package is the outermost: configuration, HTTP and the binary. Programs that have
//! homeservers inside them begin at [`embed`].

pub mod admin;
pub mod assemble;
pub mod cli;
pub mod client;
pub mod config;
pub mod embed;
pub mod error;
pub mod federation;
pub mod http;
pub mod limits;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod push;
pub mod search;
pub mod server;
pub mod view;
