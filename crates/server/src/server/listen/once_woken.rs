//! A future for a task that also does other work.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;

pin_project! {
    /// A future that is polled only if its own waker was called.
    ///
    /// Without this type, each request would poll the shutdown signal, and take a lock that all connections share.
    pub(super) struct OnceWoken<F> {
        #[pin]
        future: F,
        own: Arc<OwnWake>,
        waker: Waker,
    }
}

struct OwnWake {
    /// Initially true, so that the future is polled once.
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl Wake for OwnWake {
    fn wake(self: Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F> OnceWoken<F> {
    pub(super) fn new(future: F) -> Self {
        let own = Arc::new(OwnWake { is_due: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future, waker: Arc::clone(&own).into(), own }
    }
}

impl<F: Future> Future for OnceWoken<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // The waker is registered before `is_due` is read, so that no wake is lost.
        this.own.task.register(cx.waker());
        if !this.own.is_due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.own.is_due.store(false, Ordering::Release);
        this.future.poll(&mut Context::from_waker(this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::task::noop_waker_ref;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_only_then() {
        let (say, mut hear) = tokio::sync::mpsc::channel(1);
        let mut polls = 0;
        let mut listening = pin!(OnceWoken::new(std::future::poll_fn(|cx| {
            polls += 1;
            hear.poll_recv(cx)
        })));
        let cx = &mut Context::from_waker(noop_waker_ref());
        for _ in 0..5 {
            assert!(listening.as_mut().poll(cx).is_pending());
        }
        // The task is now polled with another waker, which the message must wake.
        let (heard, sent) = tokio::join!(listening, say.send(7));
        assert_eq!((heard, sent.is_ok()), (Some(7), true));
        assert_eq!(polls, 2);
    }
}
