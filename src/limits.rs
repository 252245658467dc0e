//! Rate limits per user and per address: token buckets on the injected clock.
//!
//! Each bucket is one number (the "theoretical arrival time" of GCRA), so a million keys are a few
//! tens of megabytes; their number is bounded all the same.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use parlour_actors::env::Clock;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

/// What a request costs; every route belongs to one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RateClass {
    /// Logging in, by address.
    Login,
    /// Making accounts, by address.
    Registration,
    /// Sending events, by user.
    Message,
    /// Joining, creating and inviting, by user.
    Join,
    /// Everything else: generous, by user, or by address before there is a user.
    #[default]
    Other,
    /// What other servers ask, by server and by address.
    Federation,
    /// Never limited.
    Unlimited,
}

impl RateClass {
    /// Whether the class counts addresses, before anything else is looked at.
    #[must_use]
    pub fn by_address(self) -> bool {
        matches!(self, Self::Login | Self::Registration | Self::Federation)
    }
}

/// How many requests a bucket lets through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests per second in the long run, above zero.
    pub per_second: f64,
    /// Requests at once after a silence, at least one.
    pub burst: u32,
}

/// The configured rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimitConfig {
    /// Off in test mode.
    pub enabled: bool,
    /// How many users, and how many addresses, are remembered at once.
    pub max_keys: usize,
    /// By address.
    pub login: Rate,
    /// By address.
    pub registration: Rate,
    /// By user.
    pub message: Rate,
    /// By user.
    pub join: Rate,
    /// By user, else by address.
    pub other: Rate,
    /// By server and by address.
    pub federation: Rate,
}

impl RateLimitConfig {
    fn rate(&self, class: RateClass) -> Option<Rate> {
        match class {
            RateClass::Login => Some(self.login),
            RateClass::Registration => Some(self.registration),
            RateClass::Message => Some(self.message),
            RateClass::Join => Some(self.join),
            RateClass::Other => Some(self.other),
            RateClass::Federation => Some(self.federation),
            RateClass::Unlimited => None,
        }
    }
}

/// All the buckets of one server.
#[derive(Debug)]
pub struct RateLimits {
    config: RateLimitConfig,
    clock: Arc<dyn Clock>,
    users: Mutex<Buckets<OwnedUserId>>,
    servers: Mutex<Buckets<OwnedServerName>>,
    addresses: Mutex<Buckets<IpAddr>>,
}

impl RateLimits {
    /// Buckets that are all full.
    #[must_use]
    pub fn new(config: RateLimitConfig, clock: Arc<dyn Clock>) -> Self {
        let max_keys = config.max_keys.max(1);
        Self {
            config,
            clock,
            users: Mutex::new(Buckets::new(max_keys)),
            servers: Mutex::new(Buckets::new(max_keys)),
            addresses: Mutex::new(Buckets::new(max_keys)),
        }
    }

    /// Takes one token from the user's bucket, or says after how long there will be one.
    ///
    /// # Errors
    /// How long to wait.
    pub fn check_user(&self, class: RateClass, user: &UserId) -> Result<(), Duration> {
        self.check(&self.users, class, || user.to_owned())
    }

    /// The same for another server.
    ///
    /// # Errors
    /// How long to wait.
    pub fn check_server(&self, class: RateClass, server: &ServerName) -> Result<(), Duration> {
        self.check(&self.servers, class, || server.to_owned())
    }

    /// The same for the client's address; IPv6 addresses count by /64, which one host can have
    /// all for itself.
    ///
    /// # Errors
    /// How long to wait.
    pub fn check_address(&self, class: RateClass, address: IpAddr) -> Result<(), Duration> {
        self.check(&self.addresses, class, || network(address))
    }

