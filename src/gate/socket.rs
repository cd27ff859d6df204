//! Connections that a dialect takes over, and their connections to the upstream.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use parking_lot::Mutex;

use super::Inner;
use super::endpoint::{EndpointHandler, Hit, TakenOver};
use super::forward_buffered::{Dialer, NotForwarded};
use super::layer::{Admission, EndpointMatch, GateLayer, Judged, permit_call, prepare, set_target};
use super::limits::CallLimits;
use crate::dialect::{
    Command, CommandHandler, EnclosedCall, Outcome, RelayRequest, Reply, SocketGate, SocketIdentity, Upgrade,
};
use crate::relay::{Presented, ProviderReply};
use rotogate_core::context::{Context, inherited};
use rotogate_core::credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{Origin, RequestNote};
use rotogate_core::fault::Error;
use rotogate_core::headers::Peer;
use rotogate_core::lease::{Dialled, Lease, UntilClosed};
use rotogate_core::overload::SocketPermit;
use rotogate_core::policy::{self, By, Owing, Permit, Settled};
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Auth, Route, RoutePolicy};

pub(super) fn take_over<M: Send + Sync + 'static>(
    layer: GateLayer<M>,
    taken: TakenOver,
    place: SocketPermit,
    dialer: Option<Dialer>,
) -> Result<Reply, NotForwarded> {
    let TakenOver { endpoint, mut head, sources, origin, upgrade } = taken;
    let (Some(client), Some(dialer)) = (head.extensions.remove::<OnUpgrade>(), dialer) else {
        return Err(NotForwarded::NO_CONNECTION);
    };
    let tunnel = head.extensions.remove::<UntilClosed>();
    // The head must not contain credentials. `SocketConnection::request` adds the token of each message.
    head.headers.remove(AUTHORIZATION);
    if let Some(cookie) = sources.cookie {
        credential::remove_cookie(&mut head.headers, cookie);
    }
    let path = head.uri.path().to_owned();
    set_target(&mut head, path);
    let judged = Mutex::new(None);
    let connection = SocketConnection { layer, endpoint, head, origin, place, dialer, judged };
    let connection: Arc<dyn SocketGate> = Arc::new(connection);
    let Upgrade { reply, serve } = upgrade;
    // Dropping `tunnel` writes the access log line for the end of the connection.
    tokio::spawn(inherited(Context::current(), async move {
        if let Ok(client) = client.await {
            serve(client, connection).await;
        }
        drop(tunnel);
    }));
    Ok(reply)
}

type DecidedCall = (Permit<Owing>, CallLimits);

struct SocketConnection<M> {
    layer: GateLayer<M>,
    endpoint: usize,
    /// The head of the opening request, without its credentials.
    head: Parts,
    origin: Origin,
    place: SocketPermit,
    dialer: Dialer,
    judged: Mutex<Option<Weak<Inner>>>,
}

impl<M> SocketConnection<M> {
    fn gate(&self) -> &Arc<Inner> {
        self.layer.inner()
    }

    /// Returns the connection's endpoint under the current rules (requirement T34), or `None` if they do not have it.
    fn endpoint(&self) -> Option<(Arc<Inner>, usize)> {
        let Some(gate) = self.gate().successor() else { return Some((Arc::clone(self.gate()), self.endpoint)) };
        let raw = self.head.uri.path();
        let path = CanonicalPath::parse(raw).ok()?;
        let Some(Hit::Operation(operation)) = gate.endpoints.find(&path, raw) else { return None };
        let is_here = Peer::is_on(self.head.extensions.get(), gate.endpoints.listeners(&operation));
        let serves = is_here && gate.endpoints.upgrades(&operation);
        serves.then(|| (Arc::clone(&gate), operation.endpoint()))
    }

