//! Joining, leaving and knocking through another server, and inviting its users: the handshakes
//! with one server. What it answers is checked here, as far as that needs no room.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::{collections::HashSet, sync::Arc, time::Duration};

use parlour_actors::{
    Entrance,
    env::Env,
    keyring::{KeyRing, Purpose, Wanted},
};
use parlour_event::{
    Pdu, RoomVersion,
    content::{MemberContent, Membership},
    json::{self, Object, Value},
    pdu::{EventReference, FormatError, PduBuilder},
    signing::{self, SigningKey},
};
use parlour_storage::{StorageError, schema::OutOfBandEntry};
use ruma::{
    OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
    api::{
        error::ErrorCode,
        federation::{
            membership::{
                RawStrippedState, create_invite::v2 as invite_v2,
                create_join_event::v2 as send_join, create_knock_event::v1 as send_knock,
                create_leave_event::v2 as send_leave, prepare_join_event::v1 as make_join,
                prepare_knock_event::v1 as make_knock, prepare_leave_event::v1 as make_leave,
            },
            thirdparty::exchange_invite::v1 as exchange,
        },
    },
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{
    client::{AskError, FederationClient},
    policy,
    rooms::RoomClient,
    transport::Limits,
};
use crate::federation::{
    checks::EventChecker,
    told::Told,
    version_1::{OldInvite, Version1},
};

/// How many characters the part of an event id has that is a server's to choose, in room versions
/// 1 and 2.
const OPAQUE_ID_LEN: usize = 18;

/// For a question whose answer is at hand: who does not answer is not waited for long, since there
/// may be others to ask.
const TEMPLATE: Limits = Limits { time: Duration::from_secs(20), body: 1 << 20 };

/// For a whole room: some have a hundred thousand members.
const ROOM: Limits = Limits { time: Duration::from_secs(180), body: 256 << 20 };

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The server gave no answer, or refused.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What it answers is not what was asked for.
    #[error("its answer is wrong: {0}")]
    Wrong(String),
    /// The room has a version that is not known here.
    #[error("the room has version {0}, which is not known here")]
    Version(RoomVersionId),
    /// Storage cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<FormatError> for HandshakeError {
    fn from(error: FormatError) -> Self {
        Self::Wrong(error.to_string())
    }
}

fn wrong(what: impl Into<String>) -> HandshakeError {
    HandshakeError::Wrong(what.into())
}

/// What a user wants to be in a room.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The room.
    pub room_id: &'a RoomId,
    /// The user.
    pub user: &'a UserId,
    /// The content of the member event.
    pub content: &'a Object,
}

/// A knock that a server has taken.
#[derive(Debug)]
pub struct Knock {
    /// The room's version.
    pub version: &'static RoomVersion,
    /// The event.
    pub pdu: Arc<Pdu>,
    /// What is told of the room.
    pub told: Told,
}

/// Does handshakes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handshakes {
    /// Asks.
    pub client: FederationClient,
    /// Checks events.
    pub checker: EventChecker,
    /// Checks other signatures.
    pub ring: KeyRing,
    /// Signs what this server's users do.
    pub key: Arc<SigningKey>,
    /// This server.
    pub server_name: OwnedServerName,
    /// Time, and random ids.
    pub env: Env,
}

impl Handshakes {
    /// Joins a room through a server; the room is still to be entered with what it says.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]
    pub async fn join(
        &self,
        server: &ServerName,
        wish: Wish<'_>,
    ) -> Result<Entrance, HandshakeError> {
        let (room_id, user) = (wish.room_id.to_owned(), wish.user.to_owned());
        let mut request = make_join::Request::new(room_id.clone(), user);
        request.ver = known_versions();
        let answer = self.client.ask(server, request, TEMPLATE).await?;
        let version = known(answer.room_version.unwrap_or(RoomVersionId::V1))?;
        let join = self.complete(version, &answer.event, wish)?;
        let (event_id, pdu) = (join.event_id().clone(), raw(&join)?);
        let request = send_join::Request::new(room_id, event_id, pdu);
        let state = match self.client.ask(server, request.clone(), ROOM).await {
            Err(error) if is_old(&error) => {
                self.client.ask(server, Version1(request), ROOM).await?.0
            }
            answer => answer?,
        };
        let entrance = self.read_room(version, join, state.room_state).await?;
        Ok(policy::signed(&RoomClient::new(self.client.clone()), entrance).await)
    }

