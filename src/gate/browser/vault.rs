//! A vault is a row with the provider's tokens for one session. Its encryption key comes from the session's
//! cookie. The store and the gate's keys do not suffice to decrypt it (requirement B5).
//!
//! A refresh goes through the relay, which keeps the provider's response until the vault has the new tokens. If the
//! gate is killed in between, the relay repeats the response for the browser's next request.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::client_refusals::ClientRefusals;
use crate::gate::Inner;
use crate::gate::relay::{EndpointRelay, RelayConfig};
use crate::relay::http::{reply, send_error};
use crate::relay::record::VAULTS;
use crate::relay::seal::RelayKeys;
use crate::relay::{
    AfterUnknown, Meaning, Presented, Presenter, Provider, ProviderReply, ProviderRequest, RelayAnswer, RelayRules,
    SendError, Source, oauth,
};
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{RenewWhen, SessionProvider};
use rotogate_core::fault::{Chain, Error, Fault};
use rotogate_core::oauth_error::OAuthError;
use rotogate_core::session::{SessionId, VouchedBy};
use rotogate_core::store::rows::{Row, RowInserted, RowSwapped};
use rotogate_core::strict_json::object_of_depth;
use rotogate_core::token::session_cookie::SessionCookie;
use rotogate_core::verify_cache::ProviderTerms;
use rotogate_issuers::login::{FurtherTokens, LoginFailure, LoginProvider, RefreshedTokens};

/// This timeout is shorter than the time that a request waits for its session.
const TIMEOUT: Duration = Duration::from_secs(8);
const REVOKED_WITHIN: Duration = Duration::from_secs(2);
const CLOSE_TRIES: usize = 5;
/// How long the relay repeats a response after the vault has stored it. Another gate may still use the old vault.
const GRACE: Duration = Duration::from_secs(60);
/// The assumed lifetime if the response does not state one.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);
/// How long a session continues without the provider, if the session's token is not forwarded.
const WITHOUT_PROVIDER: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(5);
/// Tokens are used for at least this time, even if they expire earlier.
const AT_LEAST: Duration = Duration::from_secs(1);
/// How often a gate checks whether another gate has finished its refresh.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// In bytes.
const MAX_HINT: usize = 4 << 10;
const MAX_DEPTH: usize = 16;

const OVER: Denial = Denial::SessionOver("the provider refused to continue the session");

#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(in crate::gate) struct KeptTokens {
    pub(in crate::gate) refresh_token: Option<String>,
    pub(in crate::gate) id_token: Option<String>,
    access_token: Option<String>,
    #[zeroize(skip)]
    granted_at: Timestamp,
    #[zeroize(skip)]
    expires: Timestamp,
}

impl KeptTokens {
    pub(in crate::gate) fn new(
        provider: &LoginProvider,
        (id_token, access_token): (Option<&str>, &str),
        further: &FurtherTokens,
        now: Timestamp,
    ) -> Self {
        Self {
            refresh_token: further.refresh_token.as_deref().cloned(),
            id_token: id_token.filter(|token| token.len() <= MAX_HINT).map(str::to_owned),
            access_token: provider.keeps_access_token().then(|| access_token.to_owned()),
            granted_at: now,
            expires: now.plus(further.lifetime.unwrap_or(UNKNOWN_LIFE)),
        }
    }

    fn refreshed(&self, provider: &LoginProvider, answer: &RefreshedTokens, now: Timestamp) -> Self {
        let id_token = answer.id_token.as_ref().map(|token| token.as_str());
        let mut new = Self::new(provider, (id_token, &answer.access_token), &answer.further, now);
        new.refresh_token = new.refresh_token.take().or_else(|| self.refresh_token.clone());
        new.id_token = new.id_token.take().or_else(|| self.id_token.clone());
        new
    }

    /// Returns the time of the refresh, which varies between 70 % and 90 % of the lifetime.
    fn refresh_from(&self, session: SessionId) -> Timestamp {
        let spread = u32::from(session.as_bytes().last().copied().unwrap_or_default()) * 200 / 255;
        self.granted_at.plus(self.expires.since(self.granted_at) / 1000 * (700 + spread))
    }

