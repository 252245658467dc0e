//! Auth event selection and the authorisation rules of room versions 1 to 12.
//!
//! Three questions, asked at different times:
//!
//! 1. [`auth_types`]: which events of the room state go into an event's `auth_events`;
//! 2. [`check_auth_events`]: is the event's own list what it should be; asked once, on receipt;
//! 3. [`check`]: does this room state allow the event; asked against the state that the auth
//!    events make, the state before the event, the current state, and in state resolution.
//!
//! The comments quote the rules in the words of the specification. Signatures are checked
//! elsewhere, except those inside a third-party invite.
//!
//! Specification: <https://spec.matrix.org/v1.19/rooms/> and
//! <https://spec.matrix.org/v1.19/server-server-api/#authorisation-rules>

mod create;
mod error;
mod member;
mod power;
mod selection;
mod third_party;

use std::sync::Arc;

use ruma::UserId;

pub use error::AuthError;
pub use selection::{auth_types, check_auth_events};

use crate::content::{
    CreateContent, JoinRule, JoinRulesContent, LevelError, MemberContent, Membership, PowerLevel,
    PowerLevels,
};
use crate::pdu::Pdu;
use crate::version::RoomVersion;

/// The types of events that the rules read.
pub(crate) mod types {
    pub(crate) const ALIASES: &str = "m.room.aliases";
    pub(crate) const CREATE: &str = "m.room.create";
    pub(crate) const JOIN_RULES: &str = "m.room.join_rules";
    pub(crate) const MEMBER: &str = "m.room.member";
    pub(crate) const POWER_LEVELS: &str = "m.room.power_levels";
    pub(crate) const REDACTION: &str = "m.room.redaction";
    pub(crate) const THIRD_PARTY_INVITE: &str = "m.room.third_party_invite";
}

/// A room state to check against.
pub trait StateView {
    /// The state event with this type and state key.
    fn event(&self, event_type: &str, state_key: &str) -> Option<Arc<Pdu>>;
}

impl<F: Fn(&str, &str) -> Option<Arc<Pdu>>> StateView for F {
    fn event(&self, event_type: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self(event_type, state_key)
    }
}

/// Whether `state` allows the event: all rules except those about the event's own list of auth
/// events, in the order of the specification.
///
/// `state` must answer `("m.room.create", "")` in every room version, with an event that was not
/// rejected, also in version 12, where that event is never among the auth events. For the create
/// event itself `state` is not read.
///
/// Cost: a handful of look-ups in `state`; for a change of the power levels also linear in their
/// size.
///
/// # Errors
///
/// The rule that forbids the event. The text is fit to be shown to the event's sender.
pub fn check<S: StateView + ?Sized>(
    version: &RoomVersion,
    event: &Pdu,
    state: &S,
) -> Result<(), AuthError> {
    // Rule 1. If type is m.room.create:
    if event.event_type() == types::CREATE {
        return create::check(version, event);
    }
    let create = state.event(types::CREATE, "").ok_or(AuthError::NoCreateEvent)?;
    // Version 12, rule 2. If the event's room_id is not an event ID for an accepted m.room.create
    // event, with the sigil ! instead of $, reject.
    if version.rules().authorization.room_create_event_id_as_room_id
        && event.room_id().as_str().strip_prefix('!')
            != create.event_id().as_str().strip_prefix('$')
    {
        return Err(AuthError::RoomIdNotCreate);
    }
    // If the content of the m.room.create event in the room state has the property m.federate set
    // to false, and the sender domain of the event does not match the sender domain of the create
    // event, reject.
    if !CreateContent::of(&create).federates()
        && event.sender().server_name() != create.sender().server_name()
    {
        return Err(AuthError::NotFederated);
    }
    // Versions 1 to 5. If type is m.room.aliases:
    if version.rules().authorization.special_case_room_aliases
        && event.event_type() == types::ALIASES
    {
        return check_aliases(event);
    }
    let power_levels = state.event(types::POWER_LEVELS, "");
    let levels = PowerLevels::new(version, Some(&create), power_levels.as_deref());
    let has_levels = power_levels.is_some();
    Check { version, event, state, create: &create, levels, has_levels }.run()
}

/// What the rules look at.
struct Check<'a, S: ?Sized> {
    version: &'a RoomVersion,
    event: &'a Pdu,
    state: &'a S,
    create: &'a Pdu,
    levels: PowerLevels<'a>,
    has_levels: bool,
}

