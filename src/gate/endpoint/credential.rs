use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::execute::{EndpointCommand, decided};
use crate::dialect::{RefreshCredential, Superseded};
use crate::gate::Inner;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{AccountRule, Arrival, Exchange, Origin, Refresh};
use rotogate_core::fault::Error;
use rotogate_core::session::profile::Profile;
use rotogate_core::token::claims::AccessToken;

/// Returns how long ago a token may have expired. A client may repeat an exchange whose response was lost.
const fn expired_before_exchange(may_have_expired: bool, profile: &Profile) -> Duration {
    if may_have_expired { profile.lost_response_window } else { Duration::ZERO }
}

pub(super) enum ReadCredential {
    Refresh(SecretString),
    Access(AccessToken),
    Pair(SecretString, AccessToken),
}

impl ReadCredential {
    pub(super) fn read(
        gate: &Inner,
        credential: RefreshCredential,
        profile: &Profile,
        origin: &Origin,
    ) -> Result<Self, Denial> {
        let read = |access: &SecretString, expired_for_at_most| {
            gate.checker.verify_ignoring_expiry(access.expose_secret(), expired_for_at_most, gate.shown(origin.address))
        };
        match credential {
            RefreshCredential::Refresh(token) => Ok(Self::Refresh(token)),
            RefreshCredential::Access { access, may_have_expired } => {
                Ok(Self::Access(read(&access, expired_before_exchange(may_have_expired, profile))?))
            }
            RefreshCredential::Pair { access, refresh, expired_for_at_most } => {
                Ok(Self::Pair(refresh, read(&access, expired_for_at_most)?))
            }
        }
    }

    pub(super) fn exchange(&self) -> Result<Exchange<'_>, Denial> {
        // A token of another issuer is not a refresh credential here, and the reply does not reveal its issuer. The
        // engine checks the session's account.
        let own = |access| AccountRule::Any.admit(access)?.own().map_err(|_| Denial::UnknownRefreshToken);
        match self {
            Self::Refresh(token) => Ok(Exchange::Refresh(token)),
            Self::Access(access) => own(access).map(Exchange::Access),
            Self::Pair(token, access) => own(access).map(|access| Exchange::Pair(token, access)),
        }
    }
}

impl EndpointCommand<'_> {
    /// Checks an exchanged token that this endpoint would still refresh.
    pub(super) async fn check_superseded(
        &self,
        token: &SecretString,
        superseded: Superseded,
        arrived: Arrival,
    ) -> Result<Option<AccessToken>, Error> {
        let Some(client) = &self.endpoint.client else { return Ok(None) };
        // The rate limit of the address counts this check as a refresh.
        self.count_refresh(client)?;
        let profile = client.profile.over(&self.endpoint.profile);
        let expired_for_at_most = expired_before_exchange(superseded == Superseded::Any, &profile);
        let access = self.verify_ignoring_expiry(token, expired_for_at_most)?;
        access.of_bearer()?;
        let refresh = Refresh {
            credential: Exchange::Access(self.concerns(&access)?.own()?),
            client,
            account: self.account,
            scope: None,
            access_ttl: None,
            resource: None,
            profile: &profile,
            accepts: &self.endpoint.accepts,
            by_access: &self.endpoint.by_access,
            proof: None,
            certificate: None,
            arrived,
            origin: self.origin,
        };
        let would_repeat = decided(self.gate.engine.would_repeat(refresh).await)?;
        Ok(would_repeat.unwrap_or_default().then_some(access))
    }
}