    /// If `when` is `Due`, the refresh runs in the background.
    fn is_due(&self, session: SessionId, when: RenewWhen, keeps_access_token: bool, now: Timestamp) -> bool {
        let is_over = self.expires <= now || keeps_access_token && self.access_token.is_none();
        let is_ahead = when == RenewWhen::Due && self.refresh_from(session) <= now;
        self.refresh_token.is_some() && (is_over || is_ahead)
    }

    fn terms(&self, session: SessionId, now: Timestamp) -> ProviderTerms {
        let is_refreshable = self.refresh_token.is_some();
        ProviderTerms {
            access_token: self.access_token.clone().map(|token| Arc::new(Zeroizing::new(token))),
            token_until: self.expires,
            is_refreshable,
            refresh_from: if is_refreshable { self.refresh_from(session) } else { Timestamp::MAX },
            // Without a refresh token, only the session's limits apply.
            good_until: if is_refreshable { self.expires.max(now.plus(AT_LEAST)) } else { Timestamp::MAX },
        }
    }

    // Requirement B40.
    fn terms_without_provider(&self, session: SessionId, now: Timestamp) -> Option<ProviderTerms> {
        let (terms, again) = (self.terms(session, now), now.plus(PAUSE));
        let until = self.expires.max(self.granted_at.plus(WITHOUT_PROVIDER));
        let good_until = if now < self.expires { self.expires } else { again.min(until) };
        (now < until).then_some(ProviderTerms { refresh_from: again, good_until, ..terms })
    }
}

struct Vault {
    keys: RelayKeys,
    row: Row,
    tokens: KeptTokens,
}

pub(in crate::gate) struct Vaults<'a> {
    gate: &'a Inner,
    relay: &'a EndpointRelay,
    provider: &'a LoginProvider,
    refusals: &'a ClientRefusals,
}

impl Inner {
    pub(in crate::gate) fn vaults(&self) -> Option<Vaults<'_>> {
        let browser = self.browser.as_deref()?;
        let provider = browser.provider.as_ref()?;
        let relay = self.running.relays.iter().find(|relay| relay.path() == browser.dialect.targets.path)?;
        Some(Vaults { gate: self, relay, provider, refusals: &browser.refusals })
    }
}

enum Attempt {
    Refreshed(KeptTokens),
    /// Another gate has changed the vault, or the relay repeated a response whose access token has expired.
    Changed,
    UnderWay,
    Failed,
}

