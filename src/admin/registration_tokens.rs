//! Tokens that open the registration.

use std::sync::Arc;

use actix_web::http::Method;
use parlour_actors::{
    env::Env,
    stored_tokens::{NewTokenError, StoredTokens, TokenState},
};
use parlour_storage::schema::RegistrationToken;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::request::{AdminRequest, AdminRoutes, Answer, refused};
use crate::{error::ApiError, http::Routes};

const LIST: &str = "/_synapse/admin/v1/registration_tokens";
const NEW: &str = "/_synapse/admin/v1/registration_tokens/new";
const ONE: &str = "/_synapse/admin/v1/registration_tokens/{token}";

/// The longest token; the grammar of CS API, "Token-authenticated registration".
const MAX_TOKEN: usize = 64;

/// The length of a token where nobody says what it should be.
const USUAL_TOKEN: usize = 16;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct RegistrationTokenContext {
    /// The tokens.
    pub tokens: StoredTokens,
    /// Time, and letters for tokens.
    pub env: Env,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<RegistrationTokenContext>) -> Routes {
    AdminRoutes::new(context)
        .on(Method::GET, LIST, list)
        .on(Method::POST, NEW, create)
        .on(Method::GET, ONE, get)
        .on(Method::PUT, ONE, update)
        .on(Method::DELETE, ONE, delete)
        .finish()
}

#[derive(Deserialize)]
struct Filter {
    valid: Option<bool>,
}

/// `GET /_synapse/admin/v1/registration_tokens`
async fn list(context: Arc<RegistrationTokenContext>, request: AdminRequest) -> Answer {
    let Filter { valid } = request.query()?;
    let now = context.env.clock.now_ms();
    let all = context.tokens.all()?;
    let wanted = all.iter().filter(|token| valid.is_none_or(|valid| valid == token.is_valid(now)));
    Ok(json!({ "registration_tokens": wanted.map(shown).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
struct Create {
    token: Option<String>,
    length: Option<usize>,
    uses_allowed: Option<u64>,
    expiry_time: Option<u64>,
}

/// `POST /_synapse/admin/v1/registration_tokens/new`
async fn create(context: Arc<RegistrationTokenContext>, request: AdminRequest) -> Answer {
    let body: Create = request.parameters()?;
    context.check_expiry(body.expiry_time)?;
    let length = body.length.unwrap_or(USUAL_TOKEN);
    let token = match body.token {
        Some(token) => token,
        None if (1..=MAX_TOKEN).contains(&length) => context.env.random_string(length),
        None => return Err(ApiError::invalid_param("A token has 1 to 64 characters")),
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    if !(1..=MAX_TOKEN).contains(&token.len()) || !token.chars().all(letters) {
        let message = "A token has 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -";
        return Err(ApiError::invalid_param(message));
    }
    let (uses_allowed, expiry_time) = (body.uses_allowed, body.expiry_time);
    let entry = RegistrationToken { uses_allowed, expiry_time, completed: 0 };
    match context.tokens.create(&token, entry.clone()).await {
        Ok(()) => Ok(shown(&TokenState { token, entry, pending: 0 })),
        Err(error @ NewTokenError::Taken) => Err(ApiError::invalid_param(error.to_string())),
        Err(error @ NewTokenError::TooMany) => Err(refused(error.to_string())),
        Err(NewTokenError::User(error)) => Err(error.into()),
    }
}

/// `GET /_synapse/admin/v1/registration_tokens/{token}`
async fn get(context: Arc<RegistrationTokenContext>, request: AdminRequest) -> Answer {
    let token = request.arg(0);
    let state = context.tokens.get(token)?;
    state.as_ref().map(shown).ok_or_else(|| unknown(token))
}

/// What is left out stays as it is; `null` lifts the bound.
#[derive(Deserialize)]
struct Update {
    #[serde(default, deserialize_with = "given")]
    uses_allowed: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given")]
    expiry_time: Option<Option<u64>>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// `PUT /_synapse/admin/v1/registration_tokens/{token}`
async fn update(context: Arc<RegistrationTokenContext>, request: AdminRequest) -> Answer {
    let body: Update = request.parameters()?;
    context.check_expiry(body.expiry_time.flatten())?;
    let change = move |entry: &mut RegistrationToken| {
        entry.uses_allowed = body.uses_allowed.unwrap_or(entry.uses_allowed);
        entry.expiry_time = body.expiry_time.unwrap_or(entry.expiry_time);
    };
    let state = context.tokens.update(request.arg(0), change).await?;
    state.as_ref().map(shown).ok_or_else(|| unknown(request.arg(0)))
}

/// `DELETE /_synapse/admin/v1/registration_tokens/{token}`
async fn delete(context: Arc<RegistrationTokenContext>, request: AdminRequest) -> Answer {
    match context.tokens.remove(request.arg(0)).await? {
        true => Ok(json!({})),
        false => Err(unknown(request.arg(0))),
    }
}

impl RegistrationTokenContext {
    fn check_expiry(&self, expiry_time: Option<u64>) -> Result<(), ApiError> {
        match expiry_time {
            Some(time) if time < self.env.clock.now_ms() => {
                Err(ApiError::invalid_param("expiry_time must not be in the past"))
            }
            _ => Ok(()),
        }
    }
}

fn unknown(token: &str) -> ApiError {
    ApiError::not_found(format!("No such registration token: {token}"))
}

fn shown(state: &TokenState) -> Value {
    json!({
        "token": state.token,
        "uses_allowed": state.entry.uses_allowed,
        "pending": state.pending,
        "completed": state.entry.completed,
        "expiry_time": state.entry.expiry_time,
    })
}