    /// Returns the handler of one call. Each call has its own `RequestNote`, so that the log names the limit that refused
    /// the call.
    fn handler<'a>(&self, gate: &'a Arc<Inner>, endpoint: usize) -> EndpointHandler<'a> {
        EndpointHandler {
            gate,
            endpoint,
            account: None,
            origin: Origin { note: RequestNote::open(), ..self.origin.clone() },
            arrived: gate.engine.arrival(),
            device: gate.presented_device(&http::HeaderMap::new()),
            proof: None,
            certificate: None,
            recipient: OnceLock::new(),
        }
    }

    fn request(&self, token: Option<&str>) -> Result<Parts, Denial> {
        let mut parts = self.head.clone();
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| Denial::UnusableCredential)?;
            value.set_sensitive(true);
            parts.headers.insert(AUTHORIZATION, value);
        }
        Ok(parts)
    }

    /// The layer with the current rules, if they were replaced since the connection began.
    fn ruled(&self) -> Option<GateLayer<M>> {
        self.gate().successor().map(|gate| self.layer.ruled_by(gate))
    }

    /// Decides without a wait.
    fn decide(layer: &GateLayer<M>, parts: &mut Parts, called: &EnclosedCall) -> Result<DecidedCall, Denial> {
        Self::called(layer, layer.admit_at_once(parts, EndpointMatch::Skip), parts, called)
    }

    fn called(
        layer: &GateLayer<M>,
        admission: Admission,
        parts: &Parts,
        called: &EnclosedCall,
    ) -> Result<DecidedCall, Denial> {
        let permitted = admission.permit().and_then(|permit| permit_call(layer.inner(), parts, permit, called));
        permitted.map_err(|(denial, _)| denial)
    }
}

#[async_trait]
impl<M: Send + Sync + 'static> CommandHandler for SocketConnection<M> {
    async fn execute(&self, command: Command) -> Result<Outcome, Error> {
        let (gate, endpoint) = self.endpoint().ok_or(Denial::NoRoute)?;
        self.handler(&gate, endpoint).execute(command).await
    }

    async fn relay(&self, request: RelayRequest) -> Result<ProviderReply, Error> {
        let (gate, endpoint) = self.endpoint().ok_or(Denial::NoRoute)?;
        self.handler(&gate, endpoint).relay(request).await
    }

    async fn relay_stored(&self, presented: Presented) -> Result<Option<ProviderReply>, Error> {
        let (gate, endpoint) = self.endpoint().ok_or(Denial::NoRoute)?;
        self.handler(&gate, endpoint).relay_stored(presented).await
    }
}

/// Callers with the same identity share an upstream connection.
fn identity_of(permitted: &Permit<Settled>) -> SocketIdentity {
    // Equal subjects of two issuers must not share an upstream connection, even if their headers are equal.
    let mut identity = permitted.caller().map(|caller| caller.token().issuer().as_bytes().to_vec()).unwrap_or_default();
    identity.push(b'\n');
    for (name, value) in permitted.caller().into_iter().flat_map(|caller| caller.headers()) {
        identity.extend_from_slice(name.as_str().as_bytes());
        identity.push(b'\n');
        identity.extend_from_slice(value.as_bytes());
        identity.push(b'\n');
    }
    identity.into()
}

