//! Browser sessions that are bound to the key of a device. Without this key, a copied session cookie is useless.

use std::time::Duration;

use zeroize::Zeroizing;

use super::super::{Engine, Origin};
use super::{RenewWhen, RulesOf, SessionProvider};
use crate::clock::Timestamp;
use crate::denial::{Denial, ProofFlaw};
use crate::dpop::device::{Registration, read_refresh, read_registration};
use crate::dpop::memory::{NotRecorded, ProofMemory, once_in_store};
use crate::fault::Error;
use crate::session::rotation::{RaisedMinimum, RecordChange};
use crate::session::{Binding, BrowserBinding, DeviceBinding, Generation, Session};
use crate::thumbprint::KeyThumbprint;
use crate::token::device_cookie;
use crate::token::session_cookie::SessionCookie;

/// A session can be bound only within this time after its login.
const REGISTERED_WITHIN: Duration = Duration::from_secs(300);
/// How long a challenge is valid.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
/// How long a browser keeps the cookie of a device.
const COOKIE_AGE: Duration = Duration::from_secs(600);
/// How long an expired device cookie is still accepted, for requests that were sent before it expired.
const COOKIE_LEEWAY: Duration = Duration::from_secs(60);
/// The maximum number of remembered proofs. Further proofs get 503.
const MAX_PROOFS: u64 = 200_000;
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// The used proofs, which are remembered so that each proof is accepted only once.
pub(in crate::engine) struct DeviceProofs {
    memory: ProofMemory,
    /// The start of the process. Challenges from before the start are refused, because this process does not know for
    /// which of them a proof was already accepted.
    started: Timestamp,
}

/// The reply to a browser that has proved possession of its device's key. Its `Debug` output does not contain the
/// cookie.
pub struct DeviceAnswer {
    /// The cookie of the device.
    pub cookie: Zeroizing<String>,
    /// How long the browser keeps the cookie.
    pub age: Duration,
}

crate::debug_with!(DeviceProofs { started });

impl DeviceProofs {
    pub(in crate::engine) fn since(started: Timestamp) -> Self {
        Self { memory: ProofMemory::new("proof of a device", MAX_PROOFS, ANSWERED_WITHIN), started }
    }
}

/// The device cookie of a request, and how this gate binds sessions to devices. The `Debug` output does not contain the
/// cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedDevice {
    mode: Binding,
    cookie: Option<[u8; device_cookie::LENGTH]>,
}

impl PresentedDevice {
    /// The device cookie of a request, if the request has exactly one.
    pub fn new(mode: Binding, cookie: Option<&[u8]>) -> Self {
        // A value of a different length cannot be a device cookie.
        Self { mode, cookie: cookie.and_then(|cookie| cookie.try_into().ok()) }
    }

    /// The value of the cookie.
    pub fn cookie(&self) -> Option<&[u8]> {
        self.cookie.as_ref().map(<[u8; device_cookie::LENGTH]>::as_slice)
    }
}

crate::debug_with!(PresentedDevice { mode });

/// Returns whether a session still has to be bound to this device. Returns false if it is already bound to this device.
///
/// # Errors
/// [`Denial::DeviceRefused`] if the session is bound to another device.
// Requirement B47.
pub(super) fn is_to_be_bound(session: &Session, device: &DeviceBinding) -> Result<bool, Denial> {
    match session.browser.as_deref().and_then(|browser| browser.device.as_ref()) {
        Some(bound) if bound.thumbprint == device.thumbprint => Ok(false),
        Some(_) => Err(Denial::DeviceRefused("the session is bound to another device key")),
        None if device.bound_at.since(session.created()) >= REGISTERED_WITHIN => {
            Err(Denial::DeviceRefused("the login was too long ago"))
        }
        None => Ok(true),
    }
}

/// Binds a session as part of its renewal. Afterwards all gates read the new record, because they refuse tokens of
/// earlier generations.
// Requirement B48.
pub(super) fn bind(change: &mut RecordChange, device: &DeviceBinding, now: Timestamp) {
    let record = &mut change.record;
    if let Some(browser) = record.browser.as_mut() {
        browser.device = Some(Box::new(device.clone()));
    }
    let (minimum, until) = (record.current, record.latest_access_expires);
    change.raised = Some(RaisedMinimum { minimum, effective_from: now, before: Generation::NONE, until });
}

impl Engine {
    /// A challenge for the browser that sent this cookie.
    pub fn device_challenge(&self, cookie: &SessionCookie) -> Option<String> {
        let keyring = self.keyring();
        device_cookie::challenge(keyring.refresh_keys(), cookie.key(), cookie.session(), self.clock.now())
    }

