//! Token exchange (RFC 8693) at the token endpoint.

use secrecy::ExposeSecret;

use super::execute::{EndpointCommand, ProofOfPossession, issued};
use crate::dialect::{ExchangeRequest, Outcome};
use rotogate_core::client::{Client, Grant};
use rotogate_core::credential::Credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::TokenExchange;
use rotogate_core::fault::Error;
use rotogate_core::limit::Source;
use rotogate_core::token::claims::AccessToken;

impl EndpointCommand<'_> {
    /// The token is verified like a token on a data route, but rate limits apply to the client instead of an address.
    // Requirement D1.
    pub(super) async fn exchange(
        &self,
        request: ExchangeRequest,
        presented: ProofOfPossession<'_>,
    ) -> Result<Outcome, Error> {
        let engine = &self.gate.engine;
        let client = self.client(Some(request.client), Some(Grant::TokenExchange)).await?;
        let rules = client.exchange.as_ref().filter(|_| client.is_confidential());
        let rules = rules.ok_or(Denial::UnauthorizedClient)?;
        engine.admit_grant(&client, self.origin)?;
        let source = Source::Client(&client.id);
        let subject = self.wait_for(Credential::maybe_bound(request.subject.expose_secret()), source).await?;
        if let Some(actor) = &request.actor {
            let actor = self.wait_for(Credential::maybe_bound(actor.expose_secret()), source).await?;
            is_actor(&client, self.account.admit(actor.token())?.token())?;
        }
        let (proof, certificate) = presented.of_client(self.gate, &client)?;
        let asked = TokenExchange {
            client: &client,
            rules,
            subject: self.account.admit(subject.token())?,
            audience: request.audience.as_deref(),
            scope: request.scope.as_ref(),
            profile: &client.profile.over(&self.endpoint.profile),
            proof,
            certificate,
            origin: self.origin,
        };
        issued(engine.exchange_token(asked).await?)
    }
}

/// The client must present its own token as the actor token.
// Requirement D1.
fn is_actor(client: &Client, actor: &AccessToken) -> Result<(), Denial> {
    let is_it = actor.is_clients_own() && actor.client.as_deref() == Some(&*client.id);
    if is_it { Ok(()) } else { Err(Denial::NotExchangeable("the actor is not the client")) }
}
