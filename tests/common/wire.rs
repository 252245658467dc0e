//! A wire between servers, which can be cut, slow, or full of noise.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{http::Client, server::PASSWORD, user::User};

/// What is wrong with a way to a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Trouble {
    /// Everything gets through.
    #[default]
    None,
    /// Every connection ends at once.
    Cut,
    /// Answers take this long to get back.
    Slow(Duration),
    /// Whoever connects is answered with rubbish.
    Noisy,
    /// Whoever asks is told that nobody is there.
    Refusing,
}

/// A way to a server with which something may be wrong.
pub(crate) trait Troubled {
    /// Something else is wrong from now on; connections of before end.
    fn turn(&self, trouble: Trouble);
}

/// A server of either kind, another process or a part of this one, which others find by its name.
pub(crate) trait Site: Sized {
    /// What is between it and the others.
    type Wire: Troubled;

    /// Starts some that know each other.
    fn behind_wires(count: usize) -> (Vec<Self>, Vec<Self::Wire>);

    /// Its name.
    fn name(&self) -> String;

    /// Without an access token.
    fn http(&self) -> &Client;

    /// Registers a user, who is then logged in.
    #[track_caller]
    fn register(&self, name: &str) -> User {
        let body = json!({ "username": name, "password": PASSWORD,
            "auth": { "type": "m.login.dummy" } });
        User::from_login(self.http(), &self.http().post("/_matrix/client/v3/register", &body).ok())
    }
}

/// Carries connections to a port of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: u16,
    target: u16,
    state: Mutex<Trouble>,
    /// Both ends of all connections.
    open: Mutex<Vec<TcpStream>>,
}

impl Wire {
    /// A whole wire to this port.
    pub(super) fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, open) = (Mutex::new(Trouble::None), Mutex::default());
        let wire = Self(Arc::new(Inner { port, target, state, open }));
        let accepting = wire.clone();
        thread::spawn(move || listener.incoming().flatten().for_each(|from| accepting.take(from)));
        wire
    }

    /// Where it begins.
    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    /// Nothing gets through any more.
    pub(crate) fn cut(&self) {
        self.turn(Trouble::Cut);
    }

    /// Everything gets through again.
    pub(crate) fn mend(&self) {
        self.turn(Trouble::None);
    }

    fn take(&self, mut from: TcpStream) {
        let state = *self.0.state.lock().unwrap();
        let delay = match state {
            // A wire does not speak TLS: all it can do is end connections.
            Trouble::Cut | Trouble::Refusing => return,
            Trouble::Noisy => return drop(from.write_all(&[0x55; 4_096])),
            Trouble::None => Duration::ZERO,
            Trouble::Slow(delay) => delay,
        };
        let Ok(to) = TcpStream::connect(("127.0.0.1", self.0.target)) else { return };
        let ends = [from.try_clone().unwrap(), to.try_clone().unwrap()];
        let (from_again, to_again) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        self.0.open.lock().unwrap().extend(ends);
        thread::spawn(move || carry(from, to, Duration::ZERO));
        thread::spawn(move || carry(to_again, from_again, delay));
    }
}

impl Troubled for Wire {
    fn turn(&self, trouble: Trouble) {
        *self.0.state.lock().unwrap() = trouble;
        for stream in self.0.open.lock().unwrap().drain(..) {
            // The other end may have closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut buffer = [0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        thread::sleep(delay);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
