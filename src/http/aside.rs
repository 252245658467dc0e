//! Requests whose answers take their time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// By which a handler says that its answer will take its time: so the connection can be let go of
/// in the meantime. Clones are the same; the default is nobody's.
#[derive(Debug, Clone, Default)]
pub struct Aside(Option<Arc<AtomicBool>>);

impl Aside {
    /// For one connection.
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Asks to wait aside. Whoever calls this must be about to wait.
    pub fn ask(&self) {
        self.set(true);
    }

    /// The next request has not asked.
    pub(crate) fn forget(&self) {
        self.set(false);
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked.load(Ordering::Relaxed))
    }

    fn set(&self, asked: bool) {
        if let Some(flag) = &self.0 {
            flag.store(asked, Ordering::Relaxed);
        }
    }
}
