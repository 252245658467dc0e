//! Asks rooms' policy servers for their signatures on what goes into the rooms from here, while the
//! rooms go on.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parlour_event::Pdu;
use ruma::{OwnedRoomId, RoomId, ServerName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{Rooms, federation::sent};
use crate::{
    keyring::BoxFuture,
    per_key::PerKey,
    room::{
        messages::{Input, LocalEvent, Output, RoomError, Sent, Transaction},
        policy::{Built, Condition, Unsigned},
    },
};

/// How many events of one room are with its policy server at the same time. Each is built on what
/// was newest in the room then, so more of them make wider forks.
const OF_ONE_ROOM: usize = 8;

/// How many events may be on the way to policy servers, or wait for that, in all rooms together.
const OF_ALL_ROOMS: usize = 1_024;

/// How long an event waits until it may be asked about.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a policy server has not signed an event.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PolicyError {
    /// It does not want the event, or not from this server, and says so.
    #[error("the room's policy server refuses: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The Matrix error code.
        errcode: Option<String>,
        /// What it says to people.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It gives no answer in time, or none that makes sense.
    #[error("the room's policy server gives no signature: {0}")]
    Silent(String),
}

/// Asks policy servers. Each request must end by itself, and its answer be bounded.
pub trait PolicySource: Send + Sync + fmt::Debug {
    /// The policy server's signature on an event, if it answers with one.
    fn sign<'a>(
        &'a self,
        server: &'a ServerName,
        event: &'a Pdu,
    ) -> BoxFuture<'a, Result<Option<String>, PolicyError>>;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Signatures {
    source: OnceLock<Arc<dyn PolicySource>>,
    of_room: PerKey<OwnedRoomId, Semaphore>,
    of_all: Semaphore,
}

impl Default for Signatures {
    fn default() -> Self {
        Self {
            source: OnceLock::new(),
            of_room: PerKey::default(),
            of_all: Semaphore::new(OF_ALL_ROOMS),
        }
    }
}

/// A place among the events that policy servers are asked about.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _of_room: OwnedSemaphorePermit,
}

/// How a local user's event goes on when it has been signed.
#[derive(Debug, Clone)]
pub(super) struct After {
    pub(super) transaction: Option<Transaction>,
    pub(super) condition: Condition,
    /// It goes in also if the policy server does not sign it.
    pub(super) is_forced: bool,
}

impl After {
    pub(super) fn of(event: &LocalEvent, condition: Condition) -> Self {
        Self { transaction: event.transaction.clone(), condition, is_forced: false }
    }

    pub(super) fn build(&self, pdu: Arc<Pdu>) -> Input {
        let Self { transaction, condition, is_forced } = self.clone();
        Input::Built(Box::new(Built { pdu, transaction, condition, is_forced }))
    }
}

impl Rooms {
    /// Says who asks policy servers; until then nobody does, and what they must sign is refused.
    /// Only the first call counts.
    pub fn ask_policy_servers(&self, source: Arc<dyn PolicySource>) {
        drop(self.0.signatures.source.set(source));
    }

    /// Has a room take in a local user's event, which its policy server signs first if it has one.
    pub(super) async fn send_signed(
        &self,
        room: &RoomId,
        input: impl Fn() -> Input,
        after: After,
    ) -> Result<Sent, RoomError> {
        sent(self.settle(room, input, |pdu| after.build(pdu), after.is_forced).await?)
    }

    /// Asks a room to take something in, and if its policy server has to sign that first, asks that
    /// and then the room again, with `again`. If it `is_forced` the room is asked again anyway.
    pub(super) async fn settle(
        &self,
        room: &RoomId,
        input: impl Fn() -> Input,
        again: impl Fn(Arc<Pdu>) -> Input,
        is_forced: bool,
    ) -> Result<Output, RoomError> {
        let mut unsigned = match self.perform(room, &input).await? {
            Output::Unsigned(unsigned) => unsigned,
            output => return Ok(output),
        };
        let (_turn, has_waited) = self.0.signatures.turn(room).await?;
        if has_waited {
            // What has come in meanwhile is what it is to be built on.
            unsigned = match self.perform(room, &input).await? {
                Output::Unsigned(unsigned) => unsigned,
                output => return Ok(output),
            };
        }
        let pdu = match self.0.signatures.signed(&unsigned).await {
            Ok(pdu) => pdu,
            Err(RoomError::Policy(error)) if is_forced => {
                tracing::info!(%room, %error, "an event goes in all the same");
                unsigned.pdu
            }
            Err(error) => return Err(error),
        };
        match self.perform(room, || again(pdu.clone())).await? {
            // The room has chosen another policy server meanwhile.
            Output::Unsigned(_) => Err(RoomError::Busy),
            output => Ok(output),
        }
    }
}

fn silent(why: &str) -> PolicyError {
    PolicyError::Silent(why.to_owned())
}

impl Signatures {
    /// Waits until one more event of a room may be asked about, and says whether that took time.
    pub(super) async fn turn(&self, room: &RoomId) -> Result<(Turn<'_>, bool), RoomError> {
        let all = self.of_all.try_acquire().map_err(|_| RoomError::Busy)?;
        let of_room = self.of_room.get(room, || Semaphore::new(OF_ONE_ROOM));
        let (of_room, has_waited) = match of_room.clone().try_acquire_owned() {
            Ok(turn) => (turn, false),
            Err(_) => {
                let turn = timeout(PATIENCE, of_room.clone().acquire_owned()).await;
                // The semaphore is never closed.
                let turn = turn.ok().and_then(Result::ok);
                (turn.ok_or_else(|| silent("too much waits for it"))?, true)
            }
        };
        Ok((Turn { _all: all, _of_room: of_room }, has_waited))
    }

    /// The event with the signature of the room's policy server.
    pub(super) async fn signed(&self, unsigned: &Unsigned) -> Result<Arc<Pdu>, RoomError> {
        let Unsigned { server, version, pdu } = unsigned;
        let source = self.source.get().ok_or_else(|| silent("nobody is asked from here"))?;
        if !server.has_key() {
            return Err(silent("what the room has for its key is none").into());
        }
        let signature = source.sign(server.name(), pdu).await?;
        let signed = signature.and_then(|signature| server.countersigned(version, pdu, signature));
        Ok(Arc::new(signed.ok_or_else(|| silent("its signature is not valid"))?))
    }
}