    fn check<K: Hash + Eq>(
        &self,
        buckets: &Mutex<Buckets<K>>,
        class: RateClass,
        key: impl FnOnce() -> K,
    ) -> Result<(), Duration> {
        let Some(rate) = self.config.rate(class).filter(|_| self.config.enabled) else {
            return Ok(());
        };
        let now = self.clock.monotonic();
        buckets.lock().unwrap_or_else(PoisonError::into_inner).take((class, key()), rate, now)
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

#[derive(Debug)]
struct Buckets<K> {
    max_keys: usize,
    /// When the bucket will be full again.
    full_at: HashMap<(RateClass, K), Duration>,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(max_keys: usize) -> Self {
        Self { max_keys, full_at: HashMap::new() }
    }

    fn take(&mut self, key: (RateClass, K), rate: Rate, now: Duration) -> Result<(), Duration> {
        if self.full_at.len() >= self.max_keys && !self.full_at.contains_key(&key) {
            self.make_room(now);
        }
        let interval = Duration::try_from_secs_f64(1.0 / rate.per_second).unwrap_or(Duration::MAX);
        let tolerance = interval.saturating_mul(rate.burst.max(1));
        let full_at = self.full_at.entry(key).or_insert(now);
        let next = (*full_at).max(now).saturating_add(interval);
        let ahead = next.saturating_sub(now);
        if ahead > tolerance {
            return Err(ahead.saturating_sub(tolerance));
        }
        *full_at = next;
        Ok(())
    }

    /// Forgets full buckets, which loses nothing; when there are none, forgets those that are
    /// nearest to full, so that a flood of new keys cannot wash away the worst offenders.
    fn make_room(&mut self, now: Duration) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() < self.max_keys {
            return;
        }
        let mut times: Vec<Duration> = self.full_at.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.full_at.retain(|_, full_at| *full_at > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlour_actors::env::ManualClock;
    use ruma::user_id;

    fn limits(enabled: bool, max_keys: usize) -> (RateLimits, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let rate = Rate { per_second: 2.0, burst: 3 };
        let config = RateLimitConfig {
            enabled,
            max_keys,
            login: rate,
            registration: rate,
            message: rate,
            join: Rate { per_second: 0.1, burst: 1 },
            other: rate,
            federation: rate,
        };
        (RateLimits::new(config, Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    #[test]
    fn burst_then_refill() {
        let (limits, clock) = limits(true, 10);
        let alice = user_id!("@alice:example.org");
        for _ in 0..3 {
            assert_eq!(limits.check_user(RateClass::Message, alice), Ok(()));
        }
        let wait = limits.check_user(RateClass::Message, alice).expect_err("the bucket is empty");
        assert_eq!(wait, Duration::from_millis(500));
        clock.advance(wait);
        assert_eq!(limits.check_user(RateClass::Message, alice), Ok(()));
        assert!(limits.check_user(RateClass::Message, alice).is_err());
        // Other users, other classes: other buckets.
        assert_eq!(limits.check_user(RateClass::Join, alice), Ok(()));
        assert_eq!(limits.check_user(RateClass::Message, user_id!("@bob:example.org")), Ok(()));
    }

    #[test]
    fn off_means_off() {
        let (limits, _) = limits(false, 10);
        for _ in 0..100 {
            assert_eq!(limits.check_address(RateClass::Login, [192, 0, 2, 1].into()), Ok(()));
        }
    }

    #[test]
    fn keys_are_bounded_and_the_worst_stay() {
        let (limits, _) = limits(true, 100);
        let bad: IpAddr = [192, 0, 2, 1].into();
        while limits.check_address(RateClass::Login, bad).is_ok() {}
        for n in 0..10_000_u32 {
            let _ = limits.check_address(RateClass::Login, IpAddr::V4(n.into()));
        }
        assert!(limits.addresses.lock().expect("lock").full_at.len() <= 100);
        assert!(limits.check_address(RateClass::Login, bad).is_err());
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let (limits, _) = limits(true, 100);
        let mut allowed = 0;
        for host in 0..50_u16 {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host);
            allowed += u32::from(limits.check_address(RateClass::Login, address.into()).is_ok());
        }
        assert_eq!(allowed, 3);
    }
}