impl Vaults<'_> {
    fn keys(&self, cookie: &SessionCookie) -> Result<RelayKeys, Fault> {
        const NOT_SEALED: Fault = Fault::Signing("the provider's tokens could not be encrypted");
        let secret = cookie.vault(self.gate.engine.keyring().refresh_keys()).ok_or(NOT_SEALED)?;
        RelayKeys::vault(&secret).map_err(|_| NOT_SEALED)
    }

    pub(in crate::gate) async fn begin(
        &self,
        cookie: &SessionCookie,
        tokens: &KeptTokens,
        until: Timestamp,
    ) -> Result<(), Fault> {
        let (keys, now) = (self.keys(cookie)?, self.gate.engine.clock().now());
        let row = sealed(&keys, until, tokens)?;
        match self.relay.store().insert_row(VAULTS, keys.id(), row, now).await? {
            RowInserted::Inserted => Ok(()),
            // Session ids are random, so a vault with this id cannot exist.
            RowInserted::Present(_) => Err(Fault::Contention),
        }
    }

    /// Loads the vault. If the cookie cannot decrypt the vault, the result is a fault.
    // Attack 27.
    async fn load(&self, cookie: &SessionCookie) -> Result<Option<Vault>, Fault> {
        let keys = self.keys(cookie)?;
        let Some(row) = self.relay.store().load_row(VAULTS, keys.id()).await? else { return Ok(None) };
        let tokens = keys.open_row((VAULTS, keys.id()), &row).and_then(|text| postcard::from_bytes(&text).ok());
        let Some(tokens) = tokens else {
            if let Some(others) = self.relay.is_due("vault_not_opened") {
                tracing::error!(
                    session = %cookie.session(),
                    others,
                    "another program or release wrote this session's tokens, so the session's requests get 503. Run \
                     `rotogate session revoke ID`"
                );
            }
            return Err(Fault::Provider { reason: "vault_unusable", retry_after: PAUSE });
        };
        Ok(Some(Vault { keys, row, tokens }))
    }

    /// Removes the vault after a logout, and revokes its refresh token at the provider. Returns the `id_token_hint` for
    /// the logout page.
    // Requirement B43.
    pub(in crate::gate) async fn close(&self, cookie: &SessionCookie) -> Option<Zeroizing<String>> {
        let mut failed = Fault::Contention;
        for _ in 0..CLOSE_TRIES {
            match self.taken(cookie).await {
                Ok(Some(mut tokens)) => {
                    self.revoke(&tokens).await;
                    return tokens.id_token.take().map(Zeroizing::new);
                }
                Ok(None) => return None,
                Err(fault) => failed = fault,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.tell_not_revoked(&format!("the stored tokens could not be read: {:?}", Chain(&failed)));
        None
    }

    /// Removes a vault unless another request has refreshed its tokens since they were read.
    async fn taken(&self, cookie: &SessionCookie) -> Result<Option<KeptTokens>, Fault> {
        let Some(Vault { keys, row, tokens }) = self.load(cookie).await? else { return Ok(None) };
        match self.relay.store().remove_row(VAULTS, keys.id(), Some(row.version)).await? {
            true => Ok(Some(tokens)),
            false => Err(Fault::Contention),
        }
    }

    pub(in crate::gate) async fn id_token(&self, cookie: &SessionCookie) -> Result<Option<Zeroizing<String>>, Fault> {
        let vault = self.load(cookie).await?;
        Ok(vault.and_then(|vault| vault.tokens.id_token.clone()).map(Zeroizing::new))
    }

    pub(in crate::gate) async fn remove(&self, cookie: &SessionCookie) {
        let Ok(keys) = self.keys(cookie) else { return };
        if let Err(error) = self.relay.store().remove_row(VAULTS, keys.id(), None).await {
            tracing::warn!(error = ?Chain(&error), "an ended session's tokens could not be removed; they will expire");
        }
    }

    // Requirement B43.
    pub(in crate::gate) async fn revoke(&self, tokens: &KeptTokens) {
        let Some(token) = &tokens.refresh_token else { return };
        let answered = tokio::time::timeout(REVOKED_WITHIN, self.provider.revoke(token, REVOKED_WITHIN)).await;
        let why = match answered {
            Ok(Ok(status)) if status.is_success() => return,
            Ok(Ok(status)) => format!("status {status}"),
            // Without a revocation endpoint, the provider's logout page ends the login.
            Ok(Err(LoginFailure::Unknown(..))) => return,
            Ok(Err(why)) => why.to_string(),
            Err(_) => "no response in time".to_owned(),
        };
        self.tell_not_revoked(&why);
    }

    fn tell_not_revoked(&self, why: &str) {
        if let Some(others) = self.relay.is_due("not_revoked") {
            tracing::warn!(
                issuer = self.provider.name(),
                why,
                others,
                "the provider did not revoke the refresh token of a session that has ended at the gate"
            );
        }
    }

    // Requirements B40 and B41.
    async fn refresh(
        &self,
        cookie: &SessionCookie,
        vault: &Vault,
        user: &VouchedBy,
        ends: Timestamp,
    ) -> Result<Attempt, Error> {
        let Some(token) = &vault.tokens.refresh_token else { return Ok(Attempt::Failed) };
        let refused = |retry_after| Fault::Provider { reason: "provider_refused", retry_after };
        let sent = tokio::time::Instant::now();
        self.refusals.admit(sent).map_err(refused)?;
        let answer = self.relay.exchange(self.presented(token, ends)).await;
        if let RelayAnswer::Reply(reply, source) = &answer
            && *source != Source::Replayed
        {
            self.refusals.note(reply, sent, tokio::time::Instant::now());
        }
        match answer {
            RelayAnswer::Reply(reply, source) if reply.status == 200 => {
                let Some(answer) = RefreshedTokens::read(&reply.body) else { return Ok(Attempt::Failed) };
                if answer.id_token.as_ref().is_some_and(|token| !is_of_user(token, user)) {
                    tracing::error!(
                        issuer = self.provider.name(),
                        "the provider returned another user's tokens, so the session ends. Report this to the provider"
                    );
                    return self.end(cookie).await;
                }
                let tokens = vault.tokens.refreshed(self.provider, &answer, self.gate.engine.clock().now());
                if !self.write(vault, &tokens).await? {
                    if self.load(cookie).await?.is_none() {
                        self.revoke(&tokens).await;
                    }
                    return Ok(Attempt::Changed);
                }
                if let Err(error) = self.relay.settle(self.presented(token, ends)).await {
                    tracing::warn!(error = ?Chain(&error), "the relay keeps a token response longer than necessary");
                }
                let is_old = source == Source::Replayed && tokens.expires <= self.gate.engine.clock().now();
                Ok(if is_old { Attempt::Changed } else { Attempt::Refreshed(tokens) })
            }
            RelayAnswer::Reply(reply, _) if is_end(&reply) => self.end(cookie).await,
            RelayAnswer::Reply(..) | RelayAnswer::InvalidProof(_) | RelayAnswer::InvalidScope => {
                if let Some(others) = self.relay.is_due("client_refused") {
                    tracing::error!(
                        issuer = self.provider.name(),
                        others,
                        "the provider refuses to refresh: check `client.id`, `client.secret_in` and the client secret"
                    );
                }
                Err(refused(PAUSE).into())
            }
            // The vault belongs to another client, or contains a malformed token.
            RelayAnswer::InvalidGrant(_) => self.end(cookie).await,
            RelayAnswer::Unavailable { reason: "relay_pending", .. } => Ok(Attempt::UnderWay),
            RelayAnswer::Unavailable { .. } | RelayAnswer::TooMany { .. } => Ok(Attempt::Failed),
        }
    }

    fn presented(&self, token: &str, ends: Timestamp) -> Presented {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        Presented {
            token: SecretString::from(token),
            presenter: Presenter { client: self.provider.client_id().to_owned(), ..Presenter::default() },
            request: ProviderRequest { body: body.into_bytes().into(), ..ProviderRequest::default() },
            keep_until: Some(ends),
            ..Presented::default()
        }
    }

    async fn write(&self, vault: &Vault, tokens: &KeptTokens) -> Result<bool, Fault> {
        let (keys, now) = (&vault.keys, self.gate.engine.clock().now());
        let row = sealed(keys, vault.row.until, tokens)?;
        let swapped = self.relay.store().swap_row(VAULTS, keys.id(), vault.row.version, row, now).await?;
        Ok(swapped == RowSwapped::Swapped)
    }

    async fn end<T>(&self, cookie: &SessionCookie) -> Result<T, Error> {
        self.gate.engine.end_refused_by_provider(cookie).await?;
        self.remove(cookie).await;
        Err(OVER.into())
    }
}

#[async_trait]
impl SessionProvider for Vaults<'_> {
    async fn terms(
        &self,
        cookie: &SessionCookie,
        user: &VouchedBy,
        ends: Timestamp,
        when: RenewWhen,
    ) -> Result<ProviderTerms, Error> {
        if *user.issuer != *self.provider.url() {
            return Err(Denial::SessionOver("the endpoint no longer uses the session's provider").into());
        }
        let (id, begun) = (cookie.session(), tokio::time::Instant::now());
        loop {
            let Some(vault) = self.load(cookie).await? else {
                // A restored store does not contain vaults, because the provider would treat an older refresh token as
                // reuse.
                if when == RenewWhen::Never {
                    return Err(Denial::SessionOver("the gate no longer has the session's provider tokens").into());
                }
                return self.end(cookie).await;
            };
            let (tokens, now) = (&vault.tokens, self.gate.engine.clock().now());
            if !tokens.is_due(id, when, self.provider.keeps_access_token(), now) {
                return Ok(tokens.terms(id, now));
            }
            if when == RenewWhen::Never {
                return Err(Denial::SessionNotRenewed.into());
            }
            match self.refresh(cookie, &vault, user, ends).await? {
                Attempt::Refreshed(tokens) => return Ok(tokens.terms(id, now)),
                Attempt::Changed => {}
                Attempt::UnderWay if begun.elapsed() < TIMEOUT => tokio::time::sleep(LOOK_EVERY).await,
                Attempt::UnderWay | Attempt::Failed => {
                    let terms = tokens.terms_without_provider(id, self.gate.engine.clock().now());
                    let silent = Fault::Provider { reason: "provider_unreachable", retry_after: PAUSE };
                    return terms.ok_or_else(|| silent.into());
                }
            }
        }
    }
}

