//! A child process with its own data directory, that can be killed and started again.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use super::{coverage, http::Client, user::User};

/// The password of every user of the tests.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// What `/_synapse/admin/v1/register` is called with.
pub(crate) const SHARED_SECRET: &str = "a secret that tests share";

/// How long a start may take, recovery from the log included.
const START: Duration = Duration::from_secs(60);

/// How long a stop may take, whatever clients do meanwhile.
const STOP: Duration = Duration::from_secs(10);

/// A running server.
pub(crate) struct Server {
    child: Option<Child>,
    dir: TempDir,
    settings: Vec<(String, String)>,
    /// Without an access token.
    pub(crate) http: Client,
    base: String,
}

impl Server {
    /// Starts a server on an empty data directory and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with more settings, as environment variables (`PARLOUR_...`).
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        server.launch();
        server
    }

    /// A server that has a configuration and an address, but no data and no process yet.
    pub(crate) fn prepare(settings: &[(&str, &str)]) -> Self {
        Self::prepare_at(free_port(), settings)
    }

    /// The same, listening for clients on this port.
    pub(super) fn prepare_at(port: u16, settings: &[(&str, &str)]) -> Self {
        let base = format!("http://127.0.0.1:{port}");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("parlour.toml"), config(dir.path(), port)).unwrap();
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let http = Client::new(&base);
        Self { child: None, dir, settings, http, base }
    }

    /// The same server with more settings, from its next start on.
    pub(crate) fn with(mut self, settings: &[(&str, &str)]) -> Self {
        let more = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        self.settings.extend(more);
        self
    }

    /// Kills the server, as the kernel would: SIGKILL, nothing is flushed.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts the killed server again on the same data and the same address.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Asks the server to stop, by SIGTERM, and waits until it has.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let id = self.pid().to_string();
        let mut child = self.child.take().expect("it runs");
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let until = deadline(STOP);
        while !until.passed() {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the server didn't stop within {STOP:?}");
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What all its processes so far have written to their standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// Runs another command of the binary with the server's configuration, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    /// The same, with more settings as environment variables.
    pub(crate) fn run_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Ran {
        let mut command = self.command(arguments);
        Ran::of(arguments, &command.envs(settings.iter().copied()).output().unwrap())
    }

    /// Runs `parlour load` against the server, to its end.
    pub(crate) fn load(&self, arguments: &[&str]) -> Ran {
        let mut command = bare(&["load", "--target", &self.base]);
        let command = command.args(arguments).current_dir(self.dir.path());
        Ran::of(arguments, &command.output().unwrap())
    }

    /// The directory with the configuration and the data; commands run in it.
    pub(crate) fn home(&self) -> &Path {
        self.dir.path()
    }

    /// The directory with the server's data.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its settings beside the configuration file.
    pub(super) fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Where it listens: `http://127.0.0.1:port`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Registers a user, who is then logged in.
    #[track_caller]
    pub(crate) fn user(&self, name: &str) -> User {
        let body = json!({ "username": name, "password": PASSWORD,
            "auth": { "type": "m.login.dummy" } });
        let answer = self.http.post("/_matrix/client/v3/register", &body).ok();
        User::from_login(&self.http, &answer)
    }

    /// The same user on another device.
    #[track_caller]
    pub(crate) fn login(&self, name: &str) -> User {
        let body = json!({ "type": "m.login.password", "password": PASSWORD,
            "identifier": { "type": "m.id.user", "user": name } });
        let answer = self.http.post("/_matrix/client/v3/login", &body).ok();
        User::from_login(&self.http, &answer)
    }

    /// Waits until so many syncs are parked.
    #[track_caller]
    pub(crate) fn await_parked(&self, count: u64) {
        self.await_metric(&format!("parlour_parked_syncs {count}"));
    }

    /// Waits until the metrics have this line.
    #[track_caller]
    pub(crate) fn await_metric(&self, wanted: &str) {
        let until = deadline(START);
        while !self.metrics().lines().any(|line| line == wanted) {
            assert!(!until.passed(), "the metrics never had {wanted}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The value of a metric, which is 0 before it is first counted.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let lines = metrics.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.into_iter().find(|(found, _)| *found == name);
        found.map_or(0.0, |(_, value)| value.parse().unwrap())
    }

    /// All metrics.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.base);
        ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// A known user with fresh connections: those to a killed server are dead.
    pub(crate) fn again(&self, user: &User) -> User {
        User { http: Client::new(&self.base).with_token(&user.token), ..user.clone() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command
            .arg("--config")
            .arg(self.dir.path().join("parlour.toml"))
            .envs(self.settings.iter().cloned())
            .current_dir(self.dir.path());
        command
    }

    /// Starts the process for the first time.
    pub(crate) fn launch(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.command(&["serve"]);
        command.stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        self.child = Some(command.spawn().unwrap());
        self.http = Client::new(&self.base);
        self.await_ready();
    }

    fn await_ready(&mut self) {
        let until = deadline(START);
        while !until.passed() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("the server ended with {status}:\n{}", tail(&self.log_file()));
            }
            if self.http.try_send("GET", "/_matrix/client/versions", b"").is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the server didn't answer within {START:?}:\n{}", tail(&self.log_file()));
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }
}

/// The binary with these arguments.
fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlour"));
    // The settings of whoever runs the tests are not the settings of the tests.
    let foreign = std::env::vars_os().map(|(name, _)| name);
    for name in foreign.filter(|name| name.as_encoded_bytes().starts_with(b"PARLOUR_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        coverage::write();
        if thread::panicking() {
            eprintln!("--- the server's log ---\n{}", tail(&self.log_file()));
        }
    }
}

/// A command that has run to its end.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    /// Whatever the command was, nobody sat at a terminal: it has written plain lines.
    #[track_caller]
    fn of(arguments: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let plain = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
        assert!(plain(&out) && plain(&err), "{arguments:?}: {out:?} {err:?}");
        let code = output.status.code().unwrap_or_else(|| panic!("{arguments:?}: {output:?}"));
        Self { code, out, err }
    }

    /// The standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// The last line of standard error of a command that must fail with exit code 1.
    #[track_caller]
    pub(crate) fn failed(&self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        self.err.lines().last().unwrap_or_default().to_owned()
    }

    /// The same, where nothing else may be there.
    #[track_caller]
    pub(crate) fn failed_in_one_line(&self) -> String {
        let line = self.failed();
        assert_eq!(self.err, format!("{line}\n"), "{self:?}");
        line
    }
}

/// A moment after which to give up.
pub(crate) struct Deadline(Instant);

/// A deadline this far from now.
#[allow(clippy::disallowed_methods, reason = "a test waits for a real process")]
pub(crate) fn deadline(within: Duration) -> Deadline {
    Deadline(Instant::now() + within)
}

impl Deadline {
    /// Whether it is too late.
    #[allow(clippy::disallowed_methods, reason = "a test waits for a real process")]
    pub(crate) fn passed(&self) -> bool {
        Instant::now() >= self.0
    }
}

/// A port that was free a moment ago, and that nobody else in this process gets. It is fixed in the
/// configuration, so that a restarted server is found at its old address.
pub(super) fn free_port() -> u16 {
    // Below those that the system chooses for connections: none of these takes it meanwhile.
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = GIVEN.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id() * 61);
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn config(dir: &Path, port: u16) -> String {
    let data = dir.join("data");
    format!(
        r#"
[server]
name = "localhost"
data_dir = {data:?}
test_mode = true

[[listeners]]
address = "127.0.0.1"
port = {port}
apis = ["client", "admin", "metrics", "federation"]

[registration]
mode = "open"
shared_secret = "{SHARED_SECRET}"

[federation]
allow_servers = ["nobody.invalid"]
trusted_key_servers = []

# Those who test it turn it on: it would wake all others.
[presence]
enabled = false

[log]
level = "info"
format = "text"
"#
    )
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |about| about.len());
    let mut bytes = Vec::new();
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(16_384)));
    let _ = file.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
