//! A Tokio `Sleep` for each request would be added to the timer wheel and removed again, which costs about 1000
//! instructions. A [`LazySleep`] stays in the timer wheel. Changing its deadline usually stores only a number.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A timer that stays in the runtime's timer wheel when its deadline changes.
#[derive(Debug)]
pub struct LazySleep {
    entry: Pin<Box<tokio::time::Sleep>>,
    /// The deadline of this timer, at or after the deadline of `entry`.
    until: Instant,
}

impl LazySleep {
    /// Creates a timer with the deadline `until`.
    pub fn until(until: Instant) -> Self {
        Self { entry: Box::pin(tokio::time::sleep_until(until)), until }
    }

    /// Changes the deadline of the timer.
    pub fn set(&mut self, until: Instant) {
        self.until = until;
        if until < self.entry.deadline() {
            self.entry.as_mut().reset(until);
        }
    }

    /// Returns `Ready` after the timer's deadline.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.entry.as_mut().poll(cx));
            if self.entry.deadline() >= self.until {
                return Poll::Ready(());
            }
            self.entry.as_mut().reset(self.until);
        }
    }
}

/// The timer of an HTTP/1.1 connection, which waits for at most one request head.
#[derive(Clone, Debug, Default)]
pub struct ConnectionTimer(Arc<Mutex<Option<LazySleep>>>);

impl ConnectionTimer {
    fn at(&self, until: Instant) -> RequestSleep {
        let kept = self.0.lock().take();
        let sleep = match kept {
            Some(mut sleep) => {
                sleep.set(until);
                sleep
            }
            None => LazySleep::until(until),
        };
        RequestSleep { sleep: Some(sleep), timer: self.clone() }
    }
}

impl Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.at(Instant::now() + duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.at(deadline.into()))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: std::time::Instant) {
        let known = sleep.as_mut().downcast_mut_pin::<RequestSleep>();
        match known.and_then(|known| known.get_mut().sleep.as_mut()) {
            Some(known) => known.set(new_deadline.into()),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

#[derive(Debug)]
struct RequestSleep {
    sleep: Option<LazySleep>,
    timer: ConnectionTimer,
}

impl Sleep for RequestSleep {}

impl Future for RequestSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Ready(()), |sleep| sleep.poll_over(cx))
    }
}

impl Drop for RequestSleep {
    fn drop(&mut self) {
        *self.timer.0.lock() = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_ends_at_the_last_end_that_was_set_whether_later_or_earlier() {
        let began = Instant::now();
        let mut sleep = LazySleep::until(began + SECOND);
        for [set, over] in [[5, 5], [60, 60], [61, 61], [40, 61]] {
            sleep.set(began + set * SECOND);
            poll_fn(|cx| sleep.poll_over(cx)).await;
            assert_eq!(began.elapsed().as_secs(), u64::from(over));
        }
        sleep.set(began + 100 * SECOND);
        assert!(tokio::time::timeout(30 * SECOND, poll_fn(|cx| sleep.poll_over(cx))).await.is_err());
        sleep.set(began + 95 * SECOND);
        poll_fn(|cx| sleep.poll_over(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 95);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_uses_one_entry_for_all_its_requests() {
        let (timer, began) = (ConnectionTimer::default(), Instant::now());
        let first = timer.sleep(10 * SECOND);
        drop(first);
        let entry = |timer: &ConnectionTimer| {
            let kept = timer.0.lock();
            std::ptr::from_ref(&*kept.as_ref().unwrap().entry).addr()
        };
        let kept = entry(&timer);
        tokio::time::advance(4 * SECOND).await;
        timer.sleep(10 * SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 14, "not at the end of the first");
        assert_eq!(entry(&timer), kept);
        let mut second = timer.sleep(10 * SECOND);
        timer.reset(&mut second, (began + 20 * SECOND).into());
        second.await;
        assert_eq!(began.elapsed().as_secs(), 20);
    }
}
