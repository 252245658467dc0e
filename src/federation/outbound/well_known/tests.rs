//! A web of a few pages, and how often each was asked for.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use parlour_actors::env::ManualClock;

use super::*;

#[derive(Debug, Default)]
struct Pages {
    /// By URI: status, header and body.
    pages: HashMap<&'static str, (u16, &'static str, &'static str)>,
    asked: Mutex<Vec<String>>,
}

impl Web for Pages {
    fn get(&self, uri: Uri) -> BoxFuture<'_, Option<http::Response<Bytes>>> {
        self.asked.lock().expect("lock").push(uri.to_string());
        let page = self.pages.get(uri.to_string().as_str()).map(|(status, head, body)| {
            let mut response = http::Response::builder().status(*status);
            if let Some((name, value)) = head.split_once(": ") {
                response = response.header(name, value);
            }
            response.body(Bytes::from(*body)).expect("a response")
        });
        Box::pin(std::future::ready(page))
    }
}

const AT: &str = "https://example.org/.well-known/matrix/server";
const THERE: &str = r#"{"m.server":"there.org:443"}"#;

struct Asked {
    well_known: WellKnown,
    pages: Arc<Pages>,
    clock: Arc<ManualClock>,
}

impl Asked {
    fn new(pages: &[(&'static str, (u16, &'static str, &'static str))]) -> Self {
        let pages = Arc::new(Pages { pages: pages.iter().copied().collect(), ..Pages::default() });
        let clock = Arc::new(ManualClock::at(0));
        Self { well_known: WellKnown::new(pages.clone(), clock.clone()), pages, clock }
    }

    fn of(&self, host: &str) -> Option<String> {
        let found = self.well_known.of(host).now_or_never().expect("nothing to wait for");
        found.map(|name| name.to_string())
    }

    fn times(&self) -> usize {
        self.pages.asked.lock().expect("lock").len()
    }

    /// After how many seconds the page is asked for again.
    fn lasts(&self) -> u64 {
        let times = self.times();
        for second in (0..).step_by(10) {
            self.of("example.org");
            if self.times() > times {
                return second;
            }
            self.clock.advance(Duration::from_secs(10));
        }
        unreachable!("the loop has no end")
    }
}

// Checklist 11.3
#[test]
fn redirects_are_followed_and_bad_answers_are_none() {
    for (page, wanted) in [
        ((200, "", THERE), Some("there.org:443")),
        ((200, "", r#"{"m.server":"[::1]","x":1}"#), Some("[::1]")),
        ((302, "location: /moved", ""), Some("moved.org")),
        ((307, "location: https://other.org/x", ""), Some("other.org")),
        ((308, "location: //other.org/x", ""), Some("other.org")),
        ((302, "location: http://other.org/x", ""), None),
        ((302, "location: /.well-known/matrix/server", ""), None),
        ((302, "", ""), None),
        ((404, "", THERE), None),
        ((200, "", "not JSON"), None),
        ((200, "", "{}"), None),
        ((200, "", r#"{"m.server":"not a name"}"#), None),
    ] {
        let asked = Asked::new(&[
            (AT, page),
            ("https://example.org/moved", (200, "", r#"{"m.server":"moved.org"}"#)),
            ("https://other.org/x", (200, "", r#"{"m.server":"other.org"}"#)),
        ]);
        assert_eq!(asked.of("EXAMPLE.org").as_deref(), wanted, "{page:?}");
        assert!(asked.times() <= MAX_REDIRECTS + 1);
    }
}

// Checklist 11.3
#[test]
fn answers_count_for_as_long_as_they_say_within_bounds() {
    let hours = |n: u64| n * 3_600;
    for (head, seconds) in [
        ("", hours(24)),
        ("cache-control: public, max-age=7200", hours(2)),
        ("cache-control: max-age=999999999", hours(48)),
        ("cache-control: max-age=1", 300),
        ("cache-control: no-store", 300),
    ] {
        let asked = Asked::new(&[(AT, (200, head, THERE))]);
        asked.of("example.org");
        assert_eq!(asked.lasts(), seconds, "{head}");
    }
}

// Checklist 11.3
#[test]
fn failures_count_for_longer_and_longer_up_to_an_hour() {
    let asked = Asked::new(&[]);
    asked.of("example.org");
    let waits: Vec<_> = (0..7).map(|_| asked.lasts() / 60).collect();
    assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
}
