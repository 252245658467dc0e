//! Finding people by the words of their names.
//!
//! The index has an entry for each word of a user's name and id. A search walks over the entries
//! that begin with that of its words which has the fewest, as far as a page of each tells, and looks
//! at the users behind them. People of other servers are in the index since they came into a room
//! here, and are shown by the name that they have there.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
    ops::Bound,
};

use parlour_actors::words::{fold, localpart, words, words_of_user};
use parlour_storage::{
    Direction,
    schema::{User, keys, keys::KeyReader},
};
use ruma::UserId;
use serde::Deserialize;

use super::{
    Fields, View, ViewError,
    audience::{Audience, Tie},
};

/// How many entries of the index are read at once.
const PAGE: usize = 256;

/// At how many users a search looks. Behind that, the searcher has to write more letters.
const MAX_LOOKS: usize = 10_000;

/// How many users that fit are put in order, at least; the best of them are given.
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

impl View {
    /// Finds people; says whether there are, or may be, more.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn people(&self, search: &PeopleSearch<'_>) -> Result<(Vec<Person>, bool), ViewError> {
        let wanted = Wanted::of(search.text);
        let Some(lead) = self.rarest(&wanted.words)? else { return Ok((Vec::new(), false)) };
        let mut audience = self.audience(search.searcher)?;
        let ignored = self.ignored_by(search.searcher)?;
        let enough = search.limit.saturating_add(1).max(MIN_RANKED);
        let mut found = Vec::new();
        let mut looked_at = HashSet::new();
        let mut after = None;
        loop {
            let users = self.users_by_word(lead, &mut after)?;
            let is_end = users.is_empty();
            for user in users {
                if !looked_at.insert(user.clone()) || ignored.contains(&user) {
                    continue;
                }
                found.extend(self.person(user, &wanted, search, &mut audience)?);
            }
            let is_over = found.len() >= enough || looked_at.len() >= MAX_LOOKS;
            if is_end || is_over {
                found.sort_by(|a: &Person, b| (a.rank, &a.user_id).cmp(&(b.rank, &b.user_id)));
                let is_limited = is_over || found.len() > search.limit;
                found.truncate(search.limit);
                return Ok((found, is_limited));
            }
        }
    }

    /// The word with which the fewest words of users begin; of very frequent ones the longest.
    fn rarest<'a>(&self, words: &'a BTreeSet<String>) -> Result<Option<&'a String>, ViewError> {
        let mut rarest = None;
        for word in words {
            let rank = (self.users_by_word(word, &mut None)?.len(), Reverse(word.len()));
            if rarest.as_ref().is_none_or(|(known, _)| rank < *known) {
                rarest = Some((rank, word));
            }
        }
        Ok(rarest.map(|(_, word)| word))
    }

    /// A user's account.
    pub(super) fn account(&self, user: &str) -> Result<Option<User>, ViewError> {
        Ok(self.store.typed(&keys::user(user))?)
    }

    /// The next page of users one of whose words begins like this; shorter words come first.
    fn users_by_word(
        &self,
        start: &str,
        after: &mut Option<bytes::Bytes>,
    ) -> Result<Vec<String>, ViewError> {
        let low = keys::user_words_from(start);
        // No byte of a text is 255.
        let high = [&low[..], &[u8::MAX]].concat();
        let from =
            after.as_ref().map_or(Bound::Included(&low[..]), |key| Bound::Excluded(&key[..]));
        let range = (from, Bound::Excluded(&high[..]));
        let entries = self.store.scan(range, Direction::Forward, PAGE)?;
        let users = entries.iter().filter_map(|(key, _)| {
            let mut reader = KeyReader::new(key);
            reader.text().and_then(|_word| reader.text())
        });
        let users = users.collect();
        *after = entries.into_iter().next_back().map(|(key, _)| key);
        Ok(users)
    }

    fn person(
        &self,
        user_id: String,
        wanted: &Wanted,
        search: &PeopleSearch<'_>,
        audience: &mut Audience<'_>,
    ) -> Result<Option<Person>, ViewError> {
        let is_ours = user_id.split_once(':').map(|(_, server)| server)
            == Some(search.searcher.server_name().as_str());
        let (card, met) = match is_ours {
            true => (self.card(&user_id)?, None),
            false => match audience.meeting(&user_id)? {
                Some((tie, join)) => {
                    (Some(Fields::of(&join)?.content_as().unwrap_or_default()), Some(tie))
                }
                None => (None, None),
            },
        };
        let Some(card) = card else { return Ok(None) };
        let Some(fit) = wanted.fit(&user_id, card.display_name.as_deref()) else {
            return Ok(None);
        };
        let tie = if is_ours { audience.tie(&user_id)? } else { met };
        let Card { display_name, avatar_url } = card;
        let rank = Rank {
            fit,
            is_stranger: tie.is_none(),
            tie,
            is_nameless: display_name.is_none(),
            is_faceless: avatar_url.is_none(),
        };
        let person = Person { user_id, display_name, avatar_url, rank };
        Ok(Some(person).filter(|_| tie.is_some() || search.of_all))
    }

    /// What a user of this server is called; nothing of those who are locked or gone.
    fn card(&self, user_id: &str) -> Result<Option<Card>, ViewError> {
        let account = self.account(user_id)?;
        let account = account.filter(|account| !(account.deactivated || account.locked));
        Ok(account.map(|User { display_name, avatar_url, .. }| Card { display_name, avatar_url }))
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
