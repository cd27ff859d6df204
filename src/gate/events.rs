//! Other issuers' notices: logout tokens and security events.

use super::Inner;
use rotogate_core::denial::Denial;
use rotogate_core::engine::Origin;
use rotogate_core::fault::Error;
use rotogate_core::token::verify::{EventProtocol, Reported};

impl Inner {
    /// Executes, counts and logs a notice.
    // Requirements N49–N56, S19, S20, S22, S23.
    pub(super) async fn take_notice(
        &self,
        issuer: &str,
        protocol: EventProtocol,
        reported: Result<Reported, Error>,
        origin: &Origin,
    ) -> Result<(), Error> {
        let taken = match reported {
            Ok(reported) => {
                let (id, kind, effect) = (reported.id.clone(), reported.kind, reported.effect);
                let user = reported.ended.user().map(Box::from);
                self.engine.take_report(reported).await.map(|result| (result, (kind, effect, id), user))
            }
            Err(error) => Err(error),
        };
        let result = taken.as_ref().map(|(result, ..)| *result);
        self.engine.record_notice(issuer, protocol.word(), result, origin);
        let (result, (kind, effect, id), user): (_, _, Option<Box<str>>) = taken?;
        self.engine.record_event((issuer, user.as_deref()), (kind, effect, &id), result, origin);
        Ok(())
    }

    /// The rate limits on forged tokens apply.
    pub(super) fn judge_notice<T>(
        &self,
        origin: &Origin,
        token: &str,
        read: impl FnOnce() -> Result<T, Denial>,
    ) -> Result<T, Denial> {
        let (address, limits) = (origin.address, self.engine.limits());
        limits.admit_unverified(address)?;
        let read = read();
        limits.record_read(address, token, &read);
        read
    }
}
