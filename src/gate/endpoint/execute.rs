use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::assertion::AssertionRequest;
use super::credential::ReadCredential;
use super::grants::grant_of;
use super::table::Ready;
use crate::dialect::events::Notice;
use crate::dialect::{CheckedToken, Command, Outcome, OwnSessionsRequest, Superseded};
use crate::gate::layer::Debt;
use crate::gate::possession::PresentedProof;
use crate::gate::{Inner, resources};
use rotogate_core::client::{Client, Grant, PresentedClient};
use rotogate_core::credential::Credential;
use rotogate_core::denial::{Denial, EventFlaw, NotGood};
use rotogate_core::dpop::OnceProof;
use rotogate_core::engine::api_keys::{ApiKeys, OwnKeys, OwnKeysRequest};
use rotogate_core::engine::{AccountRule, Arrival, HeldUp, Login, Origin, OwnSessions, PresentedDevice, Refresh};
use rotogate_core::fault::Error;
use rotogate_core::limit::Source;
use rotogate_core::session::{RevokedBecause, Scope, Status};
use rotogate_core::thumbprint::CertificateThumbprint;
use rotogate_core::token::claims::{AccessToken, OfAccount};
use rotogate_core::token::session_cookie;
use rotogate_core::token::verify::SentNotice;
use rotogate_core::verify_cache::{Introspected, Verified};

#[derive(Clone, Copy)]
pub(super) struct ProofOfPossession<'a> {
    pub(super) proof: Option<&'a PresentedProof>,
    pub(super) certificate: Option<CertificateThumbprint>,
}

impl<'a> ProofOfPossession<'a> {
    pub(super) fn of_client(self, gate: &'a Inner, client: &Client) -> Result<Binding<'a>, Denial> {
        let proof = gate.proof_of_client(self.proof, client.dpop)?;
        Ok((proof, Inner::certificate_of_client(self.certificate, client.certificate_bound)?))
    }

    fn of_refresh(self, gate: &'a Inner, client: &Client) -> Result<Binding<'a>, Denial> {
        let proof = gate.proof_of_refresh(self.proof, client.dpop)?;
        Ok((proof, Inner::certificate_of_refresh(self.certificate, client.certificate_bound)?))
    }
}

pub(super) type Binding<'a> = (Option<OnceProof<'a>>, Option<CertificateThumbprint>);

#[derive(Clone, Copy)]
pub(super) struct CommandRequest<'a> {
    pub(super) account: Option<&'a str>,
    pub(super) origin: &'a Origin,
    pub(super) arrived: Arrival,
    pub(super) presented: ProofOfPossession<'a>,
}

pub(super) async fn execute(
    gate: &Inner,
    endpoint: &Ready,
    command: Command,
    request: CommandRequest<'_>,
) -> Result<Outcome, Error> {
    let grant = grant_of(&command);
    let outcome = carry_out(gate, endpoint, command, request).await;
    if let Some(grant) = grant {
        gate.running.grants.count(grant, &outcome);
    }
    outcome
}

async fn carry_out(
    gate: &Inner,
    endpoint: &Ready,
    command: Command,
    CommandRequest { account, origin, arrived, presented }: CommandRequest<'_>,
) -> Result<Outcome, Error> {
    let (account, of_account) = accounts(endpoint, account);
    let at = EndpointCommand { gate, endpoint, origin, account: of_account };
    match command {
        Command::Login { client, username, password, scope, access_ttl, resource } => {
            let client = at.client(client, Some(Grant::Password)).await?;
            let resource = resources::granted(&gate.resources, resource)?;
            let (proof, certificate) = presented.of_client(gate, &client)?;
            let login = Login {
                client: &client,
                account,
                username: &username,
                password: &password,
                scope,
                access_ttl,
                resource,
                profile: &client.profile.over(&endpoint.profile),
                dialect: endpoint.dialect.name(),
                proof,
                certificate,
                arrived,
                origin,
            };
            issued(gate.engine.login(login).await?)
        }
        Command::ClientToken { client, scope, resource } => at.client_token(client, scope, resource, presented).await,
        Command::Exchange(request) => at.exchange(*request, presented).await,
        Command::Assertion { client, assertion, scope, resource } => {
            let request = AssertionRequest { client, assertion, scope, resource };
            at.assertion_grant(request, presented, arrived).await
        }
        Command::Refresh { client, credential, scope, access_ttl, resource } => {
            let client = at.client(client, Some(Grant::RefreshToken)).await?;
            at.count_refresh(&client)?;
            let (proof, certificate) = presented.of_refresh(gate, &client)?;
            let profile = client.profile.over(&endpoint.profile);
            let credential = ReadCredential::read(gate, credential, &profile, origin)?;
            let refresh = Refresh {
                credential: credential.exchange()?,
                client: &client,
                account: of_account,
                scope,
                access_ttl,
                resource,
                profile: &profile,
                accepts: &endpoint.accepts,
                by_access: &endpoint.by_access,
                proof,
                certificate,
                arrived,
                origin,
            };
            issued(gate.engine.refresh(refresh).await?)
        }
        Command::Revoke { client, token } => {
            let client = at.client(client, None).await?;
            at.revoke(&client, &token).await.map(|()| Outcome::Revoked)
        }
        Command::Logout { access, everywhere } => at.log_out(&access, everywhere).await.map(|()| Outcome::Revoked),
        Command::Introspect { client, token } => at.introspect(client, &token).await,
        Command::RevokeGlobally(request) => gate.revoke_globally(&request, origin).await.map(|()| Outcome::Revoked),
        Command::Check { access, superseded } => {
            Ok(Outcome::Checked(decided(at.check_with_user(&access, superseded, arrived).await)?))
        }
    }
}

