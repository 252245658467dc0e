//! The list of events that a user was notified of, newest first.
//!
//! It is made when somebody asks, from the rooms' timelines and the rules as they are now, and is
//! stored nowhere: to store it would cost something for each event and each of its room's members,
//! and hardly a client ever asks. The rooms are walked backwards side by side, those with the
//! newest events first, so that a page costs as much as the events that it passes.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#listing-notifications>

use std::{
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    ops::Bound,
};

use parlour_event::{RoomNum, StreamPos, content::Membership};
use parlour_storage::{
    Direction,
    schema::{MembershipEntry, StoredEvent, TimelineEntry},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedRoomId, OwnedUserId, UInt,
    api::client::push::get_notifications::v3::Notification, push::Action,
};

use super::{
    UnreadCounts,
    counts::{Place, Reading, joined_since},
    rules::{Judge, of_invite},
};
use crate::view::{EventFormat, Fields, Ignored, Reader, RoomView, View, ViewError};

/// How many events are looked at for one page. A page may stay short; its token leads on.
const MAX_LOOKED_AT: usize = 4_096;

/// How many events of a room are read at once.
const BATCH: usize = 32;

/// Which part of the list is asked for.
#[derive(Debug)]
pub struct NotificationsAsk {
    /// Whose list.
    pub user: OwnedUserId,
    /// Who asks.
    pub device: OwnedDeviceId,
    /// Events until here, this one included.
    pub until: StreamPos,
    /// How many at most.
    pub limit: usize,
    /// Only those that are to be conspicuous.
    pub only_highlights: bool,
}

/// A part of the list.
#[derive(Debug, Default)]
pub struct NotificationsPage {
    /// Newest first.
    pub notifications: Vec<Notification>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<StreamPos>,
}

/// The way back through all rooms of a user.
struct Walk<'a> {
    view: &'a View,
    ask: &'a NotificationsAsk,
    /// The newest position that can be answered for.
    now: StreamPos,
    reading: Reading<'a>,
    ignored: Ignored,
    /// The rooms by the newest event in them that is still ahead; until a room is opened, by what
    /// its newest event can be.
    ahead: BinaryHeap<(StreamPos, RoomNum)>,
    open: HashMap<RoomNum, OpenRoom>,
    /// Rooms to which the user is invited; of those nothing but that is ahead.
    invites: HashMap<RoomNum, MembershipEntry>,
    budget: usize,
}

struct OpenRoom {
    room: RoomView,
    reader: Reader,
    member: StoredEvent,
    joined: StreamPos,
    /// What has been read and not been passed yet, newest first.
    events: VecDeque<(StreamPos, Option<Found>)>,
    /// The positions of the unread ones, once somebody has asked.
    unread: Option<HashSet<StreamPos>>,
}

/// An event that the user was notified of.
struct Found {
    event: StoredEvent,
    actions: Vec<Action>,
    /// The room, if the event is an invite to it.
    invited_to: Option<OwnedRoomId>,
}

impl UnreadCounts {
    /// A part of the list of what a user was notified of, as of `now`.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn notifications(
        &self,
        view: &View,
        ask: &NotificationsAsk,
        now: StreamPos,
    ) -> Result<NotificationsPage, ViewError> {
        let mut walk = Walk {
            view,
            ask,
            now,
            reading: Reading::new(self, &ask.user),
            ignored: view.ignored_by(&ask.user)?,
            ahead: BinaryHeap::new(),
            open: HashMap::new(),
            invites: HashMap::new(),
            budget: MAX_LOOKED_AT,
        };
        walk.start()?;
        let mut page = NotificationsPage::default();
        while let Some((pos, room, found)) = walk.next()? {
            if let Some(found) = found {
                // One more than fits tells that there is a next page.
                if page.notifications.len() == ask.limit {
                    page.next = Some(pos);
                    break;
                }
                page.notifications.push(walk.render(room, pos, found)?);
            }
            if walk.budget == 0 {
                page.next = pos.0.checked_sub(1).map(StreamPos);
                break;
            }
        }
        Ok(page)
    }
}