    /// Binds the session of a cookie to the key of a proof.
    ///
    /// The future must run to completion, like the future of [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// [`Denial::BadProof`], [`Denial::DeviceRefused`]; the errors of [`browser_session`](Self::browser_session).
    // Requirement B47.
    pub async fn bind_device(
        &self,
        cookie: &SessionCookie,
        proof: &str,
        by: (RulesOf<'_>, Option<&dyn SessionProvider>),
        origin: &Origin,
    ) -> Result<DeviceAnswer, Error> {
        let Registration { key, thumbprint, challenge } = read_registration(proof).map_err(Denial::from)?;
        let now = self.clock.now();
        let issued_at = self.challenged_at(cookie, &challenge, now)?;
        let device = DeviceBinding { thumbprint, key, bound_at: now };
        let _turn = self.take_turn(cookie.session()).await;
        let mut renews = false;
        let binds = (Some((&device, origin)), &mut renews);
        let token = self.token_after_renewal(cookie, by, RenewWhen::Over, binds).await?;
        // If this proof has just bound the session, no earlier process can have accepted a proof for the session.
        let is_first = token.device.is_some_and(|(_, bound_at)| bound_at == now);
        self.use_proof(&device.thumbprint, &challenge, (issued_at, is_first)).await?;
        self.device_answer(cookie, now)
    }

    /// A new device cookie for a session whose device key signed this proof. Returns `None` if the session is not bound
    /// to a device.
    ///
    /// # Errors
    /// [`Denial::BadProof`] for a bad or missing proof; [`Denial::ProofsFull`]; the errors of
    /// [`browser_session`](Self::browser_session).
    // Requirement B49.
    pub async fn refresh_device(
        &self,
        cookie: &SessionCookie,
        proof: Option<&str>,
        rules_of: RulesOf<'_>,
    ) -> Result<Option<DeviceAnswer>, Error> {
        let live = self.browser_session(cookie, rules_of).await?;
        let Some(device) = live.session.browser.and_then(|browser| browser.device) else { return Ok(None) };
        let challenge = proof.ok_or(ProofFlaw::Missing).and_then(|proof| read_refresh(proof, &device));
        let challenge = challenge.map_err(Denial::from)?;
        let now = self.clock.now();
        let issued_at = self.challenged_at(cookie, &challenge, now)?;
        self.use_proof(&device.thumbprint, &challenge, (issued_at, false)).await?;
        self.device_answer(cookie, now).map(Some)
    }

    /// Marks a proof as used, so that it is exchanged for a device cookie only once. The first proof of a session may
    /// respond to a challenge that was issued before the process started.
    // Requirement B49.
    async fn use_proof(
        &self,
        thumbprint: &KeyThumbprint,
        challenge: &str,
        (issued_at, is_first): (Timestamp, bool),
    ) -> Result<(), Error> {
        if issued_at < self.devices.started && !is_first {
            return Err(Denial::from(ProofFlaw::BeforeStart).into());
        }
        let id = self.devices.memory.name(thumbprint, challenge, issued_at);
        self.devices.memory.record(&id, self.clock.now()).map_err(|why| match why {
            NotRecorded::Seen => ProofFlaw::Replayed.into(),
            NotRecorded::KeyIsFull | NotRecorded::Full => Denial::ProofsFull(TRY_AGAIN),
        })?;
        if let Some(shared) = self.store.shared() {
            once_in_store(shared, id.name(), (ANSWERED_WITHIN + self.leeway) * 2).await?;
        }
        Ok(())
    }

    /// Returns whether a request of a live session may pass with this device cookie.
    // Requirement B48.
    pub fn admits_device(&self, live: &Session, presented: PresentedDevice) -> bool {
        let (keyring, now) = (self.keyring(), self.clock.now());
        let device = live.browser.as_deref().and_then(BrowserBinding::bound_device);
        presented.mode.admits(live.created(), device, now, |key| {
            let shown = presented.cookie();
            let expires = shown.and_then(|shown| device_cookie::expiry(keyring.refresh_keys(), key, live.id, shown));
            expires.is_some_and(|expires| now < expires)
        })
    }

    /// The issue time of a challenge for this cookie's session. Fails if the challenge has expired or belongs to
    /// another session.
    fn challenged_at(&self, cookie: &SessionCookie, challenge: &str, now: Timestamp) -> Result<Timestamp, Denial> {
        let keyring = self.keyring();
        let at = device_cookie::challenged_at(keyring.refresh_keys(), cookie.key(), cookie.session(), challenge);
        let is_live = |at: &Timestamp| now.since(*at) < ANSWERED_WITHIN && at.since(now) <= self.leeway;
        at.filter(is_live).ok_or_else(|| ProofFlaw::Nonce.into())
    }

    fn device_answer(&self, cookie: &SessionCookie, now: Timestamp) -> Result<DeviceAnswer, Error> {
        let keyring = self.keyring();
        let expires = now.plus(COOKIE_AGE + COOKIE_LEEWAY);
        let made = device_cookie::make(keyring.refresh_keys(), cookie.key(), cookie.session(), expires);
        Ok(DeviceAnswer { cookie: made.ok_or(Denial::UnknownSessionCookie)?, age: COOKIE_AGE })
    }
}
