//! Interrupted walks, each under a token: bounded in number, in size and in time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use parlour_actors::env::Env;
use ruma::{OwnedRoomId, OwnedUserId};

use super::{Reach, Walk};

/// How long a token is good for.
const LIFETIME: Duration = Duration::from_secs(600);

/// How many tokens there are at once, of all users.
const MAX_TOKENS: usize = 1_000;

/// How many rooms all interrupted walks together may remember: some tens of megabytes.
const MAX_WEIGHT: usize = 200_000;

/// How many letters and digits a token has.
const TOKEN_LEN: usize = 24;

/// What must stay the same from page to page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who asks.
    pub user: OwnedUserId,
    /// The room in which the walk has begun.
    pub room: OwnedRoomId,
    /// How the walk goes.
    pub reach: Reach,
}

/// There is no such token, or it is for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The token is not known here, or `max_depth` or `suggested_only` has changed")]
pub struct UnknownToken;

/// Interrupted walks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pages {
    env: Env,
    pages: Arc<Mutex<VecDeque<Page>>>,
}

#[derive(Debug)]
struct Page {
    token: String,
    since: Duration,
    terms: Terms,
    walk: Walk,
}

impl Pages {
    /// None so far.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self { env, pages: Arc::default() }
    }

    /// Keeps a walk, and gives the token for it. The oldest ones make room.
    #[must_use]
    pub fn keep(&self, terms: Terms, walk: Walk) -> String {
        let token = self.env.random_string(TOKEN_LEN);
        let since = self.env.clock.monotonic();
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.push_back(Page { token: token.clone(), since, terms, walk });
        let mut weight: usize = pages.iter().map(|page| page.walk.weight()).sum();
        let is_old = |page: &Page| since.saturating_sub(page.since) > LIFETIME;
        while let Some(oldest) = pages.front()
            && (pages.len() > MAX_TOKENS || weight > MAX_WEIGHT || is_old(oldest))
        {
            weight -= oldest.walk.weight();
            pages.pop_front();
        }
        token
    }

    /// The walk that goes on at a token, which stays good: an answer may get lost.
    ///
    /// # Errors
    ///
    /// [`UnknownToken`]
    pub fn find(&self, token: &str, terms: &Terms) -> Result<Walk, UnknownToken> {
        let now = self.env.clock.monotonic();
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages.iter().find(|page| page.token == token && page.terms == *terms);
        let page = page.filter(|page| now.saturating_sub(page.since) <= LIFETIME);
        page.map(|page| page.walk.clone()).ok_or(UnknownToken)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::atomic::{AtomicU64, Ordering},
    };

    use parlour_actors::env::{Clock, SystemEntropy};
    use ruma::{owned_room_id, owned_user_id};

    use super::*;

    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed) * 1_000
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    fn pages() -> (Arc<Seconds>, Pages) {
        let clock = Arc::new(Seconds::default());
        let env = Env::new(clock.clone(), Arc::new(SystemEntropy));
        (clock, Pages::new(env))
    }

    fn walk() -> Walk {
        Walk::from(owned_room_id!("!a:x"), Vec::new())
    }

    fn terms(max_depth: u64) -> Terms {
        let reach = Reach { max_depth, suggested_only: false };
        Terms { user: owned_user_id!("@a:x"), room: owned_room_id!("!a:x"), reach }
    }

    #[test]
    fn a_token_is_good_for_one_walk_and_some_time() {
        let (clock, pages) = pages();
        let token = pages.keep(terms(3), walk());
        assert!(pages.find(&token, &terms(3)).is_ok());
        assert!(pages.find(&token, &terms(3)).is_ok(), "a second time");
        assert!(pages.find(&token, &terms(4)).is_err());
        assert!(pages.find("other", &terms(3)).is_err());
        clock.0.store(600, Ordering::Relaxed);
        assert!(pages.find(&token, &terms(3)).is_ok());
        clock.0.store(601, Ordering::Relaxed);
        assert!(pages.find(&token, &terms(3)).is_err());
    }

    #[test]
    fn there_are_never_too_many() {
        let (_, pages) = pages();
        let first = pages.keep(terms(0), walk());
        for _ in 0..MAX_TOKENS {
            let _ = pages.keep(terms(0), walk());
        }
        assert!(pages.find(&first, &terms(0)).is_err());
        let stop = walk().next().unwrap();
        let large = Walk { waiting: vec![stop; MAX_WEIGHT], seen: HashSet::new() };
        let large = pages.keep(terms(0), large);
        assert!(pages.find(&large, &terms(0)).is_ok());
        assert_eq!(pages.pages.lock().unwrap().len(), 1);
        let small = pages.keep(terms(0), walk());
        assert!(pages.find(&large, &terms(0)).is_err());
        assert!(pages.find(&small, &terms(0)).is_ok());
    }
}