impl Walk<'_> {
    fn start(&mut self) -> Result<(), ViewError> {
        let until = self.ask.until.min(self.now);
        for (num, entry) in self.view.store.memberships(self.ask.user.as_str())? {
            match Membership::parse(&entry.membership) {
                Some(Membership::Join) => {
                    let head = self.view.store.room_head(num)?;
                    self.ahead.extend(head.map(|head| (head.pos.min(until), num)));
                }
                Some(Membership::Invite) if entry.pos <= until => {
                    self.ahead.push((entry.pos, num));
                    self.invites.insert(num, entry);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The newest event that is ahead, whether the user was notified of it or not.
    fn next(&mut self) -> Result<Option<(StreamPos, RoomNum, Option<Found>)>, ViewError> {
        while let Some((bound, num)) = self.ahead.pop() {
            if let Some(entry) = self.invites.remove(&num) {
                self.budget = self.budget.saturating_sub(1);
                return Ok(Some((bound, num, self.look_at_invite(num, &entry)?)));
            }
            let Some(mut open) = self.opened(num)? else { continue };
            if open.events.is_empty() {
                self.read_on(&mut open, bound)?;
                self.budget = self.budget.saturating_sub(open.events.len());
            }
            let newest = open.events.front().map(|(pos, _)| *pos);
            let reached = newest == Some(bound);
            let event = if reached { open.events.pop_front() } else { None };
            let next = match event {
                // Where the event behind this one is, is seen when it is its turn.
                Some((pos, _)) => pos.0.checked_sub(1).map(StreamPos),
                None => newest,
            };
            self.ahead.extend(next.map(|next| (next, num)));
            self.open.insert(num, open);
            if let Some((pos, found)) = event {
                return Ok(Some((pos, num, found)));
            }
        }
        Ok(None)
    }

    fn opened(&mut self, num: RoomNum) -> Result<Option<OpenRoom>, ViewError> {
        if let Some(open) = self.open.remove(&num) {
            return Ok(Some(open));
        }
        let (view, user) = (self.view, &self.ask.user);
        let Some(room) = view.room_by_num(num)? else { return Ok(None) };
        let Some((_, at)) = view.room_at(num, self.now)? else { return Ok(None) };
        let member = view.state_event(at.state_after, "m.room.member", user.as_str())?;
        let Some(member) = member else { return Ok(None) };
        let reader = Reader::new(view, room.clone(), user, Some(&self.ask.device))?;
        let joined = joined_since(view, &member)?;
        Ok(Some(OpenRoom { room, reader, member, joined, events: VecDeque::new(), unread: None }))
    }

    fn read_on(&self, open: &mut OpenRoom, bound: StreamPos) -> Result<(), ViewError> {
        if bound <= open.joined {
            return Ok(());
        }
        let range = (Bound::Excluded(open.joined), Bound::Included(bound));
        let room = open.room.num;
        let entries = self.view.store.timeline(room, range, Direction::Backward, BATCH)?;
        let nums: Vec<_> = entries.iter().map(|(_, entry)| entry.event).collect();
        let (rules, user) = (self.reading.rules_of_user()?, &self.ask.user);
        let mut judge = Judge::new(self.view, &open.room, rules, user, &open.member)?;
        for ((pos, entry), event) in entries.iter().zip(self.view.store.events(&nums)?) {
            let found = match event {
                Some(event) => self.look_at(&mut open.reader, &mut judge, entry, event)?,
                None => None,
            };
            open.events.push_back((*pos, found));
        }
        Ok(())
    }

    fn look_at(
        &self,
        reader: &mut Reader,
        judge: &mut Judge<'_>,
        entry: &TimelineEntry,
        event: StoredEvent,
    ) -> Result<Option<Found>, ViewError> {
        let fields = Fields::of(&event)?;
        let is_own = fields.sender == self.ask.user.as_str();
        if is_own || event.meta.redacted_because.is_some() || self.ignored.hides(&fields) {
            return Ok(None);
        }
        let actions = judge.actions(&event, entry)?;
        if !self.wants(actions) || !reader.judge(&event)?.visible {
            return Ok(None);
        }
        Ok(Some(Found { actions: actions.to_vec(), event, invited_to: None }))
    }

    fn look_at_invite(
        &self,
        num: RoomNum,
        entry: &MembershipEntry,
    ) -> Result<Option<Found>, ViewError> {
        let (view, user) = (self.view, &self.ask.user);
        let Some((room, event)) = view.invite(user, num, entry)? else { return Ok(None) };
        let sender = Fields::of(&event)?.sender.into_owned();
        if self.ignored.contains(&sender) || !view.takes_invites_of(user, &sender)? {
            return Ok(None);
        }
        let (_, rules) = self.reading.rules_of_user()?;
        let actions = of_invite(rules, room.clone(), user, &event)?;
        let found = Found { actions: actions.to_vec(), event, invited_to: Some(room) };
        Ok(Some(found).filter(|found| self.wants(&found.actions)))
    }

    /// Whether events of which this becomes belong to the list.
    fn wants(&self, actions: &[Action]) -> bool {
        actions.iter().any(Action::should_notify)
            && (!self.ask.only_highlights || actions.iter().any(Action::is_highlight))
    }

    fn render(
        &mut self,
        num: RoomNum,
        pos: StreamPos,
        found: Found,
    ) -> Result<Notification, ViewError> {
        let Self { view, now, reading, ignored, .. } = self;
        let ts = UInt::new_saturating(Fields::of(&found.event)?.origin_server_ts);
        let ts = MilliSecondsSinceUnixEpoch(ts);
        if let Some(room_id) = found.invited_to {
            let event = view.lone_event(&found.event)?;
            return Ok(Notification::new(found.actions, event, false, room_id, ts));
        }
        let open = self.open.get_mut(&num).expect("the event has just been taken from it");
        if open.unread.is_none() {
            let place = Place { room: &open.room, member: &open.member, now: *now };
            open.unread = Some(reading.unread_positions(view, &place, ignored)?);
        }
        let read = !open.unread.as_ref().is_some_and(|unread| unread.contains(&pos));
        let seen = open.reader.judge(&found.event)?;
        let event = open.reader.client_event(&found.event, seen, EventFormat::Sync)?;
        Ok(Notification::new(found.actions, event, read, open.room.room_id.clone(), ts))
    }
}