    /// Leaves a room through a server: rejects an invite, or takes a knock back.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]
    pub async fn leave(
        &self,
        server: &ServerName,
        wish: Wish<'_>,
    ) -> Result<Arc<Pdu>, HandshakeError> {
        let (room_id, user) = (wish.room_id.to_owned(), wish.user.to_owned());
        let request = make_leave::Request::new(room_id.clone(), user);
        let answer = self.client.ask(server, request, TEMPLATE).await?;
        let version = known(answer.room_version.unwrap_or(RoomVersionId::V1))?;
        let leave = self.complete(version, &answer.event, wish)?;
        let (event_id, pdu) = (leave.event_id().clone(), raw(&leave)?);
        let request = send_leave::Request::new(room_id, event_id, pdu);
        match self.client.ask(server, request.clone(), TEMPLATE).await {
            Err(error) if is_old(&error) => {
                self.client.ask(server, Version1(request), TEMPLATE).await?;
            }
            answer => {
                answer?;
            }
        }
        Ok(Arc::new(leave))
    }

    /// Knocks at a room through a server.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]
    pub async fn knock(
        &self,
        server: &ServerName,
        wish: Wish<'_>,
    ) -> Result<Knock, HandshakeError> {
        let (room_id, user) = (wish.room_id.to_owned(), wish.user.to_owned());
        let mut request = make_knock::Request::new(room_id.clone(), user);
        request.ver = known_versions();
        let answer = self.client.ask(server, request, TEMPLATE).await?;
        let version = known(answer.room_version)?;
        let knock = self.complete(version, &answer.event, wish)?;
        let request = send_knock::Request::new(room_id, knock.event_id().clone(), raw(&knock)?);
        let told = self.client.ask(server, request, TEMPLATE).await?.knock_room_state;
        let told = Told::read(&self.checker, version, wish.room_id, told).await?;
        Ok(Knock { version, pdu: Arc::new(knock), told })
    }

    /// Has an invite signed by the server of the user who is invited.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]
    pub async fn invite(
        &self,
        server: &ServerName,
        version: &'static RoomVersion,
        invite: &Pdu,
        told: Vec<Box<RawValue>>,
    ) -> Result<Arc<Pdu>, HandshakeError> {
        let (room_id, event_id) = (invite.room_id().clone(), invite.event_id().clone());
        let told: Vec<_> = told.into_iter().map(RawStrippedState::Pdu).collect();
        let request = invite_v2::Request::new(
            room_id,
            event_id,
            version.id().clone(),
            raw(invite)?,
            told.clone(),
        );
        let may_be_old = version.rules().event_format.require_event_id;
        let signed = match self.client.ask(server, request, TEMPLATE).await {
            Err(AskError::Refused { status: 400 | 404, .. }) if may_be_old => {
                self.invite_as_of_old(server, invite, told).await?
            }
            answer => answer?.event,
        };
        self.countersigned(server, version, invite, &signed).await
    }

