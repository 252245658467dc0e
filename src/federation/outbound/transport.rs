//! Carrying a request to another server and its answer back.

use std::{fmt, time::Duration};

use bytes::Bytes;
use parlour_actors::keyring::BoxFuture;
use ruma::ServerName;

/// What an answer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long everything may take, from looking the name up to the answer's last byte.
    pub time: Duration,
    /// How long the answer may be, in bytes.
    pub body: usize,
}

impl Limits {
    /// For an answer of a few fields.
    pub const SMALL: Self = Self { time: Duration::from_secs(30), body: 1 << 20 };

    /// For keys: a server that is there gives them at once, and a dead one shall not hold up what
    /// waits for the keys of many.
    pub const KEYS: Self = Self { time: Duration::from_secs(10), body: 1 << 20 };

    /// For a notary, who may have to ask many servers first.
    pub const NOTARY: Self = Self { time: Duration::from_secs(30), body: 16 << 20 };
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The answer is too long.
    #[error("the answer is too long")]
    TooLarge,
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// This server is stopping.
    #[error("the server is stopping")]
    Stopped,
}

/// Carries requests. The real one is HTTPS; simulations have their own.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends a request, whose URI is path and query alone, to a server. An answer of any status is
    /// an answer; redirects are not followed.
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>>;
}

/// Carries nothing: for a server that speaks to no others.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn send<'a>(
        &'a self,
        _: &'a ServerName,
        _: http::Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        let none = TransportError::Connection("there is no network".to_owned());
        Box::pin(std::future::ready(Err(none)))
    }
}
