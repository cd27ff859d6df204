//! Commands, carried out.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::table::Ready;
use crate::client::{Client, Grant, Presented};
use crate::credential::Credential;
use crate::denial::{Denial, Error};
use crate::dialect::{Checked, Command, Outcome, RefreshCredential};
use crate::gate::Inner;
use crate::limit::Source;
use crate::revocation::{Effect, Revocation};
use crate::session::RevokedBecause;
use crate::session::engine::{Exchange, Login, OfAccount, Origin, Refresh};
use crate::token::claims::AccessToken;

/// Carries a command out.
pub(super) async fn act(
    gate: &Inner,
    endpoint: &Ready,
    command: Command,
    account: Option<&str>,
    origin: &Origin,
) -> Result<Outcome, Error> {
    let at = At { gate, endpoint, origin };
    match command {
        Command::Login { client, username, password, scope, access_ttl } => {
            let client = at.client(client, Some(Grant::Password)).await?;
            let login = Login {
                client: &client,
                account,
                username: &username,
                password: &password,
                scope,
                access_ttl,
                profile: &client.profile.over(&endpoint.profile),
                dialect: endpoint.dialect.name(),
                origin,
            };
            issued(gate.engine.login(login).await?)
        }
        Command::ClientToken { client, scope } => {
            let client = at.client(Some(client), Some(Grant::ClientCredentials)).await?;
            if client.secret_hash.is_none() {
                return Err(Denial::UnauthorizedClient.into());
            }
            let profile = client.profile.over(&endpoint.profile);
            issued(gate.engine.client_token(&client, scope.as_ref(), &profile, origin)?)
        }
        Command::Refresh { client, credential, scope, access_ttl } => {
            let client = at.client(client, Some(Grant::RefreshToken)).await?;
            gate.engine.limits().refresh(origin.address)?;
            let (token, access) = read_credential(gate, credential, origin)?;
            let credential = match (&token, &access) {
                (Some(token), Some(access)) => Exchange::Pair(token, access),
                (Some(token), None) => Exchange::Refresh(token),
                (None, Some(access)) => Exchange::Access(access),
                (None, None) => return Err(Denial::UnknownRefreshToken.into()),
            };
            let refresh = Refresh {
                credential,
                client: &client,
                account: if endpoint.names_accounts { OfAccount::Only(account) } else { OfAccount::Any },
                scope,
                access_ttl,
                profile: &client.profile.over(&endpoint.profile),
                accepts: &endpoint.accepts,
                origin,
            };
            issued(gate.engine.refresh(refresh).await?)
        }
        Command::Revoke { client, token } => {
            let client = at.client(client, None).await?;
            revoke(gate, &client, &token, origin).await.map(|()| Outcome::Revoked)
        }
        Command::Logout { access, everywhere } => at.log_out(&access, everywhere).await.map(|()| Outcome::Revoked),
        Command::Introspect { client, token } => {
            let client = at.client(Some(client), None).await?;
            // RFC 7662 §2.1: whoever asks must be authorised to, or tokens could be fished for.
            if client.secret_hash.is_none() {
                return Err(Denial::UnauthorizedClient.into());
            }
            // Whoever can send a resource server junk does not decide what it is told of others' tokens.
            Ok(Outcome::Checked(at.check(&token, Source::Client(&client.id)).map(Box::new)))
        }
        Command::Check { access, superseded_in_grace } => {
            let mut checked = at.check(&access, origin.address.into());
            if superseded_in_grace && checked.as_ref().is_err_and(|denial| *denial == Denial::TokenRevoked) {
                checked = at.check_superseded(&access).await?;
            }
            let mut checked = match checked {
                Ok(checked) => checked,
                Err(denial) => return Ok(Outcome::Checked(Err(denial))),
            };
            // Another issuer's subject is nobody in our directory, whatever its name.
            if *checked.issuer == **gate.engine.issuer() {
                checked.user = gate.engine.user(&checked.subject).await?;
            }
            Ok(Outcome::Checked(Ok(Box::new(checked))))
        }
    }
}

/// What was presented, verified as far as it can be without the session's record.
fn read_credential(
    gate: &Inner,
    credential: RefreshCredential,
    origin: &Origin,
) -> Result<(Option<SecretString>, Option<AccessToken>), Denial> {
    let read = |access: &SecretString, expired_for_at_most| {
        let access = gate.checker.read_only(access.expose_secret(), expired_for_at_most, gate.shown(origin.address))?;
        if access.ours { Ok(access) } else { Err(Denial::UnknownRefreshToken) }
    };
    match credential {
        RefreshCredential::Refresh(token) => Ok((Some(token), None)),
        RefreshCredential::Access(access) => Ok((None, Some(read(&access, Duration::ZERO)?))),
        RefreshCredential::Pair { access, refresh, expired_for_at_most } => {
            Ok((Some(refresh), Some(read(&access, expired_for_at_most)?)))
        }
    }
}

