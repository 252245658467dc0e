//! Finding people by the words of their names.
//!
//! There are two indexes of the words of users' names and ids: one of all users, and one of those
//! in rooms that anybody may enter or read, whom everybody may find. The others are found by those
//! who share a room with them. For these the index of all users and the members of the searcher's
//! rooms are walked in turns, until either comes to its end: few have a rare word, and few are in
//! small rooms. Whoever is met is judged by how things are now, so an index that is a little behind
//! shows nobody who is not to be seen; and whom it does not have yet is looked at besides.
//!
//! People of other servers are shown by the name that they have where the searcher may meet them.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

mod sides;

use std::collections::{BTreeSet, HashSet};

use parlour_actors::words::{fold, localpart, words, words_of_user};
use parlour_storage::schema::{User, keys, people::WordIndex};
use ruma::UserId;
use serde::Deserialize;

use self::sides::{ByRoom, ByWord, PAGE, Unfollowed};
use super::{
    Fields, Ignored, View, ViewError,
    audience::{Audience, Tie},
};

/// How many users are looked at in one place before the searcher has to write more letters.
const MAX_LOOKS: usize = 10_000;

/// How many users that fit are put in order, at least, of each place; the best of them are given.
const MIN_RANKED: usize = 200;

/// Who is looked for.
#[derive(Debug)]
pub struct PeopleSearch<'a> {
    /// By whom.
    pub searcher: &'a UserId,
    /// What the searcher has written.
    pub text: &'a str,
    /// How many are wanted.
    pub limit: usize,
    /// Whether the searcher may know of everybody.
    pub of_all: bool,
}

/// Somebody who was found.
#[derive(Debug)]
pub struct Person {
    /// The user id.
    pub user_id: String,
    /// The display name.
    pub display_name: Option<String>,
    /// The avatar.
    pub avatar_url: Option<String>,
    rank: Rank,
}

/// The best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    fit: Fit,
    /// `None`, for nobody who is known, is never better than a tie.
    is_stranger: bool,
    tie: Option<Tie>,
    is_nameless: bool,
    is_faceless: bool,
}

/// How well a user fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The whole name or the whole id is what was looked for.
    Whole,
    /// All words are.
    Words,
    /// All words begin like that.
    Starts,
}

/// What somebody is called.
#[derive(Debug, Default, Deserialize)]
struct Card {
    #[serde(rename = "displayname", default)]
    display_name: Option<String>,
    #[serde(default)]
    avatar_url: Option<String>,
}

/// What was written, taken apart.
struct Wanted {
    words: BTreeSet<String>,
    folded: String,
    /// What has to be the start of the server's name.
    server: Option<String>,
}

/// One search on its way.
struct Search<'a> {
    view: &'a View,
    search: &'a PeopleSearch<'a>,
    wanted: &'a Wanted,
    audience: Audience<'a>,
    ignored: Ignored,
    found: Vec<Person>,
    /// Who is among these.
    known: HashSet<String>,
    /// Whether everybody was found who is to be found.
    is_whole: bool,
}

/// What a walk may still cost.
struct Budget {
    looks: usize,
    /// How many more are to be found.
    wanted: usize,
}

impl View {
    /// Finds people; says whether there are, or may be, more.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn people(&self, search: &PeopleSearch<'_>) -> Result<(Vec<Person>, bool), ViewError> {
        let wanted = Wanted::of(search.text);
        let mut round = Search {
            view: self,
            search,
            wanted: &wanted,
            audience: self.audience(search.searcher)?,
            ignored: self.ignored_by(search.searcher)?,
            found: Vec::new(),
            known: HashSet::new(),
            is_whole: true,
        };
        match search.of_all {
            true => round.among_words(WordIndex::Everybody)?,
            false => {
                round.around()?;
                // First: what is followed meanwhile is in the index then.
                round.among_unfollowed()?;
                round.among_words(WordIndex::Open)?;
            }
        }
        let Search { mut found, is_whole, .. } = round;
        found.sort_by(|a: &Person, b| (a.rank, &a.user_id).cmp(&(b.rank, &b.user_id)));
        let is_limited = !is_whole || found.len() > search.limit;
        found.truncate(search.limit);
        Ok((found, is_limited))
    }

    /// A user's account.
    pub(super) fn account(&self, user: &str) -> Result<Option<User>, ViewError> {
        Ok(self.store.typed(&keys::user(user))?)
    }

    /// What a user of this server is called; nothing of those who are locked or gone.
    fn card(&self, user_id: &str) -> Result<Option<Card>, ViewError> {
        let account = self.account(user_id)?;
        let account = account.filter(|account| !(account.deactivated || account.locked));
        Ok(account.map(|User { display_name, avatar_url, .. }| Card { display_name, avatar_url }))
    }
}

