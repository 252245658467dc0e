//! The rounds of a request: which stage is next, and what the client is told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use parlour_actors::env::Env;
use ruma::{
    UserId,
    api::{
        client::uiaa::{AuthFlow, AuthType, UiaaInfo},
        error::ErrorCode,
    },
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Asked, Auth, Passed, Proof, Refusal,
    sessions::{Done, Fingerprint, Session, Sessions},
};
use crate::error::ApiError;

/// Length of a session id.
const SESSION_LEN: usize = 24;

/// The open sessions of one server.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) env: Env,
    /// Keeps what was hashed (a password is part of it) from being guessed.
    key: [u8; 32],
    sessions: Mutex<Sessions>,
}

/// One round of one request.
pub(super) struct Round<'a> {
    pub(super) flows: &'a [Vec<AuthType>],
    /// What the client has to know for these flows.
    pub(super) params: Map<String, Value>,
    pub(super) request: Fingerprint,
    /// Whose request it is, if that is known.
    pub(super) owner: Option<&'a UserId>,
}

impl Desk {
    pub(super) fn new(env: Env) -> Self {
        let mut key = [0; 32];
        env.entropy.fill(&mut key);
        Self { env, key, sessions: Mutex::default() }
    }

    /// `verify` checks one stage; it is asked only for stages that are next in one of the flows.
    pub(super) async fn judge(
        &self,
        round: &Round<'_>,
        auth: Option<&Auth>,
        verify: impl AsyncFnOnce(&AuthType, &Auth) -> Result<Result<Proof, Refusal>, ApiError>,
    ) -> Result<Passed, ApiError> {
        let Some(auth) = auth else {
            return Err(info(round, &self.open(round), &[], None));
        };
        let mut completed = match &auth.session {
            None => Vec::new(),
            Some(id) => match self.resume(id, round.request) {
                Ok(completed) => completed,
                Err(refusal) => {
                    return Err(info(round, &self.open(round), &[], Some(refusal)));
                }
            },
        };
        let mut refusal = None;
        if let Some(stage) = &auth.stage
            && !completed.iter().any(|done| done.stage == *stage)
        {
            if !is_next(round.flows, &completed, stage) {
                refusal = Some(Refusal::new(ErrorCode::Unrecognized, "That is not the next stage"));
            } else {
                match verify(stage, auth).await? {
                    Ok(proof) => completed.push(Done { stage: stage.clone(), proof }),
                    Err(refused) => refusal = Some(refused),
                }
            }
        }
        let session = auth.session.clone();
        if round.flows.iter().any(|flow| flow.iter().eq(stages_of(&completed))) {
            // Done already, or in one request without a session.
            session.iter().for_each(|id| self.note(id, &completed));
            return Ok(Passed { session, completed });
        }
        let session = session.unwrap_or_else(|| self.open(round));
        self.note(&session, &completed);
        Err(info(round, &session, &completed, refusal))
    }

    /// A request is the same if endpoint, user and parameters are.
    pub(super) fn fingerprint(&self, asked: &Asked, owner: Option<&UserId>) -> Fingerprint {
        let owner = owner.map_or("", UserId::as_str);
        let hash = |parts: [&[u8]; 2]| {
            let mut hash = Sha256::new();
            hash.update(self.key);
            for part in parts {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.finalize().into()
        };
        Fingerprint {
            endpoint: hash([asked.endpoint.as_bytes(), owner.as_bytes()]),
            parameters: asked.parameters.as_ref().map(|body| hash([b"body", body])),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, round: &Round<'_>) -> String {
        let id = self.env.random_string(SESSION_LEN);
        let session = Session {
            opened: self.env.clock.monotonic(),
            request: round.request,
            owner: round.owner.map(ToOwned::to_owned),
            flows: round.flows.to_vec(),
            completed: Vec::new(),
        };
        self.lock().open(id.clone(), session);
        id
    }

    fn resume(&self, id: &str, request: Fingerprint) -> Result<Vec<Done>, Refusal> {
        self.lock().resume(id, request, self.env.clock.monotonic())
    }

    fn note(&self, id: &str, completed: &[Done]) {
        if let Some(session) = self.lock().by_id.get_mut(id) {
            completed.clone_into(&mut session.completed);
        }
    }
}

fn info(
    round: &Round<'_>,
    session: &str,
    completed: &[Done],
    refusal: Option<Refusal>,
) -> ApiError {
    let flows = round.flows.iter().map(|stages| AuthFlow::new(stages.clone())).collect();
    let mut info = UiaaInfo::new(flows);
    info.completed = stages_of(completed).cloned().collect();
    info.session = Some(session.to_owned());
    let error = ApiError::from(info).with("params", round.params.clone());
    match refusal {
        None => error,
        Some(Refusal { errcode, message }) => {
            error.with("errcode", errcode.as_str()).with("error", message)
        }
    }
}

fn stages_of(completed: &[Done]) -> impl Iterator<Item = &AuthType> {
    completed.iter().map(|done| &done.stage)
}

/// Whether a stage is the next one of a flow whose first stages are done.
pub(super) fn is_next(flows: &[Vec<AuthType>], completed: &[Done], stage: &AuthType) -> bool {
    flows
        .iter()
        .any(|flow| flow.iter().take(completed.len() + 1).eq(stages_of(completed).chain([stage])))
}
