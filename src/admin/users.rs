//! Accounts: looking at them, making and changing them.

use std::sync::Arc;

use actix_web::http::{Method, StatusCode};
use parlour_actors::users::{Logout, ProfileChange};
use parlour_storage::schema::User;
use ruma::{MxcUri, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    request::{AdminRequest, AdminRoutes, Answer, refused},
    user_list::{list_v2, list_v3, summary},
};
use crate::{
    client::accounts::{Accounts, NewAccount, check_password},
    error::ApiError,
    http::Routes,
    view::{View, ViewError},
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct UserContext {
    /// The accounts.
    pub accounts: Arc<Accounts>,
    /// Which rooms users are in.
    pub view: View,
    /// The user as whom the server talks: nobody makes it a person.
    pub own_user: Option<OwnedUserId>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<UserContext>) -> Routes {
    let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
    AdminRoutes::new(context)
        .on(get.clone(), "/_synapse/admin/v2/users", list_v2)
        .on(get.clone(), "/_synapse/admin/v3/users", list_v3)
        .on(get.clone(), "/_synapse/admin/v2/users/{user_id}", details)
        .on_with(put.clone(), "/_synapse/admin/v2/users/{user_id}", create_or_modify)
        .on(get.clone(), "/_synapse/admin/v1/users/{user_id}/admin", is_admin)
        .on(put.clone(), "/_synapse/admin/v1/users/{user_id}/admin", set_admin)
        .on(get, "/_synapse/admin/v1/users/{user_id}/joined_rooms", joined_rooms)
        .on(post.clone(), "/_synapse/admin/v1/reset_password/{user_id}", reset_password)
        .on(post, "/_synapse/admin/v1/deactivate/{user_id}", deactivate)
        .on(put, "/_synapse/admin/v1/suspend/{user_id}", suspend)
        .finish()
}

/// `GET /_synapse/admin/v2/users/{userId}`
async fn details(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let (user, account) = context.target(&request)?;
    Ok(shown(&context, &user, &account)?)
}

fn yes() -> bool {
    true
}

/// What an account is to be; what is left out stays as it is.
#[derive(Deserialize)]
struct Wish {
    password: Option<String>,
    #[serde(default = "yes")]
    logout_devices: bool,
    displayname: Option<String>,
    avatar_url: Option<String>,
    #[serde(default)]
    threepids: Vec<Value>,
    #[serde(default)]
    external_ids: Vec<Value>,
    admin: Option<bool>,
    deactivated: Option<bool>,
    locked: Option<bool>,
    user_type: Option<String>,
}

impl Wish {
    fn check(&self) -> Result<(), ApiError> {
        if !self.threepids.is_empty() || !self.external_ids.is_empty() {
            let message = "This server knows neither third-party ids nor external ones";
            return Err(refused(message));
        }
        if self.user_type.is_some() {
            return Err(refused("This server has no types of users"));
        }
        if let Some(url) = self.avatar_url.as_deref().filter(|url| !url.is_empty())
            && !<&MxcUri>::from(url).is_valid()
        {
            return Err(ApiError::invalid_param("avatar_url must be an mxc: URI"));
        }
        self.password.as_deref().map_or(Ok(()), check_password)
    }
}

/// `PUT /_synapse/admin/v2/users/{userId}`
async fn create_or_modify(
    context: Arc<UserContext>,
    request: AdminRequest,
) -> Result<(StatusCode, Value), ApiError> {
    let user = request.local_user(&context.accounts.server_name)?;
    context.check_person(&user)?;
    let wish: Wish = request.json()?;
    wish.check()?;
    let status = match context.accounts.users.account(user.as_str())? {
        Some(_) => {
            context.modify(&request, &user, wish).await?;
            StatusCode::OK
        }
        None => {
            context.create(&user, wish).await?;
            StatusCode::CREATED
        }
    };
    let account = context.account(&user)?;
    Ok((status, shown(&context, &user, &account)?))
}

/// `GET /_synapse/admin/v1/users/{userId}/admin`
async fn is_admin(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let (_, account) = context.target(&request)?;
    Ok(json!({ "admin": account.admin }))
}

#[derive(Deserialize)]
struct SetAdmin {
    admin: bool,
}

/// `PUT /_synapse/admin/v1/users/{userId}/admin`
async fn set_admin(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    let SetAdmin { admin } = request.json()?;
    check_not_self(&request, &user, !admin, "You may not demote yourself.")?;
    context.update(&user, move |account| account.admin = admin).await?;
    Ok(json!({}))
}

/// `GET /_synapse/admin/v1/users/{userId}/joined_rooms`
async fn joined_rooms(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let (user, _) = context.target(&request)?;
    let rooms = context.view.run(move |view| {
        let memberships = view.store.memberships(user.as_str())?;
        let joined = memberships.into_iter().filter(|(_, entry)| entry.membership == "join");
        let rooms = joined.map(|(num, _)| view.room_by_num(num));
        let rooms = rooms.filter_map(|room| Some(room.transpose()?.map(|room| room.room_id)));
        rooms.collect::<Result<Vec<_>, ViewError>>()
    });
    let rooms = rooms.await?;
    Ok(json!({ "joined_rooms": rooms, "total": rooms.len() }))
}

#[derive(Deserialize)]
struct ResetPassword {
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
}

/// `POST /_synapse/admin/v1/reset_password/{userId}`
async fn reset_password(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    let ResetPassword { new_password, logout_devices } = request.json()?;
    check_password(&new_password)?;
    context.set_password(&user, new_password, logout_devices).await?;
    Ok(json!({}))
}

#[derive(Default, Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
}

