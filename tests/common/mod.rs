//! The black-box harness: a child server, users that talk to it over HTTP (or one in this process,
//! and no HTTP), and the specification that every answer is checked against.

mod admin;
mod answer;
mod coverage;
mod embedded;
mod fake_room;
mod fake_server;
mod federation;
mod http;
mod own_checks;
mod random;
mod schema;
mod server;
mod taker;
mod user;
mod visitor;
mod wire;

pub(crate) use answer::Answer;
pub(crate) use embedded::{Embedded, Line};
pub(crate) use fake_room::FakeRoom;
pub(crate) use fake_server::{Asked, FakeServer, bytes, encode_key};
pub(crate) use federation::{Origin, canonical, parse};
pub(crate) use http::{Client, Lost, path};
pub(crate) use random::Random;
pub(crate) use schema::check as check_schema;
pub(crate) use server::{PASSWORD, Ran, SHARED_SECRET, Server, deadline};
pub(crate) use taker::Taker;
pub(crate) use user::{Ask, User, fresh_txn};
pub(crate) use visitor::{Bystander, Visitor};
pub(crate) use wire::{Site, Trouble, Troubled, Wire};