fn sealed(keys: &RelayKeys, until: Timestamp, tokens: &KeptTokens) -> Result<Row, Fault> {
    const NOT_SEALED: Fault = Fault::Signing("the provider's tokens could not be encrypted");
    let text = postcard::to_stdvec(tokens).map(Zeroizing::new).map_err(|_| NOT_SEALED)?;
    keys.seal_row((VAULTS, keys.id()), until, &text).map_err(|_| NOT_SEALED)
}

/// See OpenID Connect Core §12.2.
// Attack 39.
fn is_of_user(token: &str, user: &VouchedBy) -> bool {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).map(Zeroizing::new);
    let claims = payload.and_then(|payload| object_of_depth(&payload, MAX_DEPTH).ok());
    let Some(claims) = claims else { return false };
    let is = |name, expected: &str| claims.get(name).and_then(Value::as_str) == Some(expected);
    is("iss", &user.issuer) && is("sub", &user.subject)
}

/// Returns whether the user must log in again. Keycloak returns `unauthorized_client` if the client may no longer use
/// this token.
fn is_end(reply: &ProviderReply) -> bool {
    let error = oauth::error(reply);
    let meaning = error.as_deref().map(OAuthError::read);
    matches!(meaning, Some(OAuthError::Grant | OAuthError::User)) || error.as_deref() == Some("unauthorized_client")
}

