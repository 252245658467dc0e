//! Durable events per second over HTTP, against a server in a process of its own: one sender,
//! 16 senders in one room, 100 rooms. Prints events/s, latency percentiles and the server's CPU
//! time per event, and checks at the end that every acknowledged event is there.
//!
//! The client is as thin as can be (a thread and a kept-alive connection per sender, no parsing
//! but of the status and the length), since it shares the machine with the server.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long each scenario runs.
const RUN: Duration = Duration::from_secs(5);

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// A server that ends with the benchmark.
struct Server {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir()).expect("folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let config = format!(
            "[server]\nname = \"localhost\"\ndata_dir = {:?}\ntest_mode = true\n\
             [[listeners]]\naddress = \"127.0.0.1\"\nport = {}\napis = [\"client\"]\n\
             [registration]\nmode = \"open\"\n[log]\nlevel = \"warn\"\n",
            data.path().join("data"),
            address.port(),
        );
        let file = data.path().join("parlour.toml");
        fs::write(&file, config).expect("configuration");
        // Another build of the server can be measured beside this one, in the same run of the machine.
        let ours = env!("CARGO_BIN_EXE_parlour").into();
        let binary = std::env::var_os("BENCH_BINARY").unwrap_or(ours);
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        while TcpStream::connect(address).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
        Self { child, address, _data: data }
    }

    /// CPU time of the server so far, from the kernel's clock ticks of 10 ms.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("procfs");
        let after_name = stat.rsplit_once(')').expect("name in brackets").1;
        let fields: Vec<_> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kept-alive connection.
struct Connection {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Connection {
    fn open(address: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(address).expect("connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream), token: token.to_owned() }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Value {
        let request = format!(
            "{method} /_matrix/client/v3/{path} HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len(),
        );
        self.stream.get_mut().write_all(request.as_bytes()).expect("written");
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("status");
        let ok = line.contains(" 200 ");
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("header");
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("body");
        assert!(ok, "{method} {path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn register(address: SocketAddr, name: &str) -> Connection {
    let mut connection = Connection::open(address, "");
    let body =
        json!({ "username": name, "password": "benchmark", "auth": { "type": "m.login.dummy" } });
    let answer = connection.ask("POST", "register", &body.to_string());
    Connection::open(address, &text(&answer, "access_token"))
}

/// Sends to a room until the time is over.
fn send_until(
    connection: &mut Connection,
    room: &str,
    sender: usize,
    until: Instant,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let body =
        json!({ "msgtype": "m.text", "body": "a message of the usual length, more or less" });
    let body = body.to_string();
    while now() < until {
        let path = format!("rooms/{room}/send/m.room.message/{sender}-{}", latencies.len());
        let started = now();
        connection.ask("PUT", &path, &body);
        latencies.push(started.elapsed());
    }
    latencies
}

fn scenario(name: &str, rooms: usize, senders: usize) {
    let server = Server::start();
    let mut alice = register(server.address, "alice");
    let create = json!({ "preset": "public_chat" }).to_string();
    let ids: Arc<Vec<_>> = Arc::new(
        (0..rooms).map(|_| text(&alice.ask("POST", "createRoom", &create), "room_id")).collect(),
    );
    let mut connections = Vec::new();
    for number in 0..senders {
        let mut sender = register(server.address, &format!("sender{number}"));
        let room = &ids[number % rooms];
        sender.ask("POST", &format!("join/{room}"), "{}");
        connections.push(sender);
    }
    let (started, cpu_before) = (now(), server.cpu());
    let until = started + RUN;
    let threads: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(number, mut connection)| {
            let ids = ids.clone();
            thread::spawn(move || {
                send_until(&mut connection, &ids[number % ids.len()], number, until)
            })
        })
        .collect();
    let mut latencies: Vec<_> =
        threads.into_iter().flat_map(|thread| thread.join().expect("sender")).collect();
    let (elapsed, used) = (started.elapsed(), server.cpu() - cpu_before);
    report(name, &mut latencies, elapsed, used);
    let found: usize = ids.iter().map(|room| count_messages(&mut alice, room)).sum();
    assert_eq!(found, latencies.len(), "every acknowledged event is there, once");
}

fn report(name: &str, latencies: &mut [Duration], elapsed: Duration, used: Duration) {
    latencies.sort_unstable();
    let percentile =
        |part: usize| latencies[(latencies.len() - 1) * part / 100].as_secs_f64() * 1e3;
    let events = latencies.len() as f64;
    println!(
        "{name:<24} {:>8.0} events/s   p50 {:>7.3} ms   p99 {:>7.3} ms   {:>6.1} us of server CPU per event",
        events / elapsed.as_secs_f64(),
        percentile(50),
        percentile(99),
        used.as_secs_f64() * 1e6 / events,
    );
}

/// Pages through a room's whole history.
fn count_messages(connection: &mut Connection, room: &str) -> usize {
    let (mut count, mut from) = (0, String::new());
    loop {
        let page =
            connection.ask("GET", &format!("rooms/{room}/messages?dir=b&limit=1000{from}"), "");
        let chunk = page["chunk"].as_array().map(Vec::as_slice).unwrap_or_default();
        count += chunk.iter().filter(|event| event["type"] == "m.room.message").count();
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return count,
        }
    }
}

fn main() {
    scenario("one sender", 1, 1);
    scenario("16 senders, one room", 1, 16);
    scenario("100 rooms", 100, 100);
}
