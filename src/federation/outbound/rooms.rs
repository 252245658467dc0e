//! What other servers are asked about rooms: events, states, history. Bounded in size and time;
//! nothing of what they answer has been checked.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>

use std::time::Duration;

use parlour_event::{
    Pdu,
    json::{self, Value},
};
use parlour_storage::Direction;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName, UInt,
    api::{
        self,
        federation::{
            authorization::get_event_authorization::v1 as get_event_auth,
            backfill::get_backfill::v1 as get_backfill,
            event::{
                get_event::v1 as get_event, get_event_by_timestamp::v1 as get_nearest,
                get_missing_events::v1 as get_missing_events, get_room_state::v1 as get_state,
                get_room_state_ids::v1 as get_state_ids,
            },
            policy::sign_event::v1 as sign_event,
        },
    },
};
use serde_json::value::RawValue;

use super::{
    client::{AskError, FederationClient},
    transport::Limits,
};

/// An event as it came.
pub type RawPdu = Box<RawValue>;

/// For one event, whose largest size is 64 KiB.
const ONE: Limits = Limits { time: Duration::from_secs(15), body: 1 << 20 };

/// For a page of events.
const PAGE: Limits = Limits { time: Duration::from_secs(20), body: 16 << 20 };

/// For a signature. Events wait for it, but no room does.
const SIGNATURE: Limits = Limits { time: Duration::from_secs(10), body: 1 << 16 };

/// For the ids of a state and its auth chain: some 300,000 of them.
const IDS: Limits = Limits { time: Duration::from_secs(60), body: 16 << 20 };

/// For an auth chain.
const CHAIN: Limits = Limits { time: Duration::from_secs(60), body: 64 << 20 };

/// For a whole state with its auth chain.
const STATE: Limits = Limits { time: Duration::from_secs(120), body: 192 << 20 };

/// A state and the auth events of all its events, and of those, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldState<T> {
    /// The state.
    pub state: Vec<T>,
    /// The auth chain.
    pub auth_chain: Vec<T>,
}

/// Between which events of a room's graph some are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Events whose predecessors are wanted.
    pub latest: Vec<OwnedEventId>,
    /// Events that are known: neither they nor what is before them is wanted.
    pub earliest: Vec<OwnedEventId>,
    /// No events of a lower depth are wanted.
    pub min_depth: u64,
    /// At most so many events; servers give no more than 20, whatever is asked for.
    pub limit: u32,
}

/// Asks servers about rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RoomClient(FederationClient);

impl RoomClient {
    /// Asks with this client.
    #[must_use]
    pub fn new(client: FederationClient) -> Self {
        Self(client)
    }

    /// Whether a server may be asked at all.
    #[must_use]
    pub fn may_ask(&self, server: &ServerName) -> bool {
        self.0.may_ask(server)
    }

    /// `POST /_matrix/federation/v1/get_missing_events/{roomId}`: events in a gap, at most as many
    /// as were asked for, in no order that could be relied on.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn get_missing_events(
        &self,
        from: &ServerName,
        room: &RoomId,
        gap: Gap,
    ) -> Result<Vec<RawPdu>, AskError> {
        let Gap { latest, earliest, min_depth, limit } = gap;
        let mut request = get_missing_events::Request::new(room.to_owned(), earliest, latest);
        request.min_depth = UInt::new_saturating(min_depth);
        request.limit = limit.into();
        let mut events = self.0.ask(from, request, PAGE).await?.events;
        events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(events)
    }

    /// `GET /_matrix/federation/v1/state_ids/{roomId}`: the state before an event.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn state_ids(
        &self,
        from: &ServerName,
        room: &RoomId,
        before: &EventId,
    ) -> Result<ToldState<OwnedEventId>, AskError> {
        let request = get_state_ids::Request::new(before.to_owned(), room.to_owned());
        let answer = self.0.ask(from, request, IDS).await?;
        Ok(ToldState { state: answer.pdu_ids, auth_chain: answer.auth_chain_ids })
    }

    /// `GET /_matrix/federation/v1/state/{roomId}`: the same with the events. Its answer may be
    /// very long.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn state(
        &self,
        from: &ServerName,
        room: &RoomId,
        before: &EventId,
    ) -> Result<ToldState<RawPdu>, AskError> {
        let request = get_state::Request::new(before.to_owned(), room.to_owned());
        let answer = self.0.ask(from, request, STATE).await?;
        Ok(ToldState { state: answer.pdus, auth_chain: answer.auth_chain })
    }

    /// `GET /_matrix/federation/v1/event/{eventId}`
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn event(&self, from: &ServerName, event: &EventId) -> Result<RawPdu, AskError> {
        let request = get_event::Request::new(event.to_owned());
        Ok(self.0.ask(from, request, ONE).await?.pdu)
    }

    /// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`: an event's auth chain.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn event_auth(
        &self,
        from: &ServerName,
        room: &RoomId,
        event: &EventId,
    ) -> Result<Vec<RawPdu>, AskError> {
        let request = get_event_auth::Request::new(room.to_owned(), event.to_owned());
        Ok(self.0.ask(from, request, CHAIN).await?.auth_chain)
    }

    /// `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`: the event that is nearest to a time
    /// in a direction of time, with the time that it bears. Both in milliseconds since the epoch.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn nearest(
        &self,
        from: &ServerName,
        room: &RoomId,
        at: u64,
        direction: Direction,
    ) -> Result<(OwnedEventId, u64), AskError> {
        let at = MilliSecondsSinceUnixEpoch(UInt::new_saturating(at));
        let direction = match direction {
            Direction::Forward => api::Direction::Forward,
            Direction::Backward => api::Direction::Backward,
        };
        let request = get_nearest::Request::new(room.to_owned(), at, direction);
        let answer = self.0.ask(from, request, Limits::SMALL).await?;
        Ok((answer.event_id, answer.origin_server_ts.get().into()))
    }

    /// `POST /_matrix/policy/v1/sign`: a policy server's signature on an event, if it gives one.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn policy_signature(
        &self,
        from: &ServerName,
        pdu: &Pdu,
    ) -> Result<Option<String>, AskError> {
        let text = json::to_canonical_string(&Value::Object(pdu.json().clone()));
        let event = RawValue::from_string(text);
        let event = event.map_err(|error| AskError::Request(error.to_string()))?;
        let answer = self.0.ask(from, sign_event::Request::new(event), SIGNATURE).await?;
        Ok(answer.ed25519_signature(from).map(str::to_owned))
    }

    /// `GET /_matrix/federation/v1/backfill/{roomId}`: these events and what is before them, at
    /// most as many as were asked for.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn backfill(
        &self,
        from: &ServerName,
        room: &RoomId,
        events: Vec<OwnedEventId>,
        limit: u32,
    ) -> Result<Vec<RawPdu>, AskError> {
        let request = get_backfill::Request::new(room.to_owned(), events, limit.into());
        let mut events = self.0.ask(from, request, PAGE).await?.pdus;
        events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(events)
    }
}

#[cfg(test)]
#[path = "rooms/tests.rs"]
mod tests;
