//! OpenID tokens: with one of them a user proves to others who they are.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#openid>
//!
//! A token says itself whose it is and until when, and is authenticated by a secret of this server:
//! there is nothing to store, and nothing to clean up.

use std::{sync::Arc, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use parlour_actors::{env::Env, users::Users};
use parlour_event::{hashes, signing::SigningKey};
use ruma::{
    OwnedServerName, OwnedUserId, UserId,
    api::client::account::request_openid_token::v3 as request_token, authentication::TokenType,
};
use sha2::Sha256;

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// What the secret is derived from. No JSON begins like this, so the server signs it nowhere else.
const PURPOSE: &[u8] = b"parlour: openid tokens";

/// What these endpoints need to know.
pub struct OpenIdContext {
    secret: [u8; 64],
    users: Users,
    server_name: OwnedServerName,
    env: Env,
}

impl std::fmt::Debug for OpenIdContext {
    // The secret is not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenIdContext")
    }
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<OpenIdContext>) -> Routes {
    Routes::new(Api::Client, context).route(request).finish()
}

/// `POST /_matrix/client/v3/user/{userId}/openid/request_token`
async fn request(
    context: Arc<OpenIdContext>,
    req: Ruma<request_token::Request>,
) -> Result<request_token::Response, ApiError> {
    if req.caller.user_id != req.user_id {
        return Err(ApiError::forbidden("You cannot prove to be somebody else"));
    }
    let (token, server_name) = (context.issue(&req.user_id), context.server_name.clone());
    Ok(request_token::Response::new(token, TokenType::Bearer, server_name, LIFETIME))
}

impl OpenIdContext {
    /// Tokens of this server's users; they are good as long as this key signs.
    #[must_use]
    pub fn new(users: Users, server_name: OwnedServerName, key: &SigningKey, env: Env) -> Self {
        Self { secret: key.sign(PURPOSE), users, server_name, env }
    }

    fn issue(&self, user: &UserId) -> String {
        let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let expires = self.env.clock.now_ms().saturating_add(lifetime);
        let claim = format!("{expires} {} {user}", self.env.random_string(16));
        let proof = self.proof(&claim).finalize().into_bytes();
        let encode = hashes::encode_base64_url;
        format!("{}.{}", encode(claim.as_bytes()), encode(&proof))
    }

    /// Who has asked for this token, if it is still good.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn user_of(&self, token: &str) -> Result<Option<OwnedUserId>, ApiError> {
        let Some(user) = self.claimed(token) else { return Ok(None) };
        let account = self.users.account(user.as_str())?;
        Ok(account.filter(|account| !account.deactivated).map(|_| user))
    }

    fn claimed(&self, token: &str) -> Option<OwnedUserId> {
        let (claim, proof) = token.split_once('.')?;
        let claim = String::from_utf8(hashes::decode_base64_url(claim)?).ok()?;
        self.proof(&claim).verify_slice(&hashes::decode_base64_url(proof)?).ok()?;
        let (expires, rest) = claim.split_once(' ')?;
        let (_nonce, user) = rest.split_once(' ')?;
        let is_good = self.env.clock.now_ms() < expires.parse().ok()?;
        if is_good { user.try_into().ok() } else { None }
    }

    fn proof(&self, claim: &str) -> Hmac<Sha256> {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of every length");
        hmac.update(claim.as_bytes());
        hmac
    }
}
