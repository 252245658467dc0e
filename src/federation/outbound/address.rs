//! Which addresses may be connected to. Judged after names have been resolved: a name says nothing
//! about where it leads, and whoever owns one can let it lead into our own network.

use std::net::IpAddr;

use ipnet::IpNet;

/// Address ranges that don't belong to the internet: our own networks, and what never is a server.
const NOT_PUBLIC: [&str; 21] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/8",
    "64::/16",
    "100::/8",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/6",
];

/// Where requests may go.
#[derive(Debug, Clone)]
pub struct AddressPolicy {
    not_public: Vec<IpNet>,
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Public addresses, and these ranges.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>) -> Self {
        let not_public = NOT_PUBLIC.iter().filter_map(|net| net.parse().ok()).collect();
        Self { not_public, allowed }
    }

    /// Whether this address may be connected to.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        is_in(&self.allowed) || !is_in(&self.not_public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_and_what_the_operator_allows() {
        let policy = AddressPolicy::new(vec!["10.1.0.0/16".parse().expect("a net")]);
        assert_eq!(policy.not_public.len(), NOT_PUBLIC.len());
        for (address, allowed) in [
            ("1.1.1.1", true),
            ("2606:4700::1111", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("::ffff:10.2.0.1", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("100.100.0.1", false),
            ("192.168.1.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::7f00:1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(policy.allows(parsed), allowed, "{address}");
        }
    }
}
