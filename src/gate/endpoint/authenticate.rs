//! Authenticates the client of a request to an OAuth endpoint.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::execute::EndpointCommand;
use crate::gate::Inner;
use rotogate_core::client::{Client, Grant, PresentedClient};
use rotogate_core::denial::Denial;
use rotogate_core::fault::{Error, StoreError};
use rotogate_core::token::verify::{SentClientAssertion, UsableOnce};

impl EndpointCommand<'_> {
    /// Authenticates the client, and checks that it may use this endpoint and this grant.
    pub(super) async fn client(
        &self,
        presented: Option<PresentedClient>,
        grant: Option<Grant>,
    ) -> Result<Arc<Client>, Error> {
        let (clients, address) = (&self.gate.clients, self.origin.address);
        let (client, used) = match &presented {
            Some(PresentedClient { id, assertion: Some(assertion), .. }) => {
                let (client, used) = self.by_assertion(id, assertion).await?;
                (client, Some(used))
            }
            Some(presented) => (clients.authenticate(presented, self.gate.engine.limits(), address).await?, None),
            // Without client credentials, the endpoint's public client applies (requirement R20).
            None => (Arc::clone(self.endpoint.client.as_ref().ok_or(Denial::InvalidClient)?), None),
        };
        self.origin.note.set_client(&client);
        if self.endpoint.clients.as_ref().is_some_and(|allowed| !allowed.contains(&client.id)) {
            return Err(Denial::UnauthorizedClient.into());
        }
        if grant.is_some_and(|grant| !client.may(grant)) {
            return Err(Denial::UnauthorizedClient.into());
        }
        if let Some(used) = used {
            // Marking the assertion as used comes last, so that a refused request does not consume it.
            self.gate.use_once(&used, &client.id, Denial::ClientAssertion("it was used before")).await?;
        }
        Ok(client)
    }

    /// See RFC 7523 §2.2. The assertion is not marked as used yet.
    async fn by_assertion(&self, id: &str, assertion: &SecretString) -> Result<(Arc<Client>, UsableOnce), Error> {
        let (engine, address) = (&self.gate.engine, self.origin.address);
        let client = self.gate.clients.get(id).ok_or(Denial::InvalidClient)?;
        let keys = client.keys.as_ref().ok_or(Denial::InvalidClient)?.keys();
        engine.limits().admit_unverified(address)?;
        let audience = self.issuers();
        let verify = || {
            let (audience, token) = (audience.as_slice(), assertion.expose_secret());
            let sent = SentClientAssertion { client: &client.id, keys, audience, token, leeway: self.gate.leeway };
            sent.verify(engine.clock().now(), engine.clock().wall())
        };
        let mut read = verify();
        if let Err(Denial::KeysUnavailable(_)) = read
            && let Some(wait) = keys.live().and_then(|keys| keys.join())
        {
            let is_final = wait.ended().await;
            read = verify();
            if is_final && matches!(read, Err(Denial::KeysUnavailable(_))) {
                read = Err(Denial::ClientAssertion("it was not signed with a key of the client"));
            }
        }
        engine.limits().record_read(address, assertion.expose_secret(), &read);
        Ok((Arc::clone(&client), read?))
    }

    /// Returns the `aud` values for this endpoint: the gate's issuer, and the issuer in the endpoint's metadata.
    pub(super) fn issuers(&self) -> Vec<&str> {
        let published = self.endpoint.published.as_ref().map(|published| &*published.issuer);
        [Some(&**self.gate.engine.issuer()), published].into_iter().flatten().collect()
    }
}

impl Inner {
    pub(in crate::gate) async fn use_once(
        &self,
        used: &UsableOnce,
        client: &str,
        replayed: Denial,
    ) -> Result<(), Error> {
        match &self.running.rows {
            Some(store) => self.engine.use_once(&**store, (used, client), replayed).await,
            None => Err(StoreError::new("the gate has no store for used assertions").into()),
        }
    }
}
