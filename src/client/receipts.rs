//! Receipts and the fully read marker: how far a user has read a room.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#receipts>

mod wire;

use std::sync::Arc;

use parlour_actors::{
    presence::Presence,
    users::{NewReceipt, Users},
};
use parlour_storage::schema::StoredEvent;
use ruma::{
    EventId, RoomId,
    api::client::{
        read_marker::set_read_marker,
        receipt::create_receipt::v3::{ReceiptType, Response},
    },
};

use self::wire::CreateReceipt;
use super::local;
use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{RoomView, View},
};

/// The room account data that hold the fully read marker.
const FULLY_READ: &str = "m.fully_read";

/// What these endpoints need to know.
#[derive(Debug)]
pub struct ReceiptContext {
    /// Where receipts are kept.
    pub users: Users,
    /// Who is in which room, and which events there are.
    pub view: View,
    /// Who is online: who reads is active.
    pub presence: Presence,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<ReceiptContext>) -> Routes {
    Routes::new(Api::Client, context).route(create).route(set_markers).finish()
}

/// A marker that is to be set.
struct Marker<'a> {
    kind: &'a ReceiptType,
    /// Empty for the whole room.
    thread: &'a str,
    event_id: &'a EventId,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
async fn create(
    context: Arc<ReceiptContext>,
    req: Ruma<CreateReceipt>,
) -> Result<Response, ApiError> {
    let thread = thread_id(&req.meta.body)?;
    let kind = &req.receipt_type;
    match kind {
        ReceiptType::Read | ReceiptType::ReadPrivate => {}
        ReceiptType::FullyRead if thread.is_empty() => {}
        ReceiptType::FullyRead => {
            return Err(ApiError::invalid_param("m.fully_read knows no threads: no `thread_id`"));
        }
        other => return Err(ApiError::invalid_param(format!("There are no receipts {other}"))),
    }
    let marker = Marker { kind, thread: &thread, event_id: &req.event_id };
    context.set(&req.caller, &req.room_id, &[marker]).await?;
    Ok(Response::new())
}

/// The `thread_id`; empty if there is none.
fn thread_id(body: &[u8]) -> Result<String, ApiError> {
    if body.is_empty() {
        return Ok(String::new());
    }
    match local::object(body)?.remove("thread_id") {
        None => Ok(String::new()),
        Some(parlour_event::json::Value::String(thread)) if !thread.is_empty() => Ok(thread),
        Some(_) => Err(ApiError::invalid_param("`thread_id` must be a string that is not empty")),
    }
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
async fn set_markers(
    context: Arc<ReceiptContext>,
    req: Ruma<set_read_marker::v3::Request>,
) -> Result<set_read_marker::v3::Response, ApiError> {
    let markers = [
        (&ReceiptType::FullyRead, &req.fully_read),
        (&ReceiptType::Read, &req.read_receipt),
        (&ReceiptType::ReadPrivate, &req.private_read_receipt),
    ];
    let given = markers.into_iter().filter_map(|(kind, event_id)| {
        let event_id = event_id.as_deref()?;
        Some(Marker { kind, thread: "", event_id })
    });
    let given: Vec<_> = given.collect();
    context.set(&req.caller, &req.room_id, &given).await?;
    Ok(set_read_marker::v3::Response::new())
}

impl ReceiptContext {
    /// Checks all markers, then sets them.
    async fn set(
        &self,
        caller: &Caller,
        room_id: &RoomId,
        markers: &[Marker<'_>],
    ) -> Result<(), ApiError> {
        let room = local::joined_room(&self.view, room_id, &caller.user_id)?;
        self.presence.acted(caller.user_id.as_str());
        for marker in markers {
            self.check(caller, &room, marker)?;
        }
        for marker in markers {
            self.set_one(caller, &room, marker).await?;
        }
        Ok(())
    }

    fn check(&self, caller: &Caller, room: &RoomView, marker: &Marker<'_>) -> Result<(), ApiError> {
        let event: StoredEvent = local::event_in(&self.view, room, marker.event_id)?;
        let fits = || Ok::<_, ApiError>(self.view.thread_place(&event)?.fits(marker.thread));
        if !marker.thread.is_empty() && !fits()? {
            return Err(ApiError::invalid_param("The event does not belong to this thread"));
        }
        let reader = self.view.reader(&room.room_id, &caller.user_id, Some(&caller.device_id))?;
        match reader.map(|mut reader| reader.judge(&event)).transpose()? {
            Some(seen) if seen.visible => Ok(()),
            _ => Err(ApiError::not_found("The room has no such event")),
        }
    }

    async fn set_one(
        &self,
        caller: &Caller,
        room: &RoomView,
        marker: &Marker<'_>,
    ) -> Result<(), ApiError> {
        let user = caller.user_id.as_str();
        if *marker.kind == ReceiptType::FullyRead {
            let content = serde_json::json!({ "event_id": marker.event_id }).to_string();
            self.users.set_account_data(user, room.num, FULLY_READ, content.into()).await?;
            return Ok(());
        }
        let receipt = NewReceipt {
            room: room.num,
            receipt_type: marker.kind.to_string(),
            thread: marker.thread.to_owned(),
            event_id: marker.event_id.to_string(),
            ts: None,
        };
        Ok(self.users.set_receipt(user, receipt).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::thread_id;

    #[test]
    fn a_thread_id_is_a_string_that_is_not_empty() {
        for (body, expected) in [
            ("", Some("")),
            ("{}", Some("")),
            (r#"{"thread_id":"main"}"#, Some("main")),
            (r#"{"thread_id":"$root"}"#, Some("$root")),
            (r#"{"thread_id":""}"#, None),
            (r#"{"thread_id":1}"#, None),
            (r#"{"thread_id":null}"#, None),
        ] {
            assert_eq!(thread_id(body.as_bytes()).ok().as_deref(), expected, "{body}");
        }
    }
}
