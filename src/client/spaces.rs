//! Spaces.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#spaces>

use std::{sync::Arc, time::Duration};

use parlour_actors::env::Clock;
use ruma::{
    OwnedServerName, RoomId,
    api::client::space::{
        SpaceHierarchyRoomsChunk,
        get_hierarchy::v1::{Request, Response},
    },
    uint,
};

use crate::{
    error::ApiError,
    federation::outbound::hierarchy::RemoteRooms,
    http::{Api, Routes, Ruma},
    view::{
        View, ViewError,
        spaces::{Leg, Pages, Reach, Terms, UnknownToken, Walk, Walker},
    },
};

/// How many rooms an answer has if the client does not say.
const USUAL_LIMIT: u32 = 50;

/// The most rooms in one answer.
const MAX_LIMIT: u32 = 200;

/// The deepest that a walk goes.
const MAX_DEPTH: u64 = 100;

/// How many rooms other servers are asked about for one answer.
const MAX_ASKED: usize = 20;

/// When the last of them is asked. What is left then comes with the next page.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct SpaceContext {
    /// The rooms.
    pub view: View,
    /// Walks that will go on.
    pub pages: Pages,
    /// Who tells of rooms elsewhere.
    pub remote: RemoteRooms,
    /// This server.
    pub server_name: OwnedServerName,
    /// How long others have been asked.
    pub clock: Arc<dyn Clock>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<SpaceContext>) -> Routes {
    Routes::new(Api::Client, context).route(hierarchy).finish()
}

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
async fn hierarchy(context: Arc<SpaceContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    if req.limit == Some(uint!(0)) {
        return Err(ApiError::invalid_param("`limit` must be greater than 0"));
    }
    let limit = req.limit.unwrap_or(USUAL_LIMIT.into()).min(MAX_LIMIT.into());
    let limit = usize::try_from(u64::from(limit)).unwrap_or(usize::MAX);
    let reach = Reach {
        max_depth: req.max_depth.map_or(MAX_DEPTH, u64::from).min(MAX_DEPTH),
        suggested_only: req.suggested_only,
    };
    let terms = Terms { user: req.caller.user_id.clone(), room: req.room_id.clone(), reach };
    let begun = req.from.as_deref().map(|token| context.pages.find(token, &terms)).transpose()?;
    let is_first = begun.is_none();
    let mut walk = begun.unwrap_or_else(|| context.walk_from(&req.room_id));
    let mut response = Response::new();
    response.rooms = context.walk(&mut walk, &terms, limit).await?;
    let is_over = walk.is_over();
    if is_first && response.rooms.is_empty() && is_over {
        return Err(ApiError::forbidden("The room is not known here, or not for you to see"));
    }
    if !is_over {
        response.next_batch = Some(context.pages.keep(terms, walk));
    }
    Ok(response)
}

impl SpaceContext {
    /// Of a room that is not known here the server may tell that made it.
    fn walk_from(&self, room: &RoomId) -> Walk {
        let maker = room.server_name().filter(|server| *server != self.server_name);
        Walk::from(room.to_owned(), maker.map(ToOwned::to_owned).into_iter().collect())
    }

    /// A page of a walk.
    async fn walk(
        &self,
        walk: &mut Walk,
        terms: &Terms,
        limit: usize,
    ) -> Result<Vec<SpaceHierarchyRoomsChunk>, ApiError> {
        let (user, home) = (terms.user.clone(), self.server_name.clone());
        let walker = Walker { user, home, reach: terms.reach };
        let until = self.clock.monotonic().saturating_add(PATIENCE);
        let (mut rooms, mut asked) = (Vec::new(), 0);
        loop {
            let wanted = limit.saturating_sub(rooms.len());
            let leg =
                self.read(walk, &walker, move |view, walk, walker| view.walk(walk, walker, wanted));
            let Leg { rooms: found, ask } = leg.await?;
            rooms.extend(found);
            let Some(stop) = ask else { return Ok(rooms) };
            if asked == MAX_ASKED || self.clock.monotonic() >= until {
                walk.put_back(stop);
                return Ok(rooms);
            }
            asked += 1;
            let told = self.remote.describe(&stop.room, &stop.via).await;
            let room = self.read(walk, &walker, move |view, walk, walker| {
                view.walk_past(walk, walker, &stop, told.as_deref())
            });
            rooms.extend(room.await?);
        }
    }

    /// Does a part of a walk where reading may take its time.
    async fn read<T, W>(&self, walk: &mut Walk, walker: &Walker, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&View, &mut Walk, &Walker) -> Result<T, ViewError> + Send + 'static,
    {
        let (mut moved, walker) = (std::mem::take(walk), walker.clone());
        let done = self.view.run(move |view| {
            let result = work(view, &mut moved, &walker)?;
            Ok::<_, ViewError>((result, moved))
        });
        let (result, moved) = done.await?;
        *walk = moved;
        Ok(result)
    }
}

impl From<UnknownToken> for ApiError {
    fn from(error: UnknownToken) -> Self {
        Self::invalid_param(error.to_string())
    }
}
