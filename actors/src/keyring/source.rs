//! How a key ring asks others.

use std::{fmt, future::Future, pin::Pin};

use bytes::Bytes;
use ruma::{OwnedServerName, ServerName};

/// A boxed future that may go to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a server gave no keys, for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// What a notary is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotaryQuery {
    /// Whose key.
    pub server: OwnedServerName,
    /// Which key.
    pub key_id: String,
    /// Until when its signatures should hold, milliseconds since the epoch.
    pub minimum_valid_until_ts: u64,
}

/// Asks other servers for keys. Each request must end by itself, and its answer be bounded.
pub trait KeySource: Send + Sync + fmt::Debug {
    /// The document that a server publishes itself.
    fn ask_server<'a>(
        &'a self,
        server: &'a ServerName,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>>;

    /// The documents that a notary has.
    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        queries: &'a [NotaryQuery],
    ) -> BoxFuture<'a, Result<Vec<Bytes>, SourceError>>;
}

/// Reaches nobody: for a server that speaks to no others.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSource;

impl KeySource for NoSource {
    fn ask_server<'a>(&'a self, _: &'a ServerName) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(std::future::ready(Err(SourceError("no federation".to_owned()))))
    }

    fn ask_notary<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a [NotaryQuery],
    ) -> BoxFuture<'a, Result<Vec<Bytes>, SourceError>> {
        Box::pin(std::future::ready(Err(SourceError("no federation".to_owned()))))
    }
}