pub(super) async fn end_elsewhere(gate: &Inner, notice: &Notice, origin: &Origin) -> Result<(), Error> {
    let text = notice.token.as_ref().map_or("", ExposeSecret::expose_secret);
    let reported = gate.judge_notice(origin, text, || match (&notice.token, notice.is_authenticated) {
        (_, false) => Err(Denial::RefusedEvent(EventFlaw::Authentication)),
        (Err(what), true) => Err(Denial::RefusedEvent(EventFlaw::Request(what))),
        (Ok(token), true) => gate.checker.verify_notice(SentNotice {
            protocol: notice.protocol,
            issuer: &notice.issuer,
            audience: &notice.audience,
            token: token.expose_secret(),
        }),
    });
    gate.take_notice(&notice.issuer, notice.protocol, reported.map_err(Error::from), origin).await
}

pub(super) type OwnRequester<'a> = (Option<&'a str>, PresentedDevice, &'a Origin);

pub(super) async fn own_sessions(
    gate: &Arc<Inner>,
    endpoint: &Ready,
    mut request: OwnSessionsRequest,
    by: OwnRequester<'_>,
) -> Result<OwnSessions, Error> {
    let at = EndpointCommand { gate, endpoint, origin: by.2, account: accounts(endpoint, by.0).1 };
    let (verified, by_cookie) = at.check_own(gate, &request.access, by.1).await?;
    if by_cookie {
        request.max_age = Duration::MAX;
    }
    gate.engine.own_sessions(at.concerns(verified.token())?.own()?, &request, by.2).await
}

pub(super) async fn own_keys(
    (gate, keys): (&Arc<Inner>, &ApiKeys),
    endpoint: &Ready,
    request: OwnKeysRequest,
    by: OwnRequester<'_>,
) -> Result<OwnKeys, Error> {
    let at = EndpointCommand { gate, endpoint, origin: by.2, account: accounts(endpoint, by.0).1 };
    let (verified, by_cookie) = at.check_own(gate, &request.access, by.1).await?;
    keys.own(&gate.engine, at.concerns(verified.token())?.own()?, request, by_cookie, by.2).await
}

pub(super) fn accounts<'a>(endpoint: &'a Ready, account: Option<&'a str>) -> (Option<&'a str>, AccountRule<'a>) {
    match (&endpoint.account, endpoint.names_accounts) {
        (Some(bound), _) => (Some(&**bound), AccountRule::Only(Some(bound))),
        (None, true) => (account, AccountRule::Only(account)),
        (None, false) => (account, AccountRule::Any),
    }
}

/// A denial is a decision about the token. A fault prevents this decision.
pub(super) fn decided<T>(found: Result<T, impl Into<Error>>) -> Result<Result<T, Denial>, Error> {
    match found.map_err(Into::into) {
        Ok(good) => Ok(Ok(good)),
        Err(Error::Denied(denial)) => Ok(Err(NotGood::from_denial(denial)?.denial())),
        Err(failed @ Error::Failed(_)) => Err(failed),
    }
}

pub(super) struct EndpointCommand<'a> {
    pub(super) gate: &'a Inner,
    pub(super) endpoint: &'a Ready,
    pub(super) origin: &'a Origin,
    pub(super) account: AccountRule<'a>,
}

