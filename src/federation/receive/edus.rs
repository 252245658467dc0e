//! Ephemeral data: who types, who has read what, who is online. What is told of devices is handed
//! on.
//!
//! Each is believed of the sender's own users alone, in rooms that they are in and from which
//! their server is not kept out. What does not fit is dropped and counted; nobody is told.

use std::{borrow::Cow, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parlour_actors::users::NewReceipt;
use ruma::{
    EventId, OwnedUserId, RoomId, ServerName, UserId,
    api::federation::transactions::edu::{Edu, ReceiptContent, ReceiptData, TypingContent},
    events::receipt::ReceiptThread,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ReceiveParts, presence::PresenceContent};
use crate::view::{RoomView, ViewError};

/// How long somebody types whose server does not say otherwise: servers repeat it every 40 seconds.
const TYPING: Duration = Duration::from_secs(60);

/// How many receipts one transaction may hold; the rest is dropped.
const MAX_RECEIPTS: usize = 500;

/// How many receipts are made durable at the same time.
const RECEIPTS_AT_ONCE: usize = 32;

/// The kind of receipt that servers tell each other.
const READ: &str = "m.read";

/// Takes in ephemeral data.
#[derive(Debug)]
pub(super) struct EduReceiver {
    pub(super) parts: ReceiveParts,
}

/// What has come, as far as it is understood.
enum Told {
    Presence(PresenceContent),
    Other(Edu),
}

/// Reads one. What a proposal has named before the specification did is still sent under that name
/// by some.
fn read(edu: &RawValue) -> serde_json::Result<Told> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        edu_type: Cow<'a, str>,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let Named { edu_type, content } = serde_json::from_str(edu.get())?;
    Ok(match &*edu_type {
        "m.presence" => Told::Presence(serde_json::from_str(content.get())?),
        "org.matrix.signing_key_update" => {
            Told::Other(Edu::SigningKeyUpdate(serde_json::from_str(content.get())?))
        }
        _ => Told::Other(serde_json::from_str(edu.get())?),
    })
}

/// What became of one, in one word for the counter.
pub(super) type Outcome = Result<&'static str, ViewError>;

/// Whether a server may say something of a user outside events. Of users with ids that nobody could
/// take today clients learn by events alone.
/// <https://spec.matrix.org/v1.19/appendices/#historical-user-ids>
pub(super) fn speaks_for(origin: &ServerName, user: &UserId) -> bool {
    user.server_name() == origin && user.validate_historical().is_ok()
}

impl EduReceiver {
    pub(super) fn new(parts: ReceiveParts) -> Self {
        Self { parts }
    }

    /// Takes in what has come with one transaction.
    pub(super) async fn receive(&self, origin: &ServerName, edus: Vec<Box<RawValue>>) {
        let mut receipts = 0;
        for edu in edus {
            let (kind, outcome) = match read(&edu) {
                Ok(Told::Other(Edu::Typing(content))) => {
                    ("m.typing", self.typing(origin, &content))
                }
                Ok(Told::Other(Edu::Receipt(content))) => {
                    ("m.receipt", self.receipts(origin, content, &mut receipts).await)
                }
                Ok(Told::Presence(content)) => ("m.presence", self.presence(origin, content)),
                Ok(Told::Other(Edu::DeviceListUpdate(content))) => {
                    ("m.device_list_update", self.device_changed(origin, content).await)
                }
                Ok(Told::Other(Edu::DirectToDevice(content))) => {
                    ("m.direct_to_device", self.to_device(origin, content).await)
                }
                Ok(Told::Other(Edu::SigningKeyUpdate(content))) => {
                    ("m.signing_key_update", self.signing_keys_changed(origin, content).await)
                }
                Ok(Told::Other(_)) => ("other", Ok("ignored")),
                Err(_) => ("other", Ok("malformed")),
            };
            let outcome = outcome.unwrap_or_else(|error| {
                tracing::error!(%error, "an EDU cannot be taken in");
                "failed"
            });
            self.parts.counters.edu(kind, outcome);
        }
    }

