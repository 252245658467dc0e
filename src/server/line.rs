//! A client's connection, lent to whoever speaks HTTP on it, and taken back while a request waits.
//!
//! actix-http keeps two buffers of 8 KiB for each connection, and all that it knows of the request.
//! A client that syncs is silent nearly always. So when a request says that its answer will take
//! its time ([`Aside`]), its answer is moved out of actix-http, which is let go with its buffers.
//! Once the answer is there, actix-http is started again: it reads a stand-in for the request,
//! written here, gives the answer to that, and goes on with whatever the client sends next.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_web::{HttpResponse, http::Method};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::{Aside, BoxFuture};

/// How many bytes are taken from a client that sends more before it has its answer.
const MAX_EARLY: usize = 8 << 10;

/// How many bytes are looked for at once in the meantime.
const GLANCE: usize = 512;

/// What connections are made of: TCP, or TLS over it.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

/// A connection. Clones are the same.
#[derive(Clone)]
pub(super) struct Line(Rc<RefCell<Inner>>);

struct Inner {
    socket: Box<dyn Socket>,
    /// What is read before the socket.
    ahead: BytesMut,
    read: Heads,
    /// How many requests have begun since the line was lent.
    begun: u64,
    aside: Aside,
    /// The request that was taken aside, until its answer is there.
    waiting: Option<Waiting>,
    /// The answer to the next request, which stands in for the one that waited.
    answer: Option<HttpResponse>,
}

/// A request that waits without a connection.
pub(super) struct Waiting {
    method: Method,
    answer: BoxFuture<'static, HttpResponse>,
}

/// Counts the heads of requests, by the empty lines at their ends. Bodies may have some, too: then
/// it counts too many.
#[derive(Default)]
struct Heads {
    ended: u64,
    /// What the line that is being read has so far.
    here: Here,
}

#[derive(Default, PartialEq)]
enum Here {
    Something,
    #[default]
    Nothing,
    Return,
}

/// What a dispatcher speaks HTTP on.
pub(super) struct Lent(Line);

impl Line {
    /// A connection that has just been made.
    pub(super) fn new(socket: Box<dyn Socket>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            socket,
            ahead: BytesMut::new(),
            read: Heads::default(),
            begun: 0,
            aside: Aside::new(),
            waiting: None,
            answer: None,
        })))
    }

    /// For somebody who speaks HTTP on it, alone.
    pub(super) fn lend(&self) -> Lent {
        let mut inner = self.0.borrow_mut();
        inner.read = Heads::default();
        inner.begun = 0;
        Lent(self.clone())
    }

    /// A request begins that is not a stand-in.
    pub(super) fn begin(&self) -> Aside {
        let mut inner = self.0.borrow_mut();
        inner.begun += 1;
        inner.aside.forget();
        inner.aside.clone()
    }

    /// The answer to the request that begins, if that is a stand-in.
    pub(super) fn stand_in(&self) -> Option<HttpResponse> {
        let mut inner = self.0.borrow_mut();
        let answer = inner.answer.take()?;
        inner.begun += 1;
        Some(answer)
    }

    /// Waits until whoever the line is lent to has no answer to give any more.
    pub(super) async fn answered(&self) {
        let is_answered = |cx: &mut Context<'_>| match self.0.borrow().answer {
            None => Poll::Ready(()),
            Some(_) => {
                // Nobody else tells; it is asked once or twice.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        };
        poll_fn(is_answered).await;
    }

    /// Whether the newest request wants to wait aside, and nothing behind it has been read: that
    /// would be lost.
    pub(super) fn may_leave(&self) -> bool {
        let inner = self.0.borrow();
        let is_all = inner.read.ended == inner.begun && inner.read.here == Here::Nothing;
        inner.aside.is_asked() && is_all
    }

    /// Takes the line back. What is written to it from now on goes nowhere.
    pub(super) fn leave(&self, method: Method, answer: BoxFuture<'static, HttpResponse>) {
        self.0.borrow_mut().waiting = Some(Waiting { method, answer });
    }

    /// What was taken aside, if anything was.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.0.borrow_mut().waiting.take()
    }

    /// Waits for the answer, and prepares the line for it; `false` if the client has gone.
    pub(super) async fn wait(&self, mut waiting: Waiting, is_last: impl Fn() -> bool) -> bool {
        let answer = poll_fn(|cx| match waiting.answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => self.0.borrow_mut().poll_gone(cx).map(|()| None),
        });
        let Some(mut answer) = answer.await else { return false };
        if is_last() {
            answer.head_mut().set_connection_type(actix_http::ConnectionType::Close);
        }
        let mut inner = self.0.borrow_mut();
        let head = format!("{} / HTTP/1.1\r\nhost: here\r\n\r\n", waiting.method);
        let early = std::mem::replace(&mut inner.ahead, BytesMut::from(head.as_str()));
        inner.ahead.extend_from_slice(&early);
        inner.answer = Some(answer);
        true
    }
}

impl Inner {
    /// Looks whether the client is still there, and keeps what it sends.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ahead.len() < MAX_EARLY {
            let mut bytes = [0; GLANCE];
            let mut bytes = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut bytes)) {
                Ok(()) if !bytes.filled().is_empty() => {
                    self.ahead.extend_from_slice(bytes.filled());
                }
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

impl Heads {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.here = match (byte, &self.here) {
                (b'\n', Here::Nothing | Here::Return) => {
                    self.ended += 1;
                    Here::Nothing
                }
                (b'\n', Here::Something) => Here::Nothing,
                (b'\r', Here::Nothing) => Here::Return,
                _ => Here::Something,
            };
        }
    }
}

impl Lent {
    /// What it is a part of.
    pub(super) fn line(&self) -> Line {
        self.0.clone()
    }

    fn with<T>(
        &self,
        taken_back: T,
        work: impl FnOnce(Pin<&mut dyn Socket>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut inner = self.0.0.borrow_mut();
        match inner.waiting {
            Some(_) => Poll::Ready(Ok(taken_back)),
            None => work(Pin::new(&mut *inner.socket)),
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.0.borrow_mut();
        if inner.waiting.is_some() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if inner.ahead.is_empty() {
            ready!(Pin::new(&mut inner.socket).poll_read(cx, buf))?;
        } else {
            let count = inner.ahead.len().min(buf.remaining());
            buf.put_slice(&inner.ahead[..count]);
            inner.ahead.advance(count);
        }
        inner.read.read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(bytes.len(), |socket| socket.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with((), |socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with((), |socket| socket.poll_shutdown(cx))
    }
}
