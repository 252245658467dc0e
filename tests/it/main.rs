//! Black-box tests: a booted server, and users who talk to it. One binary, since each would be
//! linked anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, unused_imports, reason = "shared with the crash test; neither uses all of it")]
#[path = "../common/mod.rs"]
mod common;

mod account_data_deletion;
mod accounts;
mod admin;
mod admin_cli;
mod aside;
mod auth;
mod bulk;
mod deactivation;
mod delayed;
mod devices;
mod embedding;
mod encryption;
mod errors;
mod federation_attacks;
mod federation_catch_up;
mod federation_destinations;
mod federation_edus;
mod federation_forks;
mod federation_hostile;
mod federation_keys;
mod federation_members;
mod federation_missing;
mod federation_policy;
mod federation_reading;
mod federation_requests;
mod federation_to_device;
mod garbage;
mod guests;
mod harness;
mod limits;
mod load;
mod maintenance;
mod memory;
mod moderation;
mod notifications;
mod owned_state;
mod people;
mod presence;
mod push_rules;
mod registration;
mod relations;
mod rooms;
mod rooms_find;
mod rooms_pages;
mod rooms_read;
mod rooms_write;
mod search;
mod sessions;
mod simulation;
mod stages;
mod sync;
mod sync_counts;
mod sync_filters;
mod sync_model;
mod sync_rooms;
mod sync_shared;
mod sync_state;
mod test_mode;
mod third_party_ids;
mod thread_subscriptions;
mod threads;
mod timestamps;
mod user_data;
mod voip;
