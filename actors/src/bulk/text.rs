//! What is drawn by lot, and what people say who don't exist.

use crate::env::{Entropy as _, SeededEntropy};

const WORDS: [&str; 32] = [
    "amber",
    "bridge",
    "candle",
    "dialect",
    "ember",
    "festival",
    "garden",
    "harbour",
    "island",
    "jasmine",
    "kettle",
    "lantern",
    "meadow",
    "notebook",
    "orchard",
    "parlour",
    "quarry",
    "ribbon",
    "saddle",
    "teapot",
    "umbrella",
    "velvet",
    "willow",
    "xylophone",
    "yarrow",
    "zephyr",
    "and",
    "the",
    "with",
    "under",
    "beyond",
    "again",
];

/// The fewest words of a message, and how many more there may be.
const LENGTHS: (u64, u64) = (3, 12);

/// Draws lots: the same ones from the same seed.
pub(super) struct Dice(SeededEntropy);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// A number below `end`, or 0.
    pub(super) fn below(&self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(end).unwrap_or_default()
    }

    /// What a message says; its number comes first, so that each says something else.
    pub(super) fn message(&self, number: u64) -> String {
        let mut text = number.to_string();
        for _ in 0..LENGTHS.0 + self.below(LENGTHS.1) {
            let word = usize::try_from(self.below(WORDS.len() as u64)).unwrap_or_default();
            text.push(' ');
            text.push_str(WORDS[word]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same() {
        let say = |seed| Dice::new(seed).message(7);
        assert_eq!(say(1), say(1));
        assert_ne!(say(1), say(2));
        let words = say(1).split(' ').count() as u64 - 1;
        assert!(say(1).starts_with("7 ") && (3..15).contains(&words), "{}", say(1));
        assert_eq!(Dice::new(1).below(0), 0);
    }
}
