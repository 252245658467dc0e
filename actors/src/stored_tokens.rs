//! Registration tokens that administrators hand out: each opens the registration for a number of
//! accounts, up to a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{RegistrationToken, Stored, keys, keys::KeyReader},
};
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    commit::{Announcement, Ops},
    env::Env,
    per_key::PerKey,
    users::{Decision, UserError, Users},
};

/// How many tokens there may be.
const MAX_TOKENS: usize = 10_000;

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum NewTokenError {
    /// There is such a token.
    #[error("there is such a token already")]
    Taken,
    /// There are very many already.
    #[error("there are too many registration tokens")]
    TooMany,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for NewTokenError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// A token as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenState {
    /// The token.
    pub token: String,
    /// What is stored of it.
    pub entry: RegistrationToken,
    /// How many registrations with it are under way.
    pub pending: u64,
}

impl TokenState {
    /// Whether it can open one more registration.
    #[must_use]
    pub fn is_valid(&self, now_ms: u64) -> bool {
        let used = self.entry.completed.saturating_add(self.pending);
        self.entry.uses_allowed.is_none_or(|allowed| used < allowed)
            && self.entry.expiry_time.is_none_or(|expiry| now_ms < expiry)
    }
}

/// How others reach stored tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoredTokens {
    store: Store,
    /// Its actors serialise the changes of one token.
    users: Users,
    env: Env,
    /// How many claims of each token are out.
    pending: Arc<Mutex<HashMap<String, u64>>>,
    /// Held while a claim is made, so that of two who want the last use one gets it, and while a
    /// claim becomes a completed use: in between that counts twice, and whoever asked just then
    /// would be refused what is left.
    turns: Arc<PerKey<String, AsyncMutex<()>>>,
}

/// One use of a token, for a registration that is under way. Nobody else gets it while this is
/// held; it counts when the registration is done.
#[derive(Debug)]
pub struct TokenClaim {
    token: String,
    pending: Arc<Mutex<HashMap<String, u64>>>,
}

impl Drop for TokenClaim {
    fn drop(&mut self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pending.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.token);
            }
        }
    }
}

impl StoredTokens {
    pub(crate) fn new(store: Store, users: Users, env: Env) -> Self {
        Self { store, users, env, pending: Arc::default(), turns: Arc::default() }
    }

    /// A token.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn get(&self, token: &str) -> Result<Option<TokenState>, StorageError> {
        let entry = self.store.typed(&keys::registration_token(token))?;
        Ok(entry.map(|entry| self.state(token.to_owned(), entry)))
    }

    /// All tokens, in alphabetical order. They are few.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn all(&self) -> Result<Vec<TokenState>, StorageError> {
        let prefix = [keys::REGISTRATION_TOKEN];
        let found = self.store.scan_prefix(&prefix, Direction::Forward, MAX_TOKENS)?;
        found
            .into_iter()
            .map(|(key, entry)| {
                let token = KeyReader::new(&key).text().unwrap_or_default();
                Ok(self.state(token, RegistrationToken::decode(&key, &entry.value)?))
            })
            .collect()
    }

    /// Makes a token.
    ///
    /// # Errors
    ///
    /// [`NewTokenError`]
    pub async fn create(&self, token: &str, entry: RegistrationToken) -> Result<(), NewTokenError> {
        let key = keys::registration_token(token);
        let decide = move |store: &Store| {
            if store.get(&key)?.is_some() {
                return Err(NewTokenError::Taken);
            }
            let prefix = [keys::REGISTRATION_TOKEN];
            if store.scan_prefix(&prefix, Direction::Forward, MAX_TOKENS)?.len() >= MAX_TOKENS {
                return Err(NewTokenError::TooMany);
            }
            Ok(write(Op::Put { key, value: entry.encode() }, ()))
        };
        self.users.change(token, decide).await
    }

    /// Changes a token; `None` if there is no such token.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn update(
        &self,
        token: &str,
        change: impl FnOnce(&mut RegistrationToken) + Send + 'static,
    ) -> Result<Option<TokenState>, UserError> {
        let key = keys::registration_token(token);
        let decide = move |store: &Store| {
            let Some(mut entry) = store.typed::<RegistrationToken>(&key)? else {
                return Ok(Decision::Keep(None));
            };
            change(&mut entry);
            Ok::<_, UserError>(write(Op::Put { key, value: entry.encode() }, Some(entry)))
        };
        let entry = self.users.change(token, decide).await?;
        Ok(entry.map(|entry| self.state(token.to_owned(), entry)))
    }

    /// Removes a token; says whether there was one.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn remove(&self, token: &str) -> Result<bool, UserError> {
        let key = keys::registration_token(token);
        let decide = move |store: &Store| {
            if store.get(&key)?.is_none() {
                return Ok(Decision::Keep(false));
            }
            Ok::<_, UserError>(write(Op::Delete { key }, true))
        };
        self.users.change(token, decide).await
    }

    /// Whether a token can open one more registration.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn is_valid(&self, token: &str) -> Result<bool, StorageError> {
        let now = self.env.clock.now_ms();
        Ok(self.get(token)?.is_some_and(|state| state.is_valid(now)))
    }

    /// Takes hold of one use of a token; `None` if it cannot be used (any more).
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn claim(&self, token: &str) -> Result<Option<TokenClaim>, StorageError> {
        let turns = self.turns.get(token, AsyncMutex::default);
        let _turn = turns.lock().await;
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = self.store.typed(&keys::registration_token(token))? else {
            return Ok(None);
        };
        let out = pending.get(token).copied().unwrap_or_default();
        let state = TokenState { token: token.to_owned(), entry, pending: out };
        if !state.is_valid(self.env.clock.now_ms()) {
            return Ok(None);
        }
        *pending.entry(token.to_owned()).or_default() += 1;
        Ok(Some(TokenClaim { token: token.to_owned(), pending: self.pending.clone() }))
    }

    /// Counts the use of a token: the registration is done.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn complete(&self, claim: TokenClaim) -> Result<(), UserError> {
        let turns = self.turns.get(&claim.token, AsyncMutex::default);
        let _turn = turns.lock().await;
        let counted = self
            .update(&claim.token, |entry| entry.completed = entry.completed.saturating_add(1))
            .await;
        // Behind that: in between the use counts twice, and never not at all.
        drop(claim);
        counted.map(drop)
    }

    fn state(&self, token: String, entry: RegistrationToken) -> TokenState {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = pending.get(&token).copied().unwrap_or_default();
        TokenState { token, entry, pending }
    }
}

fn write<T>(op: Op, value: T) -> Decision<T> {
    Decision::Write(Box::new(Ops { ops: vec![op], announcement: Announcement::Nothing }), value)
}
