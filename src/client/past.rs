//! Rooms as they are known here, and who may know more of their past.

use std::sync::Arc;

use ruma::{EventId, RoomId};

use crate::{
    error::ApiError,
    federation::receive::history::History,
    http::Caller,
    view::{Standing, View, ViewError},
};

/// What the endpoints need to know that read history.
#[derive(Debug, Clone)]
pub struct Past {
    /// The rooms.
    pub view: View,
    /// Who asks other servers; nobody, if this one speaks to no others.
    pub history: Option<History>,
}

impl Past {
    /// Does a read again that has found no event, if the event could be brought in meanwhile: the
    /// caller is in the room, and not all of its history is here.
    ///
    /// # Errors
    ///
    /// What the read says.
    pub(super) async fn read_event<T, W>(
        &self,
        room_id: &RoomId,
        event_id: &EventId,
        caller: &Caller,
        work: W,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: Fn(&View) -> Result<T, ApiError> + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        let again = work.clone();
        let missing = match self.view.run(move |view| work(view)).await {
            Err(error) if error.status() == 404 => error,
            result => return result,
        };
        match self.fetch(room_id, event_id, caller).await? {
            true => self.view.run(move |view| again(view)).await,
            false => Err(missing),
        }
    }

    async fn fetch(
        &self,
        room_id: &RoomId,
        event_id: &EventId,
        caller: &Caller,
    ) -> Result<bool, ApiError> {
        let Some(history) = &self.history else { return Ok(false) };
        let (id, event, user) = (room_id.to_owned(), event_id.to_owned(), caller.user_id.clone());
        let room = self.view.run(move |view| {
            let Some(mut reader) = view.reader(&id, &user, None)? else { return Ok(None) };
            let is_in = reader.access()?.is_some_and(|is| is.standing == Standing::Joined);
            let num = view.store.event_num(event.as_str())?;
            let meta = num.map(|num| view.store.event_meta(num)).transpose()?.flatten();
            let is_missing = meta.is_none_or(|meta| meta.flags.outlier);
            let may_be = is_in && is_missing && !view.gaps(reader.room().num)?.is_empty();
            Ok::<_, ViewError>(may_be.then(|| reader.room().clone()))
        });
        match room.await? {
            Some(room) => Ok(history.fetch(&room, event_id).await),
            None => Ok(false),
        }
    }
}
