//! Redactions, and what they redact: carried out when both are there, whichever comes first.
//!
//! From room version 3 on the auth rules let anybody redact; whether a redaction counts is decided
//! here. One that does not, or whose target is not here yet, is kept from users, since clients
//! would carry it out; it is let go when its target comes.
//!
//! Specification: <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>

use std::sync::Arc;

use parlour_event::{
    EventNum, Pdu, auth, content::PowerLevels, pdu::FormatError, redaction, state::StateRoot,
};
use parlour_storage::{
    Op,
    schema::{EventMeta, redactions},
};
use ruma::OwnedEventId;

use super::{
    change::{ChangedEvent, OnOthers},
    commits::CommitPos,
    core::RoomCore,
    messages::RoomError,
};

/// What a redaction comes to.
enum Effect {
    /// It redacts this event.
    On(EventNum, Arc<Pdu>, Box<EventMeta>),
    /// What it redacts is not here.
    Waits(OwnedEventId),
    /// Its sender may not redact that event.
    None,
}

fn is_redaction(pdu: &Pdu) -> bool {
    pdu.event_type() == "m.room.redaction" && pdu.state_key().is_none()
}

impl RoomCore {
    /// Whether users must not see a redaction, at least for now.
    pub(super) fn withholds(&mut self, pdu: &Pdu, state: StateRoot) -> Result<bool, RoomError> {
        let auth_rules_decide = self.version.rules().authorization.special_case_room_redaction;
        if !is_redaction(pdu) || auth_rules_decide {
            return Ok(false);
        }
        Ok(!matches!(self.effect(pdu, state)?, Effect::On(..)))
    }

    fn effect(&mut self, redaction: &Pdu, state: StateRoot) -> Result<Effect, RoomError> {
        let Some(target) = redaction.redacts() else { return Ok(Effect::None) };
        let Some((num, meta)) = self.known_event(target).or_else(|error| match error {
            RoomError::OtherRoom => Ok(None),
            error => Err(error),
        })?
        else {
            return Ok(Effect::Waits(target.clone()));
        };
        let (target, _) = self.stored(num)?;
        let has_power = self.has_redact_level(redaction, state)?;
        Ok(match redaction::applies(self.version, redaction, &target, has_power) {
            true => Effect::On(num, target, Box::new(meta)),
            false => Effect::None,
        })
    }

    /// Carries a redaction out, or has it wait for its target.
    pub(super) fn redact_target(
        &mut self,
        num: EventNum,
        pdu: &Pdu,
        state_before: StateRoot,
        on_others: &mut OnOthers,
    ) -> Result<(), RoomError> {
        if !is_redaction(pdu) {
            return Ok(());
        }
        let (target_num, target, mut meta) = match self.effect(pdu, state_before)? {
            Effect::On(num, target, meta) if meta.redacted_because.is_none() => (num, target, meta),
            Effect::Waits(target) => {
                let key = self.waiting_key(pdu, &target, state_before)?;
                on_others.ops.push(Op::Put { key, value: num.0.to_be_bytes().to_vec().into() });
                return Ok(());
            }
            Effect::On(..) | Effect::None => return Ok(()),
        };
        let left = match meta.flags.is_visible() {
            true => self.unrelate(target_num, &target, &mut on_others.ops)?,
            false => Vec::new(),
        };
        meta.redacted_because = Some(num);
        let pdu = Arc::new(self.redacted(&target)?);
        let (num, pos) = (target_num, self.pos_of(target_num));
        on_others.changed.push(ChangedEvent { num, pdu, meta: *meta, pos, left });
        Ok(())
    }

    /// Where the position of an event will be found, if it has none yet.
    fn pos_of(&self, num: EventNum) -> CommitPos {
        self.pending.get(&num).map(|pending| pending.pos.clone()).unwrap_or_default()
    }

    /// An event as it is when it has been redacted.
    pub(super) fn redacted(&self, pdu: &Pdu) -> Result<Pdu, FormatError> {
        let json = redaction::redact(self.version, pdu.json().clone());
        Pdu::from_trusted(self.version, pdu.event_id().clone(), json)
    }

    /// Under what a redaction waits: one with the power to redact anything waits for everybody's
    /// event of that id, another one for an event of its own server.
    fn waiting_key(
        &mut self,
        redaction: &Pdu,
        target: &OwnedEventId,
        state: StateRoot,
    ) -> Result<bytes::Bytes, RoomError> {
        let auth_rules_decide = self.version.rules().authorization.special_case_room_redaction;
        let of_server = match auth_rules_decide || self.has_redact_level(redaction, state)? {
            true => "",
            false => redaction.sender().server_name().as_str(),
        };
        Ok(redactions::waiting(self.num, target.as_str(), of_server))
    }

    /// The redaction that has waited for an event.
    pub(super) fn redaction_of(&self, pdu: &Pdu) -> Result<Option<EventNum>, RoomError> {
        if self.is_unborn() {
            return Ok(None);
        }
        for of_server in ["", pdu.sender().server_name().as_str()] {
            let key = redactions::waiting(self.num, pdu.event_id().as_str(), of_server);
            let found = self.unsettled.get(&self.deps.store, &key)?;
            let num = found.and_then(|value| Some(u64::from_be_bytes(value[..].try_into().ok()?)));
            if num.is_some() {
                return Ok(num.map(EventNum));
            }
        }
        Ok(None)
    }

    /// Lets users see a redaction that has been kept back.
    pub(super) fn let_go(&self, num: EventNum) -> Result<Option<ChangedEvent>, RoomError> {
        let (pdu, mut meta) = self.stored(num)?;
        if !meta.flags.withheld {
            return Ok(None);
        }
        meta.flags.withheld = false;
        Ok(Some(ChangedEvent { num, pdu, meta, pos: self.pos_of(num), left: Vec::new() }))
    }

    /// Whether a redaction's sender has the power to redact anything.
    fn has_redact_level(&mut self, redaction: &Pdu, state: StateRoot) -> Result<bool, RoomError> {
        let selection = self.select_types(state, [("m.room.power_levels", "")].into_iter())?;
        let create = auth::StateView::event(&selection, "m.room.create", "");
        let power = auth::StateView::event(&selection, "m.room.power_levels", "");
        let levels = PowerLevels::new(self.version, create.as_deref(), power.as_deref());
        // Malformed power levels give nobody power.
        Ok(match (levels.user_level(redaction.sender()), levels.redact()) {
            (Ok(level), Ok(needed)) => level.reaches(needed),
            _ => false,
        })
    }
}