    /// A room in which a user is whom this server speaks for.
    fn room_of(
        &self,
        origin: &ServerName,
        user: &UserId,
        room: &RoomId,
    ) -> Result<Option<RoomView>, ViewError> {
        let ReceiveParts { view, guard, .. } = &self.parts;
        if !speaks_for(origin, user) {
            return Ok(None);
        }
        let Some(room) = view.room(room)? else { return Ok(None) };
        let is_joined = view.is_joined(room.num, user.as_str())?;
        Ok(if is_joined && guard.admits(&room, origin)? { Some(room) } else { None })
    }

    fn typing(&self, origin: &ServerName, content: &TypingContent) -> Outcome {
        let TypingContent { user_id, room_id, typing, .. } = content;
        let Some(room) = self.room_of(origin, user_id, room_id)? else { return Ok("refused") };
        self.parts.typing.set(room.num, user_id.as_str(), typing.then_some(TYPING));
        Ok("accepted")
    }

    /// `before` is how many there were before it in the transaction.
    async fn receipts(
        &self,
        origin: &ServerName,
        content: ReceiptContent,
        before: &mut usize,
    ) -> Outcome {
        let receipts = content.receipts.into_iter().flat_map(|(room, of_room)| {
            of_room.read.into_iter().map(move |(user, data)| (room.clone(), user, data))
        });
        let all: Vec<_> = receipts.collect();
        let fit = all.len().min(MAX_RECEIPTS.saturating_sub(*before));
        *before += fit;
        let is_too_much = fit < all.len();
        let set = stream::iter(all.into_iter().take(fit))
            .map(|(room, user, data)| async move { self.receipt(origin, &room, user, data).await });
        let set: Vec<_> = set.buffered(RECEIPTS_AT_ONCE).try_collect().await?;
        Ok(if is_too_much || set.contains(&false) { "refused" } else { "accepted" })
    }

    /// One receipt. It must be for an event of the room that is known here, in a thread to which
    /// that belongs: else anybody could have any number of receipts kept.
    async fn receipt(
        &self,
        origin: &ServerName,
        room: &RoomId,
        user: OwnedUserId,
        data: ReceiptData,
    ) -> Result<bool, ViewError> {
        let Some(room) = self.room_of(origin, &user, room)? else { return Ok(false) };
        let thread = match &data.data.thread {
            ReceiptThread::Unthreaded => "",
            thread => thread.as_str().unwrap_or_default(),
        };
        let Some(event_id) = self.newest(&room, data.event_ids.iter().map(|id| &**id), thread)?
        else {
            return Ok(false);
        };
        let now = self.parts.clock.now_ms();
        let receipt = NewReceipt {
            room: room.num,
            receipt_type: READ.to_owned(),
            thread: thread.to_owned(),
            event_id,
            ts: data.data.ts.map(|ts| u64::from(ts.0).min(now)),
        };
        let set = self.parts.users.set_receipt(user.as_str(), receipt).await;
        Ok(set.inspect_err(|error| tracing::warn!(%error, "a receipt was not kept")).is_ok())
    }

    /// The newest of some events of a room's thread, as far as they are known here and shown.
    fn newest<'e>(
        &self,
        room: &RoomView,
        events: impl Iterator<Item = &'e EventId>,
        thread: &str,
    ) -> Result<Option<String>, ViewError> {
        let view = &self.parts.view;
        let mut newest = None;
        // It is a list for historical reasons, and has one element.
        for id in events.take(8) {
            let Some(num) = view.store.event_num(id.as_str())? else { continue };
            let Some(event) = view.store.event(num)? else { continue };
            let fits = event.meta.room == room.num
                && event.meta.flags.is_visible()
                && (thread.is_empty() || view.thread_place(&event)?.fits(thread));
            if fits {
                newest = newest.max(Some((event.meta.pos, event.meta.event_id)));
            }
        }
        Ok(newest.map(|(_, id)| id))
    }
}
