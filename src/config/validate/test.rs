//! Test mode: who may reach such a server, and what goes wrong in it on purpose.

use std::time::Duration;

use parlour_storage::faults::{Failing, FaultPlan};

use super::{Checked, wrong};
use crate::config::{DataDir, ListenerConfig, ServerConfig, TestConfig, raw};

/// The longest that a flush can be made to take more.
const MAX_FLUSH_DELAY: Duration = Duration::from_secs(60);

/// Checks that nobody else can reach a server that protects nobody.
pub(in crate::config) fn check_listeners(
    listeners: &[ListenerConfig],
    test_mode: bool,
) -> Checked<()> {
    let is_open = |listener: &&ListenerConfig| !listener.address.ip().is_loopback();
    match listeners.iter().enumerate().find(|(_, listener)| test_mode && is_open(listener)) {
        None => Ok(()),
        Some((number, listener)) => wrong(
            &format!("listeners[{number}].address"),
            format_args!(
                "others can reach {}, and in test mode the server protects nobody; use 127.0.0.1, \
                 or turn server.test_mode (--test-mode) off",
                listener.address.ip()
            ),
        ),
    }
}

pub(super) fn test(raw: raw::Test, server: &ServerConfig) -> Checked<TestConfig> {
    if !server.test_mode && raw != raw::Test::default() {
        return wrong("test", "this is for test mode; set server.test_mode, or remove it");
    }
    let raw::Test { seed, flush_delay_ms, failing_flushes, failing_writes } = raw;
    let faults = faults(flush_delay_ms, failing_flushes, failing_writes);
    let faults = faults.or_else(|(key, what)| wrong(&format!("test.{key}"), what))?;
    if server.data == DataDir::Memory && faults != FaultPlan::default() {
        return wrong("test", "data in memory have no disk that fails; set server.data_dir");
    }
    Ok(TestConfig { seed, faults })
}

/// Faults as they are written, here and in requests; else which number makes no sense, and why.
pub(crate) fn faults(
    flush_delay_ms: u64,
    failing_flushes: i64,
    failing_writes: i64,
) -> Result<FaultPlan, (&'static str, String)> {
    let flush_delay = Duration::from_millis(flush_delay_ms);
    if flush_delay > MAX_FLUSH_DELAY {
        return Err(("flush_delay_ms", format!("write at most {}", MAX_FLUSH_DELAY.as_millis())));
    }
    Ok(FaultPlan {
        flush_delay,
        failing_flushes: failing("failing_flushes", failing_flushes)?,
        failing_writes: failing("failing_writes", failing_writes)?,
    })
}

fn failing(key: &'static str, times: i64) -> Result<Failing, (&'static str, String)> {
    match (times, u32::try_from(times)) {
        (-1, _) => Ok(Failing::Always),
        (_, Ok(times)) => Ok(Failing::Next(times)),
        _ => Err((key, "write how many, or -1 for all".to_owned())),
    }
}
