//! Responds to a browser that proves possession of its device key.
//!
//! A refused refresh gets 403 with a challenge. Any other refusal would make the browser end the device binding.

use std::sync::Arc;

use http::header::SET_COOKIE;

use super::super::handler::EndpointHandler;
use crate::dialect::browser::device::{ShownDevice, challenged, over, refreshed, set_cookie};
use crate::dialect::browser::words;
use crate::dialect::{Call, Reply};
use crate::gate::browser::device::DeviceResult;
use crate::gate::browser::{BrowserEndpoint, presented};
use crate::gate::to_its_end::to_its_end;
use rotogate_core::denial::{Denial, ProofFlaw};
use rotogate_core::engine::DeviceAnswer;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::session::{Session, SessionId};
use rotogate_core::token::session_cookie::SessionCookie;

pub(super) async fn answer(
    browser: &BrowserEndpoint,
    call: &Call<'_>,
    handler: &EndpointHandler<'_>,
) -> (Reply, Reason) {
    let engine = &handler.gate.engine;
    let shown = ShownDevice::read(call.headers);
    let cookie = match presented(handler.gate, call.headers, handler.origin.address) {
        Ok(cookie) => cookie,
        Err(denial) => return (words::denied(&browser.dialect, call, &denial.into()), denial.into()),
    };
    // A second login replaces the first session's cookie, but the browser may still send device requests for that
    // session.
    let cookie = cookie.filter(|cookie| shown.session.is_none_or(|id| SessionId::parse(id) == Some(cookie.session())));
    let answered = match (&cookie, shown.session) {
        (None, None) => Err(Denial::NoCredential.into()),
        (None, Some(_)) => Ok(None),
        (Some(cookie), None) => register(cookie, shown.proof, handler).await.map(Some),
        (Some(cookie), Some(_)) => refresh(cookie, shown.proof, handler).await,
    };
    handler.tell(&answered);
    let (result, mut reply, reason) = match (&answered, shown.session) {
        (Ok(Some(_)), None) => {
            let session = cookie.as_ref().map(SessionCookie::session).unwrap_or(SessionId::from_bytes([0; 16]));
            (DeviceResult::Registered, browser.dialect.registered(session), Reason::ANSWERED)
        }
        (Ok(Some(_)), Some(_)) => (DeviceResult::Refreshed, refreshed(), Reason::ANSWERED),
        (Ok(None), session) => (DeviceResult::Over, over(session.unwrap_or_default()), Reason::ANSWERED),
        (Err(error), _) => {
            let result = match error {
                Error::Denied(denial) if !denial.is_undecided() => DeviceResult::Refused,
                Error::Denied(_) | Error::Failed(_) => DeviceResult::Unavailable,
            };
            (result, words::denied(&browser.dialect, call, error), Reason::from(error))
        }
    };
    handler.gate.running.browser_devices.count(result);
    if let Ok(Some(DeviceAnswer { cookie, age })) = &answered {
        reply.headers_mut().append(SET_COOKIE, set_cookie(cookie, age.as_secs()));
    }
    // A session that is bound to another key does not get a challenge.
    let is_challenged = matches!(&answered, Ok(Some(_)) | Err(Error::Denied(Denial::BadProof(_))));
    if let Some(cookie) = cookie.filter(|_| is_challenged) {
        challenged(reply.headers_mut(), engine.device_challenge(&cookie), cookie.session());
    }
    (reply, reason)
}

// Requirement B47.
async fn register(
    cookie: &SessionCookie,
    proof: Option<&str>,
    handler: &EndpointHandler<'_>,
) -> Result<DeviceAnswer, Error> {
    let proof = proof.ok_or(Denial::BadProof(ProofFlaw::Missing))?.to_owned();
    let (gate, origin, value) = (Arc::clone(handler.gate), handler.origin.clone(), cookie.value());
    to_its_end(async move {
        let cookie = gate.engine.session_cookie(&value).ok_or(Denial::UnknownSessionCookie)?;
        let rules = |session: &Session| gate.browser_rules(session);
        let provider = gate.session_provider();
        gate.engine.bind_device(&cookie, &proof, (&rules, provider.as_deref()), &origin).await
    })
    .await
}

/// Returns `None` if the session has ended, or is not bound to a device.
// Requirement B49.
async fn refresh(
    cookie: &SessionCookie,
    proof: Option<&str>,
    handler: &EndpointHandler<'_>,
) -> Result<Option<DeviceAnswer>, Error> {
    let gate = handler.gate;
    match gate.engine.refresh_device(cookie, proof, &|session| gate.browser_rules(session)).await {
        Err(Error::Denied(denial)) if denial.is_dead() => Ok(None),
        answered => answered,
    }
}
