//! Calls: how clients that do not reach each other find a way through TURN servers.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip>

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use parlour_actors::env::Clock;
use ruma::{
    UserId,
    api::client::voip::get_turn_server_info::v3::{Request, Response},
};
use sha1::Sha1;

use crate::{
    config::{TurnConfig, TurnCredentials},
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct VoipContext {
    /// The TURN servers, if there are any.
    pub turn: Option<TurnConfig>,
    /// Until when credentials are good.
    pub clock: Arc<dyn Clock>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<VoipContext>) -> Routes {
    Routes::new(Api::Client, context).route(turn_server).finish()
}

/// `GET /_matrix/client/v3/voip/turnServer`
///
/// Without TURN servers there is nothing to be found here, as MSC4166 has it: the specification
/// knows no answer for that.
async fn turn_server(context: Arc<VoipContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let none = || ApiError::not_found("This server has no TURN servers");
    let turn = context.turn.as_ref().ok_or_else(none)?;
    let (username, password) = match &turn.credentials {
        TurnCredentials::Fixed { username, password } => (username.clone(), password.clone()),
        TurnCredentials::Shared(secret) => {
            let now = context.clock.now_ms() / 1_000;
            let until = now.saturating_add(turn.lifetime.as_secs());
            shared(secret, until, &req.caller.user_id)?
        }
    };
    Ok(Response::new(username, password, turn.uris.clone(), turn.lifetime))
}

/// Credentials that a TURN server can check that has the same secret (the "TURN REST API", as
/// coturn has it).
fn shared(secret: &str, until: u64, user: &UserId) -> Result<(String, String), ApiError> {
    let username = format!("{until}:{user}");
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(ApiError::internal)?;
    mac.update(username.as_bytes());
    let password = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    Ok((username, password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::user_id;

    #[test]
    fn credentials_are_those_that_other_programs_compute() {
        // Computed with Python's hmac module.
        let user = user_id!("@user:example.com");
        let (username, password) = shared("north", 1_443_779_631, user).unwrap();
        assert_eq!(username, "1443779631:@user:example.com");
        assert_eq!(password, "lamN4QwbavBEEp/krb3yR5mgsEg=");
    }
}
