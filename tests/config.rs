//! The configuration, from files and environment to a value or one line of complaint.

use std::{collections::BTreeSet, time::Duration};

use parlour::{
    config::{
        Config, ConfigError, DEFAULT, DataDir, LogFormat, ProfileLookup, RegistrationMode, Source,
    },
    http::Api,
};

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load(&Source { environment: environment.collect(), ..Source::text(text) })
}

#[test]
fn the_shipped_file_is_the_default() {
    let config = load("", &[]).expect("the default is good");
    assert_eq!(config.server.name, "localhost");
    assert_eq!(config.server.data, DataDir::Path("./data".into()));
    assert!(!config.server.test_mode && config.server.public_url.is_none());
    assert_eq!(config.rooms.default_version.as_str(), "12");
    assert_eq!(config.rooms.idle_timeout, Duration::from_secs(600));
    assert!(config.registration.mode == RegistrationMode::Local);
    assert!(config.registration.shared_secret.is_none());
    assert_eq!(config.users.profile_lookup, ProfileLookup::Everybody);
    assert!(config.presence.enabled && !config.users.directory_of_all);
    assert_eq!(config.sync.max_wait, Duration::from_secs(60));
    assert!(config.rate_limits.enabled);
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(config.threads.http >= 1 && config.threads.rooms >= 1);
    let memory = config.memory;
    assert!(memory.index_cache + memory.state_cache + memory.rooms <= 256 << 20);
    // A fresh server is reachable from its own machine only.
    assert!(config.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
    let apis: Vec<BTreeSet<Api>> = config.listeners.into_iter().map(|l| l.apis).collect();
    assert_eq!(apis, [[Api::Client, Api::Admin].into(), [Api::Metrics].into()]);
    // And the file itself, given as a file, changes nothing.
    load(DEFAULT, &[]).expect("the shipped file is a good file");
}

#[test]
fn every_key_is_documented() {
    let mut documented = false;
    let mut keys = 0;
    for (number, line) in DEFAULT.lines().enumerate() {
        match line.trim() {
            // One comment may stand for a few keys that follow each other.
            "" => documented = false,
            comment if comment.starts_with('#') => documented = true,
            section if section.starts_with('[') => {}
            key => {
                keys += 1;
                // A second listener repeats the keys that the first explains.
                let repeated = DEFAULT
                    .lines()
                    .take(number)
                    .any(|before| before.split(" = ").next() == key.split(" = ").next());
                assert!(documented || repeated, "line {}: {key}", number + 1);
            }
        }
    }
    assert!(keys > 30, "{keys} keys");
}

#[test]
fn layers() {
    let file = "server.name = \"file.example\"\nrooms.default_version = \"10\"";
    let environment = [("PARLOUR_SERVER__NAME", "env.example"), ("HOME", "/nowhere")];
    let config = load(file, &environment).expect("good");
    assert_eq!(config.server.name, "env.example", "the environment wins over the file");
    assert_eq!(config.rooms.default_version.as_str(), "10", "the file wins over the default");
    assert_eq!(config.max_client_body, 4 << 20, "the rest is the default");
}

#[test]
fn environment_values_have_the_type_of_their_key() {
    let config = load(
        "",
        &[
            ("PARLOUR_REGISTRATION__SHARED_SECRET", "12345"),
            ("PARLOUR_REGISTRATION__MODE", "token"),
            ("PARLOUR_REGISTRATION__TOKENS", r#"["one", "two"]"#),
            ("PARLOUR_LIMITS__ENABLED", "false"),
            ("PARLOUR_LIMITS__LOGIN__BURST", "7"),
            ("PARLOUR_LIMITS__LOGIN__PER_SECOND", "3"),
            ("PARLOUR_MEMORY__BUDGET", "100000000"),
            ("PARLOUR_LISTENERS", r#"[{ address = "::1", port = 0, apis = ["client"] }]"#),
        ],
    )
    .expect("good");
    assert_eq!(config.registration.shared_secret.as_deref(), Some("12345"));
    assert!(config.registration.mode == RegistrationMode::Token(vec!["one".into(), "two".into()]));
    assert!(!config.rate_limits.enabled);
    assert_eq!(config.rate_limits.login.burst, 7);
    assert!((config.rate_limits.login.per_second - 3.0).abs() < f64::EPSILON);
    assert_eq!(config.memory.index_cache, 18_000_000);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address.to_string(), "[::1]:0");
}

/// A file, the environment, and the words that the complaint must have.
type Complaint<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn complaints_are_one_line_that_names_the_key() {
    let listener = |rest: &str| format!("[[listeners]]\naddress = \"127.0.0.1\"\nport = 1\n{rest}");
    let terms = |id: &str, version: &str, url: &str| {
        format!(
            "[[registration.terms]]\nid = \"{id}\"\nversion = \"{version}\"\n\
             languages.en = {{ name = \"n\", url = \"{url}\" }}\n"
        )
    };
    let cases: &[Complaint<'_>] = &[
        ("server.nmae = \"x\"", &[], &["server.nmae", "unknown"]),
        ("nonsense = 1", &[], &["nonsense", "unknown"]),
        ("[nonsense]\na = 1", &[], &["nonsense", "unknown"]),
        (
            "limits.login = { per_second = 1.0, burst = 1, x = 2 }",
            &[],
            &["limits.login.x", "unknown"],
        ),
        (&listener("apis = [\"client\"]\ntls = true"), &[], &["listeners", "tls", "unknown"]),
        ("", &[("PARLOUR_SERVER__NMAE", "x")], &["PARLOUR_SERVER__NMAE", "server.nmae"]),
        ("", &[("PARLOUR_NONSENSE", "x")], &["PARLOUR_NONSENSE"]),
        ("", &[("PARLOUR_LIMITS__ENABLED", "maybe")], &["PARLOUR_LIMITS__ENABLED"]),
        ("", &[("PARLOUR_LIMITS__ENABLED", "7")], &["PARLOUR_LIMITS__ENABLED", "limits.enabled"]),
        ("", &[("PARLOUR_ROOMS__IDLE_SECONDS", "-1")], &["PARLOUR_ROOMS__IDLE_SECONDS"]),
        ("server.name = 7", &[], &["server.name"]),
        ("server.name = \"not a name\"", &[], &["server.name", "not a name", "example.org"]),
        ("server.data_dir = \"\"", &[], &["server.data_dir", "memory"]),
        ("server.public_url = \"example.org\"", &[], &["server.public_url", "https://"]),
        ("server.trusted_proxies = [\"x\"]", &[], &["server.trusted_proxies", "10.0.0.0/8"]),
        ("federation.allowed_private_ranges = [\"1.2.3.4/40\"]", &[], &["allowed_private_ranges"]),
        ("federation.delegate_to = \"/\"", &[], &["federation.delegate_to", "matrix.example.org"]),
        ("federation.deny_servers = [\"*.a:1\"]", &[], &["federation.deny_servers", "*.a:1"]),
        ("federation.trusted_key_servers = [\"\"]", &[], &["federation.trusted_key_servers"]),
        (
            "federation.old_keys = [{ id = \"a\", key = \"\", expired_ts = 1 }]",
            &[],
            &["federation.old_keys[0].id", "ed25519:a_1"],
        ),
        (
            "federation.old_keys = [{ id = \"ed25519:a\", key = \"x\", expired_ts = 1 }]",
            &[],
            &["federation.old_keys[0].key"],
        ),
        ("listeners = []", &[], &["listeners"]),
        (&listener("apis = []"), &[], &["listeners[0].apis"]),
        (&listener("apis = [\"nonsense\"]"), &[], &["listeners", "apis", "nonsense"]),
        (&listener("apis = [\"client\"]\ntls_key = \"k\""), &[], &["listeners[0].tls_certificate"]),
        (&listener("apis = [\"client\"]\ntls_certificate = \"c\""), &[], &["listeners[0].tls_key"]),
        (&(listener("apis = [\"client\"]\n") + &listener("apis = [\"client\"]")), &[], &["twice"]),
        ("registration.mode = \"nobody\"", &[], &["registration.mode", "nobody"]),
        ("registration.tokens = [\"a b\"]", &[], &["registration.tokens"]),
        (&terms("a b", "1", "http://x/"), &[], &["registration.terms", "a b"]),
        (&terms("a", "", "http://x/"), &[], &["registration.terms", "version"]),
        (&terms("a", "1", "x"), &[], &["registration.terms", "URL"]),
        (&(terms("a", "1", "http://x") + &terms("a", "1", "http://x")), &[], &["twice"]),
        (
            "sessions.refreshable_token_lifetime_seconds = 0",
            &[],
            &["sessions.refreshable_token_lifetime_seconds"],
        ),
    ];
    complain(cases);
}

#[test]
fn complaints_about_what_users_do_name_the_key() {
    complain(&[
        ("rooms.default_version = \"13\"", &[], &["rooms.default_version", "13"]),
        ("rooms.max_queue = 0", &[], &["rooms.max_queue"]),
        ("rooms.policy_server_key = \"AAAA\"", &[], &["rooms.policy_server_key", "32 bytes"]),
        ("support.contacts = [{ role = \"\" }]", &[], &["support.contacts[0].role"]),
        (
            "support.contacts = [{ role = \"m.role.admin\" }]",
            &[],
            &["support.contacts[0].email_address", "matrix_id"],
        ),
        (
            "support.contacts = [{ role = \"m.role.admin\", matrix_id = \"me\" }]",
            &[],
            &["support.contacts[0].matrix_id", "`me`"],
        ),
        ("users.directory = \"nobody\"", &[], &["directory"]),
        ("presence.idle_seconds = 0", &[], &["presence", "enabled = false"]),
        ("presence.offline_seconds = 0", &[], &["presence", "enabled = false"]),
        ("sync.max_wait_seconds = 0", &[], &["sync.max_wait_seconds"]),
        (
            "limits.login = { per_second = 0.0, burst = 1 }",
            &[],
            &["limits.login", "limits.enabled"],
        ),
        ("limits.join = { per_second = 1.0, burst = 0 }", &[], &["limits.join", "burst"]),
        ("limits.max_client_body = 10", &[], &["limits.max_client_body", "65536"]),
        ("memory.budget = 1", &[], &["memory.budget"]),
        ("memory.rooms_percent = 50", &[], &["memory", "100"]),
        ("memory.rooms_percent = 18446744073709551615", &[], &["memory"]),
        ("turn.uris = [\"stun:a\"]", &[], &["turn.uris", "`stun:a`", "turn:turn.example.org"]),
        ("turn.uris = [\"turn:a\"]", &[], &["`turn`", "shared_secret", "password"]),
        (
            "turn = { uris = [\"turn:a\"], username = \"a\", shared_secret = \"b\" }",
            &[],
            &["`turn`", "either"],
        ),
        ("turn = { uris = [\"turn:a\"], lifetime_seconds = 0 }", &[], &["turn.lifetime_seconds"]),
        ("log.level = \"loud=very\"", &[], &["log.level", "loud=very"]),
        ("log.format = \"xml\"", &[], &["log.format", "xml"]),
        ("this is no TOML", &[], &["the given text"]),
    ]);
}

fn complain(cases: &[Complaint<'_>]) {
    for (text, environment, words) in cases {
        let complaint = load(text, environment).expect_err(text).to_string();
        for word in *words {
            assert!(complaint.contains(word), "{text} {environment:?}: no {word} in: {complaint}");
        }
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let source = Source { file: Some("/no/such/parlour.toml".into()), ..Source::default() };
    let complaint = Config::load(&source).expect_err("missing").to_string();
    assert!(complaint.contains("/no/such/parlour.toml"), "{complaint}");
}

#[test]
fn a_file_is_named_in_its_complaints() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "server.nmae = \"x\"").expect("write");
    let source = Source { file: Some(file.path().to_owned()), ..Source::default() };
    let complaint = Config::load(&source).expect_err("unknown key").to_string();
    assert!(complaint.contains(&file.path().display().to_string()), "{complaint}");
    assert!(complaint.contains("server.nmae"), "{complaint}");
}

#[test]
fn test_mode_is_for_this_machine_only() {
    let config = load("server.test_mode = true", &[]).expect("the default listens on loopback");
    assert!(!config.rate_limits.enabled, "no limits in test mode");
    for address in ["0.0.0.0", "::", "192.0.2.1"] {
        let listener = format!("[{{ address = \"{address}\", port = 0, apis = [\"client\"] }}]");
        let complaint = load("server.test_mode = true", &[("PARLOUR_LISTENERS", &listener)])
            .expect_err(address)
            .to_string();
        assert!(complaint.contains("test_mode") && complaint.contains(address), "{complaint}");
    }
    let seed = |test_mode: &str| load(&format!("{test_mode}\n[test]\nseed = 3"), &[]);
    assert_eq!(seed("server.test_mode = true").expect("good").seed(), Some(3));
    assert!(seed("").expect_err("no test mode").to_string().contains("server.test_mode"));
    let memory = "server = { test_mode = true, data_dir = \"memory\" }";
    assert_eq!(load(memory, &[]).expect("good").seed(), Some(0));
    assert_eq!(load("server.test_mode = true", &[]).expect("good").seed(), None);
    for wrong in ["flush_delay_ms = 60001", "failing_writes = -2", "failing_flushes = 5000000000"] {
        let complaint = load(&format!("server.test_mode = true\n[test]\n{wrong}"), &[]);
        let (complaint, key) = (complaint.expect_err(wrong).to_string(), &wrong[..12]);
        assert!(complaint.contains(&format!("test.{key}")), "{complaint}");
    }
    load(&format!("{memory}\n[test]\nfailing_writes = 1"), &[]).expect_err("no disk");
}

#[test]
fn secrets_do_not_reach_logs() {
    let registration =
        "registration = { mode = \"token\", tokens = [\"hush1\"], shared_secret = \"hush2\" }";
    for turn in ["shared_secret = \"hush3\"", "username = \"hush4\", password = \"hush5\""] {
        let turn = format!("turn = {{ uris = [\"turn:a\"], {turn} }}");
        let config = load(&format!("{registration}\n{turn}"), &[]).expect("good");
        let shown = format!("{config:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }
}