#[async_trait]
impl<M: Send + Sync + 'static> SocketGate for SocketConnection<M> {
    fn judge(&self, lease: Option<&Lease>) -> Result<(), Denial> {
        let mut parts = self.head.clone();
        if let Some(caller) = lease.and_then(Lease::caller) {
            // This gate has already permitted the request, so the layer only authorises the caller again.
            let any = Arc::new(Route::catch_all(RoutePolicy { auth: Auth::None, ..RoutePolicy::default() }));
            let by = By { gate: self.gate().id, layer: true, defers: false };
            // The permit of a public route owes nothing.
            let permit = policy::authorise_again(&any, Arc::clone(caller), by, &mut ())?;
            parts.extensions.insert(permit.settled().map_err(|_| Denial::NoRoute)?.into_permitted());
        }
        let called = EnclosedCall { name: String::new(), requests: Vec::new() };
        let (permit, _) = Self::decide(self.ruled().as_ref().unwrap_or(&self.layer), &mut parts, &called)?;
        let policy = &permit.route().policy;
        if let Some(caller) = permit.caller().filter(|_| policy.auth != Auth::None) {
            // The first permit of a request also requires the gate's own audience.
            policy::judge(policy, caller.token())?;
        }
        Ok(())
    }

    async fn admit(&self, token: Option<&str>, called: &EnclosedCall) -> Result<SocketIdentity, Denial> {
        let (mut parts, mut ruled) = (self.request(token)?, self.ruled());
        let mut admission = ruled.as_ref().unwrap_or(&self.layer).admit(&mut parts, EndpointMatch::Skip);
        if let Admission::Owes(check) = admission {
            if !check.asks_issuer() {
                return Err(check.debt.denial());
            }
            check.debt.paid().await;
            // The message is judged by the rules of this moment.
            (parts, ruled) = (self.request(token)?, self.ruled());
            admission = ruled.as_ref().unwrap_or(&self.layer).admit_at_once(&mut parts, EndpointMatch::Skip);
        }
        let layer = ruled.as_ref().unwrap_or(&self.layer);
        let (permit, limits) = Self::called(layer, admission, &parts, called)?;
        let settled = layer.inner().settle_message(permit, &limits, &mut parts).await;
        settled.without_body().map(|permit| identity_of(&permit))
    }

    fn lease(&self, token: &str, is_presented: bool) -> Result<Lease, Denial> {
        let (gate, address) = (self.gate(), self.origin.address);
        let lease = Lease::new(&gate.leases, token, is_presented, address);
        lease.inspect_err(|denial| gate.tell_limited(denial, || address))
    }

    async fn learn(&self, token: &str) {
        self.gate().checker.learn(token).await;
    }

    fn place(&self) -> &SocketPermit {
        &self.place
    }

    async fn closing(&self) {
        self.gate().leases.closed().await;
    }

    fn are_rules_replaced(&self) -> bool {
        self.gate().successor().is_some()
    }

    fn has_new_rules(&self) -> bool {
        let Some(now) = self.gate().successor() else { return false };
        let now = Arc::downgrade(&now);
        let mut judged = self.judged.lock();
        let is_new = judged.as_ref().is_none_or(|before| !before.ptr_eq(&now));
        *judged = Some(now);
        is_new
    }

    fn is_served(&self) -> bool {
        self.endpoint().is_some()
    }

    async fn dial(&self, token: Option<&str>, called: &EnclosedCall) -> Option<Upgraded> {
        let mut first = self.request(token).ok()?;
        Self::decide(self.ruled().as_ref().unwrap_or(&self.layer), &mut first, called).ok()?;
        // The connection's service knows only the routes that existed when the connection began. The layer of that
        // moment must therefore also permit the call.
        let mut parts = self.request(token).ok()?;
        let (permit, _) = Self::decide(&self.layer, &mut parts, called).ok()?;
        // Every message is counted.
        let Judged::Pass(permit, _) = self.gate().settle_now((permit.counted(None), None), &mut parts) else {
            return None;
        };
        let permitted = prepare(self.gate(), &mut parts, permit).ok()?;
        let headers = &mut parts.headers;
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).ok()?);
        parts.extensions.insert(permitted);
        parts.extensions.insert(Dialled);
        let mut response = (self.dialer)(parts).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (gate, status) = (self.gate(), response.status().as_u16());
            if let Some(others) = gate.running.seldom.is_due("no_websocket", gate.engine.clock().source().monotonic()) {
                tracing::warn!(status, others, "the upstream did not accept a WebSocket");
            }
            return None;
        }
        hyper::upgrade::on(&mut response).await.ok()
    }
}
