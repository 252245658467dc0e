//! The authorisation rules, room version by room version, and against another implementation.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod create;
mod differential;
mod garbage;
mod levels;
mod member;
mod owned;
mod power;
mod ruma;
mod selection;
mod support;
mod third_party;
