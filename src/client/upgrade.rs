//! Upgrading rooms to another version: a new room takes the old one's place.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

pub(crate) mod levels;
pub(crate) mod plan;
pub(crate) mod settings;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{http::StatusCode, rt};
use parlour_actors::{LocalEvent, RoomError, directory::Directory};
use parlour_event::{Pdu, RoomNum, RoomVersion, content::PowerLevels, json::Object};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    api::{
        client::room::upgrade_room::v3::{Request, Response},
        error::ErrorCode,
    },
};

use self::plan::Plan;
use super::{aliases, local, membership::Members};
use crate::{
    error::ApiError,
    http::{Admits, Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::RoomView,
};

/// What somebody is told to wait who upgrades a room that is being upgraded.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct UpgradeContext {
    members: Members,
    directory: Directory,
    /// Rooms that are being upgraded: of two upgrades at once one would leave a stray room behind.
    under_way: Mutex<HashSet<RoomNum>>,
}

impl UpgradeContext {
    /// Makes the new rooms like any others.
    #[must_use]
    pub fn new(members: Members, directory: Directory) -> Self {
        Self { members, directory, under_way: Mutex::default() }
    }
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<UpgradeContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Join).admits(Admits::Active);
    Routes::new(Api::Client, context).route_with(options, upgrade).finish()
}

/// `POST /_matrix/client/v3/rooms/{roomId}/upgrade`
async fn upgrade(context: Arc<UpgradeContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let Ruma { request, caller, .. } = req;
    let version = RoomVersion::get(&request.new_version).ok_or_else(|| {
        let message = format!("This server does not support version {}", request.new_version);
        ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::UnsupportedRoomVersion, message)
    })?;
    let old = local::joined_room(&context.members.view, &request.room_id, &caller.user_id)?;
    let upgrade = Upgrade {
        user: caller.user_id,
        old,
        version,
        additional_creators: request.additional_creators,
    };
    // It goes to its end, also if the client goes away.
    let work = rt::spawn(async move { context.upgrade(upgrade).await });
    let new = work.await.map_err(ApiError::internal)??;
    Ok(Response::new(new))
}

/// What is to be done.
pub(crate) struct Upgrade {
    pub(crate) user: OwnedUserId,
    pub(crate) old: RoomView,
    pub(crate) version: &'static RoomVersion,
    pub(crate) additional_creators: Vec<OwnedUserId>,
}

/// A room is being upgraded for as long as this is there.
struct UnderWay<'a>(&'a UpgradeContext, RoomNum);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Self(context, room) = self;
        context.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(room);
    }
}

impl UpgradeContext {
    fn begin(&self, room: RoomNum) -> Result<UnderWay<'_>, ApiError> {
        match self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(room) {
            true => Ok(UnderWay(self, room)),
            false => Err(ApiError::limit_exceeded(UNDER_WAY)),
        }
    }

    /// The new room is complete before the old one leads to it, and nobody knows it earlier.
    async fn upgrade(&self, upgrade: Upgrade) -> Result<OwnedRoomId, ApiError> {
        let Members { view, rooms, users, .. } = &self.members;
        let (user, old) = (upgrade.user.clone(), upgrade.old.clone());
        let _under_way = self.begin(old.num)?;
        if !view.powers(&old)?.may_set(&user, "m.room.tombstone") {
            return Err(ApiError::forbidden("You do not have the power to upgrade this room"));
        }
        let directory = self.directory.clone();
        let plan = view.run(move |view| Plan::of(view, &directory, &upgrade)).await?;
        let Plan { room, later, aliases } = plan;
        let (new_id, _) = rooms.create(room).await?;
        for event in later {
            rooms.send(&new_id, event).await?;
        }
        let unknown = || ApiError::internal("a room that was just made is not there");
        let new = view.room(&new_id)?.ok_or_else(unknown)?;
        rooms.send(&old.room_id, tombstone(&user, &new_id)).await?;
        for alias in &aliases {
            self.directory.move_alias(alias, old.num, new.num).await?;
        }
        if self.directory.is_published(old.num)? {
            self.directory.publish(new.num, true).await?;
            self.directory.publish(old.num, false).await?;
        }
        self.retire(&user, &old.room_id, &aliases).await?;
        settings::carry_over(view, users, &user, &old, &new).await;
        Ok(new_id)
    }

    /// Takes back what the old room says of its aliases, and lets nobody speak there any more; if
    /// the user may.
    async fn retire(
        &self,
        user: &OwnedUserId,
        old: &RoomId,
        moved: &[String],
    ) -> Result<(), ApiError> {
        let Members { view, rooms, .. } = &self.members;
        let Some(room) = view.room(old)? else { return Ok(()) };
        let mut events: Vec<LocalEvent> = Vec::new();
        let mut change = |event_type: &str, present: &Pdu, content: Object| {
            if content != *present.content() {
                events.push(local::state_event(user, event_type, "", content));
            }
        };
        if let Some(present) = view.current(&room, "m.room.canonical_alias", "")? {
            let mut content = present.content().clone();
            for alias in moved {
                content = aliases::without(&content, alias).unwrap_or(content);
            }
            change("m.room.canonical_alias", &present, content);
        }
        if let Some(present) = view.current(&room, "m.room.power_levels", "")? {
            let levels = PowerLevels::new(room.version, None, Some(&present));
            let content = levels::closed(present.content(), &levels);
            change("m.room.power_levels", &present, content);
        }
        for event in events {
            match rooms.send(old, event).await {
                Ok(_) | Err(RoomError::Forbidden(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn tombstone(user: &OwnedUserId, new: &RoomId) -> LocalEvent {
    let content = local::members([
        ("body", "This room has been replaced".into()),
        ("replacement_room", new.as_str().into()),
    ]);
    local::state_event(user, "m.room.tombstone", "", content)
}
