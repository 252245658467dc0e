//! What a room's policy server thinks of events. Those that it does not sign are kept from users.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use std::sync::Arc;

use parlour_event::{
    Pdu, RoomVersion,
    policy::{self, PolicyServer},
};

use crate::{
    federation::outbound::rooms::RoomClient,
    view::{RoomView, View, ViewError},
};

/// An event, and what the room's policy server thinks of it.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// The event; with the policy server's signature, if that wants it.
    pub(super) pdu: Arc<Pdu>,
    /// Whether the policy server wants it, or there is none.
    pub(super) is_wanted: bool,
}

/// The policy server that a room has chosen and that has a user there, if there is one.
pub(super) fn server_of(view: &View, room: &RoomView) -> Result<Option<PolicyServer>, ViewError> {
    let event = view.state_event(room.head.state, policy::EVENT_TYPE, "")?;
    let Some(event) = event else { return Ok(None) };
    let Some(server) = PolicyServer::named_by(&event.pdu(room.version)?) else { return Ok(None) };
    let is_there = view.store.joined_from(room.num, server.name().as_str())? > 0;
    Ok(is_there.then_some(server))
}

/// What a policy server thinks of an event: what is signed already, or else what it says now.
pub(super) async fn judge(
    server: &PolicyServer,
    client: &RoomClient,
    version: &RoomVersion,
    pdu: Arc<Pdu>,
) -> Judged {
    if server.has_passed(version, &pdu) {
        return Judged { pdu, is_wanted: true };
    }
    match ask(server, client, version, &pdu).await {
        Some(signed) => Judged { pdu: Arc::new(signed), is_wanted: true },
        None => Judged { pdu, is_wanted: false },
    }
}

/// The event with the policy server's signature.
async fn ask(
    server: &PolicyServer,
    client: &RoomClient,
    version: &RoomVersion,
    pdu: &Pdu,
) -> Option<Pdu> {
    if !server.has_key() {
        return None;
    }
    let answer = client.policy_signature(server.name(), pdu).await.inspect_err(|error| {
        let (server, event) = (server.name(), pdu.event_id());
        tracing::debug!(%server, %event, %error, "no policy signature");
    });
    server.countersigned(version, pdu, answer.ok()??)
}
