//! How far a maintenance command is: a bar where somebody looks on, else plain lines.

use std::{
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::{ProgressBar, ProgressStyle};
use parlour_storage::Progress;

/// Tells on standard error, in the form that fits it.
pub(super) fn progress() -> Arc<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Arc::new(Bar::default())
    } else {
        Arc::new(Lines::new(|line| eprintln!("parlour: {line}")))
    }
}

/// Draws one bar after the other.
#[derive(Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn with(&self, change: impl FnOnce(&mut Option<ProgressBar>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bar {
    fn start(&self, what: &str, total: u64) {
        let style = ProgressStyle::with_template("{msg:40} {wide_bar} {percent:>3}% {eta:>4}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
        self.with(|current| *current = Some(bar));
    }

    fn advance(&self, by: u64) {
        self.with(|current| {
            if let Some(bar) = current {
                bar.inc(by);
            }
        });
    }

    fn finish(&self) {
        self.with(|current| {
            if let Some(bar) = current.take() {
                bar.finish();
            }
        });
    }
}

/// Gives a line for the beginning of a piece of work, and one for every tenth of it that it passes
/// but the last: for logs and pipes.
struct Lines<F> {
    tell: F,
    piece: Mutex<Piece>,
}

#[derive(Default)]
struct Piece {
    what: String,
    total: u64,
    done: u64,
    tenths: u64,
}

impl<F: Fn(&str)> Lines<F> {
    fn new(tell: F) -> Self {
        Self { tell, piece: Mutex::default() }
    }
}

impl<F: Fn(&str) + Send + Sync> Progress for Lines<F> {
    fn start(&self, what: &str, total: u64) {
        if total > 0 {
            (self.tell)(what);
        }
        let piece = Piece { what: what.to_owned(), total, ..Piece::default() };
        *self.piece.lock().unwrap_or_else(PoisonError::into_inner) = piece;
    }

    fn advance(&self, by: u64) {
        let mut piece = self.piece.lock().unwrap_or_else(PoisonError::into_inner);
        piece.done = piece.done.saturating_add(by);
        let tenths = piece.done.saturating_mul(10).checked_div(piece.total).unwrap_or(10);
        if tenths > piece.tenths && tenths < 10 {
            (self.tell)(&format!("{}: {} %", piece.what, tenths * 10));
        }
        piece.tenths = piece.tenths.max(tenths);
    }

    fn finish(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(work: impl FnOnce(&dyn Progress)) -> Vec<String> {
        let told = Mutex::new(Vec::new());
        work(&Lines::new(|line: &str| told.lock().expect("lock").push(line.to_owned())));
        told.into_inner().expect("lock")
    }

    #[test]
    fn every_tenth_is_told_once() {
        let told = lines(|progress| {
            progress.start("copying", 100);
            (0..100).for_each(|_| progress.advance(1));
            progress.finish();
        });
        assert_eq!(told.len(), 10);
        assert_eq!(told.first().map(String::as_str), Some("copying"));
        assert_eq!(told.last().map(String::as_str), Some("copying: 90 %"));
    }

    #[test]
    fn small_work_and_wrong_estimates_are_told_in_few_words() {
        let told = lines(|progress| {
            for (total, steps) in [(0, 3), (1, 1), (2, 5)] {
                progress.start("working", total);
                (0..steps).for_each(|_| progress.advance(1));
                progress.finish();
            }
        });
        assert_eq!(told, ["working", "working", "working: 50 %"]);
    }
}
