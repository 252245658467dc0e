//! Requests that no HTTP library would send.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::common::path;

/// Bytes to send, and what is expected.
pub(super) struct Case {
    bytes: Vec<u8>,
    /// Whether it is still HTTP, so that Matrix must answer.
    is_http: bool,
}

fn request(line: &[u8], headers: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = line.to_vec();
    bytes.extend(b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    bytes.extend(headers);
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
    bytes.extend(body);
    bytes
}

/// All of them.
pub(super) fn cases(token: &str, room: &str) -> Vec<Case> {
    let bearer = format!("authorization: Bearer {token}\r\n").into_bytes();
    let send = path("PUT /_matrix/client/v3/rooms/{}/send/m.room.message/", &[room]).into_bytes();
    let mut all = Vec::new();
    let mut http = |bytes| all.push(Case { bytes, is_http: true });
    for name in [
        "authorization: \u{e9}\u{0}x",
        "authorization: Bearer \u{ff}",
        "authorization: Bearer a\tb",
    ] {
        let header = format!("{name}\r\n").replace('\u{0}', "").into_bytes();
        http(request(b"GET /_matrix/client/v3/sync", &header, b""));
    }
    let twice = [b"authorization: Bearer x\r\n".as_slice(), b"authorization: Basic y\r\n"].concat();
    http(request(b"GET /_matrix/client/v3/sync", &twice, b""));
    http(request(b"GET /_matrix/client/v3/sync?since=%", &bearer, b""));
    http(request(b"GET /_matrix/client/v3/rooms/!a:b/state/{}", &bearer, b""));
    http(request(b"GET //", &bearer, b""));
    http(request(b"GET /_matrix/client/v3/../v3/sync", &bearer, b""));
    http(request(b"BREW /_matrix/client/v3/sync", &bearer, b""));
    http(request(b"TRACE /_matrix/client/v3/sync", &bearer, b""));
    http(request(&[&send[..], b"a%00b"].concat(), &bearer, b"{\"a\":1.5}"));
    http(request(
        &[&send[..], b"a"].concat(),
        &[&bearer[..], b"content-type: image/png\r\n"].concat(),
        b"\xff",
    ));
    http(request(
        &[&send[..], b"b"].concat(),
        &[&bearer[..], b"content-type: \xff\r\n"].concat(),
        b"{",
    ));
    let mut broken = |bytes: Vec<u8>| all.push(Case { bytes, is_http: false });
    broken(request(b"GET /_matrix/\xff\xfe", &bearer, b""));
    broken(request(b"GET /_matrix/client/v3/rooms/\xc3\x28/state", &bearer, b""));
    broken(request(b"GET /_matrix/client/v3/sync?filter={\"room\":1}", &bearer, b""));
    broken(request(b"GET /a b c", &bearer, b""));
    broken(request(b"GET", &bearer, b""));
    broken(request(b"G\xffT /", &bearer, b""));
    broken(request(b"GET /", b"no colon\r\n", b""));
    broken(request(b"GET /", b"a\x00b: c\r\n", b""));
    broken(request(b"GET /", &b"x: y\r\n".repeat(3_000), b""));
    broken(request(&[b"GET /".as_slice(), &[b'x'; 300_000]].concat(), &bearer, b""));
    broken(request(b"PUT /_matrix/client/v3/createRoom", b"content-length: 5\r\n", b"{}"));
    broken(request(b"PUT /_matrix/client/v3/createRoom", b"content-length: -1\r\n", b"{}"));
    broken(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec());
    broken(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
    broken(b"\r\n\r\n\r\n\0\0\0\0\r\n\r\n".to_vec());
    let chunked = b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n";
    for body in [&b"zz\r\n{}\r\n0\r\n\r\n"[..], b"ffffffffffffffffff\r\n{}", b"-1\r\n{}\r\n"] {
        broken([&send[..], b"c", chunked, &bearer, b"\r\n", body].concat());
    }
    all
}

/// Sends a case and waits for the end of the answer.
pub(super) fn ask(base: &str, case: &Case) -> Result<(), String> {
    let shown = String::from_utf8_lossy(&case.bytes).chars().take(200).collect::<String>();
    let failed = |why: &str| format!("{shown:?}: {why}");
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may refuse before all is sent.
    let _ = stream.write_all(&case.bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if let Err(error) = end
        && answer.is_empty()
        && case.is_http
    {
        return Err(failed(&error.to_string()));
    }
    let status = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(400..500) if case.is_http && !answer.contains("\"errcode\":\"M_") => {
            Err(failed(&answer))
        }
        Some(400..500) => Ok(()),
        // What is no HTTP need not be answered, but must not hang.
        None if !case.is_http => Ok(()),
        _ => Err(failed(&answer)),
    }
}
