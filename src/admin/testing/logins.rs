//! Logins of many users at once, without their passwords.

use std::sync::Arc;

use actix_web::http::Method;
use futures_util::future::try_join_all;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::TestContext;
use crate::{
    admin::request::{AdminRequest, AdminRoutes, Answer},
    client::accounts::Wish,
    error::ApiError,
};

/// How many users are logged in at once.
const MAX_LOGINS: usize = 1_000;

pub(super) fn add(routes: AdminRoutes<Arc<TestContext>>) -> AdminRoutes<Arc<TestContext>> {
    routes.on(Method::POST, "/_parlour/test/v1/logins", log_in)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Logins {
    users: Vec<OwnedUserId>,
}

/// `POST /_parlour/test/v1/logins`: each of these users gets one more device.
async fn log_in(context: Arc<TestContext>, request: AdminRequest) -> Answer {
    let Logins { users } = request.parameters()?;
    if users.len() > MAX_LOGINS {
        let message = format!("At most {MAX_LOGINS} users can be logged in at once");
        return Err(ApiError::invalid_param(message));
    }
    let accounts = &context.accounts;
    for user in &users {
        let account = accounts.users.account(user.as_str())?;
        if account.is_none_or(|account| account.deactivated || account.guest) {
            return Err(ApiError::not_found(format!("There is no user {user} to log in")));
        }
    }
    let device = accounts.new_device(Wish::default(), request.meta())?;
    let logins = users.into_iter().map(async |user| {
        let session = accounts.users.login(user.as_str(), device.clone()).await?;
        Ok::<Value, ApiError>(json!({
            "user_id": user,
            "device_id": session.device_id,
            "access_token": session.access_token,
        }))
    });
    Ok(json!({ "logins": try_join_all(logins).await? }))
}
