//! Open files: each connection is one, here and in the server.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{error::LoadError, process::Processes};

/// What a process may have open besides: logs, pipes, the store.
const OTHERS: u64 = 256;

/// Raises this process's limit as far as the system allows.
pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Whether so many connections can be open at once, here and in the server. Who finds out when they
/// break does not know why.
///
/// # Errors
///
/// Which limit is in the way.
pub(crate) fn check(connections: usize, server: Option<&Processes>) -> Result<(), LoadError> {
    let needed = connections as u64 + OTHERS;
    let own = getrlimit(Resource::Nofile).current;
    if own.is_some_and(|own| own < needed) {
        let limit = own.unwrap_or_default();
        return Err(LoadError::Usage(format!(
            "{connections} connections need {needed} open files, and parlour load may have {limit}: \
             raise the hard limit (`ulimit -Hn`, or LimitNOFILE= of systemd)"
        )));
    }
    match server.and_then(Processes::open_files) {
        Some(limit) if limit < needed => Err(LoadError::Usage(format!(
            "{connections} connections need {needed} open files, and the server may have {limit}: \
             raise the limit where it is started (`ulimit -n`, or LimitNOFILE= of systemd)"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_in_the_way_is_named() {
        raise_limit();
        assert!(check(1, None).is_ok());
        let own = Processes::of(&[std::process::id()]).expect("this process");
        assert!(check(1, Some(&own)).is_ok());
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            let refused = check(limit as usize, None).expect_err("too many").to_string();
            assert!(refused.contains("ulimit -Hn"), "{refused}");
            assert_eq!(own.open_files(), Some(limit));
        }
    }
}
