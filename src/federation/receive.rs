//! Taking in what other servers send: events and ephemeral data.
//!
//! | module | what it does |
//! |---|---|
//! | [`inbox`] | transactions: once each, one of a server at a time, bounded |
//! | `pdus` | the events of a transaction: into their rooms, or put aside |
//! | `parked` | what has been put aside, within which bounds |
//! | `fetcher` | asks for what events that were put aside build on |
//! | `missing` | what is asked, and of whom, for one such event |
//! | [`history`] | asks for what is before the history that is here |
//! | `policy` | what a room's policy server thinks of an event |
//! | `edus` | typing, receipts, presence |
//! | `devices` | messages for devices, changes of keys |
//! | [`resync`] | asks anew about users whose keys have changed in a way that is not known |
//! | `results` | what the sender is told |
//!
//! Why there is no actor: nobody has to come one after the other here but the events of one server
//! for one room, and rooms themselves are actors. A table behind a lock says what waits, and a task
//! for each of its queues waits for the network. All of it runs on one thread of its own, so that a
//! flood of transactions slows no client down.

mod devices;
mod edus;
mod fetcher;
pub mod history;
pub mod inbox;
mod missing;
mod parked;
mod pdus;
mod policy;
mod presence;
mod results;
pub mod resync;

use std::sync::Arc;

use parlour_actors::{
    Rooms, budget::Share, env::Clock, presence::Presence, typing::Typing, users::Users,
};
use prometheus::{IntCounterVec, IntGauge, Opts};
use ruma::OwnedServerName;

pub use self::results::Results;
use self::resync::Resync;
use super::{acl::RoomGuard, checks::EventChecker, outbound::rooms::RoomClient, outside::Outside};
use crate::{metrics::Metrics, view::View};

/// What receiving needs of the rest of the server.
#[derive(Debug, Clone)]
pub struct ReceiveParts {
    /// This server.
    pub server_name: OwnedServerName,
    /// Where events go.
    pub rooms: Rooms,
    /// What is known of rooms.
    pub view: View,
    /// Who may take part in them.
    pub guard: RoomGuard,
    /// What is told of rooms that this server is not in.
    pub outside: Outside,
    /// What is checked first.
    pub checker: EventChecker,
    /// Who is asked for what is missing.
    pub client: RoomClient,
    /// Who is typing.
    pub typing: Typing,
    /// Where receipts go.
    pub users: Users,
    /// Who asks anew about users' keys.
    pub resync: Resync,
    /// Who is online.
    pub presence: Presence,
    /// What their events may take.
    pub memory: ReceiveMemory,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it is counted.
    pub counters: Counters,
}

/// The memory for other servers' events. There are two shares, so that what waits holds up nothing.
#[derive(Debug, Clone)]
pub struct ReceiveMemory {
    /// For transactions that are being processed.
    pub transactions: Share,
    /// For events that wait for others that are missing.
    pub parked: Share,
}

/// What is counted.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Events by what became of them.
    pdus: IntCounterVec,
    /// Ephemeral data by kind and by what became of them.
    edus: IntCounterVec,
    /// Events that wait for others.
    parked: IntGauge,
}

impl Counters {
    /// Counters at zero.
    ///
    /// # Errors
    ///
    /// A name is taken: a mistake in Parlour.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let pdus = Opts::new("parlour_federation_received_pdus_total", "Events of other servers");
        let edus = Opts::new("parlour_federation_received_edus_total", "EDUs of other servers");
        Ok(Self {
            pdus: metrics.add(IntCounterVec::new(pdus, &["outcome"])?)?,
            edus: metrics.add(IntCounterVec::new(edus, &["kind", "outcome"])?)?,
            parked: metrics.gauge("federation_parked_pdus", "Events that wait for others")?,
        })
    }

    fn pdu(&self, outcome: &'static str) {
        self.pdus.with_label_values(&[outcome]).inc();
    }

    fn edu(&self, kind: &'static str, outcome: &'static str) {
        self.edus.with_label_values(&[kind, outcome]).inc();
    }
}
