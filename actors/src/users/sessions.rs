//! Accounts, devices and access tokens.

use parlour_storage::{
    Direction, Op, StorageError,
    schema::{Device, Stored, TokenEntry, User, keys, keys::KeyReader},
};
use sha2::{Digest, Sha256};

use super::{Decision, UserError, Users, accounts::put_account};
use crate::commit::{Announcement, Ops};

/// Length of an access token after its prefix: more than 190 bits.
const TOKEN_LEN: usize = 32;

/// Length of a device id that the server chooses.
const DEVICE_ID_LEN: usize = 10;

/// Why an account was not created.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// There is or was such a user.
    #[error("the user name is taken")]
    Taken,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

/// A login that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NewDevice {
    /// The device id, if the client has one.
    pub device_id: Option<String>,
    /// Name for people; only for a new device.
    pub display_name: Option<String>,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The device.
    pub device_id: String,
    /// The access token. Only its hash is stored.
    pub access_token: String,
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Users {
    /// Whose a token is.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn authenticate(&self, token: &str) -> Result<Option<TokenEntry>, StorageError> {
        self.store.typed(&keys::token(&hash(token)))
    }

    /// An account.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn account(&self, user: &str) -> Result<Option<User>, StorageError> {
        self.store.typed(&keys::user(user))
    }

    /// A device of a user.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device(&self, user: &str, device: &str) -> Result<Option<Device>, StorageError> {
        self.store.typed(&keys::device(user, device))
    }

    /// Creates an account and, if asked for, a first device with a token.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]
    pub async fn register(
        &self,
        user: &str,
        account: User,
        device: Option<NewDevice>,
    ) -> Result<Option<Session>, RegisterError> {
        let (users, name) = (self.clone(), user.to_owned());
        let decide = move |store: &parlour_storage::Store| {
            if store.get(&keys::user(&name)).map_err(UserError::from)?.is_some() {
                return Err(RegisterError::Taken);
            }
            let mut ops = Vec::new();
            put_account(&name, None, &account, &mut ops);
            let session = device.map(|device| users.new_session(&name, None, device, &mut ops));
            Ok(Decision::Write(quiet(ops), session))
        };
        self.change(user, decide).await
    }

    /// Makes a login: a new device, or new tokens for one that is there (its old ones end).
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn login(&self, user: &str, device: NewDevice) -> Result<Session, UserError> {
        let (users, name) = (self.clone(), user.to_owned());
        let decide = move |store: &parlour_storage::Store| {
            let known = match &device.device_id {
                Some(id) => store.typed::<Device>(&keys::device(&name, id))?,
                None => None,
            };
            let mut ops = Vec::new();
            let session = users.new_session(&name, known, device, &mut ops);
            Ok(Decision::Write(quiet(ops), session))
        };
        self.change(user, decide).await
    }

    fn new_session(
        &self,
        user: &str,
        known: Option<Device>,
        new: NewDevice,
        ops: &mut Vec<Op>,
    ) -> Session {
        let device_id = new.device_id.unwrap_or_else(|| self.env.random_string(DEVICE_ID_LEN));
        let access_token = format!("par_{}", self.env.random_string(TOKEN_LEN));
        let token = hash(&access_token);
        let mut device = known.unwrap_or_else(|| Device {
            display_name: new.display_name,
            tokens: Vec::new(),
            created_ts: self.env.clock.now_ms(),
        });
        for old in std::mem::replace(&mut device.tokens, vec![token]) {
            ops.push(Op::Delete { key: keys::token(&old) });
        }
        let entry = TokenEntry { user: user.to_owned(), device: device_id.clone() };
        ops.push(Op::Put { key: keys::token(&token), value: entry.encode() });
        ops.push(Op::Put { key: keys::device(user, &device_id), value: device.encode() });
        Session { device_id, access_token }
    }

    /// Ends a login: the device and its tokens are deleted.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn logout(&self, user: &str, device: &str) -> Result<(), UserError> {
        let (name, id) = (user.to_owned(), device.to_owned());
        let decide = move |store: &parlour_storage::Store| {
            let key = keys::device(&name, &id);
            let Some(device) = store.typed::<Device>(&key)? else { return Ok(Decision::Keep(())) };
            let mut ops = vec![Op::Delete { key }];
            ops.extend(device.tokens.iter().map(|token| Op::Delete { key: keys::token(token) }));
            Ok(Decision::Write(told(&name, ops), ()))
        };
        self.change::<_, UserError, _>(user, decide).await?;
        self.forget_local_notifications(user, &[device.to_owned()]).await
    }

    /// Ends all logins of a user.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn logout_all(&self, user: &str) -> Result<(), UserError> {
        let (name, devices) = (user.to_owned(), self.device_ids(user)?);
        let decide = move |store: &parlour_storage::Store| {
            let mut ops = Vec::new();
            let devices =
                store.scan_prefix(&keys::devices_of(&name), Direction::Forward, usize::MAX)?;
            for (key, entry) in devices {
                let device = Device::decode(&key, &entry.value)?;
                ops.push(Op::Delete { key });
                ops.extend(
                    device.tokens.iter().map(|token| Op::Delete { key: keys::token(token) }),
                );
            }
            Ok(Decision::Write(told(&name, ops), ()))
        };
        self.change::<_, UserError, _>(user, decide).await?;
        self.forget_local_notifications(user, &devices).await
    }

    /// The ids of a user's devices.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device_ids(&self, user: &str) -> Result<Vec<String>, StorageError> {
        let prefix = keys::devices_of(user);
        let devices = self.store.scan_prefix(&prefix, Direction::Forward, usize::MAX)?;
        let id = |key: &[u8]| {
            let mut reader = KeyReader::new(key);
            reader.text().and_then(|_user| reader.text())
        };
        Ok(devices.iter().filter_map(|(key, _)| id(key)).collect())
    }

    /// Changes an account by a function of what it is now; `None` if there is no such account.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn update_account(
        &self,
        user: &str,
        update: impl FnOnce(&mut User) + Send + 'static,
    ) -> Result<Option<User>, UserError> {
        let name = user.to_owned();
        let decide = move |store: &parlour_storage::Store| {
            let old = store.typed::<User>(&keys::user(&name))?;
            let Some(old) = old else { return Ok(Decision::Keep(None)) };
            let mut new = old.clone();
            update(&mut new);
            if new == old {
                return Ok(Decision::Keep(Some(new)));
            }
            let mut ops = Vec::new();
            put_account(&name, Some(&old), &new, &mut ops);
            Ok(Decision::Write(told(&name, ops), Some(new)))
        };
        self.change(user, decide).await
    }
}

/// A change that no waiting client needs to know of.
fn quiet(ops: Vec<Op>) -> Box<Ops> {
    Box::new(Ops { ops, announcement: Announcement::Nothing })
}

/// A change that the user's own clients are told of.
fn told(user: &str, ops: Vec<Op>) -> Box<Ops> {
    Box::new(Ops { ops, announcement: Announcement::User { user: user.to_owned() } })
}
