//! Asks policy servers for their signatures on events.

use parlour_actors::{PolicyError, PolicySource, keyring::BoxFuture};
use parlour_event::Pdu;
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
