//! User-interactive authentication: before a request is granted, its stages have to be passed.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

mod desk;
pub mod fallback;
mod guarded;
mod pages;
mod sessions;
mod stages;

use parlour_actors::env::Env;
use ruma::{UserId, api::client::uiaa::AuthType};

use self::{
    desk::{Desk, Round},
    sessions::Done,
};
pub use self::{
    guarded::{Asked, Auth, Guarded},
    stages::{Proof, Refusal, Stages},
};
use crate::error::ApiError;

/// All stages are done. To be given back once the request has succeeded.
#[derive(Debug)]
#[must_use]
pub struct Passed {
    session: Option<String>,
    completed: Vec<Done>,
}

impl Passed {
    /// What the stages have shown.
    pub fn proofs(&self) -> impl Iterator<Item = &Proof> {
        self.completed.iter().map(|done| &done.proof)
    }

    /// Who the client is, if a password was among the stages.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.proofs().find_map(|proof| match proof {
            Proof::User(user) => Some(&**user),
            _ => None,
        })
    }
}

/// The open sessions of one server, and what stages are checked with.
#[derive(Debug)]
pub struct Uiaa {
    desk: Desk,
    stages: Stages,
}

impl Uiaa {
    /// No sessions.
    #[must_use]
    pub fn new(env: Env, stages: Stages) -> Self {
        Self { desk: Desk::new(env), stages }
    }

    /// Judges a request: may it go on, or what is still to do? `owner` is whose request it is.
    ///
    /// # Errors
    /// 401 with flows, session and what is done so far.
    pub async fn check<R>(
        &self,
        flows: &[Vec<AuthType>],
        guarded: &Guarded<R>,
        owner: Option<&UserId>,
    ) -> Result<Passed, ApiError> {
        let request = self.desk.fingerprint(&guarded.asked, owner);
        let params = self.stages.params(flows)?;
        let round = Round { flows, params, request, owner };
        let verify =
            async |stage: &AuthType, auth: &Auth| self.stages.verify(stage, auth, owner).await;
        self.desk.judge(&round, guarded.auth.as_ref(), verify).await
    }

    /// The same for what a user can do with its password alone.
    ///
    /// # Errors
    /// As [`Uiaa::check`].
    pub async fn check_password<R>(
        &self,
        guarded: &Guarded<R>,
        owner: Option<&UserId>,
    ) -> Result<Passed, ApiError> {
        self.check(&[vec![AuthType::Password]], guarded, owner).await
    }

    /// Closes the session of a request that has succeeded.
    pub fn finish(&self, passed: Passed) {
        if let Some(id) = passed.session {
            self.desk.lock().by_id.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
