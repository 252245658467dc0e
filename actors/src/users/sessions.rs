//! Logins: which device has which tokens.
//!
//! A refresh makes new tokens beside the old ones, since the client may never get the answer. When
//! one of the new ones is used, they take the place of the old ones.

use std::net::IpAddr;

use parlour_storage::{
    Op, StorageError, Store,
    schema::{Device, LastSeen, Stored, TokenEntry, Tokens, User, keys},
};
use sha2::{Digest, Sha256};

use super::{
    Decision, UserError, Users, dehydrated,
    devices::{make_room, remove},
    inbox,
    keys::{KeyError, is_signing_key, with_news},
};
use crate::commit::{Announcement, Ops};

/// Length of a token after its prefix: more than 190 bits.
const TOKEN_LEN: usize = 32;

/// Length of a device id that the server chooses.
const DEVICE_ID_LEN: usize = 10;

/// A login that is to be made.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// The device id, if the client has one.
    pub device_id: Option<String>,
    /// Name for people; only for a new device.
    pub display_name: Option<String>,
    /// Where the client is.
    pub ip: IpAddr,
    /// What the client says it is.
    pub user_agent: Option<String>,
    /// What tokens it is to get.
    pub kind: TokenKind,
}

/// What tokens a login is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenKind {
    /// Whether there is to be a refresh token, too.
    pub refreshable: bool,
    /// How long the access token is good, in milliseconds; for ever without.
    pub expires_in_ms: Option<u64>,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The device.
    pub device_id: String,
    /// The access token. Only its hash is stored, as that of the refresh token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: Option<String>,
    /// How long the access token is good, in milliseconds; for ever without.
    pub expires_in_ms: Option<u64>,
}

/// Who comes with an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// What the token is worth.
    pub standing: Standing,
    /// What the account may do.
    pub account: AccountStanding,
}

/// What an account may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountStanding {
    /// See [`User::admin`].
    pub admin: bool,
    /// See [`User::guest`].
    pub guest: bool,
    /// See [`User::deactivated`].
    pub deactivated: bool,
    /// See [`User::locked`].
    pub locked: bool,
    /// See [`User::suspended`].
    pub suspended: bool,
}

impl AccountStanding {
    fn of(account: &User) -> Self {
        let User { admin, guest, deactivated, locked, suspended, .. } = *account;
        Self { admin, guest, deactivated, locked, suspended }
    }
}

/// What an access token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is good.
    Good,
    /// It is good, and used for the first time: [`Users::confirm`] ends its predecessors.
    Unconfirmed,
    /// It was good once, and the session is there still.
    Ended,
}

