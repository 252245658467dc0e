//! Pages of sorted lists.

use std::cmp::Ordering;

use ruma::api::Direction;

/// How many entries a page has where nobody says how many.
const DEFAULT_LIMIT: usize = 100;

/// The most entries of a page.
const MAX_LIMIT: usize = 10_000;

/// The order of a list where nobody says which.
pub(super) fn forwards() -> Direction {
    Direction::Forward
}

/// Which page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    from: usize,
    limit: usize,
}

/// One page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// How many entries the whole list has.
    pub(super) total: usize,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<usize>,
}

/// Sorts a list of any length and holds no more of it than the page and what comes before.
pub(super) struct Pager<T, F> {
    window: Window,
    compare: F,
    kept: Vec<T>,
    total: usize,
}

impl Window {
    pub(super) fn new(from: usize, limit: Option<usize>) -> Self {
        Self { from, limit: limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT) }
    }

    /// Where the page before begins.
    pub(super) fn before(self) -> usize {
        self.from.saturating_sub(self.limit)
    }

    fn end(self) -> usize {
        self.from.saturating_add(self.limit)
    }
}

impl<T, F: FnMut(&T, &T) -> Ordering> Pager<T, F> {
    pub(super) fn new(window: Window, compare: F) -> Self {
        Self { window, compare, kept: Vec::new(), total: 0 }
    }

    pub(super) fn push(&mut self, item: T) {
        self.total += 1;
        self.kept.push(item);
        if self.kept.len() > self.window.end().saturating_mul(2).saturating_add(MAX_LIMIT) {
            self.cut();
        }
    }

    pub(super) fn finish(mut self) -> Page<T> {
        self.cut();
        let items = self.kept.split_off(self.window.from.min(self.kept.len()));
        let end = self.window.end();
        Page { items, total: self.total, next: (self.total > end).then_some(end) }
    }

    fn cut(&mut self) {
        self.kept.sort_by(&mut self.compare);
        self.kept.truncate(self.window.end());
    }
}

/// The order of a list whose ties are broken upwards, whatever the direction.
pub(super) fn in_direction(ordering: Ordering, direction: Direction) -> Ordering {
    match direction {
        Direction::Forward => ordering,
        Direction::Backward => ordering.reverse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_same_as_of_the_whole_sorted_list() {
        let numbers: Vec<u64> = (0..50_000).map(|n| n * 7_919 % 50_021).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        for (from, limit) in [(0, 10), (49_995, 10), (50_000, 10), (60_000, 1), (17, 0), (5, 9_999)]
        {
            let mut pager = Pager::new(Window { from, limit }, Ord::cmp);
            numbers.iter().for_each(|number| pager.push(*number));
            let page = pager.finish();
            let end = (from + limit).min(sorted.len());
            assert_eq!(page.items, sorted.get(from.min(end)..end).unwrap_or_default());
            assert_eq!(page.total, sorted.len());
            assert_eq!(page.next, (end < sorted.len()).then_some(end));
        }
    }
}
