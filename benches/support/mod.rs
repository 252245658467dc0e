//! A server in a process of its own, and a client as thin as can be: a thread and a kept-alive
//! connection per user, no parsing but of the status and the length, since it shares the machine
//! with the server.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
/// Real time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A server that ends with the benchmark.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Server {
    /// A server of this name on an empty data directory.
    pub(crate) fn start(name: &str) -> Self {
        let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let config = format!(
            "[server]\nname = \"{name}\"\ndata_dir = {:?}\ntest_mode = true\n\
             [[listeners]]\naddress = \"127.0.0.1\"\nport = {}\napis = [\"client\"]\n\
             [registration]\nmode = \"open\"\n[log]\nlevel = \"warn\"\n",
            dir.path().join("data"),
            address.port(),
        );
        fs::write(dir.path().join("parlour.toml"), config).expect("configuration");
        let mut server = Self { child: None, address, dir };
        server.launch();
        server
    }

    /// Starts the process on the data that are there.
    pub(crate) fn launch(&mut self) {
        // Another build of the server can be measured beside this one, in the same run of the machine.
        let ours = env!("CARGO_BIN_EXE_parlour").into();
        let binary = std::env::var_os("BENCH_BINARY").unwrap_or(ours);
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(self.dir.path().join("parlour.toml"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        self.child = Some(child);
        while TcpStream::connect(self.address).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the process; the data stay.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where the data are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Waits until the server has nothing to do: after a start it catches up with its search index.
    pub(crate) fn settle(&self) {
        let mut last = self.cpu();
        loop {
            thread::sleep(Duration::from_secs(2));
            let now = self.cpu();
            if now - last <= Duration::from_millis(40) {
                return;
            }
            last = now;
        }
    }

    /// The memory that the server has of the machine, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: usize =
            line.split_whitespace().nth(1).expect("a value").parse().expect("a number");
        kib << 10
    }

    /// CPU time of the server so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.child.as_ref().expect("it runs").id())
    }
}

/// CPU time of a process so far, from the kernel's clock ticks of 10 ms.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("procfs");
    let after_name = stat.rsplit_once(')').expect("name in brackets").1;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A kept-alive connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    pub(crate) token: String,
}

impl Connection {
    /// A connection with this access token.
    pub(crate) fn open(address: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(address).expect("connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream), token: token.to_owned() }
    }

    /// Asks, and reads the JSON of a successful answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Value {
        serde_json::from_slice(&self.ask_raw(method, path, body)).expect("JSON")
    }

    /// The same without reading the JSON.
    pub(crate) fn ask_raw(&mut self, method: &str, path: &str, body: &str) -> Vec<u8> {
        self.begin(method, path, body);
        self.finish(method, path)
    }

    /// Asks, and does not wait for the answer.
    pub(crate) fn begin(&mut self, method: &str, path: &str, body: &str) {
        let authorization = match &*self.token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        self.write(method, &format!("/_matrix/client/v3/{path}"), &authorization, body);
    }

    /// Asks with any `Authorization`, and gives the body of a successful answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        authorization: &str,
        body: &str,
    ) -> Vec<u8> {
        self.write(method, path, &format!("Authorization: {authorization}\r\n"), body);
        self.finish(method, path)
    }

    fn write(&mut self, method: &str, path: &str, authorization: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             {authorization}Content-Length: {}\r\n\r\n{body}",
            body.len(),
        );
        self.stream.get_mut().write_all(request.as_bytes()).expect("written");
    }

    /// Reads the answer to what was asked.
    fn finish(&mut self, method: &str, path: &str) -> Vec<u8> {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("status");
        let ok = line.contains(" 200 ");
        let (mut length, mut is_chunked) = (0, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("header");
            if line.trim().is_empty() {
                break;
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("length");
            }
            is_chunked |= header.starts_with("transfer-encoding:");
        }
        let body = if is_chunked { self.chunks() } else { self.bytes(length) };
        assert!(ok, "{method} {path}: {}", String::from_utf8_lossy(&body));
        body
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).expect("body");
        bytes
    }

    /// A body in chunks, as other servers than Parlour send it.
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("length of a chunk");
            let length = usize::from_str_radix(line.trim(), 16).expect("length of a chunk");
            body.extend(self.bytes(length));
            self.bytes(2);
            if length == 0 {
                return body;
            }
        }
    }
}

/// A string in an answer.
pub(crate) fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// A new user.
pub(crate) fn register(address: SocketAddr, name: &str) -> Connection {
    let mut connection = Connection::open(address, "");
    let body =
        json!({ "username": name, "password": "benchmark", "auth": { "type": "m.login.dummy" } });
    let answer = connection.ask("POST", "register", &body.to_string());
    Connection::open(address, &text(&answer, "access_token"))
}
