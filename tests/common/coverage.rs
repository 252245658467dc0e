//! Counts which operations and statuses the tests have seen, for `make coverage`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

static SEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Notes one answer of an operation of the specification.
pub(crate) fn saw(method: &str, template: &str, status: u16) {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    *seen.entry(format!("{method}\t{template}\t{status}")).or_default() += 1;
}

/// Writes the counts of this process below `target/spec-coverage/`; called when a server ends.
pub(crate) fn write() {
    let mut text = String::new();
    for (key, count) in SEEN.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        writeln!(text, "{key}\t{count}").unwrap();
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/spec-coverage");
    // The report is a convenience: a read-only work tree must not fail a test.
    if fs::create_dir_all(&dir).is_ok() {
        let _ = fs::write(dir.join(format!("rust-{}.tsv", std::process::id())), text);
    }
}
