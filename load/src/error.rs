//! What goes wrong: with one request, and with a whole run.

use std::{borrow::Cow, path::PathBuf, time::Duration};

/// Why a request has no good answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// The server has answered, and refuses.
    #[error("{message} ({status} {errcode})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// `M_FORBIDDEN` and the like; `HTTP 502` if the answer has none.
        errcode: String,
        /// What the server says to people.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// There was no answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// The answer to a transaction says that an event of it is not taken in.
    #[error("an event was refused")]
    RefusedEvent,
    /// The answer is not what the specification says.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
}

impl Failure {
    /// A few words under which failures of this kind are counted.
    pub(crate) fn label(&self) -> Cow<'static, str> {
        match self {
            Self::Refused { errcode, .. } => errcode.clone().into(),
            Self::Timeout(_) => "timeout".into(),
            Self::Connection(_) => "connection".into(),
            Self::RefusedEvent => "refused event".into(),
            Self::Nonsense(_) => "nonsense".into(),
        }
    }

    /// How long to wait if the server asks for patience.
    pub(crate) fn throttled(&self) -> Option<Duration> {
        match self {
            Self::Refused { status: 429, retry_after, .. } => {
                Some(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            _ => None,
        }
    }

    /// Whether the same request may succeed later: it is not the request's fault.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Timeout(_) | Self::Connection(_) => true,
            Self::RefusedEvent | Self::Nonsense(_) => false,
        }
    }

    /// An answer that cannot be read.
    pub(crate) fn nonsense(error: impl ToString) -> Self {
        Self::Nonsense(error.to_string())
    }
}

/// Why a run ended without a result, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no server, or it speaks another language.
    #[error("cannot reach {target}: {reason}; does the server run, and is --target right?")]
    Unreachable {
        /// Where it should be.
        target: String,
        /// What happened.
        reason: String,
    },
    /// Accounts cannot be made.
    #[error(
        "cannot register users: {0}; open the server's registration, or give \
         --registration-token or --shared-secret"
    )]
    Registration(String),
    /// The rooms, members or messages that a scenario needs cannot be made.
    #[error("cannot prepare the scenario: {what}: {reason}")]
    Setup {
        /// What was being done.
        what: String,
        /// What happened.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {reason}", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A part of the generator broke.
    #[error("the generator itself failed: {0}")]
    Broken(String),
    /// The server has lost, doubled or disordered something, or did nothing at all.
    #[error("{0}")]
    Failed(String),
}

impl LoadError {
    /// For `map_err` while a scenario is prepared.
    pub(crate) fn setup<E: ToString>(what: &str) -> impl Fn(E) -> Self {
        move |error| Self::Setup { what: what.to_owned(), reason: error.to_string() }
    }

    /// For `map_err` around a file.
    pub(crate) fn file<E: ToString>(file: &std::path::Path) -> impl Fn(E) -> Self {
        move |error| Self::File { file: file.to_owned(), reason: error.to_string() }
    }
}