/// `POST /_synapse/admin/v1/deactivate/{userId}`
async fn deactivate(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    let Deactivate { erase } = match request.body() {
        [] => Deactivate::default(),
        _ => request.json()?,
    };
    context.deactivate(&user, erase).await?;
    // There is no identity server that the user could be bound at.
    Ok(json!({ "id_server_unbind_result": "no-support" }))
}

#[derive(Deserialize)]
struct Suspend {
    suspend: bool,
}

/// `PUT /_synapse/admin/v1/suspend/{userId}`
async fn suspend(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    let Suspend { suspend } = request.json()?;
    check_not_self(&request, &user, suspend, "You may not suspend yourself.")?;
    context.update(&user, move |account| account.suspended = suspend).await?;
    Ok(json!({ format!("user_{user}_suspended"): suspend }))
}

impl UserContext {
    /// The account that the path names.
    pub(super) fn target(&self, request: &AdminRequest) -> Result<(OwnedUserId, User), ApiError> {
        let user = request.local_user(&self.accounts.server_name)?;
        let account = self.account(&user)?;
        Ok((user, account))
    }

    /// The account that the path names, which is to be changed.
    pub(super) fn person(&self, request: &AdminRequest) -> Result<OwnedUserId, ApiError> {
        let (user, _) = self.target(request)?;
        self.check_person(&user)?;
        Ok(user)
    }

    fn check_person(&self, user: &UserId) -> Result<(), ApiError> {
        match self.own_user.as_deref() == Some(user) {
            true => Err(refused("This is the server's own user")),
            false => Ok(()),
        }
    }

    pub(super) fn account(&self, user: &UserId) -> Result<User, ApiError> {
        let account = self.accounts.users.account(user.as_str())?;
        account.ok_or_else(unknown)
    }

    async fn create(&self, user: &UserId, wish: Wish) -> Result<(), ApiError> {
        // Not every id that others may have is one that is given out here.
        let user = self.accounts.user_id(user.localpart())?;
        let new = NewAccount {
            password: wish.password,
            admin: wish.admin.unwrap_or_default(),
            display_name: wish.displayname.filter(|name| !name.is_empty()),
            ..NewAccount::default()
        };
        self.accounts.create(Some(user.clone()), new).await?;
        if wish.locked == Some(true) {
            self.update(&user, |account| account.locked = true).await?;
        }
        if let Some(url) = wish.avatar_url.filter(|url| !url.is_empty()) {
            self.set_profile(&user, ProfileChange::AvatarUrl(Some(url))).await?;
        }
        Ok(())
    }

    async fn modify(
        &self,
        request: &AdminRequest,
        user: &UserId,
        wish: Wish,
    ) -> Result<(), ApiError> {
        check_not_self(request, user, wish.admin == Some(false), "You may not demote yourself.")?;
        check_not_self(request, user, wish.locked == Some(true), "You may not lock yourself.")?;
        if wish.deactivated == Some(true) {
            // Nothing of the account is left that the rest could be about.
            return self.deactivate(user, false).await;
        }
        let (admin, locked, deactivated) = (wish.admin, wish.locked, wish.deactivated);
        let change = move |account: &mut User| {
            account.admin = admin.unwrap_or(account.admin);
            account.locked = locked.unwrap_or(account.locked);
            // Who is active again has no password but a new one.
            account.deactivated &= deactivated != Some(false);
        };
        self.update(user, change).await?;
        if let Some(password) = wish.password {
            self.set_password(user, password, wish.logout_devices).await?;
        }
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        if let Some(name) = wish.displayname {
            self.set_profile(user, ProfileChange::DisplayName(text(name))).await?;
        }
        if let Some(url) = wish.avatar_url {
            self.set_profile(user, ProfileChange::AvatarUrl(text(url))).await?;
        }
        Ok(())
    }

    async fn update(
        &self,
        user: &UserId,
        change: impl FnOnce(&mut User) + Send + 'static,
    ) -> Result<(), ApiError> {
        let changed = self.accounts.users.update_account(user.as_str(), change).await?;
        found(changed.is_some())
    }

    async fn set_profile(&self, user: &UserId, change: ProfileChange) -> Result<(), ApiError> {
        Ok(self.accounts.users.set_profile(user.as_str(), change).await?)
    }

    async fn set_password(
        &self,
        user: &UserId,
        password: String,
        logout: bool,
    ) -> Result<(), ApiError> {
        let hash = self.accounts.passwords.hash(password).await?;
        let logout = if logout { Logout::All } else { Logout::Nobody };
        found(self.accounts.users.set_password(user.as_str(), hash, logout).await?)
    }

    async fn deactivate(&self, user: &UserId, erase: bool) -> Result<(), ApiError> {
        found(self.accounts.users.deactivate(user.as_str(), erase).await?)
    }
}

fn unknown() -> ApiError {
    ApiError::not_found("User not found")
}

fn found(is_there: bool) -> Result<(), ApiError> {
    if is_there { Ok(()) } else { Err(unknown()) }
}

/// 400 where administrators would take from themselves what they are.
pub(super) fn check_not_self(
    request: &AdminRequest,
    user: &UserId,
    applies: bool,
    message: &str,
) -> Result<(), ApiError> {
    match applies && request.caller.user_id == user {
        true => Err(refused(message)),
        false => Ok(()),
    }
}

/// An account with everything that is known of it.
fn shown(context: &UserContext, user: &UserId, account: &User) -> Result<Value, ViewError> {
    let mut shown = summary(context, user.as_str(), account)?;
    for key in ["appservice_id", "consent_server_notice_sent", "consent_version", "consent_ts"] {
        shown[key] = Value::Null;
    }
    shown["threepids"] = json!([]);
    shown["external_ids"] = json!([]);
    Ok(shown)
}
