//! Making accounts: what self-registration and the administrators' endpoint have in common.

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::{
    env::Env,
    users::{NewDevice, RegisterError, Session, Users},
};
use parlour_storage::schema::User;
use ruma::{OwnedServerName, OwnedUserId, UserId, api::error::ErrorCode};

use super::passwords::{MAX_PASSWORD, Passwords};
use crate::error::ApiError;

/// Length of the name that the server chooses for who has none.
const CHOSEN_NAME_LEN: usize = 12;

/// The longest id of a device, and the longest name of one, in bytes.
const MAX_DEVICE_TEXT: usize = 255;

/// Makes accounts.
#[derive(Debug)]
pub struct Accounts {
    /// Where they are kept.
    pub users: Users,
    /// Hashes their passwords.
    pub passwords: Passwords,
    /// The part after the colon.
    pub server_name: OwnedServerName,
    /// Time, and letters for names.
    pub env: Env,
}

/// An account that is to be made.
#[derive(Default)]
pub struct NewAccount {
    /// In clear text; without one nobody can log in again.
    pub password: Option<String>,
    /// Whether the user may use the administrators' endpoints.
    pub admin: bool,
    /// The first display name.
    pub display_name: Option<String>,
    /// The first login, if there is to be one.
    pub device: Option<NewDevice>,
}

impl std::fmt::Debug for NewAccount {
    // The password is not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount").field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl Accounts {
    /// The parts together.
    #[must_use]
    pub fn new(
        users: Users,
        passwords: Passwords,
        server_name: OwnedServerName,
        env: Env,
    ) -> Arc<Self> {
        Arc::new(Self { users, passwords, server_name, env })
    }

    /// The user id for a wished user name; capitals become small letters.
    ///
    /// # Errors
    /// 400 `M_INVALID_USERNAME`.
    pub fn user_id(&self, username: &str) -> Result<OwnedUserId, ApiError> {
        let id = format!("@{}:{}", username.to_ascii_lowercase(), self.server_name);
        let user = UserId::parse(id).ok().filter(|user| {
            // A colon in the name would move the border to the server name.
            user.validate_strict().is_ok() && user.server_name() == self.server_name
        });
        user.ok_or_else(|| {
            let message = "A user name has small letters, digits and . _ = - / +, and the whole \
                           user id no more than 255 characters";
            ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidUsername, message)
        })
    }

    /// Checks that there is not and was not such a user.
    ///
    /// # Errors
    /// 400 `M_USER_IN_USE`.
    pub fn check_free(&self, user: &UserId) -> Result<(), ApiError> {
        match self.users.account(user.as_str())? {
            Some(_) => Err(RegisterError::Taken.into()),
            None => Ok(()),
        }
    }

    /// Makes an account; without a name the server chooses one.
    ///
    /// # Errors
    /// 400 `M_USER_IN_USE`; 429 if too many passwords are being hashed.
    pub async fn create(
        &self,
        user: Option<OwnedUserId>,
        new: NewAccount,
    ) -> Result<(OwnedUserId, Option<Session>), ApiError> {
        let password_hash = match new.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let account = User {
            password_hash,
            created_ts: self.env.clock.now_ms(),
            admin: new.admin,
            display_name: new.display_name,
            ..User::default()
        };
        let user = match user {
            Some(user) => user,
            // 12 letters and digits: that one is taken will not happen, and is an honest error.
            None => self.user_id(&self.env.random_string(CHOSEN_NAME_LEN))?,
        };
        let session = self.users.register(user.as_str(), account, new.device).await?;
        Ok((user, session))
    }
}

/// Checks a new password.
///
/// # Errors
/// 400 `M_WEAK_PASSWORD` for none at all, `M_INVALID_PARAM` for one that is absurdly long.
pub fn check_password(password: &str) -> Result<(), ApiError> {
    if password.is_empty() {
        let message = "A password cannot be empty";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::WeakPassword, message));
    }
    if password.len() > MAX_PASSWORD {
        let message = format!("A password has at most {MAX_PASSWORD} bytes");
        return Err(ApiError::invalid_param(message));
    }
    Ok(())
}

/// What a client says of the device it logs in on.
///
/// # Errors
/// 400 `M_INVALID_PARAM`: an empty id, or one or a name that is too long.
pub fn new_device(
    device_id: Option<String>,
    display_name: Option<String>,
) -> Result<NewDevice, ApiError> {
    if device_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_DEVICE_TEXT) {
        let message = format!("A device id has 1 to {MAX_DEVICE_TEXT} bytes");
        return Err(ApiError::invalid_param(message));
    }
    if display_name.as_ref().is_some_and(|name| name.len() > MAX_DEVICE_TEXT) {
        let message = format!("The name of a device has at most {MAX_DEVICE_TEXT} bytes");
        return Err(ApiError::invalid_param(message));
    }
    Ok(NewDevice { device_id, display_name })
}
