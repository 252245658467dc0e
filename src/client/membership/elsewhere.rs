//! Memberships that need other servers: of rooms that this server is not in, and of users whose
//! server has to agree.
//!
//! Several servers are tried in turn, the likeliest first. What is done to one room in this way is
//! done one after the other: who waits for a join of somebody else joins by ordinary means then.

use std::{collections::HashSet, fmt, sync::Arc};

use actix_web::http::StatusCode;
use parlour_actors::{LocalEvent, RoomError, Rooms, Sent, out_of_band::OutOfBand, per_key::PerKey};
use parlour_event::{
    Pdu,
    content::{MemberContent, Membership},
    json::Object,
};
use parlour_storage::schema::OutOfBandEntry;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId, api::error::ErrorCode};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use crate::{
    error::ApiError,
    federation::outbound::{
        client::AskError,
        membership::{HandshakeError, Handshakes, Wish},
    },
    view::{View, ViewError, wire_json},
};

/// How many servers are tried for one join, knock or leave.
const MAX_SERVERS: usize = 8;

/// How many servers are tried to say that an invite is rejected: the user waits for it, and for
/// the user it is gone in any case.
const MAX_SERVERS_TO_TELL: usize = 3;

/// How many rooms may be on their way here at the same time: a large one takes some hundred
/// megabytes until it is stored.
const ROOMS_AT_ONCE: usize = 4;

/// How others reach rooms elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Elsewhere(Arc<Parts>);

struct Parts {
    view: View,
    rooms: Rooms,
    out_of_band: OutOfBand,
    handshakes: Handshakes,
    turns: PerKey<OwnedRoomId, Mutex<()>>,
    arriving: Semaphore,
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elsewhere")
    }
}

/// What a user of ours wants to be in a room.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    pub(crate) room_id: &'a RoomId,
    pub(crate) user: &'a UserId,
    /// The content of the member event.
    pub(crate) content: Object,
    /// Servers that the client has named.
    pub(crate) via: Vec<OwnedServerName>,
}

impl Want<'_> {
    fn wish(&self) -> Wish<'_> {
        Wish { room_id: self.room_id, user: self.user, content: &self.content }
    }
}

/// What an attempt with one server came to.
enum Failure {
    /// Other servers would say the same.
    Final(ApiError),
    /// Another server may do better.
    Passing(ApiError),
}

impl Elsewhere {
    /// Asks with these handshakes.
    #[must_use]
    pub fn new(view: View, rooms: Rooms, out_of_band: OutOfBand, handshakes: Handshakes) -> Self {
        let arriving = Semaphore::new(ROOMS_AT_ONCE);
        let turns = PerKey::default();
        Self(Arc::new(Parts { view, rooms, out_of_band, handshakes, turns, arriving }))
    }

    /// Waits until nobody else changes what this server is to a room.
    pub(crate) async fn turn(&self, room: &RoomId) -> OwnedMutexGuard<()> {
        self.0.turns.get(room, Mutex::default).lock_owned().await
    }

    /// Whether a user's server may be spoken to.
    pub(crate) fn may_ask(&self, user: &UserId) -> bool {
        self.0.handshakes.client.may_ask(user.server_name())
    }

    /// A user's membership of a room that this server is not in.
    pub(crate) fn outside(
        &self,
        user: &UserId,
        room: &RoomId,
    ) -> Result<Option<(Membership, OutOfBandEntry)>, ApiError> {
        Ok(self.0.out_of_band.membership(user, room)?)
    }

    /// Joins a room through another server. The caller has its turn.
    ///
    /// # Errors
    ///
    /// What the servers say; 404 if there is none to ask.
    pub(crate) async fn join(&self, want: &Want<'_>) -> Result<Sent, ApiError> {
        let parts = &*self.0;
        let _place = parts.arriving.acquire().await.map_err(ApiError::unavailable)?;
        let sent = self.try_all(want, MAX_SERVERS, |server| async move {
            let entrance = parts.handshakes.join(&server, want.wish()).await.map_err(judge)?;
            // The room's number is there before the room is, so that nobody gives it another one.
            parts.out_of_band.room_num(want.room_id).await.map_err(ours)?;
            let entered = parts.rooms.enter(entrance).await;
            entered.map_err(|error| cannot_enter(&server, want, error))
        });
        let sent = sent.await?;
        parts.out_of_band.settle(want.user, want.room_id).await?;
        Ok(sent)
    }

    /// Knocks at a room through another server. The caller has its turn.
    ///
    /// # Errors
    ///
    /// As [`Elsewhere::join`].
    pub(crate) async fn knock(&self, want: &Want<'_>) -> Result<Sent, ApiError> {
        let parts = &*self.0;
        let knock = self.try_all(want, MAX_SERVERS, |server| async move {
            let knock = parts.handshakes.knock(&server, want.wish()).await.map_err(judge)?;
            Ok((server, knock))
        });
        let (server, knock) = knock.await?;
        let entry = OutOfBandEntry {
            version: knock.version.id().to_string(),
            told: knock.told.events,
            servers: vec![server.to_string()],
            ..entry_of(&knock.pdu)?
        };
        parts.out_of_band.note(want.user, want.room_id, Membership::Knock, entry).await?;
        Ok(self.sent(&knock.pdu))
    }