/// Why there are no new tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Nobody has this refresh token.
    #[error("this refresh token is not known here")]
    Unknown,
    /// The refresh token was used before, and what it gave as well.
    #[error("this refresh token has been used")]
    Used,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Users {
    /// Whose an access token is.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn authenticate(&self, token: &str) -> Result<Option<Login>, StorageError> {
        let hash = hash(token);
        let Some(owner) = self.logins.owner(&self.store, &hash)? else { return Ok(None) };
        let standing = standing(&owner.device, &hash, self.env.clock.now_ms());
        Ok(standing.map(|standing| Login {
            user: owner.user.clone(),
            device: owner.device_id.clone(),
            standing,
            account: AccountStanding::of(&owner.account),
        }))
    }

    /// Makes a login: a new device, or new tokens for one that is there (its old ones end).
    ///
    /// # Errors
    ///
    /// [`KeyError::NamedLikeKey`], or if the change cannot be made.
    pub async fn login(&self, user: &str, device: NewDevice) -> Result<Session, KeyError> {
        let (users, name) = (self.clone(), user.to_owned());
        let decide = move |store: &Store| {
            let wanted = device.device_id.as_deref();
            if let Some(wanted) = wanted
                && is_signing_key(store, &name, wanted)?
            {
                return Err(KeyError::NamedLikeKey);
            }
            let mut ops = Vec::new();
            let session = users.new_session(store, &name, device, &mut ops)?;
            Ok(Decision::Write(with_news(store, &name, ops, Announcement::Nothing)?, session))
        };
        self.change(user, decide).await
    }

    pub(super) fn new_session(
        &self,
        store: &Store,
        user: &str,
        new: NewDevice,
        ops: &mut Vec<Op>,
    ) -> Result<Session, StorageError> {
        let id = new.device_id.unwrap_or_else(|| self.env.random_string(DEVICE_ID_LEN));
        let now = self.env.clock.now_ms();
        let known = store.typed::<Device>(&keys::device(user, &id))?;
        let mut device = match known {
            Some(device) => {
                // Somebody holds it from now on.
                dehydrated::remove(store, user, &id, ops)?;
                device
            }
            None => {
                make_room(store, user, ops)?;
                // What was sent to a device of this name while it ended is not for this one.
                inbox::empty(store, user, &id, ops)?;
                Device { display_name: new.display_name, created_ts: now, ..Device::default() }
            }
        };
        ops.extend(device.token_hashes().map(|old| Op::Delete { key: keys::token(&old) }));
        let (tokens, session) = self.new_tokens(user, id, new.kind, ops);
        device.last_seen = LastSeen { ts: now, ip: new.ip.to_string(), user_agent: new.user_agent };
        (device.current, device.next, device.spent) = (Some(tokens), None, None);
        let key = keys::device(user, &session.device_id);
        ops.push(Op::Put { key, value: device.encode() });
        Ok(session)
    }

    fn new_tokens(
        &self,
        user: &str,
        device_id: String,
        kind: TokenKind,
        ops: &mut Vec<Op>,
    ) -> (Tokens, Session) {
        let token = |prefix: &str| format!("{prefix}_{}", self.env.random_string(TOKEN_LEN));
        let access_token = token("par");
        let refresh_token = kind.refreshable.then(|| token("parr"));
        let now = self.env.clock.now_ms();
        let tokens = Tokens {
            access: hash(&access_token),
            expires_ts: kind.expires_in_ms.map(|millis| now.saturating_add(millis)),
            refresh: refresh_token.as_deref().map(hash),
        };
        let entry = TokenEntry { user: user.to_owned(), device: device_id.clone() }.encode();
        ops.extend(
            tokens.hashes().map(|hash| Op::Put { key: keys::token(&hash), value: entry.clone() }),
        );
        let expires_in_ms = kind.expires_in_ms;
        (tokens, Session { device_id, access_token, refresh_token, expires_in_ms })
    }

    /// A token that a refresh has made is used for the first time: it and its like take the place
    /// of those before.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn confirm(&self, login: &Login, token: &str) -> Result<(), UserError> {
        let (user, device_id, hash) = (login.user.clone(), login.device.clone(), hash(token));
        let decide = move |store: &Store| {
            let key = keys::device(&user, &device_id);
            let Some(mut device) = store.typed::<Device>(&key)? else {
                return Ok(Decision::Keep(()));
            };
            if device.next.as_ref().is_none_or(|next| next.access != hash) {
                return Ok(Decision::Keep(()));
            }
            let mut ops = Vec::new();
            promote(&mut device, &mut ops);
            ops.push(Op::Put { key, value: device.encode() });
            Ok::<_, UserError>(Decision::Write(quiet(ops), ()))
        };
        self.change(&login.user, decide).await
    }

    /// New tokens for a refresh token, which stays good until one of them is used. `lifetime_ms`
    /// is that of the access token.
    ///
    /// # Errors
    ///
    /// [`RefreshError`]
    pub async fn refresh(
        &self,
        token: &str,
        lifetime_ms: Option<u64>,
    ) -> Result<Session, RefreshError> {
        let hash = hash(token);
        let entry = self.store.typed::<TokenEntry>(&keys::token(&hash)).map_err(UserError::from)?;
        let TokenEntry { user, device: id } = entry.ok_or(RefreshError::Unknown)?;
        let (users, name) = (self.clone(), user.clone());
        let decide = move |store: &Store| {
            let key = keys::device(&name, &id);
            let device = store.typed::<Device>(&key).map_err(UserError::from)?;
            let mut device = device.ok_or(RefreshError::Unknown)?;
            let refreshes = |tokens: &Option<Tokens>| {
                tokens.as_ref().is_some_and(|tokens| tokens.refresh == Some(hash))
            };
            let mut ops = Vec::new();
            if refreshes(&device.next) {
                promote(&mut device, &mut ops);
            } else if refreshes(&device.spent) {
                return Err(RefreshError::Used);
            } else if !refreshes(&device.current) {
                return Err(RefreshError::Unknown);
            }
            // The answer to an earlier attempt, which nobody has used.
            end(device.next.take(), &mut ops);
            let kind = TokenKind { refreshable: true, expires_in_ms: lifetime_ms };
            let (tokens, session) = users.new_tokens(&name, id, kind, &mut ops);
            device.next = Some(tokens);
            ops.push(Op::Put { key, value: device.encode() });
            Ok(Decision::Write(quiet(ops), session))
        };
        self.change(&user, decide).await
    }

    /// Ends a login: the device and its tokens are deleted.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn logout(&self, user: &str, device: &str) -> Result<(), UserError> {
        self.delete_devices(user, vec![device.to_owned()]).await
    }

    /// Ends all logins of a user.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn logout_all(&self, user: &str) -> Result<(), UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let mut ops = Vec::new();
            let removed = remove_all(store, &name, None, &mut ops)?;
            let told = Announcement::User { user: name.clone() };
            Ok::<_, UserError>(Decision::Write(with_news(store, &name, ops, told)?, removed))
        };
        let removed = self.change(user, decide).await?;
        self.forget_local_notifications(user, &removed).await
    }
}

