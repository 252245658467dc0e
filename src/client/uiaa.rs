//! User-interactive authentication: which stages of which request are done.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use parlour_actors::env::Env;
use ruma::api::{
    client::uiaa::{AuthData, AuthFlow, AuthType, UiaaInfo},
    error::ErrorCode,
};
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// How many sessions may be open; the oldest gives way.
const MAX_SESSIONS: usize = 10_000;

/// How long a session stays open.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Length of a session id.
const SESSION_LEN: usize = 24;

/// What a session is for: one request with one set of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(Option<[u8; 32]>);

/// Why a stage was not passed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The error code.
    pub errcode: ErrorCode,
    /// The sentence for people.
    pub message: String,
}

impl Refusal {
    fn new(errcode: ErrorCode, message: &str) -> Self {
        Self { errcode, message: message.to_owned() }
    }

    /// 401 `M_FORBIDDEN`: what the client gave is wrong.
    #[must_use]
    pub fn forbidden(message: &str) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }
}

/// All stages are done. To be given back once the request has succeeded.
#[derive(Debug)]
#[must_use]
pub struct Passed(Option<String>);

#[derive(Debug)]
struct Session {
    opened: Duration,
    request: Fingerprint,
    completed: Vec<AuthType>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<String, Session>,
    /// The oldest first; some may be closed already.
    by_age: VecDeque<String>,
}

/// The open sessions of one server. They are in memory: who is in the middle of one when the
/// server stops begins anew.
#[derive(Debug)]
pub struct Uiaa {
    env: Env,
    /// Keeps what was hashed (a password is part of it) from being guessed.
    key: [u8; 32],
    sessions: Mutex<Sessions>,
}

impl Uiaa {
    /// No sessions.
    #[must_use]
    pub fn new(env: Env) -> Self {
        let mut key = [0; 32];
        env.entropy.fill(&mut key);
        Self { env, key, sessions: Mutex::default() }
    }

    /// What a request asks for, without its `auth`. A request without any parameters only asks
    /// which flows there are: its session takes the parameters of the next one.
    #[must_use]
    pub fn fingerprint(&self, endpoint: &str, parameters: &[Option<&str>]) -> Fingerprint {
        if parameters.iter().all(Option::is_none) {
            return Fingerprint(None);
        }
        let mut hash = Sha256::new();
        hash.update(self.key);
        for part in std::iter::once(&Some(endpoint)).chain(parameters) {
            hash.update([u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Fingerprint(Some(hash.finalize().into()))
    }

    /// Judges a request: may it go on, or what is still to do?
    ///
    /// `verify` checks one stage; it is asked only for stages that are next in one of the flows.
    ///
    /// # Errors
    /// 401 with flows, session and what is done so far.
    pub async fn check(
        &self,
        flows: &[Vec<AuthType>],
        request: Fingerprint,
        auth: Option<&AuthData>,
        verify: impl AsyncFnOnce(&AuthData) -> Result<Result<(), Refusal>, ApiError>,
    ) -> Result<Passed, ApiError> {
        let Some(auth) = auth else {
            return Err(info(flows, &self.open(request), &[], None));
        };
        let (session, mut completed) = match auth.session() {
            None => (None, Vec::new()),
            Some(id) => match self.resume(id, request) {
                Ok(completed) => (Some(id.to_owned()), completed),
                Err(refusal) => {
                    return Err(info(flows, &self.open(request), &[], Some(refusal)));
                }
            },
        };
        let mut refusal = None;
        if let Some(stage) = auth.auth_type()
            && !completed.contains(&stage)
        {
            if !is_next(flows, &completed, &stage) {
                refusal = Some(Refusal::new(ErrorCode::Unrecognized, "That is not the next stage"));
            } else {
                match verify(auth).await? {
                    Ok(()) => completed.push(stage),
                    Err(refused) => refusal = Some(refused),
                }
            }
        }
        if flows.contains(&completed) {
            // Done already, or in one request without a session.
            session.iter().for_each(|id| self.note(id, &completed));
            return Ok(Passed(session));
        }
        let session = session.unwrap_or_else(|| self.open(request));
        self.note(&session, &completed);
        Err(info(flows, &session, &completed, refusal))
    }

    /// Closes the session of a request that has succeeded.
    pub fn finish(&self, Passed(session): Passed) {
        if let Some(id) = session {
            self.lock().by_id.remove(&id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, request: Fingerprint) -> String {
        let id = self.env.random_string(SESSION_LEN);
        let opened = self.env.clock.monotonic();
        let mut sessions = self.lock();
        sessions.make_room(opened);
        sessions.by_age.push_back(id.clone());
        sessions.by_id.insert(id.clone(), Session { opened, request, completed: Vec::new() });
        id
    }

    /// What is done so far in a session that is for this very request.
    fn resume(&self, id: &str, request: Fingerprint) -> Result<Vec<AuthType>, Refusal> {
        let now = self.env.clock.monotonic();
        let mut sessions = self.lock();
        let session = sessions.by_id.get_mut(id).filter(|session| session.is_open(now));
        let Some(session) = session else {
            return Err(Refusal::new(ErrorCode::Unknown, "The session is unknown or has expired"));
        };
        if session.request == Fingerprint(None) && session.completed.is_empty() {
            session.request = request;
        }
        if session.request != request {
            return Err(Refusal::forbidden("The session belongs to another request"));
        }
        Ok(session.completed.clone())
    }

    fn note(&self, id: &str, completed: &[AuthType]) {
        if let Some(session) = self.lock().by_id.get_mut(id) {
            completed.clone_into(&mut session.completed);
        }
    }
}

impl Session {
    fn is_open(&self, now: Duration) -> bool {
        now.saturating_sub(self.opened) < LIFETIME
    }
}

impl Sessions {
    /// Drops what has expired, and the oldest where there are too many.
    fn make_room(&mut self, now: Duration) {
        while let Some(id) = self.by_age.front() {
            let is_open = self.by_id.get(id).is_some_and(|session| session.is_open(now));
            if is_open && self.by_age.len() < MAX_SESSIONS {
                break;
            }
            if let Some(id) = self.by_age.pop_front() {
                self.by_id.remove(&id);
            }
        }
    }
}

/// Whether a stage is the next one of a flow whose first stages are done.
fn is_next(flows: &[Vec<AuthType>], completed: &[AuthType], stage: &AuthType) -> bool {
    flows.iter().any(|flow| {
        let rest = flow.strip_prefix(completed);
        rest.is_some_and(|rest| rest.first() == Some(stage))
    })
}

fn info(
    flows: &[Vec<AuthType>],
    session: &str,
    completed: &[AuthType],
    refusal: Option<Refusal>,
) -> ApiError {
    let flows = flows.iter().map(|stages| AuthFlow::new(stages.clone())).collect();
    let mut info = UiaaInfo::new(flows);
    info.completed = completed.to_vec();
    info.session = Some(session.to_owned());
    let error = ApiError::from(info).with("params", serde_json::Map::new());
    match refusal {
        None => error,
        Some(Refusal { errcode, message }) => {
            error.with("errcode", errcode.as_str()).with("error", message)
        }
    }
}

#[cfg(test)]
mod tests;
