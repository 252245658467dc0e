//! A small internet.

use std::{collections::HashMap, net::IpAddr};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Uri;
use parlour_actors::{env::SeededEntropy, keyring::BoxFuture};

use super::*;
use crate::federation::outbound::well_known::Web;

#[derive(Debug, Default)]
struct Internet {
    hosts: HashMap<&'static str, Vec<IpAddr>>,
    services: HashMap<&'static str, Vec<Service>>,
    delegated: HashMap<&'static str, &'static str>,
}

impl Dns for Internet {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DnsError>> {
        Box::pin(std::future::ready(Ok(self.hosts.get(host).cloned().unwrap_or_default())))
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, DnsError>> {
        Box::pin(std::future::ready(Ok(self.services.get(name).cloned().unwrap_or_default())))
    }
}

impl Web for Internet {
    fn get(&self, uri: Uri) -> BoxFuture<'_, Option<http::Response<Bytes>>> {
        let server = uri.host().and_then(|host| self.delegated.get(host));
        let page = server.map(|server| {
            http::Response::new(Bytes::from(format!(r#"{{"m.server":"{server}"}}"#)))
        });
        Box::pin(std::future::ready(page))
    }
}

fn service(priority: u16, weight: u16, host: &str, port: u16) -> Service {
    Service { priority, weight, host: host.to_owned(), port }
}

/// Where a name leads: `Host`, and addresses or what went wrong.
fn find(internet: Internet, name: &str) -> (String, Result<Vec<String>, String>) {
    let (internet, env) = (Arc::new(internet), Env::system());
    let env = Env { entropy: Arc::new(SeededEntropy::new(1)), ..env };
    let policy = Arc::new(AddressPolicy::new(Vec::new()));
    let locator = Locator { dns: internet.clone(), policy };
    let discovery = Discovery::new(locator, WellKnown::new(internet, env.clock.clone()), env);
    let found = async {
        let name = <&ServerName>::try_from(name).expect("a server name");
        let delegated = discovery.delegate(name).await;
        let places = discovery.locate(&delegated).await;
        let places = places.map(|places| places.iter().map(ToString::to_string).collect());
        (delegated.to_string(), places.map_err(|error| error.to_string()))
    };
    found.now_or_never().expect("nothing to wait for")
}

fn internet(
    services: &[(&'static str, &'static str, u16)],
    delegated: &[(&'static str, &'static str)],
) -> Internet {
    let hosts = [("a.org", 1), ("b.org", 2), ("c.org", 3), ("d.org", 4)];
    let services =
        services.iter().map(|(name, host, port)| (*name, vec![service(1, 1, host, *port)]));
    Internet {
        hosts: hosts.map(|(host, number)| (host, vec![IpAddr::from([1, 1, 1, number])])).into(),
        services: services.collect(),
        delegated: delegated.iter().copied().collect(),
    }
}

// Checklist 11.1, 11.2
#[test]
fn the_steps_of_the_specification_in_their_order() {
    const FED_A: &str = "_matrix-fed._tcp.a.org";
    const OLD_A: &str = "_matrix._tcp.a.org";
    const FED_B: &str = "_matrix-fed._tcp.b.org";
    const OLD_B: &str = "_matrix._tcp.b.org";
    let all =
        [(FED_A, "c.org", 10), (OLD_A, "d.org", 11), (FED_B, "c.org", 20), (OLD_B, "d.org", 21)];
    let delegate = |to: &'static str| vec![("a.org", to), ("1.1.1.9", "b.org")];
    for (name, services, delegated, host, address) in [
        // 1: an IP address
        ("1.1.1.9", &all[..], delegate("b.org"), "1.1.1.9", "1.1.1.9:8448"),
        ("1.1.1.9:5", &all[..], delegate("b.org"), "1.1.1.9:5", "1.1.1.9:5"),
        ("[2606:4700::1]:5", &all[..], delegate("b.org"), "[2606:4700::1]:5", "[2606:4700::1]:5"),
        ("[2606:4700::1]", &all[..], delegate("b.org"), "[2606:4700::1]", "[2606:4700::1]:8448"),
        // 2: a port
        ("a.org:5", &all[..], delegate("b.org"), "a.org:5", "1.1.1.1:5"),
        // 3: somebody stands for it
        ("a.org", &all[..], delegate("1.1.1.8"), "1.1.1.8", "1.1.1.8:8448"),
        ("a.org", &all[..], delegate("1.1.1.8:6"), "1.1.1.8:6", "1.1.1.8:6"),
        ("a.org", &all[..], delegate("b.org:6"), "b.org:6", "1.1.1.2:6"),
        ("a.org", &all[..], delegate("b.org"), "b.org", "1.1.1.3:20"),
        ("a.org", &all[3..], delegate("b.org"), "b.org", "1.1.1.4:21"),
        ("a.org", &all[..2], delegate("b.org"), "b.org", "1.1.1.2:8448"),
        // 4 to 6: nobody does
        ("a.org", &all[..], vec![], "a.org", "1.1.1.3:10"),
        ("a.org", &all[1..], vec![], "a.org", "1.1.1.4:11"),
        ("a.org", &all[..0], vec![], "a.org", "1.1.1.1:8448"),
    ] {
        let found = find(internet(services, &delegated), name);
        assert_eq!(found, (host.to_owned(), Ok(vec![address.to_owned()])), "{name} {delegated:?}");
    }
}

#[test]
fn services_go_by_priority_then_weight() {
    let mut internet = internet(&[], &[]);
    let services = vec![
        service(2, 0, "a.org", 1),
        service(1, 1, "b.org", 2),
        service(1, 60_000, "c.org", 3),
        service(3, 0, "nowhere.org", 4),
    ];
    internet.services.insert("_matrix-fed._tcp.a.org", services);
    let (_, places) = find(internet, "a.org");
    assert_eq!(places.expect("places"), ["1.1.1.3:3", "1.1.1.2:2", "1.1.1.1:1"]);
}

#[test]
fn private_addresses_are_left_out_however_they_are_named() {
    let private = || {
        let mut internet = internet(&[], &[("b.org", "10.0.0.1"), ("c.org", "d.org:1")]);
        let [inside, outside] = [[192, 168, 0, 1], [1, 1, 1, 7]].map(IpAddr::from);
        internet.hosts.insert("a.org", vec![inside, outside]);
        internet.hosts.insert("d.org", vec![inside]);
        internet.services.insert("_matrix-fed._tcp.e.org", vec![service(1, 1, "127.0.0.1", 1)]);
        internet
    };
    assert_eq!(find(private(), "a.org:1").1, Ok(vec!["1.1.1.7:1".to_owned()]));
    for name in ["127.0.0.1:1", "[::1]", "b.org", "c.org", "d.org", "e.org"] {
        let error = find(private(), name).1.expect_err(name);
        assert!(error.contains("private"), "{name}: {error}");
    }
    let error = find(private(), "nowhere.org").1.expect_err("nowhere");
    assert_eq!(error, "nowhere.org has no address");
}
