//! Making accounts by who knows a secret of the configuration, without being logged in.
//!
//! The client fetches a nonce and sends the account's data with an HMAC-SHA1 over them, keyed with
//! the shared secret. The form is Synapse's, since tools for it exist.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use parlour_actors::env::Env;
use ruma::api::error::ErrorCode;
use serde::Deserialize;
use serde_json::json;
use sha1::Sha1;

use crate::{
    client::accounts::{Accounts, NewAccount, Wish, check_password},
    error::ApiError,
    http::{Api, RawRequest, RouteOptions, Routes},
    limits::RateClass,
};

const PATH: &str = "/_synapse/admin/v1/register";

/// How long a nonce is good.
const LIFETIME: Duration = Duration::from_secs(60);

/// How many nonces may be out; the oldest gives way.
const MAX_NONCES: usize = 1_000;

/// Length of a nonce.
const NONCE_LEN: usize = 32;

/// What these endpoints need to know.
pub struct SharedSecretContext {
    accounts: Arc<Accounts>,
    /// None: the endpoints are there, and refuse.
    secret: Option<String>,
    nonces: Nonces,
}

impl fmt::Debug for SharedSecretContext {
    // The secret is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecretContext").finish_non_exhaustive()
    }
}

impl SharedSecretContext {
    /// With the secret of the configuration; without one nobody can make an account this way.
    #[must_use]
    pub fn new(accounts: Arc<Accounts>, secret: Option<String>, env: Env) -> Self {
        let nonces = Nonces { env, out: Mutex::default() };
        Self { accounts, secret: secret.filter(|secret| !secret.is_empty()), nonces }
    }

    fn secret(&self) -> Result<&str, ApiError> {
        self.secret.as_deref().ok_or_else(|| refused("Registration by shared secret is off"))
    }
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<SharedSecretContext>) -> Routes {
    // Asking for a nonce is free of charge; guessing a MAC is not.
    let costly = RouteOptions::rate(RateClass::Registration);
    Routes::new(Api::Admin, context)
        .raw(Method::GET, PATH, RouteOptions::default(), nonce)
        .raw(Method::POST, PATH, costly, register)
        .finish()
}

/// The body of a registration.
#[derive(Deserialize)]
struct Registration {
    nonce: String,
    username: String,
    #[serde(default)]
    displayname: Option<String>,
    password: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    user_type: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    mac: String,
}

/// `GET /_synapse/admin/v1/register`
async fn nonce(context: Arc<SharedSecretContext>, _: RawRequest) -> Result<HttpResponse, ApiError> {
    context.secret()?;
    Ok(HttpResponse::Ok().json(json!({ "nonce": context.nonces.give() })))
}

/// `POST /_synapse/admin/v1/register`
async fn register(
    context: Arc<SharedSecretContext>,
    request: RawRequest,
) -> Result<HttpResponse, ApiError> {
    let secret = context.secret()?;
    let body: Registration = request.json()?;
    // Before anything else, so that every nonce is good for one attempt only.
    if !context.nonces.take(&body.nonce) {
        return Err(refused("The nonce is unknown or has expired"));
    }
    body.check_mac(secret)?;
    check_password(&body.password)?;
    if body.user_type.as_deref().is_some_and(|kind| !kind.is_empty()) {
        return Err(ApiError::invalid_param("This server has no types of users"));
    }
    let accounts = &context.accounts;
    let user = accounts.user_id(&body.username)?;
    accounts.check_free(&user)?;
    let device = accounts.new_device(Wish::default(), &request.meta)?;
    let new = NewAccount {
        password: Some(body.password),
        admin: body.admin,
        display_name: body.displayname,
        device: (!body.inhibit_login).then_some(device),
        ..NewAccount::default()
    };
    let (user, session) = accounts.create(Some(user), new).await?;
    let mut answer = json!({ "user_id": user, "home_server": accounts.server_name });
    if let Some(session) = session {
        answer["access_token"] = session.access_token.into();
        answer["device_id"] = session.device_id.into();
    }
    Ok(HttpResponse::Ok().json(answer))
}

