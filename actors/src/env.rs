//! Time, randomness and threads, injected: nothing else in Parlour asks the system for them.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::threads::Threads;

/// Tells the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Time since some fixed moment; never goes backwards. For measuring and for deadlines.
    fn monotonic(&self) -> Duration;
}

/// A source of random bytes.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// Storage was found at this position: what repeats from run to run begins anew there, since what
    /// an earlier run has drawn on the way to it is in use.
    fn resume(&self, _position: u64) {}
}

/// What is injected into everything that needs time, randomness or threads.
#[derive(Clone, Debug)]
pub struct Env {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The randomness.
    pub entropy: Arc<dyn Entropy>,
    /// That for keys which outlive the process: it can't be guessed where `entropy` repeats.
    pub secrets: Arc<dyn Entropy>,
    /// What the parts of the server run on.
    pub threads: Threads,
}

impl Env {
    /// The system's clock and randomness.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock::new()), Arc::new(SystemEntropy))
    }

    /// This clock and this randomness, and as many threads as are asked for.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, secrets: entropy.clone(), entropy, threads: Threads::many() }
    }

    /// A random string of `len` letters and digits (each worth almost 6 bits).
    #[must_use]
    pub fn random_string(&self, len: usize) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = String::with_capacity(len);
        let mut buffer = [0u8; 64];
        while text.len() < len {
            self.entropy.fill(&mut buffer);
            // 248 is the largest multiple of 62 in a byte: values above would favour some letters.
            let letters = buffer.iter().filter(|byte| **byte < 248);
            text.extend(
                letters
                    .take(len - text.len())
                    .map(|byte| char::from(ALPHABET[*byte as usize % 62])),
            );
        }
        text
    }
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that implements the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place that implements the clock")]
    fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The operating system's randomness.
#[derive(Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("an operating system without randomness cannot run Parlour");
    }
}

/// Repeatable "randomness" for tests and the test mode.
#[derive(Debug)]
pub struct SeededEntropy(std::sync::Mutex<u64>);

impl SeededEntropy {
    /// The same seed gives the same bytes in the same order.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(std::sync::Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in buffer.chunks_mut(8) {
            *state = state.wrapping_add(STEP);
            chunk.copy_from_slice(&mixed(*state).to_le_bytes()[..chunk.len()]);
        }
    }

    fn resume(&self, position: u64) {
        if position > 0 {
            let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Mixed, or the positions would be steps on one way, and meet.
            *state ^= mixed(position.wrapping_mul(STEP));
        }
    }
}

/// From one state to the next.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64: well spread, tiny, and not meant to be secret.
fn mixed(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A clock that tests move by hand.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicU64);

impl ManualClock {
    /// Starts at this many milliseconds since the epoch.
    #[must_use]
    pub fn at(ms: u64) -> Self {
        Self(ms.into())
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }
}