impl<S: StateView + ?Sized> Check<'_, S> {
    /// The rules from that on `m.room.member` to the last.
    fn run(&self) -> Result<(), AuthError> {
        let event = self.event;
        // If type is m.room.member:
        if event.event_type() == types::MEMBER {
            return self.member();
        }
        // If the sender's current membership state is not join, reject.
        self.sender_must_be_joined()?;
        let power = self.sender_power()?;
        // If type is m.room.third_party_invite: Allow if and only if sender's current power level
        // is greater than or equal to the invite level.
        if event.event_type() == types::THIRD_PARTY_INVITE {
            return require(power, self.levels.invite()?, || "to invite users".to_owned());
        }
        // If the event type's required power level is greater than the sender's power level,
        // reject.
        let needed = self.levels.event_level(event.event_type(), event.state_key().is_some())?;
        require(power, needed, || format!("to send {}", event.event_type()))?;
        // If the event has a state_key that starts with an @ and does not match the sender, reject.
        if let Some(key) = event.state_key().filter(|key| key.starts_with('@')) {
            self.owned(key, power)?;
        }
        match event.event_type() {
            // If type is m.room.power_levels:
            types::POWER_LEVELS => self.power_levels(power),
            // Versions 1 and 2. If type is m.room.redaction:
            types::REDACTION if self.version.rules().authorization.special_case_room_redaction => {
                self.redaction(power)
            }
            // Otherwise, allow.
            _ => Ok(()),
        }
    }

    /// The rule on state keys that start with an `@`.
    fn owned(&self, state_key: &str, power: PowerLevel) -> Result<(), AuthError> {
        if state_key == self.event.sender() {
            return Ok(());
        }
        if !self.version.has_owned_state() {
            return Err(AuthError::OtherUsersStateKey);
        }
        // MSC3757: the user whose id the state key begins with, and who has more power than that
        // user, may send the event.
        let owner = owner_of(state_key).ok_or(AuthError::StateKeyWithoutOwner)?;
        if owner == self.event.sender() || power > self.levels.user_level(owner)? {
            return Ok(());
        }
        Err(AuthError::OtherUsersStateKey)
    }

    /// Versions 1 and 2: the rule on `m.room.redaction`.
    fn redaction(&self, power: PowerLevel) -> Result<(), AuthError> {
        // If the sender's power level is greater than or equal to the redact level, allow.
        let needed = self.levels.redact()?;
        if power.reaches(needed) {
            return Ok(());
        }
        // If the domain of the event_id of the event being redacted is the same as the domain of
        // the event_id of the m.room.redaction, allow.
        let own = self.event.event_id().server_name();
        let redacted = self.event.redacts().and_then(|id| id.server_name());
        if own.is_some() && own == redacted {
            return Ok(());
        }
        // Otherwise, reject.
        let action = "to redact events of other servers".to_owned();
        Err(AuthError::NotEnoughPower { action, needed, have: power })
    }

    fn sender_power(&self) -> Result<PowerLevel, LevelError> {
        self.levels.user_level(self.event.sender())
    }

    fn sender_must_be_joined(&self) -> Result<(), AuthError> {
        match self.membership(self.event.sender())? {
            Membership::Join => Ok(()),
            _ => Err(AuthError::SenderNotJoined),
        }
    }

    /// A user's membership; `leave` for someone who never had one.
    fn membership(&self, user: &UserId) -> Result<Membership, AuthError> {
        match self.state.event(types::MEMBER, user.as_str()) {
            None => Ok(Membership::Leave),
            Some(event) => MemberContent::new(event.content())
                .membership()
                .ok_or_else(|| AuthError::MalformedMembership { user: user.to_string() }),
        }
    }

    fn join_rule(&self) -> JoinRule {
        let event = self.state.event(types::JOIN_RULES, "");
        JoinRulesContent::new(event.as_deref().map(Pdu::content)).join_rule()
    }
}

/// MSC3757: the user id that a state key begins with. Server names have no underscores, so the
/// first one behind the localpart ends it.
fn owner_of(state_key: &str) -> Option<&UserId> {
    let (localpart, rest) = state_key.split_once(':')?;
    let server = rest.split_once('_').map_or(rest, |(server, _)| server);
    let end = localpart.len() + 1 + server.len();
    <&UserId>::try_from(state_key.get(..end)?).ok()
}

/// Versions 1 to 5: the rule on `m.room.aliases`.
fn check_aliases(event: &Pdu) -> Result<(), AuthError> {
    // If event has no state_key, reject. If sender's domain doesn't match state_key, reject.
    // Otherwise, allow.
    if event.state_key() == Some(event.sender().server_name().as_str()) {
        Ok(())
    } else {
        Err(AuthError::AliasesOfOtherServer)
    }
}

/// Refuses what needs more power than there is. `action` completes "you need power 50 …".
fn require(
    have: PowerLevel,
    needed: i64,
    action: impl FnOnce() -> String,
) -> Result<(), AuthError> {
    if have.reaches(needed) {
        Ok(())
    } else {
        Err(AuthError::NotEnoughPower { action: action(), needed, have })
    }
}