impl EndpointCommand<'_> {
    async fn client_token(
        &self,
        client: PresentedClient,
        scope: Option<Scope>,
        resource: Option<Box<str>>,
        presented: ProofOfPossession<'_>,
    ) -> Result<Outcome, Error> {
        let client = self.client(Some(client), Some(Grant::ClientCredentials)).await?;
        if !client.is_confidential() {
            return Err(Denial::UnauthorizedClient.into());
        }
        let resource = resources::granted(&self.gate.resources, resource)?;
        let bound_to = presented.of_client(self.gate, &client)?;
        let profile = client.profile.over(&self.endpoint.profile);
        let (scope, resource) = (scope.as_ref(), resource.as_ref().map(std::slice::from_ref));
        issued(self.gate.engine.client_token(&client, scope, resource, &profile, bound_to, self.origin).await?)
    }

    pub(super) fn count_refresh(&self, client: &Client) -> Result<(), Denial> {
        let engine = &self.gate.engine;
        engine.limits().refresh(self.origin.address).inspect_err(|denial| self.tell_held_up(*denial, client))
    }

    fn tell_held_up(&self, denial: Denial, client: &Client) {
        let of = || HeldUp { client: Some((*client.id).into()), ..HeldUp::default() };
        self.gate.engine.tell_held_up(&denial.into(), self.origin, of);
    }

    /// Responds to an introspection (RFC 7662).
    async fn introspect(&self, client: PresentedClient, token: &SecretString) -> Result<Outcome, Error> {
        let client = self.client(Some(client), None).await?;
        // RFC 7662 §2.1: without authentication, anyone could scan for valid tokens.
        if !client.is_confidential() {
            return Err(Denial::InvalidClient.into());
        }
        // Invalid tokens count against the resource server, not against an address. Forged tokens from one client must
        // not block the introspection of other clients' tokens.
        let checked = self.check_unproved(token, Source::Client(&client.id)).and_then(|verified| {
            let token = self.concerns(verified.token())?;
            // The resource server itself checks the proof.
            verified.confirm(self.gate.engine.confirmations());
            Ok(Box::new(checked_of(token)))
        });
        let checked = checked.inspect_err(|denial| self.tell_held_up(*denial, &client));
        Ok(Outcome::Checked(decided(checked)?))
    }

    /// Introspection and revocation do not accept proofs, so the proof for the token's key is not checked (requirement
    /// N38).
    fn check_unproved(&self, token: &SecretString, source: Source<'_>) -> Result<Arc<Verified>, Denial> {
        let credential = Credential::maybe_bound(token.expose_secret());
        self.gate.checker.check(credential, || self.gate.shown(source), &mut ())
    }

    async fn check_own(
        &self,
        gate: &Arc<Inner>,
        access: &SecretString,
        device: PresentedDevice,
    ) -> Result<(Arc<Verified>, bool), Denial> {
        let (text, address) = (access.expose_secret(), self.origin.address);
        match gate.browser.is_some() && text.starts_with(session_cookie::PREFIX) {
            true => Ok((gate.checked_session(text, device, address).await?, true)),
            false => Ok((self.wait_for(Credential::new(text), address.into()).await?, false)),
        }
    }

    /// Accepts any audience and account. If the issuer must introspect the token, waits for the issuer's response.
    pub(super) async fn wait_for(
        &self,
        credential: Credential<'_>,
        source: Source<'_>,
    ) -> Result<Arc<Verified>, Denial> {
        let check = |introspected: Option<&Introspected>| {
            let shown = || self.gate.shown(source).after(introspected);
            self.gate.checker.check(credential, shown, &mut ())
        };
        let first = check(None);
        let owed = |denial: &Denial| Debt::at_endpoint(self.gate, credential.token(), *denial, self.origin.address);
        let Some(debt) = first.as_ref().err().and_then(owed) else { return first };
        let receipt = debt.paid().await;
        check(receipt.introspected()).map_err(|denial| receipt.refusal(denial))
    }

    /// Verifies a token that may be revoked, or that expired at most `expired_for_at_most` ago.
    pub(super) fn verify_ignoring_expiry(
        &self,
        token: &SecretString,
        expired_for_at_most: Duration,
    ) -> Result<AccessToken, Denial> {
        let shown = self.gate.shown(self.origin.address);
        self.gate.checker.verify_ignoring_expiry(token.expose_secret(), expired_for_at_most, shown)
    }

    /// Checks that the gate serves the token's audience, and that this endpoint serves the token's account.
    pub(super) fn concerns<'t>(&self, token: &'t AccessToken) -> Result<OfAccount<'t>, Denial> {
        if !self.gate.serves_audience_of(token) {
            return Err(Denial::WrongAudience);
        }
        self.account.admit(token)
    }

    async fn check_with_user(
        &self,
        token: &SecretString,
        superseded: Superseded,
        arrived: Arrival,
    ) -> Result<Box<CheckedToken>, Error> {
        let checked = |token: OfAccount<'_>| (checked_of(token), token.token().is_of_own_user());
        let (mut found, is_own) =
            match self.wait_for(Credential::new(token.expose_secret()), self.origin.address.into()).await {
                Ok(verified) => {
                    let token = self.concerns(verified.token())?;
                    token.token().of_bearer()?;
                    checked(token)
                }
                Err(denial @ (Denial::TokenRevoked | Denial::TokenExpired)) if superseded != Superseded::None => {
                    let access = self.check_superseded(token, superseded, arrived).await?.ok_or(denial)?;
                    checked(self.concerns(&access)?)
                }
                Err(denial) => return Err(denial.into()),
            };
        // The directory knows only users of this gate. A user of another issuer may have the same name.
        if is_own {
            found.user = self.gate.engine.user(found.account.as_deref(), &found.subject).await?;
        }
        Ok(Box::new(found))
    }

    async fn log_out(&self, access: &SecretString, everywhere: bool) -> Result<(), Error> {
        let verified = match self.check_unproved(access, self.origin.address.into()) {
            Ok(verified) => verified,
            Err(denial) => {
                self.log_out_dead(access, denial).await?;
                return Err(denial.into());
            }
        };
        let own = self.concerns(verified.token())?.own()?;
        let client = own.token().client.as_deref().unwrap_or_default();
        if everywhere {
            self.gate.engine.log_out_everywhere(own, client, self.origin).await
        } else {
            self.gate.engine.log_out_token(own, client, self.origin).await
        }
    }

    /// Logs out with an expired or rotated token, because the token's session may still be live (requirement R16).
    async fn log_out_dead(&self, access: &SecretString, denial: Denial) -> Result<(), Error> {
        if !matches!(denial, Denial::TokenExpired | Denial::TokenRevoked) {
            return Ok(());
        }
        let read = self.verify_ignoring_expiry(access, self.endpoint.profile.session_ttl);
        let Ok(access) = decided(read)? else { return Ok(()) };
        let Ok(own) = self.account.admit(&access).and_then(OfAccount::own) else { return Ok(()) };
        let Some((session, _)) = own.token().session else { return Ok(()) };
        let engine = &self.gate.engine;
        match engine.record_to_end(session, own.token().expires, RevokedBecause::Logout).await? {
            Some(session) if session.status == Status::Live => {
                engine.log_out(&session, own.token().client.as_deref().unwrap_or_default(), self.origin).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// An unknown token is not an error (RFC 7009).
    async fn revoke(&self, client: &Client, token: &SecretString) -> Result<(), Error> {
        let engine = &self.gate.engine;
        if engine.revoke_refresh_token(token.expose_secret(), &client.id, self.account, self.origin).await? {
            return Ok(());
        }
        let read = self.verify_ignoring_expiry(token, Duration::ZERO);
        let Ok(access) = decided(read)? else { return Ok(()) };
        // Only the issuer of a token can revoke it.
        if !access.is_ours() || access.of_bearer().is_err() {
            return Ok(());
        }
        if access.client.as_deref() != Some(&*client.id) {
            return Err(Denial::OtherClient.into());
        }
        engine.log_out_token(self.account.admit(&access)?.own()?, &client.id, self.origin).await
    }
}

fn checked_of(token: OfAccount<'_>) -> CheckedToken {
    let token = token.token();
    CheckedToken {
        subject: token.subject.clone(),
        client: token.client.clone().unwrap_or_default(),
        scope: token.scope.clone(),
        expires: token.expires,
        issued_at: token.issued_at,
        issuer: (**token.issuer()).into(),
        audience: Arc::clone(&token.audience),
        jti: token.jti.clone(),
        not_before: token.not_before(),
        session: token.session.map(|(session, _)| session),
        account: token.account().map(Box::from),
        bound_to: token.bound_to(),
        certificate: token.certificate().copied(),
        act: token.delegation().map(|delegation| delegation.act().clone()),
        user: None,
    }
}

pub(super) fn issued(issued: rotogate_core::engine::IssuedTokens) -> Result<Outcome, Error> {
    Ok(Outcome::Issued(Box::new(issued)))
}
