//! Requests that an endpoint sends to the service behind the gate.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRANSFER_ENCODING,
};
use http::request::Parts;
use secrecy::{ExposeSecret, SecretString};

use super::GateLayer;
use super::admit::EndpointMatch;
#[cfg(feature = "kuzzle")]
use super::debt::OwedCheck;
use super::permit::{prepare, withhold};
use super::permit_call::permit_call;
#[cfg(feature = "kuzzle")]
use super::settle::Judged;
use crate::dialect::{Forward, Reply};
use crate::gate::in_flight::InFlightSlot;
use crate::gate::overloaded::overloaded;
use crate::gate::upgrade;
#[cfg(feature = "kuzzle")]
use crate::gate::{Inner, limits::CallLimits};
use rotogate_core::credential::Places;
use rotogate_core::denial::Denial;
use rotogate_core::overload::PoolPermit;
use rotogate_core::policy::Permitted;
#[cfg(feature = "kuzzle")]
use rotogate_core::policy::{Owing, Permit};
use rotogate_core::reason::Reason;
use rotogate_core::route::Route;

type RefusedForward = (Reply, Reason, Option<Arc<Route>>);

impl<M> GateLayer<M> {
    pub(super) async fn forwarded(
        &self,
        endpoint: usize,
        mut parts: Parts,
        forward: Forward,
        room: Option<PoolPermit>,
    ) -> Result<(Parts, Bytes, Permitted, Option<InFlightSlot>), Box<RefusedForward>> {
        let Forward { credential, body, called, is_anonymous, keeps_credential, refused } = forward;
        let refuse = |denial: Denial, route| Err(Box::new((refused(denial), Reason::denied(&denial), route)));
        if is_anonymous {
            parts.headers.remove(AUTHORIZATION);
            self.withhold_of(endpoint, &mut parts);
        }
        if let Some(credential) = &credential {
            let value = format!("Bearer {}", credential.expose_secret());
            let Ok(mut value) = HeaderValue::try_from(value) else { return refuse(Denial::UnusableCredential, None) };
            value.set_sensitive(true);
            parts.headers.insert(AUTHORIZATION, value);
        }
        let admitted = match self.admit_waiting(&mut parts, EndpointMatch::Skip).await.permit() {
            Ok(permit) => {
                let route = Arc::clone(permit.route());
                self.gate.0.proved(permit).await.map_err(|denial| (denial, Some(route)))
            }
            Err(refused) => Err(refused),
        };
        let permitted = admitted.and_then(|permit| permit_call(&self.gate.0, &parts, permit, &called));
        let (permit, limits) = match permitted {
            Ok(permitted) => permitted,
            Err((denial, route)) => return refuse(denial, route),
        };
        let is_checked = |credential: &SecretString| {
            permit.caller().is_some_and(|caller| caller.token().has_text(credential.expose_secret()))
        };
        if keeps_credential && !credential.as_ref().is_none_or(is_checked) {
            // A lenient route did not check the token, but the service would use it.
            return refuse(Denial::UnusableCredential, Some(Arc::clone(permit.route())));
        }
        upgrade::refuse(&mut parts);
        let gate = &self.gate.0;
        let route = Arc::clone(permit.route());
        let permit = match gate.settle((permit, None), Some(&limits), &mut parts).await.without_body() {
            Ok(permit) => permit,
            Err(denial) => return refuse(denial, Some(route)),
        };
        let counted =
            permit.caller().map(|caller| InFlightSlot::enter(gate, caller, || gate.holder(&parts))).transpose();
        let counted = match counted {
            Ok(counted) => counted.map(|counted| counted.keeping(room)),
            Err(refusal) => {
                let reply = overloaded(refusal, gate.endpoints.dialect(endpoint), &parts.headers);
                return Err(Box::new((reply, Reason::shed(refusal), Some(route))));
            }
        };
        let permitted = match prepare(gate, &mut parts, permit) {
            Ok(permitted) => permitted,
            Err((denial, route)) => return refuse(denial, Some(route)),
        };
        // The token is removed from every place that the protocol allows, whatever the route's policy is (requirement
        // R13).
        self.withhold_of(endpoint, &mut parts);
        parts.extensions.insert(permitted.clone());
        // The dialect has replaced the body with a body of known length.
        parts.headers.remove(TRANSFER_ENCODING);
        parts.headers.remove(CONTENT_ENCODING);
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        Ok((parts, body, permitted, counted))
    }

    /// Removes the token from every place that the endpoint's protocol allows, except `Authorization`.
    fn withhold_of(&self, endpoint: usize, parts: &mut Parts) {
        if let Some(dialect) = self.gate.0.endpoints.dialect(endpoint) {
            let sources = dialect.sources();
            withhold(parts, Places { query: sources.query, cookies: [sources.cookie, None], dpop: false });
        }
    }

    /// Admits and prepares a request whose reply the gate reads itself. The reply must not be partial, conditional or
    /// compressed.
    pub(super) async fn prepared_bare(&self, parts: &mut Parts) -> Result<(), Denial> {
        let gate = &self.gate.0;
        let admission = self.admit_waiting(parts, EndpointMatch::Skip).await;
        let permit = admission.permit().map_err(|(denial, _)| denial)?;
        let permit = gate.settle((permit, None), None, parts).await.without_body()?;
        upgrade::refuse(parts);
        let permitted = prepare(gate, parts, permit).map_err(|(denial, _)| denial)?;
        parts.extensions.insert(permitted);
        for name in [
            ACCEPT_ENCODING,
            CONTENT_ENCODING,
            CONTENT_LENGTH,
            EXPECT,
            IF_MATCH,
            IF_MODIFIED_SINCE,
            IF_NONE_MATCH,
            IF_RANGE,
            IF_UNMODIFIED_SINCE,
            RANGE,
            TRANSFER_ENCODING,
        ] {
            parts.headers.remove(name);
        }
        Ok(())
    }
}

#[cfg(feature = "kuzzle")]
impl OwedCheck {
    /// Whether the issuer is asked about the token. A message of a connection waits for this alone.
    pub(in crate::gate) const fn asks_issuer(&self) -> bool {
        matches!(self.debt.denial(), Denial::IntrospectionUnavailable(_))
    }
}

#[cfg(feature = "kuzzle")]
impl Inner {
    /// Settles a message of a connection. Its connection to the upstream pays the exchange.
    pub(in crate::gate) async fn settle_message(
        self: &Arc<Self>,
        permit: Permit<Owing>,
        rules: &CallLimits,
        parts: &mut Parts,
    ) -> Judged {
        self.settle((permit.exchanged(), None), Some(rules), parts).await
    }
}
