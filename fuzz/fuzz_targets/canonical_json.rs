//! Reading and writing JSON.

#![no_main]

#[allow(dead_code, reason = "each target uses one")]
#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::canonical_json(bytes));
