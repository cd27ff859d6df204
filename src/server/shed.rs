//! How many requests may be under way in the whole gate (requirement A4). One more is refused at once, because a request
//! that is refused costs next to nothing, and one that waits costs memory and everybody's time.
//!
//! Refusing costs little, but not nothing, and who asks again at once would have the processor do nothing else. So one who
//! was told on the same connection, less than a second ago, to come again in a second waits for the rest of it, and then
//! gets a place if there is one. As many may wait as may be under way.
//!
//! A request is under way from its head to the end of its reply's body, so that streams count as long as they last. A
//! connection that was upgraded holds no place here, but that of its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::gate::TRY_AGAIN;

/// See the module. Its places are counted by the references to one allocation: entering is one atomic addition, and so
/// is leaving.
#[derive(Debug)]
pub(super) struct InFlight {
    places: Arc<()>,
    waiting: Arc<()>,
    most: AtomicUsize,
}

/// When the client of a connection was last told to come again later: monotonic time in ms, and 0 for never.
#[derive(Debug, Default)]
pub(super) struct Told(AtomicU64);

impl Told {
    pub(super) fn at(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// What is left of its second.
    fn rest(&self, now: Duration) -> Option<Duration> {
        let told = Some(self.0.load(Ordering::Relaxed)).filter(|millis| *millis > 0)?;
        (Duration::from_millis(told) + TRY_AGAIN).checked_sub(now).filter(|rest| !rest.is_zero())
    }
}

/// A request's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "it is held, not looked at")] Arc<()>);

impl InFlight {
    pub(super) fn new(most: usize) -> Self {
        Self { places: Arc::default(), waiting: Arc::default(), most: AtomicUsize::new(most) }
    }

    /// A place for a request, if there is one left. Of several that come for the last one at the same moment, none may
    /// get it.
    pub(super) fn enter(&self) -> Option<Place> {
        self.one_of(&self.places)
    }

    /// A place for a request for which there was none, if its client waits for it. `None` at once where it was not told
    /// to.
    pub(super) async fn wait(&self, told: &Told, now: Duration) -> Option<Place> {
        let rest = told.rest(now)?;
        let waiting = self.one_of(&self.waiting)?;
        tokio::time::sleep(rest).await;
        drop(waiting);
        self.enter()
    }

    fn one_of(&self, places: &Arc<()>) -> Option<Place> {
        let place = Place(Arc::clone(places));
        (Arc::strong_count(places) <= self.most.load(Ordering::Relaxed).saturating_add(1)).then_some(place)
    }

    /// How many requests are under way.
    pub(super) fn now(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }

    /// Changes the bound. Those beyond it run on.
    pub(super) fn set_max(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }
}

pin_project! {
    /// The body of a reply, with the place of its request.
    #[derive(Debug)]
    pub(super) struct Counted<B> {
        #[pin]
        body: B,
        place: Option<Place>,
    }
}

impl<B> Counted<B> {
    pub(super) fn new(body: B, place: Option<Place>) -> Self {
        Self { body, place }
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_there_are_as_many_places_as_the_bound_says_and_each_comes_back() {
        let requests = InFlight::new(2);
        let (first, second) = (requests.enter().unwrap(), requests.enter().unwrap());
        assert!(requests.enter().is_none());
        assert_eq!(requests.now(), 2, "who was refused holds nothing");
        drop(first);
        let third = requests.enter().unwrap();
        // Fewer than there are: they run on, and nobody comes in.
        requests.set_max(1);
        assert!(requests.enter().is_none());
        drop((second, third));
        let _last = requests.enter().unwrap();
        assert!(requests.enter().is_none());
        requests.set_max(2);
        assert!(requests.enter().is_some());
        assert_eq!(requests.now(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a4_who_asks_again_at_once_waits_and_others_are_told_at_once() {
        let (requests, told) = (InFlight::new(1), Told::default());
        let begun = tokio::time::Instant::now();
        let place = requests.enter().unwrap();
        let now = Duration::from_secs(9);
        assert!(requests.wait(&told, now).await.is_none());
        assert_eq!(begun.elapsed(), Duration::ZERO, "the first time");
        told.at(now);
        let (waits, other) = (requests.wait(&told, now), requests.wait(&told, now));
        let (waited, other) = tokio::join!(waits, async {
            let other = other.await;
            assert_eq!(begun.elapsed(), Duration::ZERO, "no more wait than may be under way");
            drop(place);
            other
        });
        assert!(waited.is_some() && other.is_none());
        assert!(begun.elapsed() >= TRY_AGAIN);
        assert!(requests.wait(&told, now + TRY_AGAIN).await.is_none(), "its time was over");
    }

    #[test]
    fn a4_never_more_than_the_bound_hold_a_place_whatever_happens_at_once() {
        let (requests, held) = (InFlight::new(3), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Some(place) = requests.enter() {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < 3);
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert_eq!(requests.now(), 0);
    }
}