#[derive(Debug)]
struct RefreshingProvider(LoginProvider);

#[async_trait]
impl Provider for RefreshingProvider {
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        // This timeout expires before the relay's timeout, because only this error shows whether the request was sent.
        match self.0.ask_for_tokens(&request.body, TIMEOUT - TIMEOUT / 20).await {
            Ok(answer) => Ok(oauth::with_usual_status(reply(answer))),
            Err(LoginFailure::Unreachable(error)) => Err(send_error(&error)),
            Err(LoginFailure::Busy(wait)) => Ok(ProviderReply::busy(wait)),
            Err(other) => Err(SendError::NotSent(other.to_string())),
        }
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        if is_end(reply) { Meaning::Dead } else { oauth::read(token, reply) }
    }

    fn aged(&self, reply: ProviderReply, passed: Duration) -> ProviderReply {
        oauth::aged(reply, passed)
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        oauth::access_token(reply)
    }

    async fn revoke(&self, _: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        Err(SendError::NotSent("a logout revokes the tokens directly, not through the relay".to_owned()))
    }
}

pub(super) fn relay_config(provider: &LoginProvider) -> RelayConfig {
    RelayConfig {
        rules: RelayRules {
            grace: GRACE,
            timeout: TIMEOUT,
            after_unknown: AfterUnknown::Every(PAUSE),
            // The vault itself keeps the tokens.
            lost_response_window: Duration::ZERO,
        },
        provider: Arc::new(RefreshingProvider(provider.clone())),
        place: format!("issuer {}", provider.url()),
        known_issuer: false,
    }
}

#[cfg(test)]
mod tests;
