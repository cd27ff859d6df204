//! Token exchange (RFC 8693). The new token belongs to the exchanged token's session. The store does not record the new
//! token.

use serde_json::{Map, Value};

use super::grant::access_expiry;
use super::{Engine, Event, HeldUp, IssueKind, IssuedTokens, Origin, audit};
use crate::claim::OwnClaims;
use crate::client::{Client, ExchangeRules};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::dpop::OnceProof;
use crate::fault::{Error, Fault};
use crate::random::random;
use crate::revocation::list::TokenFacts;
use crate::session::profile::Profile;
use crate::session::{Scope, VouchedBy};
use crate::thumbprint::CertificateThumbprint;
use crate::token::claims::{AccessToken, CLIENT_PREFIX, MintedClaims, OfAccount, TokenStyle};
use crate::token::delegation::{Delegation, TokenOrigin};
use crate::token::{MAX_SESSIONLESS_LIFETIME, mint};

/// A token that a client exchanges.
#[derive(Debug)]
pub struct TokenExchange<'a> {
    /// The authenticated client, which becomes the actor.
    pub client: &'a Client,
    /// The client's rules.
    pub rules: &'a ExchangeRules,
    /// The verified token.
    pub subject: OfAccount<'a>,
    /// The requested audience.
    pub audience: Option<&'a str>,
    /// The requested scope.
    pub scope: Option<&'a Scope>,
    /// The endpoint's rules.
    pub profile: &'a Profile,
    /// The proof for the key to which the new token will be bound.
    pub proof: Option<OnceProof<'a>>,
    /// The client certificate to which the new token will be bound.
    pub certificate: Option<CertificateThumbprint>,
    /// The origin of the request.
    pub origin: &'a Origin,
}

const NO_ACTOR: Denial = Denial::NotExchangeable("the token does not permit this client to act");

impl Engine {
    /// Counts a token without a session against the rate limits.
    ///
    /// # Errors
    /// [`Denial::RateLimited`] or a fault.
    pub fn admit_grant(&self, client: &Client, origin: &Origin) -> Result<(), Error> {
        self.may_mint()?;
        self.limits.client_token(&client.id).inspect_err(|denial| {
            let of = || HeldUp { client: Some((*client.id).into()), ..HeldUp::default() };
            self.tell_held_up(&(*denial).into(), origin, of);
        })?;
        Ok(())
    }

    /// Exchanges a token, without writing to the store.
    ///
    /// # Errors
    /// [`Denial::NotExchangeable`], [`Denial::InvalidTarget`], [`Denial::InvalidScope`], [`Denial::TokenRevoked`] or a
    /// fault.
    // Requirements D1 to D9.
    pub async fn exchange_token(&self, asked: TokenExchange<'_>) -> Result<IssuedTokens, Error> {
        let TokenExchange { client, rules, subject, .. } = &asked;
        let subject = subject.token();
        rules.admit(&client.id, subject)?;
        let mut claims = subject.claims();
        let actor = format!("{CLIENT_PREFIX}{}", client.id);
        self.may_act(claims.get("may_act"), &actor, &client.id)?;
        let issuer_of_earlier = (!subject.is_ours()).then(|| &**subject.issuer());
        let act = Delegation::around(&actor, claims.remove("act"), issuer_of_earlier);
        let (vouched_by, origin) = self.origin_of(subject)?;
        let first = || subject.client.clone().filter(|_| subject.is_ours());
        let of_client = subject.delegation().map_or_else(first, |earlier| earlier.client.clone());
        let delegation = Delegation::new(act, origin, of_client).filter(|it| it.depth() <= rules.depth);
        let delegation = delegation.ok_or(Denial::NotExchangeable("too many clients already act for the user"))?;
        let audience = rules.target(asked.audience)?;
        let scope = rules.granted(asked.scope, client.scopes.as_ref(), &subject.scope)?;
        if subject.is_bound() && asked.proof.is_none() && asked.certificate.is_none() {
            return Err(Denial::NotExchangeable(
                "the token is bound to a key, but the request does not prove possession of that key",
            )
            .into());
        }
        let now = self.clock.now();
        if self.has_ended(subject, &client.id, (vouched_by.as_ref(), &delegation), now) {
            return Err(Denial::TokenRevoked.into());
        }
        let end = subject.expires.min(now.plus(MAX_SESSIONLESS_LIFETIME));
        let expires = access_expiry(now, end, None, asked.profile);
        if expires <= now {
            return Err(Denial::TokenExpired.into());
        }
        let bound_to = self.proved_key(asked.proof.as_ref()).await?;
        let own = carried(subject, claims);
        let jti = uuid::Builder::from_random_bytes(*random().map_err(Fault::from)?).into_uuid().to_string();
        let minted = MintedClaims {
            issuer: &self.issuer,
            subject: &subject.subject,
            audience: std::slice::from_ref(&audience),
            expires,
            issued_at: now,
            jti: &jti,
            client: &client.id,
            scope: &scope,
            session: subject.session,
            account: subject.account().filter(|_| subject.is_ours()),
            bound_to,
            certificate: asked.certificate,
            vouched_by: vouched_by.as_ref(),
            delegation: Some(&delegation),
            own: Some(&own),
            style: TokenStyle::default(),
        };
        let access_token = mint::mint(self.keyring().signer(), &minted).map_err(Fault::from)?;
        self.counts.add(Event::TokenExchanged);
        audit::token_exchanged(&minted, &delegation, asked.origin);
        Ok(IssuedTokens::new(access_token, &minted, now, IssueKind::Exchanged))
    }

