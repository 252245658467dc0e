//! Keys of devices: published, asked for, given out once each.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#key-management-api>

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::http::StatusCode;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parlour_actors::{
    changes::Changes,
    users::{KeyError, KeysById, NewKeys, Users},
};
use ruma::{
    DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedServerName, OwnedUserId,
    UserId,
    api::{
        client::keys::{claim_keys, get_key_changes, get_keys, upload_keys},
        error::ErrorCode,
        federation::keys as federation,
    },
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::{Value, json};

use crate::{
    error::ApiError,
    federation::outbound::{
        client::AskError,
        user_keys::{KeysError, Look, UserKeysClient, Wanted},
    },
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::{
        SyncToken, View,
        keys::{UserKeys, by_device, counts},
    },
};

/// The largest upload, in bytes.
const MAX_UPLOAD: usize = 1 << 20;

/// How many users' keys are given out, and how many servers asked, at the same time.
const AT_ONCE: usize = 16;

/// How long other servers have, if the client does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long they have at most.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// What these endpoints need to know.
#[derive(Debug)]
pub struct KeyContext {
    /// Where keys are kept.
    pub users: Users,
    /// Who shares rooms with whom.
    pub view: View,
    /// Whose keys have changed.
    pub changes: Arc<Changes>,
    /// This server.
    pub server_name: OwnedServerName,
    /// Who asks other servers.
    pub remote: UserKeysClient,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<KeyContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_UPLOAD).for_guests();
    Routes::new(Api::Client, context)
        .route_with(options, upload)
        .route_with(options, query)
        .route_with(options, claim)
        .route(list_changes)
        .finish()
}

/// `POST /_matrix/client/v3/keys/upload`
async fn upload(
    context: Arc<KeyContext>,
    req: Ruma<upload_keys::v3::Request>,
) -> Result<upload_keys::v3::Response, ApiError> {
    let (user, device) = (&req.caller.user_id, &req.caller.device_id);
    let new =
        new_keys(user, device, req.device_keys.as_ref(), &req.one_time_keys, &req.fallback_keys)?;
    let left = context.users.upload_keys(user.as_str(), device.as_str(), new).await?;
    Ok(upload_keys::v3::Response::new(counts(&left)))
}

/// Reads the keys of a device.
///
/// # Errors
///
/// `M_BAD_JSON`, `M_INVALID_PARAM`
pub(super) fn new_keys(
    user: &UserId,
    device: &DeviceId,
    device_keys: Option<&Raw<DeviceKeys>>,
    one_time: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    fallback: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
) -> Result<NewKeys, ApiError> {
    if let Some(keys) = device_keys {
        check_device_keys(user, device, &keys.deserialize()?)?;
    }
    Ok(NewKeys {
        device_keys: device_keys.map(text),
        one_time: by_id(one_time)?,
        fallback: by_id(fallback)?,
    })
}

fn check_device_keys(user: &UserId, device: &DeviceId, keys: &DeviceKeys) -> Result<(), ApiError> {
    if keys.user_id != user || keys.device_id != device {
        return Err(ApiError::invalid_param("These are not the keys of your device"));
    }
    let is_of_device = |id: &str| id.split_once(':').is_some_and(|(_, name)| name == device);
    if keys.keys.is_empty() || !keys.keys.keys().all(|id| is_of_device(id.as_str())) {
        return Err(ApiError::invalid_param("The ids of the keys do not name the device"));
    }
    Ok(())
}

fn by_id(keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>) -> Result<KeysById, ApiError> {
    let mut found = KeysById::new();
    for (id, key) in keys {
        // All else is between clients.
        let shape: Value = serde_json::from_str(key.json().get())?;
        if !shape.is_string() && !shape["key"].is_string() {
            return Err(ApiError::bad_json("A one-time key is a string, or has one"));
        }
        let named = id.as_str().split_once(':').filter(|(_, name)| !name.is_empty());
        let (algorithm, name) =
            named.ok_or_else(|| ApiError::invalid_param("A key's id is `algorithm:id`"))?;
        found.insert((algorithm.to_owned(), name.to_owned()), text(key));
    }
    Ok(found)
}

/// A piece of JSON as it came.
pub(super) fn text<T>(raw: &Raw<T>) -> Bytes {
    Bytes::copy_from_slice(raw.json().get().as_bytes())
}

/// `POST /_matrix/client/v3/keys/query`
async fn query(
    context: Arc<KeyContext>,
    req: Ruma<get_keys::v3::Request>,
) -> Result<get_keys::v3::Response, ApiError> {
    let time = time(req.timeout);
    let Ruma { request, caller, .. } = req;
    let (local, remote) = context.split(request.device_keys);
    let (users, others, by) =
        (context.users.clone(), context.remote.clone(), caller.user_id.clone());
    let look = move |_: &View| -> Result<_, ApiError> {
        Ok((query_local(&users, &caller, local)?, others.look(remote)?))
    };
    let (mut response, Look { mut known, unknown }) = context.view.run(look).await?;
    let answers = stream::iter(unknown).map(async |(server, missing)| {
        let answer = context.remote.query(&server, missing, time).await;
        (server, answer)
    });
    let mut answers = answers.buffer_unordered(AT_ONCE);
    while let Some((server, answer)) = answers.next().await {
        match answer {
            Ok(found) => known.extend(found),
            Err(KeysError::Ask(error)) => {
                response.failures.insert(server.to_string(), failure(&error));
            }
            Err(KeysError::User(error)) => return Err(error.into()),
        }
    }
    drop(answers);
    let users = context.users.clone();
    let add = move |_: &View| -> Result<_, ApiError> {
        for (user, keys) in known {
            let keys = UserKeys::of_remote(&users, &by, &user, &keys)?;
            put(&mut response, user, keys);
        }
        Ok(response)
    };
    context.view.run(add).await
}

