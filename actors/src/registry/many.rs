//! Many events of local users in one request.

use ruma::{OwnedEventId, RoomId};

use super::Rooms;
use crate::room::{
    many::MAX_MANY,
    messages::{Input, LocalEvent, Output, RoomError},
};

impl Rooms {
    /// How many events [`Rooms::send_many`] hands to a room at once.
    pub const AT_ONCE: usize = MAX_MANY;

    /// Sends local users' events, one behind the other, and says what has become of each. Returns
    /// when all that were taken are durable and readable. A room with a policy server refuses them.
    ///
    /// Several of these calls may be under way: they keep the order in which they were begun.
    ///
    /// # Errors
    ///
    /// See [`RoomError`]. Of more than [`Rooms::AT_ONCE`] events some may have been taken then.
    pub async fn send_many(
        &self,
        room: &RoomId,
        events: &[LocalEvent],
    ) -> Result<Vec<Result<OwnedEventId, RoomError>>, RoomError> {
        let mut all = Vec::with_capacity(events.len());
        for some in events.chunks(MAX_MANY) {
            match self.perform(room, || Input::Many(some.to_vec())).await? {
                Output::Many(taken) => all.extend(taken),
                _ => return Err(RoomError::Gone),
            }
        }
        Ok(all)
    }
}
