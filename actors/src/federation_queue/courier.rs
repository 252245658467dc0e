//! Carrying a transaction to another server: what the queues ask for, and what they are told.

use std::{fmt, time::Duration};

use bytes::Bytes;
use ruma::ServerName;

use crate::keyring::BoxFuture;

/// A transaction. The same id always comes with the same events, while the process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its id, which no other transaction to that server ever has.
    pub id: String,
    /// When it was made, milliseconds since the epoch.
    pub time: u64,
    /// Events as JSON, at most 50.
    pub pdus: Vec<Bytes>,
    /// Other things as JSON, at most 100.
    pub edus: Vec<Bytes>,
}

/// The other server has a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The events that it did not want, with what it says about them.
    pub refused: Vec<(String, String)>,
}

/// Why a transaction has not been delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// There is no answer, or one that makes no sense, or the other server is in trouble.
    Unreachable(String),
    /// The other server wants to be left alone, for so long if it says so.
    Busy(Option<Duration>),
    /// The other server does not want this very transaction.
    Refused(String),
}

/// Carries transactions.
pub trait Courier: Send + Sync + fmt::Debug {
    /// Whether a server is spoken to at all.
    fn may_send(&self, to: &ServerName) -> bool;

    /// Carries a transaction to a server, once. The time that it may take is bounded.
    fn carry<'a>(
        &'a self,
        to: &'a ServerName,
        transaction: &'a Transaction,
    ) -> BoxFuture<'a, Result<Delivered, Failure>>;
}
