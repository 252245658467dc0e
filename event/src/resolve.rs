//! State resolution: v1 (room version 1), v2 (2 to 11) and v2.1 (12).
//!
//! Resolution merges the states of the forks of a room's history into one. Its cost follows what
//! is in conflict, not the size of the room:
//!
//! - What is in conflict comes from comparing state roots, so equal entries are never looked at.
//! - The auth difference comes from an [`AuthCover`], which moves from state to state along their
//!   differences. Building a cover costs one walk over the whole state; a room keeps its cover
//!   between resolutions and then pays for the changes alone.
//! - The auth checks read single entries, and the result is the first state with the changed
//!   entries set.
//!
//! All walks are iterative and visit each event once, so no graph makes them explode.
//! [`ResolveLimits`] bounds the work; an [`EventSource`] can also cancel by returning an error.
//!
//! Specification: <https://spec.matrix.org/v1.19/rooms/v1/#state-resolution>,
//! <https://spec.matrix.org/v1.19/rooms/v2/#state-resolution>,
//! <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>

mod conflict;
mod context;
mod cover;
mod mainline;
mod partial;
mod power;
mod subgraph;
mod v1;
mod v2;

use std::sync::Arc;

use ruma::room_version_rules::StateResolutionVersion;

use crate::{
    EventNum, RoomVersion, StateKeyNum,
    pdu::Pdu,
    state::{NodeStore, Overlay, StateError, StateRoot},
};

pub use cover::AuthCover;

/// Where resolution gets events from.
pub trait EventSource {
    /// What can go wrong. A source that wants to cancel a resolution returns an error of its own.
    type Error;

    /// The event; `None` if only its number is known. Such events take no part in the resolution.
    ///
    /// # Errors
    ///
    /// If the event cannot be read.
    fn event(&self, event: EventNum) -> Result<Option<Arc<Pdu>>, Self::Error>;

    /// The numbers of the event's `auth_events`; none if the event is not known. Asked far more
    /// often than [`EventSource::event`], so it should not need the event's body.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn auth_events(&self, event: EventNum) -> Result<Arc<[EventNum]>, Self::Error>;

    /// Whether the event was rejected on receipt.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    fn rejected(&self, event: EventNum) -> Result<bool, Self::Error>;

    /// The number of a `(type, state_key)` pair; `None` if no stored event has it.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn state_key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, Self::Error>;
}

/// How much work a resolution may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolveLimits {
    /// The most steps. A step is one event visited in one of the walks, or one auth check.
    pub max_events: u64,
}

impl ResolveLimits {
    /// No limit.
    pub const NONE: Self = Self { max_events: u64::MAX };
}

/// Why states could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError<E, N> {
    /// The event source failed or cancelled.
    #[error("an event cannot be read: {0}")]
    Events(E),
    /// A state could not be read.
    #[error(transparent)]
    State(#[from] StateError<N>),
    /// The conflict needs more work than the limits allow.
    #[error("the states need more than {max_events} steps to resolve")]
    TooLarge {
        /// The limit.
        max_events: u64,
    },
    /// A state event whose `(type, state_key)` pair has no number: it was stored wrongly.
    #[error("event {0} has no place in the state")]
    NoStateKey(EventNum),
}

/// Resolves states into one, without limits and with a cover of its own.
///
/// # Errors
///
/// [`ResolveError::Events`] and [`ResolveError::State`] if something cannot be read.
pub fn resolve<S, N>(
    version: &RoomVersion,
    source: &S,
    nodes: &mut Overlay<'_, N>,
    states: &[StateRoot],
) -> Result<StateRoot, ResolveError<S::Error, N::Error>>
where
    S: EventSource,
    N: NodeStore + ?Sized,
{
    resolve_with(version, source, nodes, states, &mut AuthCover::new(), ResolveLimits::NONE)
}

/// Resolves states into one.
///
/// `cover` belongs to the room; it is brought to one of the states and makes the next resolution
/// cheap. The result does not depend on it, nor on the order of the states; without states it is
/// [`StateRoot::EMPTY`].
///
/// # Errors
///
/// See [`ResolveError`]. The states are unchanged then and the overlay has no new state.
pub fn resolve_with<S, N>(
    version: &RoomVersion,
    source: &S,
    nodes: &mut Overlay<'_, N>,
    states: &[StateRoot],
    cover: &mut AuthCover,
    limits: ResolveLimits,
) -> Result<StateRoot, ResolveError<S::Error, N::Error>>
where
    S: EventSource,
    N: NodeStore + ?Sized,
{
    let mut distinct: Vec<StateRoot> = Vec::with_capacity(states.len());
    for state in states {
        if !distinct.contains(state) {
            distinct.push(*state);
        }
    }
    let (Some(first), true) = (distinct.first(), distinct.len() > 1) else {
        return Ok(distinct.first().copied().unwrap_or_default());
    };
    let context = context::Context::new(version, source, limits);
    let conflict = conflict::between(nodes, *first, &distinct)?;
    let changes = match version.rules().state_res {
        StateResolutionVersion::V1 => v1::resolve(&context, nodes, *first, &conflict)?,
        ref other => {
            // Only v1 has no v2 rules.
            let Some(rules) = other.v2_rules() else { return Ok(*first) };
            v2::resolve(&context, rules, nodes, &distinct, &conflict, cover)?
        }
    };
    Ok(nodes.insert_many(*first, &changes)?)
}
