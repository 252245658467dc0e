//! Passwords: Argon2id, away from the threads that serve requests.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _},
};
use parlour_actors::env::Env;
use tokio::sync::Semaphore;

/// How many may wait for a password to be worked on.
const QUEUE: usize = 128;

/// The longest password, in bytes: Argon2's cost is constant, that of reading is not.
pub const MAX_PASSWORD: usize = 4_096;

/// Bytes of salt.
const SALT: usize = 16;

/// Why a password was not worked on.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already.
    #[error("too many passwords wait to be checked")]
    Busy,
    /// Argon2 refuses its parameters, or a stored hash is none.
    #[error("argon2: {0}")]
    Hash(argon2::password_hash::Error),
    /// The server stops.
    #[error("the server stops")]
    Stopped,
}

/// Hashes and verifies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Passwords {
    params: Params,
    env: Env,
    /// What a password is compared with where there is no account: it takes as long.
    nobody: Arc<str>,
    workers: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Passwords {
    /// With as many passwords at once as `workers`. `cheap` is for test mode: it protects nobody.
    ///
    /// # Errors
    /// [`PasswordError::Hash`]
    pub fn new(cheap: bool, workers: usize, env: Env) -> Result<Self, PasswordError> {
        let params = if cheap {
            Params::new(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST, None)
        } else {
            // 19 MiB, two passes, one lane: what OWASP recommends.
            Ok(Params::DEFAULT)
        };
        let params = params.map_err(|error| PasswordError::Hash(error.into()))?;
        let nobody = hash(&params, env.random_string(32).as_bytes(), &salt(&env))?;
        Ok(Self {
            params,
            env,
            nobody: nobody.into(),
            workers: Arc::new(Semaphore::new(workers.max(1))),
            queue: Arc::new(Semaphore::new(QUEUE)),
        })
    }

    /// The hash to store, in PHC string format.
    ///
    /// # Errors
    /// [`PasswordError`]
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        let (params, salt) = (self.params.clone(), salt(&self.env));
        self.work(move || hash(&params, password.as_bytes(), &salt)).await?
    }

    /// Whether the password belongs to the stored hash. Without one the answer is no, but it takes
    /// as long, so that nobody learns by a clock which accounts there are.
    ///
    /// # Errors
    /// [`PasswordError`]
    pub async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        use argon2::password_hash::Error;
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.to_string());
        self.work(move || match Argon2::default().verify_password(password.as_bytes(), &*stored) {
            Ok(()) => Ok(is_known),
            Err(Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(PasswordError::Hash(error)),
        })
        .await?
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = self.queue.try_acquire().map_err(|_| PasswordError::Busy)?;
        let permit = self.workers.clone().acquire_owned().await;
        let permit = permit.map_err(|_| PasswordError::Stopped)?;
        let task = self.env.threads.block(move || {
            // Held to the end of the work, even when who asked has gone.
            let _permit = permit;
            work()
        });
        task.await.ok_or(PasswordError::Stopped)
    }
}

fn salt(env: &Env) -> [u8; SALT] {
    let mut salt = [0; SALT];
    env.entropy.fill(&mut salt);
    salt
}

fn hash(params: &Params, password: &[u8], salt: &[u8]) -> Result<String, PasswordError> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let hash = argon2.hash_password_with_salt(password, salt).map_err(PasswordError::Hash)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn the_right_password_alone_is_good() {
        let passwords = Passwords::new(true, 1, Env::system()).unwrap();
        let stored = passwords.hash("secret".to_owned()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$"), "{stored}");
        let again = passwords.hash("secret".to_owned()).await.unwrap();
        assert_ne!(stored, again, "salted");
        for (password, hash, good) in [
            ("secret", Some(stored.clone()), true),
            ("Secret", Some(stored.clone()), false),
            ("", Some(stored), false),
            ("secret", None, false),
        ] {
            let seen = passwords.verify(password.to_owned(), hash).await.unwrap();
            assert_eq!(seen, good, "{password}");
        }
    }

    #[actix_web::test]
    async fn a_broken_hash_is_an_error_and_not_a_no() {
        let passwords = Passwords::new(true, 1, Env::system()).unwrap();
        let result = passwords.verify("secret".to_owned(), Some("nonsense".to_owned())).await;
        assert!(matches!(result, Err(PasswordError::Hash(_))), "{result:?}");
    }

    #[actix_web::test]
    async fn who_finds_the_queue_full_is_refused() {
        let passwords = Passwords::new(true, 1, Env::system()).unwrap();
        let _all = passwords.queue.clone().try_acquire_many_owned(QUEUE as u32).unwrap();
        let result = passwords.hash("secret".to_owned()).await;
        assert!(matches!(result, Err(PasswordError::Busy)), "{result:?}");
    }
}
