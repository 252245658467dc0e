//! What can be done to a server.

pub(crate) mod create;
pub(crate) mod fanout;
pub(crate) mod federation_in;
pub(crate) mod federation_out;
mod history;
pub(crate) mod idle;
pub(crate) mod incremental_sync;
pub(crate) mod initial_sync;
pub(crate) mod join_storm;
pub(crate) mod mixed;
pub(crate) mod paginate;
pub(crate) mod send;
pub(crate) mod state_storm;

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use crate::{bench::Bench, error::LoadError, record::Verdict, verify::Ledger};

/// A scenario with its options.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Users send messages: one sender, many in one room, many rooms.
    Send(send::Options),
    /// Members parked in /sync get what is sent: the latency of delivery.
    Fanout(fanout::Options),
    /// Users create rooms.
    Create(create::Options),
    /// Everybody joins the same rooms at once.
    JoinStorm(join_storm::Options),
    /// Users open their clients for the first time.
    InitialSync(initial_sync::Options),
    /// Users in many rooms ask what is new.
    IncrementalSync(incremental_sync::Options),
    /// Users page through a room's history.
    Paginate(paginate::Options),
    /// Thousands are parked in /sync: what each of them costs.
    Idle(idle::Options),
    /// A realistic day: users type, send, read, come and go, with time to think.
    Mixed(mixed::Options),
    /// Other servers send events to this one.
    FederationIn(federation_in::Options),
    /// This server sends to many others, some of which are dead.
    FederationOut(federation_out::Options),
    /// Other servers make a room's state conflict: what it does to other rooms.
    StateStorm(state_storm::Options),
}

/// What a scenario leaves to be checked and told.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What has been acknowledged, to be read back.
    pub(crate) ledger: Option<Ledger>,
    /// What the scenario has checked by itself.
    pub(crate) verdict: Option<Verdict>,
    /// What else is to be said.
    pub(crate) notes: Vec<String>,
}

impl Scenario {
    /// What it is called.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Send(_) => "send",
            Self::Fanout(_) => "fanout",
            Self::Create(_) => "create",
            Self::JoinStorm(_) => "join-storm",
            Self::InitialSync(_) => "initial-sync",
            Self::IncrementalSync(_) => "incremental-sync",
            Self::Paginate(_) => "paginate",
            Self::Idle(_) => "idle",
            Self::Mixed(_) => "mixed",
            Self::FederationIn(_) => "federation-in",
            Self::FederationOut(_) => "federation-out",
            Self::StateStorm(_) => "state-storm",
        }
    }

    /// Its options in words.
    pub(crate) fn options(&self) -> String {
        match self {
            Self::Send(options) => describe(options),
            Self::Fanout(options) => describe(options),
            Self::Create(options) => describe(options),
            Self::JoinStorm(options) => describe(options),
            Self::InitialSync(options) => describe(options),
            Self::IncrementalSync(options) => describe(options),
            Self::Paginate(options) => describe(options),
            Self::Idle(options) => describe(options),
            Self::Mixed(options) => describe(options),
            Self::FederationIn(options) => describe(options),
            Self::FederationOut(options) => describe(options),
            Self::StateStorm(options) => describe(options),
        }
    }

    /// Prepares it, runs it, and says what must be there now.
    pub(crate) async fn run(&self, bench: &mut Bench) -> Result<Outcome, LoadError> {
        match self {
            Self::Send(options) => send::run(bench, options).await,
            Self::Fanout(options) => fanout::run(bench, options).await,
            Self::Create(options) => create::run(bench, options).await,
            Self::JoinStorm(options) => join_storm::run(bench, options).await,
            Self::InitialSync(options) => initial_sync::run(bench, options).await,
            Self::IncrementalSync(options) => incremental_sync::run(bench, options).await,
            Self::Paginate(options) => paginate::run(bench, options).await,
            Self::Idle(options) => idle::run(bench, options).await,
            Self::Mixed(options) => mixed::run(bench, options).await,
            Self::FederationIn(options) => federation_in::run(bench, options).await,
            Self::FederationOut(options) => federation_out::run(bench, options).await,
            Self::StateStorm(options) => state_storm::run(bench, options).await,
        }
    }
}

/// Options as `senders=1 rooms=1`.
fn describe(options: &impl Serialize) -> String {
    let Ok(Value::Object(members)) = serde_json::to_value(options) else { return String::new() };
    let set = members.into_iter().filter(|(_, value)| !value.is_null());
    let texts = set.map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}