    fn sent(&self, pdu: &Pdu) -> Sent {
        Sent { event_id: pdu.event_id().clone(), pos: self.0.view.store.applied() }
    }

    /// Rejects an invite or takes a knock back. If no server takes it, it is gone for the user all
    /// the same. The caller has the room's turn.
    ///
    /// # Errors
    ///
    /// If storage cannot be read or written.
    pub(crate) async fn leave(
        &self,
        want: &Want<'_>,
        known: OutOfBandEntry,
    ) -> Result<Sent, ApiError> {
        let parts = &*self.0;
        let left = self.try_all(want, MAX_SERVERS_TO_TELL, |server| async move {
            parts.handshakes.leave(&server, want.wish()).await.map_err(judge)
        });
        let leave = match left.await {
            Ok(leave) => leave,
            Err(error) => {
                tracing::info!(room = %want.room_id, %error, "no server takes that a user leaves");
                let leave = parts.handshakes.lone_leave(&known, want.wish());
                Arc::new(leave.map_err(ApiError::internal)?)
            }
        };
        let entry =
            OutOfBandEntry { version: known.version, servers: known.servers, ..entry_of(&leave)? };
        parts.out_of_band.note(want.user, want.room_id, Membership::Leave, entry).await?;
        Ok(self.sent(&leave))
    }

    /// Invites a user of another server, which signs the invite first.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` or `M_INVITE_BLOCKED`, 400 `M_UNSUPPORTED_ROOM_VERSION`, 502 and 504.
    pub(crate) async fn invite(
        &self,
        room_id: &RoomId,
        user: &UserId,
        event: LocalEvent,
    ) -> Result<Sent, ApiError> {
        let parts = &*self.0;
        let not_in = || ApiError::forbidden("You are not in this room");
        let room = parts.view.room(room_id)?.ok_or_else(not_in)?;
        // Nobody could come, and what is told of the room is not for other servers.
        if !parts.view.federates(&room)? {
            return Err(ApiError::forbidden("The room is for users of one server alone"));
        }
        let invite = parts.rooms.propose(room_id, event).await?;
        let (version, inviter) = (room.version, invite.sender().to_string());
        let told = parts.view.run(move |view| {
            let told = view.told_state(room.head.state, Some(&inviter))?;
            told.iter().map(wire_json).collect::<Result<Vec<_>, ViewError>>()
        });
        let signed = parts.handshakes.invite(user.server_name(), version, &invite, told.await?);
        let signed = signed.await.map_err(not_invited)?;
        Ok(parts.rooms.bring(room_id, signed, None).await?)
    }

    /// Asks the server of who has invited a user by e-mail or the like for a proper invite.
    ///
    /// # Errors
    ///
    /// What that server says.
    pub(crate) async fn exchange(&self, inviter: &UserId, want: &Want<'_>) -> Result<(), ApiError> {
        let exchanged =
            self.0.handshakes.exchange(inviter.server_name(), inviter, want.wish()).await;
        exchanged.map_err(|error| match judge(error) {
            Failure::Final(error) | Failure::Passing(error) => error,
        })
    }

    /// Tries a room's servers, one after the other.
    async fn try_all<T, F>(
        &self,
        want: &Want<'_>,
        most: usize,
        attempt: impl Fn(OwnedServerName) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut best: Option<ApiError> = None;
        for server in self.candidates(want)?.into_iter().take(most) {
            match attempt(server.clone()).await {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) => {
                    tracing::info!(%server, room = %want.room_id, %error, "trying the next server");
                    // What a server knows says more than that another one is not there.
                    if best.as_ref().is_none_or(|best| best.status().is_server_error()) {
                        best = Some(error);
                    }
                }
            }
        }
        Err(best.unwrap_or_else(|| self.nobody(want.room_id)))
    }

    /// There is no server that could be asked.
    fn nobody(&self, room_id: &RoomId) -> ApiError {
        match room_id.server_name() {
            Some(server) if server == self.0.handshakes.server_name => {
                ApiError::not_found("There is no such room")
            }
            _ => {
                let message = "This server does not know the room, nor a server that may know it";
                ApiError::new(StatusCode::NOT_FOUND, ErrorCode::Unknown, message)
            }
        }
    }

    /// The servers that may know the room: those who have told of it, those whom the client names,
    /// those that were there when this server was.
    fn candidates(&self, want: &Want<'_>) -> Result<Vec<OwnedServerName>, ApiError> {
        let Want { room_id, user, via, .. } = want;
        let parts = &*self.0;
        let named = |name: String| OwnedServerName::try_from(name).ok();
        let mut all: Vec<OwnedServerName> = Vec::new();
        if let Some((_, entry)) = parts.out_of_band.membership(user, room_id)? {
            all.extend(entry.servers.into_iter().filter_map(named));
        }
        let room = parts.view.room(room_id)?;
        if let Some(room) = &room
            && let Some(member) = parts.view.current(room, "m.room.member", user.as_str())?
        {
            all.push(member.sender().server_name().to_owned());
        }
        all.extend(via.iter().cloned());
        if let Some(room) = &room {
            let servers = parts.view.store.servers_in_room(room.num, MAX_SERVERS)?;
            all.extend(servers.into_iter().filter_map(|(name, _)| named(name)));
        }
        all.extend(room_id.server_name().map(ToOwned::to_owned));
        let mut seen = HashSet::new();
        let client = &parts.handshakes.client;
        all.retain(|server| client.may_ask(server) && seen.insert(server.clone()));
        Ok(all)
    }
}

