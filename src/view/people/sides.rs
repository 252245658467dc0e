//! Where people are looked for: under their words, among the members of rooms, and among those for
//! whom the index has not been brought up to date yet.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet, VecDeque},
};

use bytes::Bytes;
use parlour_event::{RoomNum, StateKeyNum, state::ReadState as _};
use parlour_storage::schema::{RoomHead, Stored as _, keys, people::WordIndex};

use super::super::{View, ViewError};

/// How many users are read at once.
pub(super) const PAGE: usize = 256;

/// How much news the index may be behind, for a search to find everybody all the same.
const MAX_NEWS: usize = 1_000;

/// Users by the word with which the fewest of an index begin, of several words.
pub(super) struct ByWord<'a> {
    view: &'a View,
    index: WordIndex,
    word: &'a str,
    after: Option<Bytes>,
}

/// The members of rooms, the smallest room first, each member once.
pub(super) struct ByRoom<'a> {
    view: &'a View,
    rooms: VecDeque<RoomHead>,
    members: VecDeque<StateKeyNum>,
    seen: HashSet<StateKeyNum>,
}

impl<'a> ByWord<'a> {
    /// `None` if there are no words.
    pub(super) fn new(
        view: &'a View,
        index: WordIndex,
        words: &'a BTreeSet<String>,
    ) -> Result<Option<Self>, ViewError> {
        let mut rarest = None;
        for word in words {
            let count = view.store.users_by_word(index, word, &mut None, PAGE)?.len();
            // Of very frequent ones the longest.
            let rank = (count, Reverse(word.len()));
            if rarest.as_ref().is_none_or(|(known, _)| rank < *known) {
                rarest = Some((rank, word));
            }
        }
        Ok(rarest.map(|(_, word)| Self { view, index, word, after: None }))
    }

    /// The next users; none at the end.
    pub(super) fn page(&mut self) -> Result<Vec<String>, ViewError> {
        Ok(self.view.store.users_by_word(self.index, self.word, &mut self.after, PAGE)?)
    }
}

impl<'a> ByRoom<'a> {
    pub(super) fn new(
        view: &'a View,
        rooms: impl IntoIterator<Item = RoomNum>,
    ) -> Result<Self, ViewError> {
        let keys: Vec<_> = rooms.into_iter().map(keys::room).collect();
        let mut heads = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PAGE) {
            for (key, entry) in keys.iter().zip(view.store.multi_get(keys)?) {
                heads.extend(entry.map(|entry| RoomHead::decode(key, &entry.value)).transpose()?);
            }
        }
        heads.sort_by_key(|head| head.joined);
        Ok(Self { view, rooms: heads.into(), members: VecDeque::new(), seen: HashSet::new() })
    }

    /// The next users who are or were in one of the rooms; none at the end. Of a room no more than
    /// `most` are read.
    pub(super) fn page(&mut self, most: usize) -> Result<Vec<String>, ViewError> {
        while self.members.is_empty() {
            let Some(head) = self.rooms.pop_front() else { return Ok(Vec::new()) };
            for member in self.view.nodes.iter_members(head.state).take(most) {
                let (place, _) = member?;
                self.members.extend(self.seen.insert(place).then_some(place));
            }
        }
        let page: Vec<_> = self.members.drain(..self.members.len().min(PAGE)).collect();
        Ok(self.view.store.members_named(&page)?)
    }
}

/// Who may belong into the index of users in open rooms since that was last brought up to date.
#[derive(Default)]
pub(super) struct Unfollowed {
    pub(super) users: BTreeSet<String>,
    /// All members of these.
    pub(super) rooms: BTreeSet<RoomNum>,
}

impl Unfollowed {
    /// `None` if that is too much to be looked at.
    pub(super) fn read(view: &View) -> Result<Option<Self>, ViewError> {
        let news = view.store.people_news(MAX_NEWS)?;
        let is_all = news.len() < MAX_NEWS;
        let mut unfollowed = Self::default();
        for news in news {
            unfollowed.users.extend(news.users);
            unfollowed.rooms.extend(news.rooms);
        }
        Ok(is_all.then_some(unfollowed))
    }
}