/// One request at an endpoint.
struct At<'a> {
    gate: &'a Inner,
    endpoint: &'a Ready,
    origin: &'a Origin,
}

impl At<'_> {
    /// The client that asks, if it is known, proved itself, and may use this endpoint and grant.
    async fn client(&self, presented: Option<Presented>, grant: Option<Grant>) -> Result<Arc<Client>, Error> {
        let client = match presented {
            Some(presented) => {
                self.gate.clients.authenticate(&presented, self.gate.engine.limits(), self.origin.address).await?
            }
            // The protocol names none: the endpoint's own, which is public.
            None => {
                let id = self.endpoint.client.as_ref().ok_or(Denial::InvalidClient)?;
                let own = || Arc::new(Client { id: id.clone(), ..Client::public("") });
                self.gate.clients.get(id).filter(|client| client.secret_hash.is_none()).unwrap_or_else(own)
            }
        };
        if self.endpoint.clients.as_ref().is_some_and(|allowed| !allowed.contains(&client.id)) {
            return Err(Denial::UnauthorizedClient.into());
        }
        if grant.is_some_and(|grant| !client.may(grant)) {
            return Err(Denial::UnauthorizedClient.into());
        }
        Ok(client)
    }

    /// What an access token is now.
    fn check(&self, token: &SecretString, source: Source<'_>) -> Result<Checked, Denial> {
        let credential = Credential::new(token.expose_secret());
        let verified = self.gate.checker.check(credential, || self.gate.shown(source))?;
        Ok(checked(verified.token()))
    }

    /// A token that its own rotation revoked, as long as it may be exchanged for the same successor again.
    async fn check_superseded(&self, token: &SecretString) -> Result<Result<Checked, Denial>, Error> {
        let shown = self.gate.shown(self.origin.address);
        let access = match self.gate.checker.read_only(token.expose_secret(), Duration::ZERO, shown) {
            Ok(access) => access,
            Err(denial) => return Ok(Err(denial)),
        };
        let in_grace = self.gate.engine.may_be_replayed(&access, &self.endpoint.profile).await?;
        Ok(if in_grace { Ok(checked(&access)) } else { Err(Denial::TokenRevoked) })
    }

    async fn log_out(&self, access: &SecretString, everywhere: bool) -> Result<(), Error> {
        let checked = self.check(access, self.origin.address.into())?;
        let engine = &self.gate.engine;
        if everywhere {
            engine.revoke_subject(&checked.subject, RevokedBecause::Logout).await?;
        }
        match checked.session {
            Some(session) => match engine.store().load(session).await? {
                Some(session) => engine.log_out(&session, &checked.client, self.origin).await,
                None => Ok(()),
            },
            None => Err(Denial::UnusableCredential.into()),
        }
    }
}

fn checked(token: &AccessToken) -> Checked {
    Checked {
        subject: token.subject.clone(),
        client: token.client.clone().unwrap_or_default(),
        scope: token.scope.clone(),
        expires: token.expires,
        issued_at: token.issued_at,
        issuer: (*token.issuer).into(),
        session: token.session.map(|(session, _)| session),
        account: token.account.clone(),
        user: None,
    }
}

fn issued(issued: crate::session::engine::Issued) -> Result<Outcome, Error> {
    Ok(Outcome::Issued(Box::new(issued)))
}

/// RFC 7009: what the token belongs to ends, whichever kind of token it is. One that nobody knows needs no revoking.
async fn revoke(gate: &Inner, client: &Client, token: &SecretString, origin: &Origin) -> Result<(), Error> {
    let engine = &gate.engine;
    if engine.revoke_refresh_token(token.expose_secret(), &client.id, origin).await? {
        return Ok(());
    }
    let access = match gate.checker.read_only(token.expose_secret(), Duration::ZERO, gate.shown(origin.address)) {
        Ok(access) => access,
        // Nobody looked at it: nothing can be said of it.
        Err(denial @ Denial::TooManyRequests(_)) => return Err(denial.into()),
        Err(_) => return Ok(()),
    };
    if !access.ours {
        return Ok(());
    }
    if access.client.as_deref() != Some(client.id.as_ref()) {
        return Err(Denial::OtherClient.into());
    }
    if let Some((session, _)) = access.session
        && let Some(session) = engine.store().load(session).await?
    {
        return engine.log_out(&session, &client.id, origin).await;
    }
    let Some(target) = crate::verified::revocable(&access) else { return Ok(()) };
    let effect = match &target {
        crate::revocation::Target::Session(_) => Effect::SESSION_GONE,
        _ => Effect::Gone,
    };
    let until = access.expires.plus(gate.leeway);
    engine.revoke(Revocation { target, effect, until }, RevokedBecause::Logout).await.map(drop)
}
