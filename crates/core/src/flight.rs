//! Callers that request the same work at the same time share one execution. The work runs in its own task, so a caller
//! that leaves does not cancel it.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::{DashMap, Entry};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// A handle to the result of shared work.
#[derive(Clone, Debug)]
pub struct Flight<T>(watch::Receiver<Option<T>>);

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Starts work that other callers cannot join.
    pub fn alone(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        let (sender, flight) = watch::channel(None);
        runtime.spawn(async move {
            let outcome = work.await;
            sender.send_replace(Some(outcome));
        });
        Self(flight)
    }

    /// Waits for the result. Returns `None` if the work panicked or was aborted.
    pub async fn outcome(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// The work in progress, by map key.
#[derive(Debug)]
pub struct Flights<K: Eq + Hash, T>(Arc<DashMap<K, Flight<T>>>);

impl<K: Eq + Hash, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

struct Landing<K: Eq + Hash, T>(Arc<DashMap<K, Flight<T>>>, K);

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

impl<K, T> Flights<K, T>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// The work in progress for this map key.
    pub fn get(&self, key: &K) -> Option<Flight<T>> {
        self.0.get(key).as_deref().cloned()
    }

    /// Returns whether no work is in progress.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Joins the work for this map key, or starts the work that `begin` returns. `begin` must not call methods of this
    /// value, because the map is locked.
    ///
    /// # Errors
    /// The errors of `begin`.
    pub fn join<E, W: Future<Output = T> + Send + 'static>(
        &self,
        key: K,
        runtime: &Handle,
        begin: impl FnOnce() -> Result<W, E>,
    ) -> Result<Flight<T>, E> {
        match self.0.entry(key) {
            Entry::Occupied(flight) => Ok(flight.get().clone()),
            // The map is locked, so the work cannot end before the insertion.
            Entry::Vacant(place) => {
                let (work, all) = (begin()?, Arc::clone(&self.0));
                let run = async move {
                    let _landing = Landing(all, key);
                    work.await
                };
                Ok(place.insert(Flight::alone(runtime, run)).clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn callers_of_one_key_share_a_run_that_outlives_the_first_of_them() {
        let (flights, runs, held) = (Flights::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let join = |key: u8| {
            let (runs, held) = (Arc::clone(&runs), Arc::clone(&held));
            let begun = flights.join(key, &Handle::current(), || {
                Ok::<_, ()>(async move {
                    held.acquire().await.unwrap().forget();
                    runs.fetch_add(1, Ordering::SeqCst)
                })
            });
            begun.unwrap()
        };
        drop(join(1));
        let (second, third) = (join(1), join(1));
        held.add_permits(1);
        assert_eq!((second.outcome().await, third.outcome().await), (Some(0), Some(0)));
        assert!(flights.is_empty() && flights.get(&1).is_none(), "a run is removed before callers get its outcome");
        held.add_permits(1);
        assert_eq!(join(1).outcome().await, Some(1), "the next caller begins anew");
    }

    #[tokio::test]
    async fn a_run_that_panics_ends_without_an_outcome_and_one_that_is_refused_does_not_begin() {
        let flights: Flights<u8, ()> = Flights::default();
        let refused = flights.join(1, &Handle::current(), || Err::<std::future::Ready<()>, _>("full"));
        assert_eq!(refused.map(drop), Err("full"));
        assert!(flights.is_empty());
        let begun = flights.join(1, &Handle::current(), || Ok::<_, ()>(async { panic!("a fault of the work") }));
        assert_eq!(begun.unwrap().outcome().await, None);
        assert!(flights.is_empty());
    }
}