/// Removes all devices of a user, perhaps but one; says which.
pub(super) fn remove_all(
    store: &Store,
    user: &str,
    keep: Option<&str>,
    ops: &mut Vec<Op>,
) -> Result<Vec<String>, StorageError> {
    let mut removed = Vec::new();
    for (id, device) in super::devices::all(store, user)? {
        if keep != Some(id.as_str()) {
            remove(store, user, &id, &device, ops)?;
            removed.push(id);
        }
    }
    Ok(removed)
}

/// What an access token is worth to a device; nothing if it is none of the device's.
fn standing(device: &Device, hash: &[u8; 32], now: u64) -> Option<Standing> {
    let is = |tokens: &Tokens| tokens.access == *hash;
    let worth = |tokens: &Tokens, fresh: Standing| match tokens.expires_ts {
        Some(end) if end <= now => Standing::Ended,
        _ => fresh,
    };
    if let Some(tokens) = device.current.as_ref().filter(|tokens| is(tokens)) {
        return Some(worth(tokens, Standing::Good));
    }
    if let Some(tokens) = device.next.as_ref().filter(|tokens| is(tokens)) {
        return Some(worth(tokens, Standing::Unconfirmed));
    }
    device.spent.as_ref().filter(|tokens| is(tokens)).map(|_| Standing::Ended)
}

/// Makes the new tokens the current ones. Of those before, one generation is remembered.
fn promote(device: &mut Device, ops: &mut Vec<Op>) {
    end(device.spent.take(), ops);
    device.spent = device.current.take();
    device.current = device.next.take();
}

fn end(tokens: Option<Tokens>, ops: &mut Vec<Op>) {
    let hashes = tokens.iter().flat_map(Tokens::hashes);
    ops.extend(hashes.map(|hash| Op::Delete { key: keys::token(&hash) }));
}

/// A change that no waiting client needs to know of.
pub(super) fn quiet(ops: Vec<Op>) -> Box<Ops> {
    Box::new(Ops { ops, announcement: Announcement::Nothing })
}

/// A change that the user's own clients are told of.
pub(super) fn told(user: &str, ops: Vec<Op>) -> Box<Ops> {
    Box::new(Ops { ops, announcement: Announcement::User { user: user.to_owned() } })
}