    fn has_ended(
        &self,
        subject: &AccessToken,
        client: &str,
        (vouched_by, delegation): (Option<&VouchedBy>, &Delegation),
        now: Timestamp,
    ) -> bool {
        let facts = TokenFacts {
            issuer: &self.issuer,
            subject: &subject.subject,
            sub: None,
            client: Some(client),
            session: subject.session,
            issuer_session: None,
            vouched_by,
            jti: None,
            issued_at: Some(Timestamp::from_secs(now.as_secs())),
            delegation: Some(delegation.facts()),
            key_vouchers: None,
        };
        self.revocations.judge(facts, now).refuses(now)
    }

    /// The actor must match every member of `may_act` (RFC 8693 §4.4).
    // Requirement D4.
    fn may_act(&self, may_act: Option<&Value>, actor: &str, client: &str) -> Result<(), Denial> {
        let is_actor = |(name, value): (&String, &Value)| match name.as_str() {
            "sub" => value == actor,
            "iss" => value == &**self.issuer(),
            "client_id" => value == client,
            _ => false,
        };
        match may_act {
            None => Ok(()),
            Some(Value::Object(members)) if !members.is_empty() && members.iter().all(is_actor) => Ok(()),
            Some(_) => Err(NO_ACTOR),
        }
    }

    fn origin_of(&self, subject: &AccessToken) -> Result<(Option<VouchedBy>, Option<TokenOrigin>), Denial> {
        if subject.is_ours() {
            let earlier = subject.delegation().and_then(|earlier| earlier.origin.clone());
            return Ok((subject.vouched_by().cloned(), earlier));
        }
        // The token's subject must not equal the subject of a local user or client.
        if !subject.has_prefixed_subject() || !self.is_of_issuer(&subject.subject, subject.issuer()) {
            return Err(Denial::NotExchangeable("the issuer has no `subject_prefix`"));
        }
        let by = subject.voucher();
        // Without `iat`, the gate could not check whether an issuer's notice revokes the token.
        let issued_at = subject.issued_at.ok_or(Denial::BadClaim("no iat"))?;
        if !by.is_valid() {
            return Err(Denial::NotExchangeable("its subject or session is too long"));
        }
        Ok((Some(by), Some(TokenOrigin { issued_at, jti: subject.jti.clone() })))
    }
}

/// Returns the claims that the new token gets. From another issuer's token, only `may_act` is copied.
fn carried(subject: &AccessToken, claims: Map<String, Value>) -> OwnClaims {
    let mut own = OwnClaims::new();
    let taken = claims.into_iter().filter(|(name, _)| subject.is_ours() || name == "may_act");
    for (name, value) in taken {
        // Ignore the error for a claim that only the gate may set.
        let _ = own.insert(name, value);
    }
    own
}
