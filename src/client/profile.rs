//! Profiles.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::{
    presence::Presence,
    users::{ProfileChange, Users},
};
use parlour_storage::schema::User;
use ruma::{
    MxcUri, OwnedServerName, OwnedUserId, UserId,
    api::{
        IncomingRequest, Metadata,
        client::profile::{
            delete_profile_field, get_profile, get_profile_field, set_profile_field,
        },
        error::{DeserializationError, Error, ErrorCode},
        federation::query::get_profile_information,
        path_builder::VersionHistory,
    },
    profile::{ProfileFieldName, ProfileFieldValue},
};
use serde_json::{Map, Value, value::RawValue};

use super::local;
use crate::{
    config::ProfileLookup,
    error::ApiError,
    federation::outbound::{client::FederationClient, transport::Limits},
    http::{Admits, AnyCaller, Api, Caller, RouteOptions, Routes, Ruma},
    view::{View, ViewError},
};

/// The longest name of a field, in bytes.
const MAX_KEY: usize = 255;

/// The longest display name, and the longest avatar URI, in bytes: both go into member events.
const MAX_NAME: usize = 1_024;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct ProfileContext {
    /// Where profiles are kept.
    pub users: Users,
    /// Whose users they are.
    pub server_name: OwnedServerName,
    /// Who is asked for the profiles of others.
    pub remote: FederationClient,
    /// Who may look a profile up.
    pub lookup: ProfileLookup,
    /// Who shares a room with whom.
    pub view: View,
    /// Who is online: those who see that see name and avatar.
    pub presence: Presence,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<ProfileContext>) -> Routes {
    let active = RouteOptions::default().admits(Admits::Active);
    Routes::new(Api::Client, context)
        .route_with(RouteOptions::default().for_guests(), get)
        .route_with(RouteOptions::default().for_guests(), get_field)
        .route_with(active.for_guests(), set_field)
        .route_with(active.for_guests(), delete_field)
        .finish()
}

/// [`set_profile_field::v3::Request`] with the body unread: ruma's own cannot tell a value that is
/// missing from one that is wrong.
#[derive(Debug)]
pub struct SetField {
    user_id: OwnedUserId,
    field: ProfileFieldName,
}

impl Metadata for SetField {
    const METHOD: http::Method = set_profile_field::v3::Request::METHOD;
    const RATE_LIMITED: bool = set_profile_field::v3::Request::RATE_LIMITED;
    type Authentication = <set_profile_field::v3::Request as Metadata>::Authentication;
    type PathBuilder = VersionHistory;
    const PATH_BUILDER: VersionHistory = set_profile_field::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for SetField {
    type EndpointError = Error;
    type OutgoingResponse = set_profile_field::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        // Both requests have the same path, and this one reads nothing else.
        let read = get_profile_field::v3::Request::try_from_http_request_inner(request, path_args)?;
        Ok(Self { user_id: read.user_id, field: read.field })
    }
}