/// A failure of this server, about which no other one can do anything.
fn ours(error: impl Into<ApiError>) -> Failure {
    Failure::Final(error.into())
}

/// Why a room is not entered although a server has let the user in.
fn cannot_enter(server: &ServerName, want: &Want<'_>, error: RoomError) -> Failure {
    match error {
        RoomError::BadEntrance(_)
        | RoomError::Forbidden(_)
        | RoomError::Missing(_)
        | RoomError::OtherRoom
        | RoomError::CreateRefused
        | RoomError::Format(_) => {
            tracing::warn!(%server, room = %want.room_id, %error, "a room cannot be entered");
            Failure::Passing(gateway("What the other server says of the room makes no sense"))
        }
        other => ours(other),
    }
}

/// What is kept of a member event of a room elsewhere.
fn entry_of(pdu: &Pdu) -> Result<OutOfBandEntry, ApiError> {
    Ok(OutOfBandEntry {
        room_id: pdu.room_id().to_string(),
        version: String::new(),
        event_id: pdu.event_id().to_string(),
        member: String::from_utf8(pdu.to_bytes()).map_err(ApiError::internal)?,
        told: Vec::new(),
        servers: Vec::new(),
    })
}

/// Whether another server may do better. Who is refused by the room's rules is refused everywhere;
/// who is not allowed in for want of somebody to vouch may be elsewhere.
fn judge(error: HandshakeError) -> Failure {
    use ErrorCode::{
        IncompatibleRoomVersion, UnableToAuthorizeJoin, UnableToGrantJoin, UnsupportedRoomVersion,
    };
    match error {
        HandshakeError::Ask(AskError::Refused { status: 403, errcode, message, .. }) => {
            let code = errcode.unwrap_or(ErrorCode::Forbidden);
            Failure::Final(ApiError::new(StatusCode::FORBIDDEN, code, message))
        }
        HandshakeError::Ask(AskError::Refused {
            status: 400,
            errcode: Some(code),
            message,
            ..
        }) => {
            let bad = |code| ApiError::new(StatusCode::BAD_REQUEST, code, message);
            match code {
                IncompatibleRoomVersion | UnsupportedRoomVersion => Failure::Final(bad(code)),
                UnableToAuthorizeJoin | UnableToGrantJoin => Failure::Passing(bad(code)),
                _ => Failure::Passing(gateway("The other server did not understand")),
            }
        }
        HandshakeError::Ask(error) => Failure::Passing(error.into()),
        HandshakeError::Wrong(_) => {
            Failure::Passing(gateway("What the other server says makes no sense"))
        }
        HandshakeError::Version(version) => {
            let message = format!("This server does not know the room version {version}");
            let code = IncompatibleRoomVersion;
            let error = ApiError::new(StatusCode::BAD_REQUEST, code, message);
            Failure::Final(error.with("room_version", version.as_str()))
        }
        HandshakeError::Storage(error) => Failure::Final(error.into()),
    }
}

/// Why an invite was not signed by the server of who was invited.
fn not_invited(error: HandshakeError) -> ApiError {
    match error {
        HandshakeError::Ask(AskError::Refused {
            status: 400,
            errcode: Some(ErrorCode::IncompatibleRoomVersion | ErrorCode::UnsupportedRoomVersion),
            ..
        }) => {
            let message = "The user's server does not support the version of this room";
            ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::UnsupportedRoomVersion, message)
        }
        HandshakeError::Ask(AskError::Refused { status: 404, .. }) => {
            gateway("The user's server takes no invites")
        }
        other => match judge(other) {
            Failure::Final(error) | Failure::Passing(error) => error,
        },
    }
}

fn gateway(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, message)
}

/// The invite or knock that a member event of a room is, if it is one: what is known of the room
/// when this server is not in it any more.
pub(crate) fn known_from(room_version: &str, member: &Pdu) -> Result<OutOfBandEntry, ApiError> {
    let is_open = matches!(
        MemberContent::new(member.content()).membership(),
        Some(Membership::Invite | Membership::Knock)
    );
    if !is_open {
        return Err(ApiError::forbidden("You are not in this room"));
    }
    let servers = vec![member.sender().server_name().to_string()];
    Ok(OutOfBandEntry { version: room_version.to_owned(), servers, ..entry_of(member)? })
}
