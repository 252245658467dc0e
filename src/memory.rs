//! The server's memory budget: who has which share of it, and what is taken.
//!
//! docs/architecture.md has the table of the shares, and of what is bounded by numbers instead.

use std::sync::Arc;

use parlour_actors::{Engine, budget::Share};

use crate::{config::MemoryConfig, federation::receive::ReceiveMemory, view::sync::Syncs};

/// The shares that are taken piece by piece. Clones are the same.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Awake rooms.
    pub rooms: Share,
    /// Clients that sync.
    pub syncs: Share,
    /// The bodies of requests that are not answered yet.
    pub requests: Share,
    /// Other servers' events that are not in their rooms yet.
    pub federation: ReceiveMemory,
}

impl Budget {
    /// Of which nothing is taken yet.
    #[must_use]
    pub fn new(config: &MemoryConfig) -> Self {
        Self {
            rooms: Share::new(config.rooms),
            syncs: Share::new(config.syncs),
            requests: Share::new(config.requests),
            federation: ReceiveMemory {
                transactions: Share::new(config.federation / 2),
                parked: Share::new(config.federation / 2),
            },
        }
    }
}

/// What one of those takes who share the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// As in the configuration, and in the metrics' label.
    pub user: &'static str,
    /// How many bytes.
    pub bytes: u64,
    /// How many there are for it.
    pub share: u64,
}

/// Sees what all of them take.
#[derive(Clone)]
pub struct Overview {
    /// The shares' sizes.
    pub config: MemoryConfig,
    /// What is taken of them.
    pub budget: Budget,
    /// What has caches of its own.
    pub engine: Engine,
    /// So has this.
    pub syncs: Arc<Syncs>,
}

impl Overview {
    /// All of them, in the order of the configuration.
    #[must_use]
    pub fn taken(&self) -> [Taken; 8] {
        let Self { config, budget, engine, syncs } = self;
        let of = |user, share: &Share| Taken { user, bytes: share.used(), share: share.limit() };
        let cache = |user, bytes, share| Taken { user, bytes, share };
        let received = budget.federation.transactions.used() + budget.federation.parked.used();
        [
            cache("index_cache", engine.store.memory_bytes(), config.index_cache),
            cache("state_cache", engine.nodes.memory_bytes(), config.state_cache),
            of("rooms", &budget.rooms),
            of("syncs", &budget.syncs),
            of("requests", &budget.requests),
            cache("deliveries", syncs.memory_bytes(), config.deliveries),
            cache("federation", received, config.federation),
            // SQLite does not tell; it takes so much at most.
            cache("search", config.search, config.search),
        ]
    }
}

/// How many bytes of memory the whole process takes; `None` where the system does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}
