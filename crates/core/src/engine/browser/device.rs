//! Browser sessions that are bound to a device's key. Without this key, a copied session cookie is useless.

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

const REGISTERED_WITHIN: Duration = Duration::from_secs(300);
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
const COOKIE_AGE: Duration = Duration::from_secs(600);
/// How long an expired cookie is accepted, for requests that were sent before the expiry.
const COOKIE_LEEWAY: Duration = Duration::from_secs(60);
const MAX_PROOFS: u64 = 200_000;
const TRY_AGAIN: Duration = Duration::from_secs(30);

pub(in crate::engine) struct DeviceProofs {
    memory: ProofMemory,
    /// The start of the process. Challenges from before the start are refused.
    started: Timestamp,
}

/// The response to a browser that proved possession of its device's key.
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

/// The device cookie of a request, and how this gate binds sessions to devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedDevice {
    mode: Binding,
    cookie: Option<[u8; device_cookie::LENGTH]>,
}

impl PresentedDevice {
    /// Reads the device cookie of a request.
    pub fn new(mode: Binding, cookie: Option<&[u8]>) -> Self {
        Self { mode, cookie: cookie.and_then(|cookie| cookie.try_into().ok()) }
    }

    /// The value of the cookie.
    pub fn cookie(&self) -> Option<&[u8]> {
        self.cookie.as_ref().map(<[u8; device_cookie::LENGTH]>::as_slice)
    }
}

crate::debug_with!(PresentedDevice { mode });

/// Returns false if the session is already bound to this device.
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

/// Binds the session to a device, and raises its minimum generation, so that all gates read the new record.
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
    /// Creates a challenge for the browser that sent this cookie.
    pub fn device_challenge(&self, cookie: &SessionCookie) -> Option<String> {
        let keyring = self.keyring();
        device_cookie::challenge(keyring.refresh_keys(), cookie.key(), cookie.session(), self.clock.now())
    }

    /// Binds a session to the key of a proof. The future must run to completion.
    ///
    /// # Errors
    /// [`Denial::BadProof`], [`Denial::DeviceRefused`] or the errors of [`browser_session`](Self::browser_session).
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
        // If the session was bound just now, no earlier process can have accepted a proof for it.
        let is_first = token.device.is_some_and(|(_, bound_at)| bound_at == now);
        self.use_proof(&device.thumbprint, &challenge, (issued_at, is_first)).await?;
        self.device_answer(cookie, now)
    }

    /// Makes a new device cookie if the device key signed this proof. Returns `None` if the session is not bound to a
    /// device.
    ///
    /// # Errors
    /// [`Denial::BadProof`], [`Denial::ProofsFull`] or the errors of [`browser_session`](Self::browser_session).
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

    /// The first proof of a session may use a challenge from before the start of the process.
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

    /// Returns whether a request may pass with this device cookie.
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

    /// Fails if the challenge has expired or belongs to another session.
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
