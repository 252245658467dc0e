//! Login tokens: a logged-in device gets one, so that another can log in as the same user.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token>

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::http::StatusCode;
use parlour_actors::env::Env;
use ruma::{
    OwnedUserId,
    api::{
        client::session::get_login_token::v1::{Request, Response},
        error::ErrorCode,
    },
};
use sha2::{Digest, Sha256};

use super::{
    accounts::Accounts,
    uiaa::{Guarded, Uiaa},
};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// How long a token is good: what the specification recommends.
const LIFETIME: Duration = Duration::from_secs(120);

/// How many tokens may be out; the oldest gives way.
const MAX_TOKENS: usize = 10_000;

/// Length of a token.
const TOKEN_LEN: usize = 32;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct LoginTokenContext {
    /// Whose tokens they are.
    pub accounts: Arc<Accounts>,
    /// Who is half-way through.
    pub uiaa: Arc<Uiaa>,
    /// The tokens that are out.
    pub tokens: Arc<LoginTokens>,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<LoginTokenContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Login);
    Routes::new(Api::Client, context).route_with(options, get_token).finish()
}

/// `POST /_matrix/client/v1/login/get_token`
async fn get_token(
    context: Arc<LoginTokenContext>,
    req: Ruma<Guarded<Request>>,
) -> Result<Response, ApiError> {
    let user = &req.caller.user_id;
    if !context.accounts.has_password(user)? {
        let message = "Without a password you cannot confirm this";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Forbidden, message));
    }
    let passed = context.uiaa.check_password(&req.request, Some(user)).await?;
    // One authentication is good for one token: the session ends with it.
    context.uiaa.finish(passed);
    Ok(Response::new(LIFETIME, context.tokens.give(user.clone())))
}

/// The tokens that are out. In memory, since they live for two minutes.
#[derive(Debug)]
pub struct LoginTokens {
    env: Env,
    /// The oldest first.
    out: Mutex<VecDeque<Out>>,
}

#[derive(Debug)]
struct Out {
    hash: [u8; 32],
    user: OwnedUserId,
    given: Duration,
}

impl LoginTokens {
    /// None.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self { env, out: Mutex::default() }
    }

    fn give(&self, user: OwnedUserId) -> String {
        let token = self.env.random_string(TOKEN_LEN);
        let (hash, given) = (hash(&token), self.env.clock.monotonic());
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        while out.len() >= MAX_TOKENS {
            out.pop_front();
        }
        out.push_back(Out { hash, user, given });
        token
    }

    /// Takes a token back; says whose it is, if it is still good.
    pub(super) fn take(&self, token: &str) -> Option<OwnedUserId> {
        let (hash, now) = (hash(token), self.env.clock.monotonic());
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        while out.front().is_some_and(|oldest| now.saturating_sub(oldest.given) >= LIFETIME) {
            out.pop_front();
        }
        let place = out.iter().position(|known| known.hash == hash);
        place.and_then(|place| out.remove(place)).map(|out| out.user)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use parlour_actors::env::{Clock, ManualClock, SystemEntropy};
    use ruma::owned_user_id;

    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_two_minutes() {
        let clock = Arc::new(ManualClock::at(1_000));
        let env = Env::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SystemEntropy));
        let tokens = LoginTokens::new(env);
        let alice = owned_user_id!("@alice:localhost");
        assert_eq!(tokens.take("made up"), None);
        let token = tokens.give(alice.clone());
        assert_eq!(tokens.take(&token), Some(alice.clone()));
        assert_eq!(tokens.take(&token), None);
        let late = tokens.give(alice.clone());
        clock.advance(LIFETIME);
        assert_eq!(tokens.take(&late), None);
        let first = tokens.give(alice.clone());
        for _ in 0..MAX_TOKENS {
            tokens.give(alice.clone());
        }
        assert_eq!(tokens.out.lock().unwrap().len(), MAX_TOKENS);
        assert_eq!(tokens.take(&first), None);
    }
}
