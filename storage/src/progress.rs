//! How long work says how far it is.

use std::fmt;

/// Is told how far a long piece of work is: a rebuild, a backup, a repair. The binary draws a bar.
pub trait Progress: Send + Sync {
    /// A piece of work begins; `total` is in the unit of [`Progress::advance`] and may be an
    /// estimate. Pieces follow one another, they are never nested.
    fn start(&self, what: &str, total: u64);

    /// That much more is done.
    fn advance(&self, by: u64);

    /// The piece of work is over.
    fn finish(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn start(&self, _what: &str, _total: u64) {}

    fn advance(&self, _by: u64) {}

    fn finish(&self) {}
}

impl fmt::Debug for dyn Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
