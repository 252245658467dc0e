//! A wire between servers, which can be cut, slow, or full of noise.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What becomes of connections.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Everything gets through.
    Whole,
    /// Every connection ends at once.
    Cut,
    /// Answers take this long to get back.
    Slow(Duration),
    /// Whoever connects is answered with rubbish.
    Noisy,
}

/// Carries connections to a port of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: u16,
    target: u16,
    state: Mutex<State>,
    /// Both ends of all connections.
    open: Mutex<Vec<TcpStream>>,
}

impl Wire {
    /// A whole wire to this port.
    pub(super) fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, open) = (Mutex::new(State::Whole), Mutex::default());
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
        self.turn(State::Cut);
    }

    /// Answers take this long.
    pub(crate) fn slow_down(&self, by: Duration) {
        self.turn(State::Slow(by));
    }

    /// Nothing gets through, and rubbish comes back.
    pub(crate) fn make_noise(&self) {
        self.turn(State::Noisy);
    }

    /// Everything gets through again.
    pub(crate) fn mend(&self) {
        self.turn(State::Whole);
    }

    /// Connections of before end.
    fn turn(&self, state: State) {
        *self.0.state.lock().unwrap() = state;
        for stream in self.0.open.lock().unwrap().drain(..) {
            // The other end may have closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn take(&self, mut from: TcpStream) {
        let state = *self.0.state.lock().unwrap();
        let delay = match state {
            State::Cut => return,
            State::Noisy => return drop(from.write_all(&[0x55; 4_096])),
            State::Whole => Duration::ZERO,
            State::Slow(delay) => delay,
        };
        let Ok(to) = TcpStream::connect(("127.0.0.1", self.0.target)) else { return };
        let ends = [from.try_clone().unwrap(), to.try_clone().unwrap()];
        let (from_again, to_again) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        self.0.open.lock().unwrap().extend(ends);
        thread::spawn(move || carry(from, to, Duration::ZERO));
        thread::spawn(move || carry(to_again, from_again, delay));
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
