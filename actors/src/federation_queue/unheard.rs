//! Of which users' devices a server has not heard yet. In memory stand a few users; of a server
//! that is away it is known since when it has heard nothing, and the rest is looked up when it is
//! back (`reading.rs`).

use std::collections::{BTreeMap, HashSet};

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::schema::outbox::RoomStay;

/// How many users wait in memory for a server; from then on they are looked up in storage.
const MAX_USERS: usize = 1_000;

/// How many users a server hears of with one transaction.
const AT_ONCE: usize = 20;

/// Of how many users it is remembered that a server has heard of them while it catches up; it may
/// hear of more of them twice.
const MAX_TOLD: usize = 10_000;

/// What a server has not heard of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsaid {
    /// From here on.
    pub(super) since: StreamPos,
    /// The user has come to it: the newest update is enough, since it knows none before.
    pub(super) has_come: bool,
}

/// Users with what is to be said of them.
pub(super) type Users = Vec<(String, Unsaid)>;

/// How far a server is looked up: up to that room, and in the next one up to that position.
pub(super) type Cursor = (RoomStay, StreamPos);

/// What is to be read for the next transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    Nothing,
    /// What is to be said of these.
    Users(Users),
    /// Who has changed after that position, from there on.
    LookUp(StreamPos, Cursor),
    /// Whether there is more since the server was looked up.
    End,
}

/// A part of what a server was looked up for.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Users who have changed.
    pub(super) users: Vec<String>,
    /// Where the next part begins, if there is one.
    pub(super) next: Option<Cursor>,
    /// Up to here the queues knew of changes before.
    pub(super) target: StreamPos,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    /// The server has heard of everything up to here.
    heard: StreamPos,
    users: BTreeMap<String, Unsaid>,
    /// The first thing that is on its way.
    under_way: Option<StreamPos>,
    behind: Option<Behind>,
}

/// A server that catches up.
#[derive(Debug)]
struct Behind {
    /// `None` at its end.
    cursor: Option<Cursor>,
    /// What has changed after this is not found for sure.
    target: Option<StreamPos>,
    told: HashSet<String>,
}

impl Behind {
    fn new() -> Self {
        let start = ((RoomNum(0), None), StreamPos(0));
        Self { cursor: Some(start), target: None, told: HashSet::new() }
    }
}

impl Unheard {
    pub(super) fn new(heard: StreamPos, is_behind: bool) -> Self {
        Self { heard, behind: is_behind.then(Behind::new), ..Self::default() }
    }

    /// Something is to be said of a user. Returns whether it waits now.
    pub(super) fn push(&mut self, user: &str, pos: StreamPos, has_come: bool) -> bool {
        if pos <= self.heard {
            return self.has_work();
        }
        let is_full = self.users.len() >= MAX_USERS && !self.users.contains_key(user);
        if is_full {
            self.fall_behind();
        }
        // Changes are looked up, but not who has come: of those the last are forgotten.
        if self.behind.is_some() && (!has_come || is_full) {
            return true;
        }
        let unsaid = Unsaid { since: pos, has_come };
        let old = self.users.entry(user.to_owned()).or_insert(unsaid);
        old.since = old.since.min(pos);
        old.has_come |= has_come;
        true
    }

    /// Forgets who has changed: they are looked up.
    pub(super) fn fall_behind(&mut self) {
        if self.behind.is_none() {
            self.heard = self.heard.max(self.needs_after().unwrap_or_default());
            self.users.retain(|_, unsaid| unsaid.has_come);
            self.under_way = None;
            self.behind = Some(Behind::new());
        }
    }

