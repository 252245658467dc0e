//! What users do all day: read from a file.

use std::{fs, path::Path, time::Duration};

use fastrand::Rng;
use serde::Deserialize;

use crate::error::LoadError;

/// The profile that is taken if nobody gives one, with its comments.
pub(crate) const DEFAULT: &str = include_str!("profile.toml");

/// See `profile.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) users: usize,
    pub(crate) rooms: usize,
    pub(crate) rooms_each: usize,
    think: f64,
    weights: Weights,
    pub(crate) message: Message,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weights {
    message: u32,
    read: u32,
    scroll: u32,
    members: u32,
    presence: u32,
    open: u32,
}

/// What messages are like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    pub(crate) size: usize,
    typing: f64,
}

/// What somebody does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Message,
    Read,
    Scroll,
    Members,
    Presence,
    Open,
}

impl Profile {
    /// The one of a file, or the default.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, LoadError> {
        let (text, name) = match file {
            Some(file) => (fs::read_to_string(file).map_err(LoadError::file(file))?, file),
            None => (DEFAULT.to_owned(), Path::new("the default profile")),
        };
        let profile: Self = toml::from_str(&text).map_err(LoadError::file(name))?;
        profile.check().map_err(LoadError::file(name))?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.users == 0 || self.rooms_each == 0 || self.rooms_each > self.rooms {
            return Err("there must be users, and 1 <= rooms_each <= rooms");
        }
        let positive = |time: f64| time.is_finite() && time >= 0.0;
        if !positive(self.think) || !positive(self.message.typing) {
            return Err("think and message.typing are seconds, and not negative");
        }
        if self.actions().iter().all(|(_, weight)| *weight == 0) {
            return Err("one of [weights] must be above 0");
        }
        Ok(())
    }

    fn actions(&self) -> [(Action, u32); 6] {
        let Weights { message, read, scroll, members, presence, open } = self.weights;
        [
            (Action::Message, message),
            (Action::Read, read),
            (Action::Scroll, scroll),
            (Action::Members, members),
            (Action::Presence, presence),
            (Action::Open, open),
        ]
    }

    /// Draws what somebody does next.
    pub(crate) fn action(&self, random: &mut Rng) -> Action {
        let actions = self.actions();
        let mut drawn = random.u64(0..actions.iter().map(|(_, weight)| u64::from(*weight)).sum());
        for (action, weight) in actions {
            match drawn.checked_sub(weight.into()) {
                Some(left) => drawn = left,
                None => return action,
            }
        }
        Action::Read
    }

    /// Draws how long somebody does nothing.
    pub(crate) fn pause(&self, random: &mut Rng) -> Duration {
        exponential(self.think, random)
    }

    /// Draws how long somebody types.
    pub(crate) fn typing(&self, random: &mut Rng) -> Duration {
        exponential(self.message.typing, random)
    }

    /// Draws the rooms of a user, the popular ones more often than the others.
    pub(crate) fn rooms_of_one(&self, random: &mut Rng) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.rooms).collect();
        let draw = |_| {
            // The square makes the first rooms the big ones.
            let place = (random.f64().powi(2) * left.len() as f64) as usize;
            left.remove(place.min(left.len() - 1))
        };
        (0..self.rooms_each).map(draw).collect()
    }
}

/// A time from an exponential distribution; ten times the mean at most.
fn exponential(mean: f64, random: &mut Rng) -> Duration {
    let drawn = -(1.0 - random.f64()).ln();
    Duration::from_secs_f64(mean * drawn.min(10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_good_and_nonsense_is_refused() {
        let profile = Profile::load(None).expect("the default");
        assert_eq!(profile.users, 50);
        let bad = |from: &str, to: &str| {
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("profile.toml");
            fs::write(&file, DEFAULT.replace(from, to)).expect("written");
            let error = Profile::load(Some(&file)).expect_err("refused").to_string();
            assert!(error.contains("profile.toml"), "{error}");
            error
        };
        assert!(bad("rooms_each = 5", "rooms_each = 50").contains("rooms_each"));
        assert!(bad("think = 5.0", "think = -1.0").contains("not negative"));
        assert!(bad("users = 50", "persons = 50").contains("persons"));
    }

    #[test]
    fn what_is_drawn_follows_the_weights() {
        let profile = Profile::load(None).expect("the default");
        let mut random = Rng::with_seed(7);
        let drawn: Vec<_> = (0..9_800).map(|_| profile.action(&mut random)).collect();
        let times = |action| drawn.iter().filter(|drawn| **drawn == action).count();
        assert!((2_700..3_300).contains(&times(Action::Message)));
        assert!((50..150).contains(&times(Action::Open)));
        let mean: f64 =
            (0..1_000).map(|_| profile.pause(&mut random).as_secs_f64()).sum::<f64>() / 1_000.0;
        assert!((4.0..6.0).contains(&mean), "{mean}");
        let mut rooms = profile.rooms_of_one(&mut random);
        rooms.sort_unstable();
        rooms.dedup();
        assert_eq!(rooms.len(), 5);
    }
}
