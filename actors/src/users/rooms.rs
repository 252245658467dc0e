//! What a user does to a room for nobody but itself.

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{Op, Store, schema::keys};

use super::{Decision, UserError, Users};
use crate::commit::{Announcement, Ops};

impl Users {
    /// Forgets a room that the user has left with the membership made at `left`. If the user comes
    /// back meanwhile, that newer membership counts.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn forget_room(
        &self,
        user: &str,
        room: RoomNum,
        left: StreamPos,
    ) -> Result<(), UserError> {
        let name = user.to_owned();
        let decide = move |_: &Store| {
            let value = left.0.to_be_bytes().to_vec().into();
            let ops = vec![Op::Put { key: keys::forgotten(&name, room), value }];
            let announcement = Announcement::User { user: name };
            Ok::<_, UserError>(Decision::Write(Box::new(Ops { ops, announcement }), ()))
        };
        self.change(user, decide).await
    }
}