/// `GET /_matrix/client/v3/profile/{userId}`
async fn get(
    context: Arc<ProfileContext>,
    req: Ruma<AnyCaller<get_profile::v3::Request>>,
) -> Result<get_profile::v3::Response, ApiError> {
    let asked = &req.request.0;
    let profile = context.profile(req.caller.as_ref(), &asked.user_id, None).await?;
    Ok(profile.into_iter().collect())
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
async fn get_field(
    context: Arc<ProfileContext>,
    req: Ruma<AnyCaller<get_profile_field::v3::Request>>,
) -> Result<get_profile_field::v3::Response, ApiError> {
    let asked = &req.request.0;
    let caller = req.caller.as_ref();
    let mut profile = context.profile(caller, &asked.user_id, Some(&asked.field)).await?;
    let name = asked.field.as_str();
    let value = profile.remove(name);
    let value = value.ok_or_else(|| ApiError::not_found("The profile has no such field"))?;
    let value = ProfileFieldValue::new(name, value).map_err(ApiError::internal)?;
    Ok(get_profile_field::v3::Response::new(value))
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
async fn set_field(
    context: Arc<ProfileContext>,
    req: Ruma<SetField>,
) -> Result<set_profile_field::v3::Response, ApiError> {
    let name = req.field.as_str();
    own(&req.caller, &req.user_id, name)?;
    check_key(name)?;
    let change = change(name, &req.meta.body)?;
    context.set(&req.user_id, change).await?;
    Ok(set_profile_field::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
async fn delete_field(
    context: Arc<ProfileContext>,
    req: Ruma<delete_profile_field::v3::Request>,
) -> Result<delete_profile_field::v3::Response, ApiError> {
    let name = req.field.as_str();
    own(&req.caller, &req.user_id, name)?;
    check_key(name)?;
    let change = match name {
        "displayname" => ProfileChange::DisplayName(None),
        "avatar_url" => ProfileChange::AvatarUrl(None),
        other => ProfileChange::Field(other.to_owned(), None),
    };
    context.set(&req.user_id, change).await?;
    Ok(delete_profile_field::v3::Response::new())
}

impl ProfileContext {
    async fn set(&self, user: &UserId, change: ProfileChange) -> Result<(), ApiError> {
        let is_shown = !matches!(change, ProfileChange::Field(..));
        self.users.set_profile(user.as_str(), change).await?;
        if is_shown {
            self.presence.profile_changed(user.as_str());
        }
        Ok(())
    }

    /// Checks that the caller may look the user up. Who may not, is not told whether there is one.
    async fn check_lookup(&self, caller: Option<&Caller>, user: &UserId) -> Result<(), ApiError> {
        if self.lookup == ProfileLookup::Everybody {
            return Ok(());
        }
        let message = "This server shows profiles to its users alone";
        let caller = caller.ok_or_else(|| ApiError::forbidden(message))?;
        if self.lookup == ProfileLookup::Users {
            return Ok(());
        }
        let (caller, user) = (caller.user_id.clone(), user.to_owned());
        let ask = move |view: &View| view.audience(&caller)?.tie(user.as_str());
        if self.view.run::<_, ViewError, _>(ask).await?.is_none() {
            let message = "This server shows profiles to those who share a room with the user";
            return Err(ApiError::forbidden(message));
        }
        Ok(())
    }

    /// The whole profile of anybody; of another server's user at least the field, if there is one.
    async fn profile(
        &self,
        caller: Option<&Caller>,
        user: &UserId,
        field: Option<&ProfileFieldName>,
    ) -> Result<Map<String, Value>, ApiError> {
        self.check_lookup(caller, user).await?;
        if user.server_name() == self.server_name {
            return self.local(user);
        }
        local::may_ask_others(caller)?;
        let mut request = get_profile_information::v1::Request::new(user.to_owned());
        request.field = field.cloned();
        let answer = self.remote.ask(user.server_name(), request, Limits::SMALL).await?;
        // Some servers say that a field is not set by `null`, and none is what cannot be one.
        let is_set = |(name, value): &(String, Value)| {
            !value.is_null() && ProfileFieldValue::new(name, value.clone()).is_ok()
        };
        Ok(answer.into_iter().filter(is_set).collect())
    }

    /// The profile of a user of this server.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND` for who is none.
    pub fn local(&self, user: &UserId) -> Result<Map<String, Value>, ApiError> {
        let is_ours = user.server_name() == self.server_name;
        let account = if is_ours { self.users.account(user.as_str())? } else { None };
        let account = account.filter(|account| !account.deactivated);
        fields(account.ok_or_else(|| ApiError::not_found("There is no such user"))?)
    }
}

/// A profile is its user's to change; of a guest's, the name alone.
fn own(caller: &Caller, user: &UserId, field: &str) -> Result<(), ApiError> {
    if caller.guest && field != "displayname" {
        return Err(ApiError::guest_access_forbidden());
    }
    if caller.user_id == *user {
        return Ok(());
    }
    Err(ApiError::forbidden("The profile of another user is not yours to change"))
}

/// The whole profile.
fn fields(account: User) -> Result<Map<String, Value>, ApiError> {
    let mut fields = Map::new();
    let known = [("displayname", account.display_name), ("avatar_url", account.avatar_url)];
    for (name, value) in known {
        fields.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    for (name, json) in account.profile {
        fields.insert(name, serde_json::from_str(&json).map_err(ApiError::internal)?);
    }
    Ok(fields)
}

/// Checks a field's name: the common namespaced identifier grammar (Appendices).
fn check_key(name: &str) -> Result<(), ApiError> {
    if name.len() > MAX_KEY {
        let message = format!("The name of a profile field has at most {MAX_KEY} bytes");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::KeyTooLarge, message));
    }
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let goes_on = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if starts_well && name.chars().all(goes_on) {
        return Ok(());
    }
    Err(ApiError::invalid_param(
        "The name of a profile field begins with a small letter, and has small letters, digits \
         and . _ -",
    ))
}

/// What a body wants a field to be.
fn change(name: &str, body: &[u8]) -> Result<ProfileChange, ApiError> {
    let mut body: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body)?;
    let Some(value) = body.remove(name) else {
        return Err(ApiError::missing_param(format!("The body has no `{name}`")));
    };
    let text = || match serde_json::from_str::<String>(value.get()) {
        Ok(text) if text.len() <= MAX_NAME => Ok(text),
        Ok(_) => Err(ApiError::invalid_param(format!("{name} has more than {MAX_NAME} bytes"))),
        Err(_) => Err(ApiError::bad_json(format!("{name} must be a string"))),
    };
    // For clients from before v1.16 an empty text is how a name or an avatar is removed.
    let unless_empty = |text: String| Some(text).filter(|text| !text.is_empty());
    match name {
        "displayname" => Ok(ProfileChange::DisplayName(unless_empty(text()?))),
        "avatar_url" => {
            let url = unless_empty(text()?);
            if url.as_deref().is_some_and(|url| !<&MxcUri>::from(url).is_valid()) {
                return Err(ApiError::invalid_param("An avatar_url is an mxc:// URI"));
            }
            Ok(ProfileChange::AvatarUrl(url))
        }
        "m.tz" => {
            let json = Value::String(text()?).to_string();
            Ok(ProfileChange::Field(name.to_owned(), Some(json)))
        }
        // Parsed and written again, so that white space does not count.
        other => {
            let value: Value = serde_json::from_str(value.get())?;
            Ok(ProfileChange::Field(other.to_owned(), Some(value.to_string())))
        }
    }
}
