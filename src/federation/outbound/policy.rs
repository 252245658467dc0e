//! Asks policy servers for their signatures on events.

use std::sync::Arc;

use parlour_actors::{Entrance, PolicyError, PolicySource, keyring::BoxFuture};
use parlour_event::{
    Pdu,
    content::{MemberContent, Membership},
    policy::{self, PolicyServer},
};
use ruma::ServerName;

use super::{client::AskError, rooms::RoomClient};

/// Asks over the network.
#[derive(Debug)]
pub struct NetworkPolicy(pub RoomClient);

impl PolicySource for NetworkPolicy {
    fn sign<'a>(
        &'a self,
        server: &'a ServerName,
        event: &'a Pdu,
    ) -> BoxFuture<'a, Result<Option<String>, PolicyError>> {
        Box::pin(async move {
            self.0.policy_signature(server, event).await.map_err(|error| match error {
                AskError::Refused { status, errcode, message, retry_after } => {
                    let errcode = errcode.map(|errcode| errcode.to_string());
                    PolicyError::Refused { status, errcode, message, retry_after }
                }
                error => PolicyError::Silent(error.to_string()),
            })
        })
    }
}

/// The way into a room, with the join signed by the room's policy server, if there is one and it
/// wants it. That can be asked only now: nobody tells of it before the join. What it refuses is in the
/// room all the same, for the others to judge.
///
/// Specification: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>
pub(super) async fn signed(client: &RoomClient, entrance: Entrance) -> Entrance {
    let Some(server) = server_of(&entrance.state).filter(PolicyServer::has_key) else {
        return entrance;
    };
    let join = &entrance.join;
    if server.has_passed(entrance.version, join) {
        return entrance;
    }
    let signature = client.policy_signature(server.name(), join).await.inspect_err(|error| {
        tracing::info!(room = %entrance.room_id, %error, "a join is not signed by the policy server");
    });
    let signed = signature.ok().flatten();
    let signed = signed.and_then(|text| server.countersigned(entrance.version, join, text));
    match signed {
        Some(join) => Entrance { join: Arc::new(join), ..entrance },
        None => entrance,
    }
}

/// The policy server in a state, if it has a user there.
fn server_of(state: &[Arc<Pdu>]) -> Option<PolicyServer> {
    let named =
        |pdu: &&Arc<Pdu>| pdu.event_type() == policy::EVENT_TYPE && pdu.state_key() == Some("");
    let server = PolicyServer::named_by(state.iter().find(named)?)?;
    let is_there = state.iter().any(|pdu| {
        pdu.event_type() == "m.room.member"
            && pdu.state_key().and_then(|user| user.split_once(':')).map(|(_, server)| server)
                == Some(server.name().as_str())
            && MemberContent::new(pdu.content()).membership() == Some(Membership::Join)
    });
    is_there.then_some(server)
}
