//! Events of rooms that this server is not in: all that counts is that somebody who was invited, or
//! knocks, is put off.

use std::sync::Arc;

use parlour_actors::out_of_band::OutOfBand;
use parlour_event::{
    Pdu, RoomVersion,
    content::{MemberContent, Membership},
};
use parlour_storage::schema::OutOfBandEntry;
use ruma::{OwnedEventId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::checks::EventChecker;
use crate::{client::membership::Elsewhere, error::ApiError};

/// Takes note of such events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Invites and knocks.
    pub out_of_band: OutOfBand,
    /// Says whose turn it is to change what this server is to a room.
    pub elsewhere: Elsewhere,
    /// Checks what other servers have signed.
    pub checker: EventChecker,
}

/// Whom an event is about.
#[derive(Deserialize)]
struct Target {
    state_key: OwnedUserId,
}

impl Outside {
    /// Takes note of an event with which an invite or a knock of a user of this server ends, and
    /// gives its id. `None` for all others: those of strangers, too, who have not told of the room.
    /// Whether a room's own rules allow the event cannot be known without being in the room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read or written.
    pub async fn take(
        &self,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<Option<OwnedEventId>, ApiError> {
        let Ok(Target { state_key: user }) = serde_json::from_str(event.get()) else {
            return Ok(None);
        };
        let _turn = self.elsewhere.turn(room).await;
        let Some((Membership::Invite | Membership::Knock, known)) =
            self.out_of_band.membership(&user, room)?
        else {
            return Ok(None);
        };
        let Some(version) = RoomVersion::parse(&known.version) else { return Ok(None) };
        let checked = self.checker.check(version, vec![event.to_owned()]).await?.pop();
        let Some(Ok(pdu)) = checked else { return Ok(None) };
        let Some(membership) = ending(&pdu, &user, room, &known) else { return Ok(None) };
        let entry = OutOfBandEntry {
            event_id: pdu.event_id().to_string(),
            member: String::from_utf8(pdu.to_bytes()).map_err(ApiError::internal)?,
            ..known
        };
        self.out_of_band.note(&user, room, membership, entry).await?;
        Ok(Some(pdu.event_id().clone()))
    }
}

/// What a user's membership is by an event that ends it.
fn ending(
    pdu: &Arc<Pdu>,
    user: &UserId,
    room: &RoomId,
    known: &OutOfBandEntry,
) -> Option<Membership> {
    let membership = MemberContent::new(pdu.content()).membership();
    let membership = membership.filter(|is| matches!(is, Membership::Leave | Membership::Ban));
    let server = pdu.sender().server_name().as_str();
    let counts = pdu.event_type() == "m.room.member"
        && pdu.state_key() == Some(user.as_str())
        && pdu.room_id() == room
        && known.servers.iter().any(|known| known == server);
    membership.filter(|_| counts)
}