fn query_local(
    users: &Users,
    caller: &Caller,
    wanted: Wanted,
) -> Result<get_keys::v3::Response, ApiError> {
    let mut response = get_keys::v3::Response::new();
    for (user, devices) in wanted {
        if users.account(user.as_str())?.is_none() {
            continue;
        }
        let keys = UserKeys::read(users, Some(&caller.user_id), &user, &devices)?;
        put(&mut response, user, keys);
    }
    Ok(response)
}

fn put(response: &mut get_keys::v3::Response, user: OwnedUserId, keys: UserKeys) {
    response.master_keys.extend(keys.master.map(|key| (user.clone(), key)));
    response.self_signing_keys.extend(keys.self_signing.map(|key| (user.clone(), key)));
    response.user_signing_keys.extend(keys.user_signing.map(|key| (user.clone(), key)));
    response.device_keys.insert(user, keys.devices);
}

fn failure(error: &AskError) -> Value {
    let (code, why) = match error {
        AskError::NotAllowed(_) => ("M_FORBIDDEN", "This server is not spoken to"),
        AskError::Refused { .. } => ("M_UNKNOWN", "The server refuses"),
        _ => ("M_UNKNOWN", "The server gives no answer"),
    };
    json!({ "errcode": code, "error": why })
}

fn time(timeout: Option<Duration>) -> Duration {
    timeout.unwrap_or(TIMEOUT).min(MAX_TIMEOUT)
}

/// `POST /_matrix/client/v3/keys/claim`
async fn claim(
    context: Arc<KeyContext>,
    req: Ruma<claim_keys::v3::Request>,
) -> Result<claim_keys::v3::Response, ApiError> {
    let time = time(req.timeout);
    let (local, remote) = context.split(req.request.one_time_keys);
    let mut found = BTreeMap::new();
    let claims = stream::iter(local).map(async |(user, wanted): (OwnedUserId, Claims)| {
        let wanted = wanted.into_iter().map(|(device, kind)| (device.into(), kind.to_string()));
        let claimed = context.users.claim_keys(user.as_str(), wanted.collect()).await?;
        Ok::<_, ApiError>((user, claimed))
    });
    let mut claims = claims.buffer_unordered(AT_ONCE);
    while let Some(claimed) = claims.next().await {
        let (user, claimed) = claimed?;
        let keys = by_device(claimed);
        if !keys.is_empty() {
            found.insert(user, keys);
        }
    }
    let mut response = claim_keys::v3::Response::new(found);
    let mut servers = BTreeMap::<OwnedServerName, BTreeMap<_, _>>::new();
    for (user, wanted) in remote {
        servers.entry(user.server_name().to_owned()).or_default().insert(user, wanted);
    }
    let answers = stream::iter(servers).map(async |(server, wanted): (_, BTreeMap<_, Claims>)| {
        let request = federation::claim_keys::v1::Request::new(wanted.clone());
        let answer = context.remote.claim(&server, request, time).await;
        (server, wanted, answer)
    });
    let mut answers = answers.buffer_unordered(AT_ONCE);
    while let Some((server, wanted, answer)) = answers.next().await {
        match answer {
            Ok(answer) => {
                for (user, mut keys) in answer.one_time_keys {
                    let Some(wanted) = wanted.get(&user) else { continue };
                    keys.retain(|device, _| wanted.contains_key(device));
                    response.one_time_keys.insert(user, keys);
                }
            }
            Err(error) => {
                response.failures.insert(server.to_string(), failure(&error));
            }
        }
    }
    Ok(response)
}

type Claims = BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>;

/// `GET /_matrix/client/v3/keys/changes`
async fn list_changes(
    context: Arc<KeyContext>,
    req: Ruma<get_key_changes::v3::Request>,
) -> Result<get_key_changes::v3::Response, ApiError> {
    let place = |text: &str| text.parse::<SyncToken>().map(|token| token.pos);
    let (from, to) = (place(&req.from)?, place(&req.to)?);
    let now = context.changes.current();
    if from > now || to > now {
        return Err(ApiError::invalid_param("A token is of another server"));
    }
    let (user, changes) = (req.caller.user_id.clone(), context.changes.clone());
    let lists = context.view.run(move |view| view.device_lists(&changes, &user, from, to)).await?;
    let ids = |users: std::collections::BTreeSet<String>| {
        users.into_iter().filter_map(|user| user.try_into().ok()).collect()
    };
    Ok(get_key_changes::v3::Response::new(ids(lists.changed), ids(lists.left)))
}

impl KeyContext {
    /// Parts what is asked about this server's users from what is asked about others'.
    fn split<T>(
        &self,
        wanted: BTreeMap<OwnedUserId, T>,
    ) -> (BTreeMap<OwnedUserId, T>, BTreeMap<OwnedUserId, T>) {
        wanted.into_iter().partition(|(user, _)| user.server_name() == self.server_name)
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NoDevice => Self::unknown_token(false),
            KeyError::Taken(_) => Self::invalid_param(error.to_string()),
            KeyError::NamedLikeKey => Self::forbidden(error.to_string()),
            KeyError::TooMany => {
                let status = StatusCode::BAD_REQUEST;
                Self::new(status, ErrorCode::LimitExceeded, error.to_string())
            }
            KeyError::User(error) => error.into(),
        }
    }
}
