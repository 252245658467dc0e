//! Rooms with a policy server: events that are to come in from here need its signature. The room
//! says so and goes on; it is asked elsewhere (`registry/policy.rs`), and the event comes back.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use std::sync::Arc;

use parlour_event::{
    Pdu, RoomVersion,
    content::Membership,
    policy::{self, PolicyServer},
    state::StateRoot,
};

use super::{
    core::RoomCore,
    local::Local,
    messages::{RoomError, Transaction},
    received::{Arrival, Way},
};

/// An event that the room's policy server has to sign before it can come in.
#[derive(Debug, Clone)]
pub(crate) struct Unsigned {
    pub(crate) server: PolicyServer,
    pub(crate) version: &'static RoomVersion,
    pub(crate) pdu: Arc<Pdu>,
}

/// A local user's event that has been built before and comes back.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) pdu: Arc<Pdu>,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) condition: Condition,
    /// It comes in also if the policy server has not signed it.
    pub(crate) is_forced: bool,
}

/// What must be so at the moment at which an event comes in, beside the auth rules.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Condition {
    None,
    /// The membership of the member event's target is one of these.
    Membership(&'static [Membership]),
    /// The room lets guests in.
    LetsGuestsIn,
}

impl RoomCore {
    /// What is missing for an event to come in: the signature of the room's policy server.
    pub(crate) fn unsigned(&mut self, pdu: &Arc<Pdu>) -> Result<Option<Unsigned>, RoomError> {
        self.look_for_policy()?;
        let Some((_, Some(server))) = &self.policy else { return Ok(None) };
        let is_there = self.servers.contains_key(server.name().as_str());
        if !is_there || server.has_passed(self.version, pdu) {
            return Ok(None);
        }
        Ok(Some(Unsigned { server: server.clone(), version: self.version, pdu: pdu.clone() }))
    }

    /// Looks up whom the current state names as the policy server, unless that is known.
    fn look_for_policy(&mut self) -> Result<(), RoomError> {
        let known: Option<StateRoot> = self.policy.as_ref().map(|(state, _)| *state);
        if known != Some(self.state) {
            let event = self.state_event(self.state, policy::EVENT_TYPE, "")?;
            let server = event.and_then(|(_, event)| PolicyServer::named_by(&event));
            self.policy = Some((self.state, server));
        }
        Ok(())
    }

    /// Takes in an event that was built before, as [`RoomCore::bring`] does.
    pub(crate) fn built(&mut self, built: Built) -> Result<Local, RoomError> {
        let Built { pdu, transaction, condition, is_forced } = built;
        if let Some(known) = self.known_transaction(transaction.as_ref())? {
            return Ok(known);
        }
        self.check(condition, pdu.state_key().unwrap_or_default())?;
        if let Some(unsigned) = self.unsigned(&pdu)?.filter(|_| !is_forced) {
            return Ok(Local::Unsigned(Box::new(unsigned)));
        }
        self.bring_in(Arrival { transaction, ..Arrival::new(pdu, Way::Brought(None)) })
    }

    fn check(&mut self, condition: Condition, state_key: &str) -> Result<(), RoomError> {
        match condition {
            Condition::None => Ok(()),
            Condition::Membership(from) => self.check_membership(state_key, from),
            Condition::LetsGuestsIn => self.check_lets_guests_in(),
        }
    }
}