    /// The first version of the endpoint, of which ruma's type leaves out half of the event.
    async fn invite_as_of_old(
        &self,
        server: &ServerName,
        invite: &Pdu,
        told: Vec<RawStrippedState>,
    ) -> Result<Box<RawValue>, HandshakeError> {
        let unwritable = |error: serde_json::Error| AskError::Request(error.to_string());
        let told = serde_json::to_string(&told).map_err(unwritable)?;
        let told = json::parse_lax(told.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let mut event = invite.json().clone();
        let unsigned = Object::from([("invite_room_state".to_owned(), told)]);
        event.insert("unsigned".to_owned(), Value::Object(unsigned));
        let (room_id, event_id) = (invite.room_id().clone(), invite.event_id().clone());
        let request = OldInvite { room_id, event_id, event: raw_object(event)? };
        Ok(self.client.ask(server, request, TEMPLATE).await?.0.event)
    }

    /// Our invite with the other server's signature: of what it answers, that alone is taken.
    async fn countersigned(
        &self,
        server: &ServerName,
        version: &'static RoomVersion,
        invite: &Pdu,
        answer: &RawValue,
    ) -> Result<Arc<Pdu>, HandshakeError> {
        let answer = json::parse_object(version, answer.get().as_bytes())
            .map_err(|error| wrong(error.to_string()))?;
        let keys: Vec<_> =
            signing::server_key_ids(&answer, server.as_str()).map(str::to_owned).collect();
        let enforce_validity = version.rules().enforce_key_validity;
        let origin_server_ts = invite.origin_server_ts();
        let purpose = Purpose::Event { origin_server_ts, enforce_validity };
        let wanted = keys.into_iter().take(8).map(|key_id| Wanted {
            server: server.to_owned(),
            key_id,
            purpose,
        });
        self.ring.find(wanted.collect()).await?;
        let mut event = invite.json().clone();
        let signature = answer.get("signatures").and_then(|by| by.get(server.as_str())).cloned();
        let Some(Value::Object(signatures)) = event.get_mut("signatures") else {
            return Err(wrong("our own signature is missing"));
        };
        signatures.extend(signature.map(|signature| (server.to_string(), signature)));
        // An event that was changed has another signature than ours would have.
        signing::verify_event_by(version, &event, server.as_str(), |key_id| {
            self.ring.known(server, key_id, purpose).ok().flatten()
        })
        .map_err(|error| wrong(error.to_string()))?;
        Ok(Arc::new(Pdu::from_trusted(version, invite.event_id().clone(), event)?))
    }

    /// Asks the server of who has invited by e-mail or the like to make an invite of it.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]
    pub async fn exchange(
        &self,
        server: &ServerName,
        inviter: &UserId,
        wish: Wish<'_>,
    ) -> Result<(), HandshakeError> {
        let request = exchange::Request::new(
            wish.room_id.to_owned(),
            inviter.to_owned(),
            wish.user.to_owned(),
            Raw::from_json(raw_object(wish.content.clone())?),
        );
        self.client.ask(server, request, TEMPLATE).await?;
        Ok(())
    }

    /// A leave that no server has taken, for the user alone: it follows the invite or the knock
    /// that it ends.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]
    pub fn lone_leave(
        &self,
        known: &OutOfBandEntry,
        wish: Wish<'_>,
    ) -> Result<Pdu, HandshakeError> {
        let version = RoomVersion::parse(&known.version).ok_or_else(|| wrong("no such version"))?;
        let member = json::parse_object(version, known.member.as_bytes());
        let member = member.map_err(|error| wrong(error.to_string()))?;
        let before = Pdu::from_wire(version, member)?;
        let reference = || vec![EventReference::to(version, &before)];
        let builder = PduBuilder {
            room_id: Some(wish.room_id.to_owned()),
            sender: wish.user.to_owned(),
            event_type: "m.room.member".to_owned(),
            state_key: Some(wish.user.to_string()),
            content: wish.content.clone(),
            prev_events: reference(),
            auth_events: reference(),
            depth: before.depth().saturating_add(1),
            origin_server_ts: self.env.clock.now_ms(),
            redacts: None,
            event_localpart: Some(self.env.random_string(OPAQUE_ID_LEN)),
        };
        Ok(builder.build_and_sign(version, &self.server_name, &self.key)?)
    }

    /// Makes an event of another server's template, of which as little as possible is believed.
    fn complete(
        &self,
        version: &'static RoomVersion,
        template: &RawValue,
        wish: Wish<'_>,
    ) -> Result<Pdu, HandshakeError> {
        let mut event = json::parse_object(version, template.get().as_bytes())
            .map_err(|error| wrong(error.to_string()))?;
        let content = event.get("content").and_then(Value::as_object).cloned().unwrap_or_default();
        let (theirs, ours) = (MemberContent::new(&content), MemberContent::new(wish.content));
        let is = |field: &str, value: &str| event.get(field).and_then(Value::as_str) == Some(value);
        let fits = is("type", "m.room.member")
            && is("room_id", wish.room_id.as_str())
            && is("sender", wish.user.as_str())
            && is("state_key", wish.user.as_str())
            && theirs.membership() == ours.membership();
        if !fits {
            return Err(wrong("the template is for another event"));
        }
        let mut content_of_ours = wish.content.clone();
        if ours.membership() == Some(Membership::Join)
            && let Some(user) = theirs.authorising_user()
        {
            let user = user.as_str().into();
            content_of_ours.insert("join_authorised_via_users_server".to_owned(), user);
        }
        for field in ["hashes", "signatures", "unsigned", "event_id"] {
            event.remove(field);
        }
        let now = i64::try_from(self.env.clock.now_ms()).unwrap_or(i64::MAX);
        event.insert("content".to_owned(), Value::Object(content_of_ours));
        event.insert("origin".to_owned(), self.server_name.as_str().into());
        event.insert("origin_server_ts".to_owned(), Value::Integer(now));
        if version.rules().event_format.require_event_id {
            let id = self.env.random_string(OPAQUE_ID_LEN);
            event.insert("event_id".to_owned(), format!("${id}:{}", self.server_name).into());
        }
        Ok(Pdu::hash_and_sign(version, event, &self.server_name, &self.key)?)
    }

    /// Checks what a server says of a room that a user has joined through it.
    async fn read_room(
        &self,
        version: &'static RoomVersion,
        join: Pdu,
        told: send_join::RoomState,
    ) -> Result<Entrance, HandshakeError> {
        if told.members_omitted {
            return Err(wrong("it leaves members out"));
        }
        let join = match told.event {
            None if is_authorised(&join) => return Err(wrong("nobody has signed for the join")),
            None => Arc::new(join),
            Some(event) => self.signed_join(version, &join, event).await?,
        };
        let (of_state, all) = without_doubles(told.state, told.auth_chain);
        let mut state = Vec::with_capacity(of_state);
        let mut auth_chain = Vec::new();
        // Of these the auth chain may have another copy, which is as it should be.
        let mut bad_in_state = HashSet::new();
        for (index, checked) in self.checker.check(version, all).await?.into_iter().enumerate() {
            match checked {
                Ok(pdu) if index < of_state => state.push(pdu),
                Ok(pdu) if bad_in_state.remove(pdu.event_id()) => state.push(pdu),
                Ok(pdu) => auth_chain.push(pdu),
                Err(error) => {
                    tracing::debug!(room = %join.room_id(), %error, "left out of a room");
                    bad_in_state.extend(error.event_id.filter(|_| index < of_state));
                }
            }
        }
        check_create(version, &join, &state)?;
        Ok(Entrance { room_id: join.room_id().clone(), version, join, state, auth_chain })
    }

    /// Our join as the other server has signed it, too.
    async fn signed_join(
        &self,
        version: &'static RoomVersion,
        join: &Pdu,
        event: Box<RawValue>,
    ) -> Result<Arc<Pdu>, HandshakeError> {
        let checked = self.checker.check(version, vec![event]).await?.pop();
        let signed = checked.and_then(Result::ok);
        signed
            .filter(|signed| signed.event_id() == join.event_id())
            .ok_or_else(|| wrong("the join that it has signed is another one, or not signed"))
    }
}

/// All events once, those of the state first, and how many those are.
fn without_doubles(
    state: Vec<Box<RawValue>>,
    auth_chain: Vec<Box<RawValue>>,
) -> (usize, Vec<Box<RawValue>>) {
    let new: Vec<bool> = {
        let known: HashSet<&str> = state.iter().map(|event| event.get()).collect();
        auth_chain.iter().map(|event| !known.contains(event.get())).collect()
    };
    let of_state = state.len();
    let others = auth_chain.into_iter().zip(new).filter_map(|(event, new)| new.then_some(event));
    (of_state, state.into_iter().chain(others).collect())
}

/// Checks that a state begins with the create event of this very room, of this very version.
fn check_create(
    version: &RoomVersion,
    join: &Pdu,
    state: &[Arc<Pdu>],
) -> Result<(), HandshakeError> {
    let is_create =
        |pdu: &&Arc<Pdu>| pdu.event_type() == "m.room.create" && pdu.state_key() == Some("");
    let create = state.iter().find(is_create).ok_or_else(|| wrong("there is no create event"))?;
    let said = create.content().get("room_version").and_then(Value::as_str).unwrap_or("1");
    match create.room_id() == join.room_id() && said == version.id().as_str() {
        true => Ok(()),
        false => Err(wrong("the create event is that of another room")),
    }
}

fn is_authorised(join: &Pdu) -> bool {
    MemberContent::new(join.content()).has_authorising_user()
}

fn known_versions() -> Vec<RoomVersionId> {
    RoomVersion::all().iter().map(|version| version.id().clone()).collect()
}

fn known(version: RoomVersionId) -> Result<&'static RoomVersion, HandshakeError> {
    RoomVersion::get(&version).ok_or(HandshakeError::Version(version))
}

/// Whether a server does not know the endpoint. One that does not know the room says so in its
/// error code.
fn is_old(error: &AskError) -> bool {
    let AskError::Refused { status: 400 | 404 | 405, errcode, .. } = error else { return false };
    matches!(errcode, None | Some(ErrorCode::Unrecognized))
}

fn raw(pdu: &Pdu) -> Result<Box<RawValue>, HandshakeError> {
    raw_object(pdu.json().clone())
}

fn raw_object(object: Object) -> Result<Box<RawValue>, HandshakeError> {
    let text = json::to_canonical_string(&Value::Object(object));
    let unwritable = |error: serde_json::Error| AskError::Request(error.to_string());
    Ok(RawValue::from_string(text).map_err(unwritable)?)
}
