//! Which stages of which request are done. In memory: who is in the middle of one when the server
//! stops begins anew.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use ruma::{OwnedUserId, api::client::uiaa::AuthType, api::error::ErrorCode};

use super::{Proof, Refusal};

/// How many sessions may be open; the oldest gives way.
pub(super) const MAX_SESSIONS: usize = 10_000;

/// How long a session stays open.
pub(super) const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What a session is for: one request with one set of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Endpoint and user.
    pub(super) endpoint: [u8; 32],
    /// The body; none where a client only asks which flows there are.
    pub(super) parameters: Option<[u8; 32]>,
}

/// A passed stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) stage: AuthType,
    pub(super) proof: Proof,
}

/// Who has got how far with what.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) opened: Duration,
    pub(super) request: Fingerprint,
    /// Whose request it is, if that is known.
    pub(super) owner: Option<OwnedUserId>,
    pub(super) flows: Vec<Vec<AuthType>>,
    pub(super) completed: Vec<Done>,
}

/// The open sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) by_id: HashMap<String, Session>,
    /// The oldest first; some may be closed already.
    pub(super) by_age: VecDeque<String>,
}

impl Session {
    fn is_open(&self, now: Duration) -> bool {
        now.saturating_sub(self.opened) < LIFETIME
    }

    /// Whether the session may become that of a request with parameters: the first one had none,
    /// and nobody has given a password for it.
    fn is_undecided(&self, request: Fingerprint) -> bool {
        let anything_shown = self.completed.iter().any(|done| matches!(done.proof, Proof::User(_)));
        self.request.endpoint == request.endpoint
            && self.request.parameters.is_none()
            && !anything_shown
    }
}

impl Sessions {
    pub(super) fn open(&mut self, id: String, session: Session) {
        self.make_room(session.opened);
        self.by_age.push_back(id.clone());
        self.by_id.insert(id, session);
    }

    pub(super) fn get(&mut self, id: &str, now: Duration) -> Option<&mut Session> {
        self.by_id.get_mut(id).filter(|session| session.is_open(now))
    }

    /// What is done so far in a session that is for this very request.
    pub(super) fn resume(
        &mut self,
        id: &str,
        request: Fingerprint,
        now: Duration,
    ) -> Result<Vec<Done>, Refusal> {
        let Some(session) = self.get(id, now) else {
            return Err(Refusal::new(ErrorCode::Unknown, "The session is unknown or has expired"));
        };
        if session.is_undecided(request) {
            session.request = request;
        }
        if session.request != request {
            return Err(Refusal::forbidden("The session belongs to another request"));
        }
        Ok(session.completed.clone())
    }

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