    /// Whether it is looked up what the server has not heard. That is to be kept.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.users.is_empty() || self.behind.is_some()
    }

    /// What storage must keep from here on for the server, if anything. Whoever is behind is looked
    /// up elsewhere.
    pub(super) fn needs_after(&self) -> Option<StreamPos> {
        let waiting = self.users.values().map(|unsaid| unsaid.since).chain(self.under_way);
        let first = waiting.min().filter(|_| self.behind.is_none());
        first.map(|first| StreamPos(first.0.saturating_sub(1)))
    }

    /// Up to where the server has heard of everything, if the queues know of changes up to
    /// `dispatched`.
    pub(super) fn heard(&mut self, dispatched: StreamPos) -> StreamPos {
        if self.behind.is_none() {
            self.heard = self.heard.max(self.needs_after().unwrap_or(dispatched));
        }
        self.heard
    }

    /// What is to be read. It is on its way from here on.
    pub(super) fn begin(&mut self) -> Wanted {
        let mut taken = Users::new();
        while taken.len() < AT_ONCE
            && let Some(user) = self.users.pop_first()
        {
            taken.push(user);
        }
        self.under_way = taken.iter().map(|(_, unsaid)| unsaid.since).min();
        match (taken.is_empty(), &self.behind) {
            (false, _) => Wanted::Users(taken),
            (true, None) => Wanted::Nothing,
            (true, Some(Behind { cursor: Some(cursor), .. })) => {
                Wanted::LookUp(self.heard, *cursor)
            }
            (true, Some(Behind { cursor: None, .. })) => Wanted::End,
        }
    }

    /// These wait again.
    pub(super) fn put_back(&mut self, users: Users) {
        self.users.extend(users);
    }

    /// A part of what the server was looked up for.
    pub(super) fn found(&mut self, page: Page) {
        let Some(behind) = &mut self.behind else { return };
        behind.target.get_or_insert(page.target);
        behind.cursor = page.next;
        let since = StreamPos(self.heard.0 + 1);
        for user in page.users {
            if behind.told.len() >= MAX_TOLD || behind.told.insert(user.clone()) {
                self.users.entry(user).or_insert(Unsaid { since, has_come: false });
            }
        }
    }

    /// The server has heard of all that it was looked up for. What has changed meanwhile is looked
    /// up, too.
    pub(super) fn end(&mut self, dispatched: StreamPos) {
        if let Some(Behind { target: Some(target), .. }) = self.behind {
            self.heard = self.heard.max(target);
            self.behind = (dispatched > target).then(Behind::new);
        }
    }

    /// What was on its way has come there.
    pub(super) fn delivered(&mut self) {
        self.under_way = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(unheard: &mut Unheard) -> Vec<(String, u64, bool)> {
        match unheard.begin() {
            Wanted::Users(users) => users
                .into_iter()
                .map(|(user, unsaid)| (user, unsaid.since.0, unsaid.has_come))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_user_waits_once_since_the_first_change() {
        let mut unheard = Unheard::new(StreamPos(4), false);
        assert!(!unheard.push("@old:x", StreamPos(4), false), "it has heard of that");
        for (user, pos, has_come) in [("@b:x", 7, false), ("@a:x", 6, true), ("@b:x", 9, false)] {
            assert!(unheard.push(user, StreamPos(pos), has_come));
        }
        assert_eq!(unheard.heard(StreamPos(9)), StreamPos(5));
        let expected = [("@a:x".to_owned(), 6, true), ("@b:x".to_owned(), 7, false)];
        assert_eq!(begin(&mut unheard), expected);
        assert_eq!(unheard.needs_after(), Some(StreamPos(5)), "it is on its way");
        assert!(unheard.push("@b:x", StreamPos(12), false));
        unheard.delivered();
        assert_eq!(unheard.heard(StreamPos(12)), StreamPos(11));
        assert_eq!(begin(&mut unheard), [("@b:x".to_owned(), 12, false)]);
        unheard.delivered();
        assert_eq!((unheard.needs_after(), unheard.begin()), (None, Wanted::Nothing));
        assert_eq!(unheard.heard(StreamPos(12)), StreamPos(12));
    }

    #[test]
    fn who_is_away_is_looked_up() {
        let mut unheard = Unheard::new(StreamPos(4), false);
        unheard.push("@a:x", StreamPos(8), false);
        unheard.begin();
        unheard.push("@b:x", StreamPos(9), false);
        unheard.push("@new:x", StreamPos(10), true);
        unheard.fall_behind();
        assert!(unheard.push("@b:x", StreamPos(11), false));
        assert_eq!(begin(&mut unheard), [("@new:x".to_owned(), 10, true)]);
        unheard.delivered();
        assert_eq!((unheard.needs_after(), unheard.heard(StreamPos(99))), (None, StreamPos(7)));
        let start = ((RoomNum(0), None), StreamPos(0));
        assert_eq!(unheard.begin(), Wanted::LookUp(StreamPos(7), start));
        let next = Some(((RoomNum(3), None), StreamPos(0)));
        let users = vec!["@a:x".to_owned(), "@b:x".to_owned()];
        unheard.found(Page { users, next, target: StreamPos(50) });
        let told: Vec<_> = begin(&mut unheard).into_iter().map(|(user, ..)| user).collect();
        assert_eq!(told, ["@a:x", "@b:x"]);
        unheard.delivered();
        assert!(matches!(unheard.begin(), Wanted::LookUp(..)));
        let users = vec!["@b:x".to_owned()];
        unheard.found(Page { users, next: None, target: StreamPos(60) });
        assert_eq!(unheard.begin(), Wanted::End, "nobody is told of twice");
        unheard.end(StreamPos(60));
        assert_eq!(unheard.heard(StreamPos(60)), StreamPos(50));
        assert_eq!(unheard.begin(), Wanted::LookUp(StreamPos(50), start), "something has changed");
        unheard.found(Page { target: StreamPos(60), ..Page::default() });
        assert_eq!(unheard.begin(), Wanted::End);
        unheard.end(StreamPos(60));
        assert_eq!((unheard.has_work(), unheard.heard(StreamPos(60))), (false, StreamPos(60)));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut unheard = Unheard::default();
        for number in 1..2_000 {
            assert!(unheard.push(&format!("@{number}:x"), StreamPos(number), false));
        }
        assert!(unheard.users.is_empty());
        assert_eq!(unheard.heard(StreamPos(2_000)), StreamPos(0));
    }
}
