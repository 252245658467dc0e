//! Telling users something in the server's name.

use std::sync::Arc;

use actix_web::http::Method;
use parlour_actors::{
    Transaction,
    notices::{Notice, NoticeError, Notices},
};
use parlour_event::json::{Object, Value};
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde_json::json;

use super::request::{AdminRequest, AdminRoutes, Answer, refused};
use crate::{
    client::{local, txn},
    error::ApiError,
    http::Routes,
};

const SEND: &str = "/_synapse/admin/v1/send_server_notice";
const SEND_ONCE: &str = "/_synapse/admin/v1/send_server_notice/{txn_id}";

/// What these endpoints need to know.
#[derive(Debug)]
pub struct ServerNoticeContext {
    /// Who speaks; nobody where that is turned off.
    pub notices: Option<Notices>,
    /// Whose users can be told something.
    pub server_name: OwnedServerName,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<ServerNoticeContext>) -> Routes {
    AdminRoutes::new(context)
        .on(Method::POST, SEND, send)
        .on(Method::PUT, SEND_ONCE, send_once)
        .finish()
}

/// `POST /_synapse/admin/v1/send_server_notice`
async fn send(context: Arc<ServerNoticeContext>, request: AdminRequest) -> Answer {
    context.send(&request, None).await
}

/// `PUT /_synapse/admin/v1/send_server_notice/{txnId}`
async fn send_once(context: Arc<ServerNoticeContext>, request: AdminRequest) -> Answer {
    let transaction = txn::transaction(&request.caller, SEND, &[], request.arg(0))?;
    context.send(&request, Some(transaction)).await
}

impl ServerNoticeContext {
    async fn send(&self, request: &AdminRequest, transaction: Option<Transaction>) -> Answer {
        let notices = self.notices.as_ref();
        let notices =
            notices.ok_or_else(|| refused("Server notices are not enabled on this server"))?;
        let mut body = local::object(request.body())?;
        let user = OwnedUserId::try_from(text(&mut body, "user_id")?.ok_or_else(missing)?)
            .map_err(|error| ApiError::invalid_param(format!("`user_id`: {error}")))?;
        self.check_recipient(&user)?;
        let event_type = text(&mut body, "type")?.unwrap_or_else(|| "m.room.message".to_owned());
        let state_key = text(&mut body, "state_key")?;
        let Some(Value::Object(content)) = body.remove("content") else { return Err(missing()) };
        let notice = Notice { event_type, state_key, content, transaction };
        let event_id = notices.send(&user, notice).await.map_err(not_sent)?;
        Ok(json!({ "event_id": event_id }))
    }

    fn check_recipient(&self, user: &UserId) -> Result<(), ApiError> {
        match user.server_name() == self.server_name {
            true => Ok(()),
            false => Err(refused("Server notices can only be sent to local users")),
        }
    }
}

fn missing() -> ApiError {
    ApiError::missing_param("A notice needs `user_id`, a user id, and `content`, an object")
}

fn text(body: &mut Object, key: &str) -> Result<Option<String>, ApiError> {
    match body.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::bad_json(format!("`{key}` must be a string"))),
    }
}

fn not_sent(error: NoticeError) -> ApiError {
    match error {
        NoticeError::UnknownUser => ApiError::not_found("User not found"),
        NoticeError::NameTaken(_) => ApiError::internal(error),
        NoticeError::Room(error) => error.into(),
        NoticeError::User(error) => error.into(),
    }
}
