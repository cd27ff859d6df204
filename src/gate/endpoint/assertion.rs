//! The grant for another issuer's assertion (RFC 7523 §2.1) about a user (ID-JAG) or a workload.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::execute::{EndpointCommand, ProofOfPossession};
use crate::dialect::Outcome;
use crate::gate::resources;
use rotogate_core::client::{Client, Grant, PresentedClient};
use rotogate_core::denial::Denial;
use rotogate_core::dpop::OnceProof;
use rotogate_core::engine::{Arrival, AssertedLogin};
use rotogate_core::fault::Error;
use rotogate_core::session::Scope;
use rotogate_core::token::verify::{ProvedGrant, SentGrant};

pub(super) struct AssertionRequest {
    pub(super) client: Option<PresentedClient>,
    pub(super) assertion: SecretString,
    pub(super) scope: Option<Scope>,
    pub(super) resource: Option<Box<str>>,
}

impl EndpointCommand<'_> {
    pub(super) async fn assertion_grant(
        &self,
        request: AssertionRequest,
        presented: ProofOfPossession<'_>,
        arrived: Arrival,
    ) -> Result<Outcome, Error> {
        let AssertionRequest { client, assertion, scope, resource } = request;
        let named = match client {
            Some(presented) => Some(self.client(Some(presented), Some(Grant::JwtBearer)).await?),
            None => None,
        };
        let grant = self.proved_grant(named.as_deref(), &assertion).await?;
        let client = self.client_of(&grant, named)?;
        let resource = match &grant.user {
            Some(user) => self.resource_of(&user.resources, resource)?,
            None => resources::granted(&self.gate.resources, resource)?,
        };
        let (proof, certificate) = presented.of_client(self.gate, &client)?;
        if grant.bound_to.is_some() && grant.bound_to != proof.as_ref().map(OnceProof::key) {
            return Err(Denial::GrantAssertion("the request does not prove possession of the key in `cnf.jkt`").into());
        }
        let login = AssertedLogin {
            client: &client,
            grant: &grant,
            account: self.account,
            scope,
            resource,
            profile: &client.profile.over(&self.endpoint.profile),
            dialect: self.endpoint.dialect.name(),
            proof,
            certificate,
            arrived,
            origin: self.origin,
        };
        Ok(Outcome::Issued(Box::new(self.gate.engine.asserted(login).await?)))
    }

    /// If the signing key is unknown, waits for a fetch of the issuer's keys.
    async fn proved_grant(&self, client: Option<&Client>, assertion: &SecretString) -> Result<ProvedGrant, Error> {
        let (limits, address, checker) = (self.gate.engine.limits(), self.origin.address, &self.gate.checker);
        limits.admit_unverified(address)?;
        let issuers = self.issuers();
        let endpoint = self.endpoint.published.as_ref().map(|published| &*published.token_endpoint);
        let sent = SentGrant {
            audience: (&issuers, endpoint),
            client: client.map(|client| &*client.id),
            token: assertion.expose_secret(),
        };
        let mut read = checker.proved_grant(sent);
        if matches!(read, Err(Denial::KeysUnavailable(_)))
            && let Some(wait) = checker.awaited(sent.token)
        {
            let is_final = wait.ended().await;
            read = checker.proved_grant(sent);
            if is_final && matches!(read, Err(Denial::KeysUnavailable(_))) {
                read = Err(Denial::GrantAssertion("it was not signed with a key of the issuer"));
            }
        }
        limits.record_read(address, sent.token, &read);
        Ok(read?)
    }

    /// An assertion about a user needs an authenticated client. An assertion about a workload authenticates the client
    /// itself.
    fn client_of(&self, grant: &ProvedGrant, named: Option<Arc<Client>>) -> Result<Arc<Client>, Denial> {
        let is_confidential = named.as_ref().is_some_and(|client| client.is_confidential());
        if grant.user.is_some() && !is_confidential {
            return Err(Denial::InvalidClient);
        }
        if let Some(client) = named {
            return Ok(client);
        }
        let client = self.gate.clients.get(&grant.client).ok_or(Denial::UnauthorizedClient)?;
        let is_here = self.endpoint.clients.as_ref().is_none_or(|allowed| allowed.contains(&client.id));
        if is_here && client.may(Grant::JwtBearer) { Ok(client) } else { Err(Denial::UnauthorizedClient) }
    }

    /// The token is for one of the assertion's resources, which must all be resources of this gate.
    fn resource_of(&self, named: &[Box<str>], asked: Option<Box<str>>) -> Result<Option<Box<str>>, Denial> {
        let granted = |resource: Option<Box<str>>| resources::granted(&self.gate.resources, resource);
        let is_ours = named.iter().all(|resource| granted(Some(resource.clone())).is_ok());
        match (named, asked) {
            ([], asked) => granted(asked),
            _ if !is_ours => Err(Denial::InvalidTarget),
            ([one], None) => Ok(Some(one.clone())),
            (several, Some(asked)) if several.contains(&asked) => Ok(Some(asked)),
            _ => Err(Denial::InvalidTarget),
        }
    }
}
