//! Work that goes on if the client disconnects.

use rotogate_core::context::{Context, inherited};
use rotogate_core::fault::{Error, Fault};
use tracing::Instrument;

/// A client that disconnects must not stop the engine between the write to the store and the update of the revocation
/// list.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(inherited(Context::current(), work.in_current_span())).await {
        Ok(done) => done,
        // The panic continues in the request's task, which then responds with 500.
        Err(panicked) => match panicked.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Fault::Busy.into()),
        },
    }
}
