//! A seeded generator, so that a failing round can be repeated from the seed that it printed.

/// SplitMix64: small, fast, and good enough to pick moments and rooms.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed from `TEST_SEED`, or one that differs from run to run; printed either way.
    #[allow(clippy::disallowed_methods, reason = "the one place where tests take a fresh seed")]
    pub(crate) fn from_environment() -> Self {
        let fresh = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |since| since.as_secs() ^ u64::from(since.subsec_nanos()))
        };
        let given = std::env::var("TEST_SEED").ok().map(|text| text.parse().unwrap());
        let seed = given.unwrap_or_else(fresh);
        println!("seed: {seed} (repeat with TEST_SEED={seed})");
        Self::new(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `0..limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
