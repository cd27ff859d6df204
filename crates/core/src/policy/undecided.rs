//! Requests whose audience the service decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{By, Owing, Permit, authorise_again};
use crate::denial::Denial;
use crate::route::Route;
use crate::verify_cache::Verified;

/// A request with a valid token for another audience. Only a `require()` for that audience can permit the request.
#[derive(Clone, Debug)]
pub struct Undecided {
    caller: Arc<Verified>,
    by: By,
    decided: Arc<AtomicBool>,
}

impl Undecided {
    /// Creates an undecided request, which a `require()` in the service must still authorise.
    pub fn new(caller: Arc<Verified>, by: By) -> Self {
        Self { caller, by, decided: Arc::default() }
    }

    /// The caller.
    pub fn caller(&self) -> &Arc<Verified> {
        &self.caller
    }

    /// Returns who permits the request.
    pub fn by(&self) -> By {
        self.by
    }

    /// Returns whether [`Self::decide`] was called.
    pub fn is_decided(&self) -> bool {
        self.decided.load(Ordering::Acquire)
    }

    /// Checks the request against the route of a `require()`.
    ///
    /// # Errors
    /// The errors of [`authorise`](super::authorise).
    pub fn decide(&self, route: &Arc<Route>) -> Result<Permit<Owing>, Denial> {
        self.decided.store(true, Ordering::Release);
        if route.policy.audiences.is_empty() {
            return Err(Denial::WrongAudience);
        }
        authorise_again(route, Arc::clone(&self.caller), self.by, &mut ())
    }
}
