//! Backups of the keys with which users read their rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpResponse, http::StatusCode, http::header};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use parlour_actors::users::{Backup, BackupError, BackupKey, KeysIn, Users};
use parlour_storage::schema::BackedUpKey;
use ruma::{
    OwnedRoomId, UInt,
    api::{
        client::backup::{
            BackupAlgorithm, KeyBackupData, add_backup_keys, add_backup_keys_for_room,
            add_backup_keys_for_session, create_backup_version, delete_backup_keys,
            delete_backup_keys_for_room, delete_backup_keys_for_session, delete_backup_version,
            get_backup_info, get_backup_keys, get_backup_keys_for_room,
            get_backup_keys_for_session, get_latest_backup_info, update_backup_version,
        },
        error::ErrorCode,
    },
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::keys::text;
use crate::{
    error::ApiError,
    http::{Answer, Answering, Api, Caller, Json, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::View,
};

/// The largest upload of keys, in bytes.
const MAX_BODY: usize = 16 << 20;

/// The longest key of one session, in bytes.
const MAX_KEY: usize = 64 << 10;

/// The longest name of a session, in bytes.
const MAX_SESSION: usize = 255;

/// How many keys are read at once.
const BATCH: usize = 500;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct KeyBackupContext {
    /// Where backups are kept.
    pub users: Users,
    /// Where long reads run.
    pub view: View,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<KeyBackupContext>) -> Routes {
    let keys = RouteOptions::rate(RateClass::Other).max_body(MAX_BODY);
    Routes::new(Api::Client, context)
        .route(create)
        .route(latest)
        .route(info)
        .route(update)
        .route(delete)
        .route_with(keys, put_keys)
        .route_with(keys, put_keys_of_room)
        .route_with(keys, put_key)
        .route(get_keys)
        .route(get_keys_of_room)
        .route(get_key)
        .route(delete_keys)
        .route(delete_keys_of_room)
        .route(delete_key)
        .finish()
}

/// A backup, with what the client says about it as it came.
#[derive(Debug, Serialize)]
struct Info {
    algorithm: Box<RawValue>,
    auth_data: Box<RawValue>,
    count: u64,
    etag: String,
    version: String,
}

/// What a client says about a backup.
#[derive(Debug, Deserialize)]
struct Described {
    algorithm: Box<RawValue>,
    auth_data: Box<RawValue>,
    #[serde(default)]
    version: Option<String>,
}

impl Info {
    fn new(backup: &Backup) -> Result<Self, ApiError> {
        let described = serde_json::from_slice(&backup.info).map_err(ApiError::internal)?;
        let Described { algorithm, auth_data, .. } = described;
        let (etag, version) = (backup.etag.to_string(), backup.version.to_string());
        Ok(Self { algorithm, auth_data, count: backup.count, etag, version })
    }
}

/// Checks what a client says about a backup. ruma's type demands signatures, which are optional.
fn check(described: &Raw<BackupAlgorithm>) -> Result<(), ApiError> {
    let mut described: Map<String, Value> = described.deserialize_as_unchecked()?;
    if let Some(Value::Object(data)) = described.get_mut("auth_data") {
        data.entry("signatures").or_insert_with(|| Map::new().into());
    }
    Raw::<BackupAlgorithm>::from_json(to_raw_value(&described)?).deserialize()?;
    Ok(())
}

/// `POST /_matrix/client/v3/room_keys/version`
async fn create(
    context: Arc<KeyBackupContext>,
    req: Ruma<create_backup_version::v3::Request>,
) -> Result<create_backup_version::v3::Response, ApiError> {
    check(&req.algorithm)?;
    let info = text(&req.algorithm);
    let version = context.users.create_backup(req.caller.user_id.as_str(), info).await?;
    Ok(create_backup_version::v3::Response::new(version.to_string()))
}

/// `GET /_matrix/client/v3/room_keys/version`
async fn latest(
    context: Arc<KeyBackupContext>,
    req: Ruma<Answering<get_latest_backup_info::v3::Request, Info>>,
) -> Result<Json<Info>, ApiError> {
    Ok(Json(Info::new(&context.users.backup(req.caller.user_id.as_str(), None)?)?))
}

/// `GET /_matrix/client/v3/room_keys/version/{version}`
async fn info(
    context: Arc<KeyBackupContext>,
    req: Ruma<Answering<get_backup_info::v3::Request, Info>>,
) -> Result<Json<Info>, ApiError> {
    let version = number(&req.version)?;
    Ok(Json(Info::new(&context.users.backup(req.caller.user_id.as_str(), Some(version))?)?))
}

/// `PUT /_matrix/client/v3/room_keys/version/{version}`
async fn update(
    context: Arc<KeyBackupContext>,
    req: Ruma<update_backup_version::v3::Request>,
) -> Result<update_backup_version::v3::Response, ApiError> {
    check(&req.algorithm)?;
    let described: Described = serde_json::from_str(req.algorithm.json().get())?;
    if described.version.is_some_and(|version| version != req.version) {
        return Err(ApiError::invalid_param("The version in the body is another one"));
    }
    let (version, info) = (number(&req.version)?, text(&req.algorithm));
    context.users.update_backup(req.caller.user_id.as_str(), version, info).await?;
    Ok(update_backup_version::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/room_keys/version/{version}`
async fn delete(
    context: Arc<KeyBackupContext>,
    req: Ruma<delete_backup_version::v3::Request>,
) -> Result<delete_backup_version::v3::Response, ApiError> {
    let version = number(&req.version)?;
    context.users.delete_backup(req.caller.user_id.as_str(), version).await?;
    Ok(delete_backup_version::v3::Response::new())
}

/// `PUT /_matrix/client/v3/room_keys/keys`
async fn put_keys(
    context: Arc<KeyBackupContext>,
    req: Ruma<add_backup_keys::v3::Request>,
) -> Result<add_backup_keys::v3::Response, ApiError> {
    let rooms = req.rooms.iter().map(|(room, keys)| (room, &keys.sessions));
    let (etag, count) = context.put(&req.caller, &req.version, rooms).await?;
    Ok(add_backup_keys::v3::Response::new(etag, count))
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}`
async fn put_keys_of_room(
    context: Arc<KeyBackupContext>,
    req: Ruma<add_backup_keys_for_room::v3::Request>,
) -> Result<add_backup_keys_for_room::v3::Response, ApiError> {
    let room = [(&req.room_id, &req.sessions)].into_iter();
    let (etag, count) = context.put(&req.caller, &req.version, room).await?;
    Ok(add_backup_keys_for_room::v3::Response::new(etag, count))
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
async fn put_key(
    context: Arc<KeyBackupContext>,
    req: Ruma<add_backup_keys_for_session::v3::Request>,
) -> Result<add_backup_keys_for_session::v3::Response, ApiError> {
    let sessions = BTreeMap::from([(req.session_id.clone(), req.session_data.clone())]);
    let room = [(&req.room_id, &sessions)].into_iter();
    let (etag, count) = context.put(&req.caller, &req.version, room).await?;
    Ok(add_backup_keys_for_session::v3::Response::new(etag, count))
}

/// `GET /_matrix/client/v3/room_keys/keys`
async fn get_keys(
    context: Arc<KeyBackupContext>,
    req: Ruma<get_backup_keys::v3::Request>,
) -> Result<Answer<get_backup_keys::v3::Response>, ApiError> {
    let reading = context.read(&req.caller, &req.version, KeysIn::Backup)?;
    Ok(Answer::Whole(reading.answer(context.view.clone())))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}`
async fn get_keys_of_room(
    context: Arc<KeyBackupContext>,
    req: Ruma<get_backup_keys_for_room::v3::Request>,
) -> Result<Answer<get_backup_keys_for_room::v3::Response>, ApiError> {
    let which = KeysIn::Room(req.room_id.to_string());
    let reading = context.read(&req.caller, &req.version, which)?;
    Ok(Answer::Whole(reading.answer(context.view.clone())))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
async fn get_key(
    context: Arc<KeyBackupContext>,
    req: Ruma<get_backup_keys_for_session::v3::Request>,
) -> Result<get_backup_keys_for_session::v3::Response, ApiError> {
    let (user, version) = (req.caller.user_id.as_str(), number(&req.version)?);
    let which = KeysIn::Session(req.room_id.to_string(), req.session_id.clone());
    let (mut found, _) = context.users.backup_keys(user, version, &which, None, 1)?;
    let (.., key) = found.pop().ok_or_else(|| ApiError::not_found("There is no such key"))?;
    let key = serde_json::from_slice(&key).map_err(ApiError::internal)?;
    Ok(get_backup_keys_for_session::v3::Response::new(Raw::from_json(key)))
}

/// `DELETE /_matrix/client/v3/room_keys/keys`
async fn delete_keys(
    context: Arc<KeyBackupContext>,
    req: Ruma<delete_backup_keys::v3::Request>,
) -> Result<delete_backup_keys::v3::Response, ApiError> {
    let (etag, count) = context.delete(&req.caller, &req.version, KeysIn::Backup).await?;
    Ok(delete_backup_keys::v3::Response::new(etag, count))
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}`
async fn delete_keys_of_room(
    context: Arc<KeyBackupContext>,
    req: Ruma<delete_backup_keys_for_room::v3::Request>,
) -> Result<delete_backup_keys_for_room::v3::Response, ApiError> {
    let which = KeysIn::Room(req.room_id.to_string());
    let (etag, count) = context.delete(&req.caller, &req.version, which).await?;
    Ok(delete_backup_keys_for_room::v3::Response::new(etag, count))
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
async fn delete_key(
    context: Arc<KeyBackupContext>,
    req: Ruma<delete_backup_keys_for_session::v3::Request>,
) -> Result<delete_backup_keys_for_session::v3::Response, ApiError> {
    let which = KeysIn::Session(req.room_id.to_string(), req.session_id.clone());
    let (etag, count) = context.delete(&req.caller, &req.version, which).await?;
    Ok(delete_backup_keys_for_session::v3::Response::new(etag, count))
}

type Sessions = BTreeMap<String, Raw<KeyBackupData>>;

impl KeyBackupContext {
    async fn put(
        &self,
        caller: &Caller,
        version: &str,
        rooms: impl Iterator<Item = (&OwnedRoomId, &Sessions)>,
    ) -> Result<(String, UInt), ApiError> {
        let version = number(version)?;
        let mut new = Vec::new();
        for (room, sessions) in rooms {
            for (session, key) in sessions {
                new.push(read_key(room, session, key)?);
            }
        }
        let backup = self.users.put_backup_keys(caller.user_id.as_str(), version, new).await?;
        Ok(changed(&backup))
    }

    async fn delete(
        &self,
        caller: &Caller,
        version: &str,
        which: KeysIn,
    ) -> Result<(String, UInt), ApiError> {
        let (user, version) = (caller.user_id.as_str(), number(version)?);
        Ok(changed(&self.users.delete_backup_keys(user, version, which).await?))
    }

    fn read(&self, caller: &Caller, version: &str, which: KeysIn) -> Result<Reading, ApiError> {
        let (user, version) = (caller.user_id.to_string(), number(version)?);
        // Whether it is there has to be known before the answer begins.
        self.users.backup(&user, Some(version))?;
        let users = self.users.clone();
        Ok(Reading { users, user, version, which, after: None, room: None, stage: Stage::Start })
    }
}

fn changed(backup: &Backup) -> (String, UInt) {
    (backup.etag.to_string(), UInt::new_saturating(backup.count))
}

fn number(version: &str) -> Result<u64, ApiError> {
    let number = version.parse().ok().filter(|number: &u64| number.to_string() == version);
    number.ok_or_else(|| ApiError::not_found("Unknown backup version"))
}

/// What of a key says how good it is.
#[derive(Deserialize)]
struct Meta {
    first_message_index: UInt,
    forwarded_count: UInt,
    is_verified: bool,
    session_data: BTreeMap<String, Box<RawValue>>,
}

fn read_key(
    room: &OwnedRoomId,
    session: &str,
    key: &Raw<KeyBackupData>,
) -> Result<BackupKey, ApiError> {
    let json = key.json().get();
    if json.len() > MAX_KEY || session.len() > MAX_SESSION {
        return Err(ApiError::too_large("A key, or the name of its session, is too long"));
    }
    let Meta { first_message_index, forwarded_count, is_verified, session_data } =
        serde_json::from_str(json)?;
    drop(session_data);
    let meta = BackedUpKey {
        is_verified,
        first_message_index: first_message_index.into(),
        forwarded_count: forwarded_count.into(),
    };
    Ok(BackupKey { room: room.to_string(), session: session.to_owned(), meta, data: text(key) })
}

/// Keys on their way to a client, who may have very many of them: they are read while they are
/// sent.
struct Reading {
    users: Users,
    user: String,
    version: u64,
    which: KeysIn,
    /// Where the next keys are.
    after: Option<Bytes>,
    /// The room whose sessions are being written.
    room: Option<String>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Start,
    Keys,
    End,
}

impl Reading {
    fn answer(self, view: View) -> HttpResponse {
        let body = try_unfold(self, move |reading| {
            let view = view.clone();
            async move {
                if reading.stage == Stage::End {
                    return Ok(None);
                }
                view.run(move |_| reading.next()).await.map(Some)
            }
        });
        let json = (header::CONTENT_TYPE, "application/json");
        HttpResponse::Ok().insert_header(json).streaming::<_, ApiError>(body)
    }

    fn next(mut self) -> Result<(Bytes, Self), ApiError> {
        let Self { users, user, version, which, after, .. } = &self;
        let (keys, next) = users.backup_keys(user, *version, which, after.as_ref(), BATCH)?;
        let mut out = String::new();
        let by_room = matches!(self.which, KeysIn::Backup);
        if self.stage == Stage::Start {
            out.push_str(if by_room { r#"{"rooms":{"# } else { r#"{"sessions":{"# });
            self.stage = Stage::Keys;
        }
        for (room, session, key) in keys {
            let is_first = self.room.is_none();
            let goes_on = self.room.as_deref() == Some(&*room);
            if by_room && !goes_on {
                out.push_str(if is_first { "" } else { "}}," });
                out.push_str(&quoted(&room));
                out.push_str(r#":{"sessions":{"#);
            } else if !is_first {
                out.push(',');
            }
            out.push_str(&quoted(&session));
            out.push(':');
            out.push_str(&String::from_utf8_lossy(&key));
            self.room = Some(room);
        }
        self.after = next;
        if self.after.is_none() {
            self.stage = Stage::End;
            out.push_str(if by_room && self.room.is_some() { "}}}}" } else { "}}" });
        }
        Ok((out.into(), self))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Unknown => Self::not_found("Unknown backup version"),
            BackupError::WrongVersion { current } => {
                let (status, code) = (StatusCode::FORBIDDEN, ErrorCode::WrongRoomKeysVersion);
                Self::new(status, code, error.to_string())
                    .with("current_version", current.to_string())
            }
            BackupError::OtherAlgorithm => Self::invalid_param(error.to_string()),
            BackupError::TooMuch => Self::too_large(error.to_string()),
            BackupError::User(error) => error.into(),
        }
    }
}