impl Registration {
    fn check_mac(&self, secret: &str) -> Result<(), ApiError> {
        let wrong = || ApiError::forbidden("The MAC is wrong");
        // NUL separates the parts: within one it would let two requests have the same MAC.
        if [&self.username, &self.password].iter().any(|text| text.contains('\0')) {
            return Err(ApiError::invalid_param("There is a NUL in the user name or password"));
        }
        let parts = (self.nonce.as_str(), self.username.as_str(), self.password.as_str());
        let mac = mac(secret, parts, self.admin, self.user_type.as_deref())?;
        let given = unhex(&self.mac).ok_or_else(wrong)?;
        mac.verify_slice(&given).map_err(|_| wrong())
    }
}

/// The MAC over nonce, user name and password, and over what the user is to be.
fn mac(
    secret: &str,
    (nonce, username, password): (&str, &str, &str),
    admin: bool,
    user_type: Option<&str>,
) -> Result<Hmac<Sha1>, ApiError> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(ApiError::internal)?;
    let admin = if admin { "admin" } else { "notadmin" };
    mac.update([nonce, username, password, admin].join("\0").as_bytes());
    if let Some(user_type) = user_type {
        mac.update(b"\0");
        mac.update(user_type.as_bytes());
    }
    Ok(mac)
}

/// The MAC in hexadecimal, as a client sends it.
pub(crate) fn signed(
    secret: &str,
    parts: (&str, &str, &str),
    admin: bool,
) -> Result<String, ApiError> {
    let mac = mac(secret, parts, admin, None)?.finalize().into_bytes();
    Ok(mac.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits = text.as_bytes().iter().map(digit).collect::<Option<Vec<u8>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn refused(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message)
}

/// The nonces that are out.
struct Nonces {
    env: Env,
    /// With the time each was given; the oldest first.
    out: Mutex<VecDeque<(String, Duration)>>,
}

impl Nonces {
    fn give(&self) -> String {
        let nonce = self.env.random_string(NONCE_LEN);
        let now = self.env.clock.monotonic();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        while out.len() >= MAX_NONCES {
            out.pop_front();
        }
        out.push_back((nonce.clone(), now));
        nonce
    }

    /// Takes a nonce back; says whether it was still good.
    fn take(&self, nonce: &str) -> bool {
        let now = self.env.clock.monotonic();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.retain(|(_, given)| now.saturating_sub(*given) < LIFETIME);
        let place = out.iter().position(|(known, _)| known == nonce);
        place.and_then(|place| out.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlour_actors::env::{Clock, ManualClock, SystemEntropy};

    fn request() -> Registration {
        Registration {
            nonce: "thisisanonce".to_owned(),
            username: "pepper_roni".to_owned(),
            displayname: None,
            password: "pizza".to_owned(),
            admin: true,
            user_type: None,
            inhibit_login: false,
            mac: "48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7".to_owned(),
        }
    }

    #[test]
    fn the_mac_covers_everything_that_matters() {
        // Computed with Python's hmac module.
        let good = request();
        good.check_mac("shared_secret").unwrap();
        let upper = Registration { mac: good.mac.to_uppercase(), ..request() };
        upper.check_mac("shared_secret").unwrap();
        assert!(good.check_mac("other_secret").is_err());
        for other in [
            Registration { nonce: "another".to_owned(), ..request() },
            Registration { username: "pepper".to_owned(), ..request() },
            Registration { password: "pasta".to_owned(), ..request() },
            Registration { admin: false, ..request() },
            Registration { user_type: Some("bot".to_owned()), ..request() },
            Registration { mac: "nonsense".to_owned(), ..request() },
            Registration { mac: String::new(), ..request() },
            Registration { password: "piz\0za".to_owned(), ..request() },
        ] {
            assert!(other.check_mac("shared_secret").is_err());
        }
    }

    #[test]
    fn a_nonce_is_good_once_and_for_a_minute() {
        let clock = Arc::new(ManualClock::at(1_000));
        let env = Env::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SystemEntropy));
        let nonces = Nonces { env, out: Mutex::default() };
        assert!(!nonces.take("made up"));
        let nonce = nonces.give();
        assert!(nonces.take(&nonce));
        assert!(!nonces.take(&nonce));
        let late = nonces.give();
        clock.advance(LIFETIME);
        assert!(!nonces.take(&late));
        let first = nonces.give();
        for _ in 0..MAX_NONCES {
            nonces.give();
        }
        assert_eq!(nonces.out.lock().unwrap().len(), MAX_NONCES);
        assert!(!nonces.take(&first));
    }
}
