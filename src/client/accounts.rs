//! Accounts: what the endpoints that make them, and those that need a password, have in common.

use actix_web::http::StatusCode;
use parlour_actors::{
    env::Env,
    users::{NewDevice, RegisterError, Session, TokenKind, Upgrade, Users},
};
use parlour_storage::{StorageError, schema::User};
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, UserId,
    api::{client::uiaa::UserIdentifier, error::ErrorCode},
};

use super::passwords::{MAX_PASSWORD, PasswordError, Passwords};
use crate::{config::SessionsConfig, error::ApiError, http::RequestMeta};

/// Length of the name that the server chooses for who has none.
const CHOSEN_NAME_LEN: usize = 12;

/// The longest id of a device, and the longest name of one, in bytes.
const MAX_DEVICE_TEXT: usize = 255;

/// Makes accounts, and knows their owners.
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
    /// How long access tokens are good.
    pub lifetimes: SessionsConfig,
}

/// What a client says of the device it logs in on.
#[derive(Debug, Default)]
pub struct Wish {
    /// The device id, if the client has one.
    pub device_id: Option<OwnedDeviceId>,
    /// A name for people.
    pub display_name: Option<String>,
    /// Whether the client can use a refresh token.
    pub refreshable: bool,
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
    /// The documents that the user has accepted: id and version.
    pub accepted_terms: Vec<(String, String)>,
    /// Whether it is a guest's.
    pub guest: bool,
}

impl std::fmt::Debug for NewAccount {
    // The password is not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount").field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl Accounts {
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
        let password_hash = self.hash(new.password).await?;
        let account = User {
            password_hash,
            created_ts: self.env.clock.now_ms(),
            admin: new.admin,
            display_name: new.display_name,
            accepted_terms: new.accepted_terms,
            guest: new.guest,
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

    /// Makes a user of a guest, whose login on the device `exchanged` ends.
    ///
    /// # Errors
    /// 400 `M_USER_IN_USE`; 429 if too many passwords are being hashed.
    pub async fn upgrade(
        &self,
        guest: OwnedUserId,
        exchanged: String,
        new: NewAccount,
    ) -> Result<(OwnedUserId, Option<Session>), ApiError> {
        let upgrade = Upgrade {
            password_hash: self.hash(new.password).await?,
            accepted_terms: new.accepted_terms,
            device: new.device,
            exchanged,
        };
        let session = self.users.upgrade_guest(guest.as_str(), upgrade).await?;
        Ok((guest, session))
    }

    async fn hash(&self, password: Option<String>) -> Result<Option<String>, PasswordError> {
        match password {
            Some(password) => self.passwords.hash(password).await.map(Some),
            None => Ok(None),
        }
    }

    /// The login that a client wishes for.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM`: an empty id, or one or a name that is too long.
    pub fn new_device(&self, wish: Wish, meta: &RequestMeta) -> Result<NewDevice, ApiError> {
        let device_id = wish.device_id.map(String::from);
        if device_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_DEVICE_TEXT) {
            let message = format!("A device id has 1 to {MAX_DEVICE_TEXT} bytes");
            return Err(ApiError::invalid_param(message));
        }
        wish.display_name.as_deref().map_or(Ok(()), check_device_name)?;
        let lifetime = match wish.refreshable {
            true => Some(self.lifetimes.refreshable),
            false => self.lifetimes.access,
        };
        let expires_in_ms =
            lifetime.map(|lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
        let kind = TokenKind { refreshable: wish.refreshable, expires_in_ms };
        let user_agent = meta.user_agent.clone();
        let display_name = wish.display_name;
        Ok(NewDevice { device_id, display_name, ip: meta.peer.ip, user_agent, kind })
    }

    /// Who is meant, by an identifier or as clients of r0.3 say it; `None` if that cannot be a
    /// user of this server.
    ///
    /// # Errors
    /// 400 `M_MISSING_PARAM`: nobody is named.
    pub fn named(
        &self,
        identifier: Option<&UserIdentifier>,
        old: Option<&str>,
    ) -> Result<Option<OwnedUserId>, ApiError> {
        let name = match (identifier, old) {
            (Some(UserIdentifier::Matrix(identifier)), _) => identifier.user.as_str(),
            // There are no addresses or numbers by which somebody could be known.
            (Some(_), _) => return Ok(None),
            (None, Some(name)) => name,
            (None, None) => return Err(ApiError::missing_param("Whose password is it?")),
        };
        if !name.starts_with('@') {
            return Ok(self.user_id(name).ok());
        }
        let user = UserId::parse(name).ok();
        let user = user.filter(|user| user.server_name() == self.server_name);
        Ok(user.and_then(|user| self.user_id(user.localpart()).ok()))
    }

    /// The user, if it is there and the password is the right one. An unknown user, an account
    /// without a password and a wrong password are one and the same, in time as well.
    ///
    /// # Errors
    /// If storage cannot be read; 429 if too many passwords are being checked.
    pub async fn check_password(
        &self,
        user: Option<OwnedUserId>,
        mut password: String,
    ) -> Result<Option<OwnedUserId>, ApiError> {
        let account = match &user {
            Some(user) => self.users.account(user.as_str())?,
            None => None,
        };
        let account = account.filter(|account| !account.deactivated);
        let mut stored = account.and_then(|account| account.password_hash);
        if password.len() > MAX_PASSWORD {
            stored = None;
            password.clear();
        }
        let is_right = self.passwords.verify(password, stored).await?;
        Ok(user.filter(|_| is_right))
    }

    /// Whether a user can show who it is with a password.
    ///
    /// # Errors
    /// If storage cannot be read.
    pub fn has_password(&self, user: &UserId) -> Result<bool, StorageError> {
        let account = self.users.account(user.as_str())?;
        Ok(account.is_some_and(|account| account.password_hash.is_some()))
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

/// Checks the name of a device.
///
/// # Errors
/// 400 `M_INVALID_PARAM`: it is too long.
pub fn check_device_name(name: &str) -> Result<(), ApiError> {
    if name.len() <= MAX_DEVICE_TEXT {
        return Ok(());
    }
    let message = format!("The name of a device has at most {MAX_DEVICE_TEXT} bytes");
    Err(ApiError::invalid_param(message))
}