impl Search<'_> {
    /// Looks among those who share a room with the searcher.
    fn around(&mut self) -> Result<(), ViewError> {
        let view = self.view;
        let Some(mut by_word) = ByWord::new(view, WordIndex::Everybody, &self.wanted.words)? else {
            return Ok(());
        };
        let mut budget = self.budget();
        let mut by_room = None;
        while !budget.is_spent() {
            let users = by_word.page()?;
            let is_last = users.len() < PAGE;
            self.look_at(users, Some(Tie::SharedRoom), &mut budget)?;
            if is_last {
                return Ok(());
            }
            let by_room = match &mut by_room {
                Some(by_room) => by_room,
                none => {
                    let me = vec![self.search.searcher.to_string()];
                    self.look_at(me, Some(Tie::SharedRoom), &mut budget)?;
                    none.insert(ByRoom::new(view, self.audience.rooms().iter().copied())?)
                }
            };
            let users = by_room.page(budget.looks.saturating_add(1))?;
            if users.is_empty() {
                return Ok(());
            }
            self.look_at(users, Some(Tie::SharedRoom), &mut budget)?;
        }
        self.is_whole = false;
        Ok(())
    }

    /// Looks among those who may belong into the index of users in open rooms, and are not in it.
    fn among_unfollowed(&mut self) -> Result<(), ViewError> {
        let mut budget = self.budget();
        let Some(Unfollowed { users, rooms }) = Unfollowed::read(self.view)? else {
            self.is_whole = false;
            return Ok(());
        };
        self.look_at(users.into_iter().collect(), None, &mut budget)?;
        let mut by_room = ByRoom::new(self.view, rooms)?;
        while !budget.is_spent() {
            let users = by_room.page(budget.looks.saturating_add(1))?;
            if users.is_empty() {
                return Ok(());
            }
            self.look_at(users, None, &mut budget)?;
        }
        self.is_whole = false;
        Ok(())
    }

    /// Looks among the users of an index.
    fn among_words(&mut self, index: WordIndex) -> Result<(), ViewError> {
        let by_word = ByWord::new(self.view, index, &self.wanted.words)?;
        let Some(mut by_word) = by_word else { return Ok(()) };
        let mut budget = self.budget();
        while !budget.is_spent() {
            let users = by_word.page()?;
            let is_last = users.len() < PAGE;
            self.look_at(users, None, &mut budget)?;
            if is_last {
                return Ok(());
            }
        }
        self.is_whole = false;
        Ok(())
    }

    fn budget(&self) -> Budget {
        let wanted = self.search.limit.saturating_add(1).max(MIN_RANKED);
        Budget { looks: MAX_LOOKS, wanted }
    }

    /// Adds those of these users who fit and may be known, at best by this tie.
    fn look_at(
        &mut self,
        users: Vec<String>,
        only: Option<Tie>,
        budget: &mut Budget,
    ) -> Result<(), ViewError> {
        budget.looks = budget.looks.saturating_sub(users.len());
        for user in users {
            if self.known.contains(&user) || self.ignored.contains(&user) {
                continue;
            }
            if let Some(person) = self.person(&user, only)? {
                self.known.insert(user);
                self.found.push(person);
                budget.wanted = budget.wanted.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn person(&self, user_id: &str, only: Option<Tie>) -> Result<Option<Person>, ViewError> {
        let is_ours = self.audience.is_local(user_id);
        let (card, met) = match is_ours {
            true => (self.view.card(user_id)?, None),
            false => match self.audience.meeting(user_id)? {
                Some((tie, join)) => {
                    (Some(Fields::of(&join)?.content_as().unwrap_or_default()), Some(tie))
                }
                None => (None, None),
            },
        };
        let Some(Card { display_name, avatar_url }) = card else { return Ok(None) };
        let Some(fit) = self.wanted.fit(user_id, display_name.as_deref()) else {
            return Ok(None);
        };
        let tie = if is_ours { self.audience.tie(user_id)? } else { met };
        let may_be_known = match only {
            Some(_) => tie == only,
            None => tie.is_some() || self.search.of_all,
        };
        let rank = Rank {
            fit,
            is_stranger: tie.is_none(),
            tie,
            is_nameless: display_name.is_none(),
            is_faceless: avatar_url.is_none(),
        };
        let user_id = user_id.to_owned();
        Ok(may_be_known.then_some(Person { user_id, display_name, avatar_url, rank }))
    }
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.looks == 0 || self.wanted == 0
    }
}

impl Wanted {
    fn of(text: &str) -> Self {
        let text = text.trim();
        let is_id = text.starts_with('@') || !text.contains(char::is_whitespace);
        let (name, server) = match text.split_once(':') {
            Some((name, server)) if is_id => (name, Some(server)),
            _ => (text, None),
        };
        let name = name.strip_prefix('@').unwrap_or(name);
        let server = server.map(str::to_ascii_lowercase);
        Self { words: words(name), folded: fold(name), server }
    }

    /// How well a user fits; `None` if not at all.
    fn fit(&self, user_id: &str, display_name: Option<&str>) -> Option<Fit> {
        let server = user_id.split_once(':').map_or("", |(_, server)| server);
        if self.server.as_deref().is_some_and(|start| !server.starts_with(start)) {
            return None;
        }
        let names = [localpart(user_id), display_name.unwrap_or_default()];
        if names.into_iter().any(|name| fold(name) == self.folded) {
            return Some(Fit::Whole);
        }
        let has = words_of_user(user_id, display_name);
        if self.words.is_subset(&has) {
            return Some(Fit::Words);
        }
        let begins = |start: &String| has.iter().any(|word| word.starts_with(start.as_str()));
        self.words.iter().all(begins).then_some(Fit::Starts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_well_somebody_fits() {
        let fit = |text: &str| Wanted::of(text).fit("@j.doe:example.org", Some("Jané Doe-Smith"));
        for (text, expected) in [
            ("j.doe", Some(Fit::Whole)),
            ("@J.Doe:example.org", Some(Fit::Whole)),
            ("@j.doe:exam", Some(Fit::Whole)),
            ("@j.doe:elsewhere", None),
            ("j:example.org", Some(Fit::Words)),
            ("jane doe-smith", Some(Fit::Whole)),
            ("smith JANE", Some(Fit::Words)),
            ("smi jan", Some(Fit::Starts)),
            ("mith", None),
            ("jane smithers", None),
            ("example", None),
        ] {
            assert_eq!(fit(text), expected, "{text}");
        }
    }
}
