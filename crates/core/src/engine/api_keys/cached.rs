//! Reads API keys into the cache of verified tokens.

use std::sync::Arc;

use super::super::Engine;
use super::{ApiKeys, ScopesOfClient};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::fault::{Error, Fault};
use crate::session::SessionId;
use crate::verify_cache::{TokenChecker, Verified};

impl ApiKeys {
    /// Returns the token for an API key. The token comes from the cache if another request has loaded the key in the
    /// meantime.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub async fn load_verified(
        &self,
        engine: &Engine,
        checker: &TokenChecker,
        text: &Arc<str>,
        clients: ScopesOfClient<'_>,
    ) -> Result<Arc<Verified>, Error> {
        let _turn = engine.take_turn(place_of(text)).await;
        if let Some(known) = checker.cached_key(text)? {
            return Ok(known);
        }
        match self.read(engine, text, clients).await {
            Ok(read) => {
                self.note(engine, &read.key, text).map_err(Fault::from)?;
                checker.keep_key(text, read)
            }
            // The owner may be enabled again, but all other refusals are final.
            Err(Error::Denied(denial @ Denial::ApiKeyRefused(_))) if !Self::is_of_owner(denial) => {
                checker.remember_refused(text, denial);
                Err(denial.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the same result as [`load_verified`](Self::load_verified), but does not change the cache.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub async fn foresee_verified(
        &self,
        engine: &Engine,
        checker: &TokenChecker,
        text: &Arc<str>,
        clients: ScopesOfClient<'_>,
    ) -> Result<Arc<Verified>, Error> {
        checker.key_of(text, self.read(engine, text, clients).await?)
    }
}

/// Returns an id for the queue of requests with the same API key. While the first request reads the key's record, the
/// others wait in this queue.
fn place_of(text: &str) -> SessionId {
    let mut place = [0; 16];
    let end = text.as_bytes().iter().rev().skip(6);
    place.iter_mut().zip(end).for_each(|(to, from)| *to = *from);
    SessionId::new(Timestamp::ZERO, {
        let [a, b, c, d, e, f, g, h, i, j, ..] = place;
        [a, b, c, d, e, f, g, h, i, j]
    })
}
