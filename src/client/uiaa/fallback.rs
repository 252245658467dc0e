//! Stages in a web browser, for clients that don't know them: pages that do one stage of a session
//! and tell the window that has opened them.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#fallback>

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode, header},
};
use ruma::{
    UserId,
    api::{client::uiaa::AuthType, error::ErrorCode},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Auth, Uiaa, desk::is_next, pages, sessions::Done};
use crate::{
    error::ApiError,
    http::{Api, RawRequest, RouteOptions, Routes},
    limits::RateClass,
};

/// Under both versions.
const PATHS: [&str; 2] = [
    "/_matrix/client/v3/auth/{auth_type}/fallback/web",
    "/_matrix/client/r0/auth/{auth_type}/fallback/web",
];

/// Length of the word that allows a page's own script.
const NONCE_LEN: usize = 22;

/// What the forms of all pages can send.
#[derive(Deserialize)]
struct Form {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Query {
    session: String,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(uiaa: Arc<Uiaa>) -> Routes {
    // Passwords and tokens can be guessed here as well as at a login.
    let guessing = RouteOptions::rate(RateClass::Login).raw_body();
    let routes = PATHS.into_iter().fold(Routes::new(Api::Client, uiaa), |routes, path| {
        routes.raw(Method::GET, path, RouteOptions::default(), page).raw(
            Method::POST,
            path,
            guessing,
            submit,
        )
    });
    routes.finish()
}

/// `GET /_matrix/client/v3/auth/{authType}/fallback/web`
async fn page(uiaa: Arc<Uiaa>, req: RawRequest) -> Result<HttpResponse, ApiError> {
    let (stage, session) = stage_of(&req)?;
    let at = uiaa.look(&session, &stage)?;
    let body = match at.done {
        true => pages::done(),
        false => uiaa.form(&stage, at.owner.as_deref(), None)?,
    };
    Ok(uiaa.html(StatusCode::OK, &body))
}

/// `POST /_matrix/client/v3/auth/{authType}/fallback/web`, from such a page.
async fn submit(uiaa: Arc<Uiaa>, req: RawRequest) -> Result<HttpResponse, ApiError> {
    let (stage, session) = stage_of(&req)?;
    let at = uiaa.look(&session, &stage)?;
    if at.done {
        return Ok(uiaa.html(StatusCode::OK, &pages::done()));
    }
    let Form { user, password, token } = form(&req.meta.body)?;
    // Whose request it is need not be asked.
    let user = at.owner.as_ref().map(ToString::to_string).or(user);
    let auth = Auth { user, password, token, ..Auth::default() };
    match uiaa.stages.verify(&stage, &auth, at.owner.as_deref()).await? {
        Ok(proof) => {
            uiaa.complete(&session, Done { stage, proof });
            Ok(uiaa.html(StatusCode::OK, &pages::done()))
        }
        Err(refusal) => {
            let body = uiaa.form(&stage, at.owner.as_deref(), Some(&refusal.message))?;
            Ok(uiaa.html(StatusCode::UNAUTHORIZED, &body))
        }
    }
}

fn stage_of(req: &RawRequest) -> Result<(AuthType, String), ApiError> {
    let stage = req.path_args.first().map(String::as_str).unwrap_or_default();
    let query: Query = form(req.query.as_bytes())
        .map_err(|_| ApiError::missing_param("The address has no `session`"))?;
    Ok((stage.into(), query.session))
}

fn form<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    serde_urlencoded::from_bytes(text).map_err(|error| ApiError::invalid_param(error.to_string()))
}

/// How far a session is with a stage.
struct At {
    done: bool,
    owner: Option<ruma::OwnedUserId>,
}

impl Uiaa {
    fn look(&self, id: &str, stage: &AuthType) -> Result<At, ApiError> {
        let now = self.desk.env.clock.monotonic();
        let mut sessions = self.desk.lock();
        let session = sessions.get(id, now).ok_or_else(|| {
            let message = "The session is unknown or has expired";
            ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message)
        })?;
        let done = session.completed.iter().any(|done| done.stage == *stage);
        if !done && !is_next(&session.flows, &session.completed, stage) {
            let message = "That is not the next stage of the session";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unrecognized, message));
        }
        Ok(At { done, owner: session.owner.clone() })
    }

    fn complete(&self, id: &str, done: Done) {
        let now = self.desk.env.clock.monotonic();
        let mut sessions = self.desk.lock();
        if let Some(session) = sessions.get(id, now)
            && is_next(&session.flows, &session.completed, &done.stage)
        {
            session.completed.push(done);
        }
    }

    fn form(
        &self,
        stage: &AuthType,
        owner: Option<&UserId>,
        error: Option<&str>,
    ) -> Result<String, ApiError> {
        Ok(match stage {
            AuthType::Dummy => pages::dummy(),
            AuthType::Password => pages::password(owner, error),
            AuthType::RegistrationToken => pages::registration_token(error),
            AuthType::Terms => pages::terms(&self.stages.policies),
            _ => return Err(ApiError::unrecognized()),
        })
    }

    fn html(&self, status: StatusCode, body: &str) -> HttpResponse {
        let nonce = self.desk.env.random_string(NONCE_LEN);
        // Nothing but the page's own script runs, and nobody puts the page into a frame of theirs.
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        HttpResponse::build(status)
            .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
            .insert_header((header::CONTENT_SECURITY_POLICY, policy))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(pages::whole(body, &nonce))
    }
}
