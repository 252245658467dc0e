//! Waking many at once: each thread on which clients wait has one bell, and is woken once, whoever
//! of those on it has news.
//!
//! To wake a task from another thread costs a system call. When a message concerns a thousand
//! parked clients, their tasks are handed over together, and the thread wakes them itself.

use std::{
    collections::HashMap,
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    task::{Poll, Waker},
    thread::{self, ThreadId},
};

/// The bells of all threads on which somebody waits. Dropping it ends their tasks.
#[derive(Debug, Default)]
pub(super) struct Bells(RwLock<HashMap<ThreadId, Arc<Bell>>>);

/// One thread's bell.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Those who are to be woken.
    rung: Vec<Waker>,
    /// The thread's own task, which wakes them.
    ringer: Option<Waker>,
    /// That task has ended, or is to end.
    is_gone: bool,
}

/// Bells that are to ring, with those who are to hear them.
#[derive(Debug, Default)]
pub(super) struct Ring(Vec<(Arc<Bell>, Vec<Waker>)>);

/// Says that a bell's task is no more, however it ends.
struct Ringer(Arc<Bell>);

impl Bells {
    /// The bell of this thread. Must be called on a thread with an actix system.
    pub(super) fn here(&self) -> Arc<Bell> {
        let thread = thread::current().id();
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&thread).cloned();
        if let Some(bell) = known.filter(|bell| !bell.lock().is_gone) {
            return bell;
        }
        let bell = Arc::<Bell>::default();
        actix::spawn(ring(Ringer(bell.clone())));
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(thread, bell.clone());
        bell
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        let bells = mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        for bell in bells.into_values() {
            let ringer = {
                let mut inner = bell.lock();
                inner.is_gone = true;
                inner.ringer.take()
            };
            ringer.into_iter().for_each(Waker::wake);
        }
    }
}

/// The task of a bell.
async fn ring(ringer: Ringer) {
    poll_fn(|context| {
        let rung = {
            let mut inner = ringer.0.lock();
            if inner.is_gone {
                return Poll::Ready(());
            }
            inner.ringer = Some(context.waker().clone());
            mem::take(&mut inner.rung)
        };
        rung.into_iter().for_each(Waker::wake);
        Poll::Pending
    })
    .await;
}

impl Drop for Ringer {
    fn drop(&mut self) {
        let rung = {
            let mut inner = self.0.lock();
            inner.is_gone = true;
            mem::take(&mut inner.rung)
        };
        rung.into_iter().for_each(Waker::wake);
    }
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, wakers: Vec<Waker>) {
        let mut inner = self.lock();
        if inner.is_gone {
            drop(inner);
            wakers.into_iter().for_each(Waker::wake);
            return;
        }
        inner.rung.extend(wakers);
        let ringer = inner.ringer.take();
        drop(inner);
        ringer.into_iter().for_each(Waker::wake);
    }
}

impl Ring {
    /// Somebody who waits on a bell's thread is to be woken.
    pub(super) fn add(&mut self, bell: Arc<Bell>, waker: Waker) {
        // There are as many bells as threads.
        match self.0.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &bell)) {
            Some((_, wakers)) => wakers.push(waker),
            None => self.0.push((bell, vec![waker])),
        }
    }
}

/// Wakes them.
impl Drop for Ring {
    fn drop(&mut self) {
        for (bell, wakers) in self.0.drain(..) {
            bell.ring(wakers);
        }
    }
}
