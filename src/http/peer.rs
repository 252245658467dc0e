//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header::HeaderMap;
use ipnet::IpNet;

/// A client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address that counts: the connection's, or what a trusted proxy said.
    pub ip: IpAddr,
    /// Whether a header says that somebody passed the request on.
    forwarded: bool,
}

impl Peer {
    /// Whether the client runs on this machine. Behind a proxy on this machine that is not
    /// configured as trusted everything seems to, so what was passed on never counts.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.ip.is_loopback() && !self.forwarded
    }

    pub(super) fn of(
        address: Option<IpAddr>,
        headers: &HeaderMap,
        trusted_proxies: &[IpNet],
    ) -> Self {
        // Without an address (a Unix socket) it is nobody's: it shares one bucket, and isn't local.
        let direct = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ip| ip.to_canonical());
        Self::resolve(direct, headers, trusted_proxies)
    }

    /// `X-Forwarded-For` is read from its end, since only what trusted proxies appended is true.
    fn resolve(direct: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let trusts = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
        let forwarded =
            headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded");
        let mut ip = direct;
        let chain = headers.get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
        let chain: Vec<&str> = chain.flat_map(|value| value.split(',')).collect();
        for hop in chain.iter().rev() {
            if !trusts(&ip) {
                break;
            }
            match hop.trim().parse::<IpAddr>() {
                Ok(address) => ip = address.to_canonical(),
                Err(_) => break,
            }
        }
        Self { ip, forwarded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxy = "127.0.0.1";
        let cases = [
            (proxy, "", "127.0.0.1", true),
            (proxy, "192.0.2.7", "192.0.2.7", false),
            (proxy, "203.0.113.1, 192.0.2.7", "192.0.2.7", false),
            (proxy, "192.0.2.7, 10.0.0.2", "192.0.2.7", false),
            (proxy, "nonsense", "127.0.0.1", false),
            (proxy, "127.0.0.1", "127.0.0.1", false),
            ("198.51.100.1", "192.0.2.7", "198.51.100.1", false),
            ("::1", "192.0.2.7", "::1", false),
        ];
        let trusted: Vec<IpNet> =
            ["127.0.0.0/8", "10.0.0.0/8"].iter().map(|net| net.parse().expect("net")).collect();
        for (direct, header, ip, local) in cases {
            let mut headers = HeaderMap::new();
            if !header.is_empty() {
                headers.insert(
                    HeaderName::from_static("x-forwarded-for"),
                    HeaderValue::from_static(header),
                );
            }
            let peer = Peer::resolve(direct.parse().expect("ip"), &headers, &trusted);
            assert_eq!(peer.ip, ip.parse::<IpAddr>().expect("ip"), "{direct} {header}");
            assert_eq!(peer.is_local(), local, "{direct} {header}");
        }
    }
}
