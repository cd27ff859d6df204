//! Requests of other issuers to end everything of a user.

use secrecy::ExposeSecret;

use super::Inner;
use crate::dialect::global_revocation::GlobalRevocation;
use rotogate_core::denial::{Denial, EventFlaw};
use rotogate_core::engine::{NoticeResult, Origin};
use rotogate_core::fault::Error;
use rotogate_core::token::verify::{AskedRevocation, EventEffect, EventKind, SentGlobalRevocation};

/// The word for requests for global revocation, used in place of the word for a protocol of notices.
const GLOBAL_REVOCATION: &str = "global-revocation";

impl Inner {
    /// Ends everything of a user on the request of another issuer.
    // Requirements S13 to S15.
    pub(super) async fn revoke_globally(&self, request: &GlobalRevocation, origin: &Origin) -> Result<(), Error> {
        let done = self.revoked_globally(request, origin).await;
        let result = done.as_ref().map(|_| NoticeResult::Applied);
        self.engine.record_notice(&request.issuer, GLOBAL_REVOCATION, result, origin);
        let (id, user) = done?;
        let event = (EventKind::GlobalRevocation, EventEffect::End, &*id);
        self.engine.record_event((&request.issuer, Some(&user)), event, NoticeResult::Applied, origin);
        Ok(())
    }

    /// Executes the request, and returns its `jti` and its user. The named user is looked up before the request is marked
    /// as used, so a failure of the directory does not use up the request.
    async fn revoked_globally(
        &self,
        request: &GlobalRevocation,
        origin: &Origin,
    ) -> Result<(Box<str>, Box<str>), Error> {
        let asked = self.proved_revocation(request, origin)?;
        let own = self.engine.user_of_revocation(&asked).await?;
        let replayed = Denial::RefusedEvent(EventFlaw::Credential("it was used before"));
        self.use_once(&asked.once, &format!("issuer:{}", request.issuer), replayed).await?;
        let (id, user) = (asked.once.id.clone(), asked.user.text().into());
        self.engine.revoke_globally(asked, own.as_deref()).await?;
        Ok((id, user))
    }

    fn proved_revocation(&self, request: &GlobalRevocation, origin: &Origin) -> Result<AskedRevocation, Denial> {
        self.judge_notice(origin, || {
            let token = request.token.as_ref().map_err(|what| Denial::RefusedEvent(EventFlaw::Credential(what)))?;
            self.checker.verify_global_revocation(SentGlobalRevocation {
                issuer: &request.issuer,
                client_id: &request.client_id,
                audience: &request.audience,
                token: token.expose_secret(),
                body: &request.body,
            })
        })
    }
}
