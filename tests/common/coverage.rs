//! Notes which test has seen which statuses of which operation, for `make coverage`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use serde_json::Value;

static SEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Notes one answer of an operation of the specification. That there is no such endpoint is not an
/// answer of the endpoint.
pub(crate) fn saw(method: &str, template: &str, status: u16, body: &Value) {
    if body["errcode"] == "M_UNRECOGNIZED" {
        return;
    }
    // A test's thread is named after it; those that a test starts itself have no name.
    let thread = thread::current();
    let test = thread.name().unwrap_or("a thread");
    let key = format!("{method}\t{template}\t{status}\t{}::{test}", env!("CARGO_CRATE_NAME"));
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
}

/// Writes the counts of this process below `target/spec-coverage/`; called when a server ends.
pub(crate) fn write() {
    // Held to the end: servers of several tests end at the same time.
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    for (key, count) in seen.iter() {
        writeln!(text, "{key}\t{count}").unwrap();
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/spec-coverage");
    // The report is a convenience: a read-only work tree must not fail a test.
    if fs::create_dir_all(&dir).is_ok() {
        let _ = fs::write(dir.join(format!("rust-{}.tsv", std::process::id())), text);
    }
}
