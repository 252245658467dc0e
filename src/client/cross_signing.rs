//! Cross-signing: keys of users, and what they have signed.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parlour_actors::users::{CrossSigningKeys, NewSignature, SigningError, Users};
use ruma::{
    OwnedServerName, OwnedUserId, UserId,
    api::{
        client::keys::{upload_signatures, upload_signing_keys},
        error::ErrorCode,
    },
    encryption::CrossSigningKey,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    keys::text,
    uiaa::{Guarded, Uiaa},
};
use crate::{
    error::ApiError,
    federation::outbound::user_keys::{KeysError, UserKeysClient, Wanted},
    http::{Answering, Api, Json, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::View,
};

/// The largest request, in bytes.
const MAX_BODY: usize = 1 << 20;

/// How long other servers have to say what they know, and how many are asked at the same time.
const TIMEOUT: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 16;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct CrossSigningContext {
    /// Where keys are kept.
    pub users: Users,
    /// Whose keys other servers have.
    pub remote: UserKeysClient,
    /// Where it may take long to read.
    pub view: View,
    /// Who is half-way through.
    pub uiaa: Arc<Uiaa>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<CrossSigningContext>) -> Routes {
    // With a password in hand: it must not be guessed here.
    let guarded = RouteOptions::rate(RateClass::Login).max_body(MAX_BODY);
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_BODY);
    Routes::new(Api::Client, context)
        .route_with(guarded, upload_keys)
        .route_with(options, upload_signatures)
        .finish()
}

/// `POST /_matrix/client/v3/keys/device_signing/upload`
///
/// Keys that are the first ones, or that are here already, need no further authentication.
async fn upload_keys(
    context: Arc<CrossSigningContext>,
    req: Ruma<Guarded<upload_signing_keys::v3::Request>>,
) -> Result<upload_signing_keys::v3::Response, ApiError> {
    let user = &req.caller.user_id;
    let keys = [
        ("master", &req.request.master_key),
        ("self_signing", &req.request.self_signing_key),
        ("user_signing", &req.request.user_signing_key),
    ];
    let mut new = CrossSigningKeys::new();
    for (usage, key) in keys {
        if let Some(key) = key {
            key.deserialize_as_unchecked::<CrossSigningKey>()?;
            new.insert(usage, text(key));
        }
    }
    match context.users.set_cross_signing_keys(user.as_str(), new.clone(), false).await {
        Err(SigningError::Replaces) => {}
        done => return Ok(done.map(|()| upload_signing_keys::v3::Response::new())?),
    }
    let passed = context.uiaa.check_password(&req.request, Some(user)).await?;
    context.users.set_cross_signing_keys(user.as_str(), new, true).await?;
    context.uiaa.finish(passed);
    Ok(upload_signing_keys::v3::Response::new())
}

/// What went wrong, by user and key. ruma's type cannot be made.
#[derive(Debug, Serialize)]
struct Failures {
    failures: BTreeMap<OwnedUserId, BTreeMap<String, Failure>>,
}

#[derive(Debug, Serialize)]
struct Failure {
    errcode: ErrorCode,
    error: String,
}

/// What other servers were asked, of whose users nothing was known here.
#[derive(Default)]
struct Asked {
    masters: BTreeMap<OwnedUserId, Bytes>,
    /// Those that gave no answer.
    silent: BTreeSet<OwnedServerName>,
}

/// `POST /_matrix/client/v3/keys/signatures/upload`
async fn upload_signatures(
    context: Arc<CrossSigningContext>,
    req: Ruma<Answering<upload_signatures::v3::Request, Failures>>,
) -> Result<Json<Failures>, ApiError> {
    let asked = context.ask(&req.caller.user_id, req.signed_keys.keys()).await?;
    let (mut places, mut new) = (Vec::new(), Vec::new());
    for (user, keys) in &req.signed_keys {
        for (key, signed) in keys.iter() {
            places.push((user.clone(), key.to_owned()));
            let signed = Bytes::copy_from_slice(RawValue::get(signed).as_bytes());
            let asked = asked.masters.get(user).cloned();
            new.push(NewSignature { user: user.to_string(), key: key.to_owned(), signed, asked });
        }
    }
    let results = context.users.add_signatures(req.caller.user_id.as_str(), new).await?;
    let mut failures = BTreeMap::<_, BTreeMap<_, _>>::new();
    for ((user, key), result) in places.into_iter().zip(results) {
        if let Err(error) = result {
            let failure = asked.failure(&user, &error);
            failures.entry(user).or_default().insert(key, failure);
        }
    }
    Ok(Json(Failures { failures }))
}

impl CrossSigningContext {
    /// Asks the servers of those among some users of whom nothing is known here.
    async fn ask<'a>(
        &self,
        caller: &UserId,
        users: impl Iterator<Item = &'a OwnedUserId>,
    ) -> Result<Asked, ApiError> {
        let others = users.filter(|user| user.server_name() != caller.server_name());
        let wanted: Wanted = others.map(|user| (user.clone(), Vec::new())).collect();
        let mut asked = Asked::default();
        if wanted.is_empty() {
            return Ok(asked);
        }
        let remote = self.remote.clone();
        let look = self.view.run(move |_| remote.look(wanted).map_err(ApiError::from)).await?;
        let answers = stream::iter(look.unknown).map(async |(server, missing)| {
            let answer = self.remote.query(&server, missing, TIMEOUT).await;
            (server, answer)
        });
        let mut answers = answers.buffer_unordered(AT_ONCE);
        while let Some((server, answer)) = answers.next().await {
            match answer {
                Ok(found) => {
                    asked.masters.extend(found.into_iter().filter_map(|(user, keys)| {
                        Some((user, keys.signing.get("master")?.clone()))
                    }))
                }
                Err(KeysError::Ask(_)) => drop(asked.silent.insert(server)),
                Err(KeysError::User(error)) => return Err(error.into()),
            }
        }
        Ok(asked)
    }
}

impl Asked {
    /// Why a signature was not taken. Whether a server that is silent knows the key nobody can say.
    fn failure(&self, user: &UserId, error: &SigningError) -> Failure {
        if matches!(error, SigningError::Unknown) && self.silent.contains(user.server_name()) {
            let error = "The user's server gives no answer".to_owned();
            return Failure { errcode: ErrorCode::Unknown, error };
        }
        Failure { errcode: errcode(error), error: error.to_string() }
    }
}

fn errcode(error: &SigningError) -> ErrorCode {
    match error {
        SigningError::NoMasterKey => ErrorCode::MissingParam,
        SigningError::Invalid(_) | SigningError::Different => ErrorCode::InvalidParam,
        SigningError::Signature(_) => ErrorCode::from("M_INVALID_SIGNATURE"),
        SigningError::Unknown => ErrorCode::NotFound,
        SigningError::NamedLikeDevice | SigningError::Replaces => ErrorCode::Forbidden,
        SigningError::TooMany => ErrorCode::LimitExceeded,
        SigningError::User(_) => ErrorCode::Unknown,
    }
}

impl From<SigningError> for ApiError {
    fn from(error: SigningError) -> Self {
        use actix_web::http::StatusCode;
        let status = match &error {
            SigningError::NamedLikeDevice | SigningError::Replaces => StatusCode::FORBIDDEN,
            SigningError::User(_) => {
                return match error {
                    SigningError::User(error) => error.into(),
                    other => Self::internal(other),
                };
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, errcode(&error), error.to_string())
    }
}
