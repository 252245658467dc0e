//! Which other servers are spoken to.

use ruma::ServerName;

/// Lists of servers, each of them a host name, or `*.` and a domain for all hosts below it. Ports
/// don't count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFilter {
    /// None at all.
    pub(super) nobody: bool,
    /// None but these; all if there is none.
    pub(super) allow: Vec<String>,
    /// None of these.
    pub(super) deny: Vec<String>,
}

impl ServerFilter {
    /// Whether a server is spoken to.
    #[must_use]
    pub fn allows(&self, server: &ServerName) -> bool {
        let host = server.host().to_ascii_lowercase();
        let is_in = |list: &[String]| list.iter().any(|pattern| fits(pattern, &host));
        !self.nobody && (self.allow.is_empty() || is_in(&self.allow)) && !is_in(&self.deny)
    }
}

fn fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|below| below.ends_with('.')),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(allow: &[&str], deny: &[&str]) -> ServerFilter {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        ServerFilter { nobody: false, allow: owned(allow), deny: owned(deny) }
    }

    #[test]
    fn hosts_and_domains() {
        let all = filter(&[], &[]);
        let denied = filter(&[], &["bad.org", "*.worse.org", "[::1]"]);
        let few = filter(&["good.org", "*.good.org"], &["not.good.org"]);
        for (name, by_all, by_denied, by_few) in [
            ("bad.org", true, false, false),
            ("BAD.org:8448", true, false, false),
            ("a.bad.org", true, true, false),
            ("worse.org", true, true, false),
            ("a.b.worse.org:1", true, false, false),
            ("[::1]:8448", true, false, false),
            ("good.org", true, true, true),
            ("a.good.org", true, true, true),
            ("notgood.org", true, true, false),
            ("not.good.org", true, true, false),
        ] {
            let server = <&ServerName>::try_from(name).expect("a server name");
            let seen = [&all, &denied, &few].map(|filter| filter.allows(server));
            assert_eq!(seen, [by_all, by_denied, by_few], "{name}");
        }
    }
}
