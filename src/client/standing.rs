//! What is left to suspended users.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>

use parlour_storage::{
    StorageError, Store,
    schema::{MadeRoom, keys},
};
use ruma::{RoomId, UserId};

use crate::{
    error::ApiError,
    http::{Admits, Caller, Standing},
};

/// Whether this is the room in which the server talks to the user.
///
/// # Errors
///
/// If storage cannot be read.
pub(crate) fn is_notice_room(
    store: &Store,
    user: &UserId,
    room: &RoomId,
) -> Result<bool, StorageError> {
    let own = store.typed::<MadeRoom>(&keys::notice_room(user.as_str()))?;
    Ok(own.is_some_and(|own| own.room_id == room.as_str()))
}

/// Checks that the caller may act in a room. Suspended users may in one: where they can answer who
/// has suspended them.
///
/// # Errors
///
/// 403 `M_USER_SUSPENDED`
pub(crate) fn check_active_in(
    store: &Store,
    caller: &Caller,
    room: &RoomId,
) -> Result<(), ApiError> {
    if caller.standing == Standing::Suspended && is_notice_room(store, &caller.user_id, room)? {
        return Ok(());
    }
    caller.check(Admits::Active)
}
