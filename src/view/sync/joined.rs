//! Rooms that the user is in.

use parlour_event::{StreamPos, content::Membership, state::StateRoot};
use ruma::api::client::sync::sync_events::v3::JoinedRoom;

use super::{
    Ask, Round,
    rooms::{Relation, Step},
    state::Span,
    timeline::Timeline,
};
use crate::{
    push::{Unread, counts::Place},
    view::{Reader, SyncToken, ViewError},
};

/// What of a room is new to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Events at or before this position are known.
    pub(super) low: Option<StreamPos>,
    /// The state that the client has.
    pub(super) base: StateRoot,
    /// Whether all of the state is to be sent.
    pub(super) whole: bool,
    /// Whether the client knows the room at all.
    pub(super) known: bool,
    /// Whether the user has been away: what happened until then may have been told already.
    pub(super) was_away: bool,
}

impl Window {
    /// Whether the timeline does not continue what the client has, however short it is: the user
    /// was in the room before, or was sent away, and events from between may have been left out.
    pub(super) fn has_gap(&self) -> bool {
        self.was_away && !self.known
    }
}

impl Round<'_> {
    /// The section of a joined room; `None` if nothing is new in it.
    pub(super) fn joined(&self, relation: &Relation) -> Result<Option<JoinedRoom>, ViewError> {
        let window = self.window(relation)?;
        let (view, ask) = (self.view(), self.ask);
        let mut reader = Reader::new(view, relation.room.clone(), &ask.user, Some(&ask.device))?;
        let mut timeline = self.timeline(&mut reader, window.low, self.now.pos)?;
        if window.has_gap() {
            timeline.begin_after_gap(self.now.pos);
        }
        let mut room = JoinedRoom::new();
        let end = relation.at.state_after;
        if !ask.state_after {
            self.cut_stale_state(&mut timeline, end)?;
        }
        let span = self.span(relation, &window, end, &timeline)?;
        let changed = self.changed(&span)?;
        let heroes = if window.whole || self.changes_summary(&changed)? {
            self.summary(relation, &mut room.summary)?
        } else {
            Vec::new()
        };
        room.state = self.state(&mut reader, &span, changed, &heroes)?;
        room.timeline = timeline.into_section();
        room.account_data.events = self.room_account_data(relation, window.known)?;
        let has_read = self.ephemeral(relation, &window, &mut room.ephemeral)?;
        if room.is_empty() && !has_read && !self.wants_all() {
            return Ok(None);
        }
        if !window.known && room.timeline.events.is_empty() {
            // The filter shows no event of it, but there is a history to page through.
            let now = SyncToken::at(self.now.pos);
            room.timeline.prev_batch.get_or_insert_with(|| now.to_string());
        }
        self.count(relation, &mut room)?;
        Ok(Some(room))
    }

    /// What is asked of the state section.
    pub(super) fn span<'a>(
        &self,
        relation: &Relation,
        window: &Window,
        end: StateRoot,
        timeline: &'a Timeline,
    ) -> Result<Span<'a>, ViewError> {
        let start = match timeline.start() {
            None => end,
            Some((num, pos)) => {
                let before = StreamPos(pos.0.saturating_sub(1));
                match self.view().room_at(relation.room.num, before)? {
                    Some((_, entry)) => entry.state_after,
                    // The first event here; the state may be older.
                    None => {
                        let meta = self.view().store.event_meta(num)?;
                        meta.map_or(StateRoot::EMPTY, |meta| meta.state_before)
                    }
                }
            }
        };
        Ok(Span { base: window.base, start, end, timeline, whole: window.whole })
    }

    fn window(&self, relation: &Relation) -> Result<Window, ViewError> {
        let (Some(since), Some(then)) = (self.since(), &relation.then) else {
            let base = StateRoot::EMPTY;
            return Ok(Window { low: None, base, whole: true, known: false, was_away: false });
        };
        let (base, low) = (then.at.state_after, Some(since));
        let whole = self.ask.full_state;
        let continued = Window { low, base, whole, known: true, was_away: false };
        if !relation.is_news() {
            return Ok(continued);
        }
        if relation.was() == Some(Membership::Join) {
            let known = relation.then_member().map(|(num, _)| num);
            let steps = self.view().steps(&relation.member, |step| Some(step.num) == known)?;
            let came_back = steps.iter().any(|step| step.membership != Membership::Join);
            return Ok(match came_back {
                true => Window { whole: true, known: false, was_away: true, ..continued },
                false => continued,
            });
        }
        // What was there before the user left for the last time has been sent then.
        let steps = self.view().steps(&relation.member, |_| false)?;
        let (low, was_away) = (last_departure(&steps), was_away(&steps));
        Ok(Window { low, base: StateRoot::EMPTY, whole: true, known: false, was_away })
    }

    fn count(&self, relation: &Relation, room: &mut JoinedRoom) -> Result<(), ViewError> {
        let place = Place { room: &relation.room, member: &relation.member, now: self.now.pos };
        let unread = self.syncs.counts.of(self.view(), &self.reading, &place, &self.ignored)?;
        self.ask.tell_counts(unread, room);
        Ok(())
    }
}

impl Ask {
    /// Fills in what is unread, as the filter wants it.
    pub(super) fn tell_counts(&self, unread: Unread, room: &mut JoinedRoom) {
        if self.filter.room.timeline.unread_thread_notifications {
            room.unread_notifications = unread.main.into();
            room.unread_thread_notifications = unread.by_thread();
        } else {
            room.unread_notifications = unread.total().into();
        }
    }
}

/// Whether one of these memberships ended another one, of which the client may have been told.
pub(super) fn was_away(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step.membership, Membership::Leave | Membership::Ban))
}

/// When the user ended the last join before the current one; memberships newest first.
pub(super) fn last_departure(steps: &[Step]) -> Option<StreamPos> {
    let is_join = |step: &Step| step.membership == Membership::Join;
    // The current join, in which the profile may have changed.
    let current = steps.iter().take_while(|step| is_join(step)).count();
    let earlier = steps.get(current..)?;
    let gone = earlier.iter().take_while(|step| !is_join(step)).count();
    earlier.get(gone)?;
    earlier.get(gone.checked_sub(1)?).map(|step| step.pos)
}

#[cfg(test)]
mod tests {
    use parlour_event::EventNum;

    use super::*;

    #[test]
    fn the_last_departure_is_the_end_of_the_join_before_this_one() {
        use Membership::{Ban, Invite, Join, Leave};
        for (oldest_first, expected) in [
            (vec![Join], None),
            (vec![Invite, Join], None),
            (vec![Join, Join], None),
            (vec![Join, Leave, Join], Some(1)),
            (vec![Join, Leave, Invite, Join, Join], Some(1)),
            (vec![Join, Leave, Join, Ban, Leave, Join], Some(3)),
            (vec![Invite, Leave, Invite, Join], None),
        ] {
            let steps = oldest_first.iter().enumerate().map(|(index, membership)| Step {
                num: EventNum(index as u64),
                pos: StreamPos(index as u64),
                membership: *membership,
            });
            let mut steps: Vec<_> = steps.collect();
            steps.reverse();
            assert_eq!(last_departure(&steps), expected.map(StreamPos), "{oldest_first:?}");
        }
    }
}
