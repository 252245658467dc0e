//! What processes of this machine use, as Linux tells it in `/proc`.

use std::{collections::BTreeSet, fs, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// The kernel counts CPU time for programs in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What processes have used so far, and have now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU time, in seconds.
    pub(crate) cpu: f64,
    /// Memory that is really there, in bytes.
    pub(crate) rss: u64,
}

/// Processes with all that they have started.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    /// These; `None` if one of them isn't there.
    pub(crate) fn of(pids: &[u32]) -> Option<Self> {
        pids.iter().all(|pid| usage(*pid).is_some()).then(|| Self(pids.to_vec()))
    }

    /// The one that listens at one of these addresses, if it is on this machine and may be seen.
    pub(crate) fn listening(addresses: &[SocketAddr]) -> Option<Self> {
        let address = addresses.iter().find(|address| address.ip().is_loopback())?;
        let sockets = listeners(address.port());
        let pids = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|pid| has_socket(*pid, &sockets)).map(|pid| Self(vec![pid]))
    }

    /// How many files the one of them may have open that may have most.
    pub(crate) fn open_files(&self) -> Option<u64> {
        let limits = self.0.iter().filter_map(|pid| {
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
            open_files(&limits)
        });
        limits.max()
    }

    /// What they use together. Who has ended counts no more.
    pub(crate) fn usage(&self) -> Usage {
        let mut left = self.0.clone();
        let mut seen = BTreeSet::new();
        let mut sum = Usage::default();
        while let Some(pid) = left.pop() {
            if !seen.insert(pid) {
                continue;
            }
            if let Some(used) = usage(pid) {
                sum = Usage { cpu: sum.cpu + used.cpu, rss: sum.rss + used.rss };
            }
            left.extend(children(pid));
        }
        sum
    }
}

/// What the generator itself uses.
pub(crate) fn own() -> Usage {
    usage(std::process::id()).unwrap_or_default()
}

fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage { cpu: cpu(&stat)?, rss: rss(&status).unwrap_or_default() })
}

/// User and system time of the process and of those of its children that have ended, in seconds.
fn cpu(stat: &str) -> Option<f64> {
    // The name stands in brackets, and may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok());
    let ticks: u64 = ticks.sum::<Option<u64>>()?;
    Some(ticks as f64 * TICK.as_secs_f64())
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// The limit of open files that holds now; `None` if there is none.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// The sockets, as `/proc` names them, that listen at a port.
fn listeners(port: u16) -> BTreeSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let tables = tables.into_iter().flatten();
    tables
        .flat_map(|table| table.lines().filter_map(|line| listener(line, port)).collect::<Vec<_>>())
        .collect()
}

/// The socket of a line of such a table, if it listens at the port.
fn listener(line: &str, port: u16) -> Option<String> {
    const LISTENS: &str = "0A";
    let fields: Vec<_> = line.split_whitespace().collect();
    let (_, found) = fields.get(1)?.rsplit_once(':')?;
    let here = u16::from_str_radix(found, 16) == Ok(port) && fields.get(3) == Some(&LISTENS);
    here.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
}

fn has_socket(pid: u32, sockets: &BTreeSet<String>) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut names = open.filter_map(|fd| fs::read_link(fd.path()).ok());
    names.any(|name| name.to_str().is_some_and(|name| sockets.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4 1 2 3 4 150 50 20 5 20 0 9 0 100 1000 10";
        assert_eq!(cpu(stat), Some(2.25));
        assert_eq!(rss("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        let limits = "Max processes 1 2 processes\nMax open files            1024   4096   files\n";
        assert_eq!(open_files(limits), Some(1_024));
        assert_eq!(open_files("Max open files   unlimited   unlimited   files\n"), None);
        let line = "   0: 0100007F:1F48 00000000:0000 0A 00000000:00000000 00:0 0 0 0 4711 1";
        assert_eq!(listener(line, 8008).as_deref(), Some("socket:[4711]"));
        assert_eq!(listener(line, 8009), None);
    }

    #[test]
    fn a_listener_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let found = Processes::listening(&[socket.local_addr().expect("its address")]);
        assert_eq!(found.expect("this process").0, [std::process::id()]);
        assert!(own().rss > 0);
    }
}
