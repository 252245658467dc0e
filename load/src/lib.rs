//! `parlour load`: a load generator for any Matrix homeserver.
//!
//! | module | what it knows |
//! |---|---|
//! | [`cli`] | the command line |
//! | `scenario` | what is done to the server, a file each |
//! | `schedule`, `bench` | when it is done: open and closed loop, warm-up, duration |
//! | `http`, `session`, `accounts`, `sender`, `syncer` | users, who use the Client-Server API |
//! | `federation` | servers, which use the Server-Server API |
//! | `meter`, `process`, `stages` | latencies, errors, CPU and memory, where the time goes |
//! | `slices` | quiet and stormy time in turn, compared |
//! | `files` | whether so many connections can be open |
//! | `verify`, `delivery` | what was acknowledged is there, and has come to everybody, once, in order |
//! | `record`, `report` | what is told of it: JSON lines, a table, a page |
//!
//! Everything runs on one thread unless told otherwise: the generator is to cost little beside the
//! server that it measures.

mod accounts;
mod bench;
mod bulk;
pub mod cli;
mod clock;
mod console;
mod delivery;
mod error;
#[cfg(test)]
mod fake;
mod federation;
mod files;
mod http;
mod message;
mod meter;
mod process;
mod profile;
mod record;
mod report;
mod runner;
mod scenario;
mod schedule;
mod sender;
mod session;
mod slices;
mod stages;
mod syncer;
mod verify;

pub use self::error::LoadError;
