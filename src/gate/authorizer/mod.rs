//! The gate as an authorizer: another proxy asks for a verdict on each request, and forwards the request itself. In the
//! code, this proxy is called `Neighbour`.
//!
//! The proxy states facts about the request in headers ([`facts`]) or in a message (`grpc`). From these facts the gate
//! builds the head of the original request, and performs steps 1 to 7 as usual. Step 8 makes a verdict ([`answer`]).
//!
//! The configured kind of proxy decides which headers the gate trusts. A proxy forwards all headers of its client, so a
//! client could otherwise state facts in another proxy's headers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body_util::Full;
use ipnet::IpNet;
use tower::Service;

use super::in_flight::InFlightSlot;
use super::layer::{EndpointMatch, GateLayer, Settlement, has_token_in_query};
use super::{Gate, preflight};
use rotogate_core::denial::{CallFlaw, Denial};
use rotogate_core::headers::{self, Peer};
use rotogate_core::policy::{Permit, Settled};
use rotogate_core::reply::Reply;
use rotogate_core::route::Route;

mod answer;
mod facts;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "grpc")]
mod kept;
#[cfg(test)]
pub(in crate::gate) mod tests;

/// The kind of proxy that sends check requests.
///
/// ```
/// use rotogate::gate::Neighbour;
///
/// assert_eq!(Neighbour::named("caddy"), Some(Neighbour::Caddy));
/// assert_eq!(Neighbour::Nginx.name(), "nginx");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Neighbour {
    /// nginx with `auth_request`.
    Nginx,
    /// Traefik with `forwardAuth`.
    Traefik,
    /// Caddy with `forward_auth`.
    Caddy,
    /// HAProxy with a Lua action.
    Haproxy,
    /// Envoy with `ext_authz`.
    Envoy,
}

impl Neighbour {
    /// All supported proxies.
    pub const ALL: [Self; 5] = [Self::Nginx, Self::Traefik, Self::Caddy, Self::Haproxy, Self::Envoy];

    /// The name of the proxy in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// The proxy with this name in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|neighbour| neighbour.name() == name)
    }

    const fn removes_by_name(self) -> bool {
        match self {
            Self::Envoy => true,
            Self::Nginx | Self::Traefik | Self::Caddy | Self::Haproxy => false,
        }
    }

    const fn passes_redirects(self) -> bool {
        match self {
            Self::Traefik | Self::Caddy | Self::Envoy => true,
            Self::Nginx | Self::Haproxy => false,
        }
    }
}

/// Gives another proxy a verdict on each request before the proxy forwards it.
///
/// Serve it on a separate listener that only that proxy can reach, and insert the [`Peer`] of each connection.
///
/// ```
/// use rotogate::gate::{Authorizer, Neighbour, Peer};
/// use tower::ServiceExt;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let authorizer = Authorizer::new(&gate, Neighbour::Caddy).trusting(vec!["127.0.0.1/32".parse()?]);
/// let question = http::Request::get("/")
///     .header("x-forwarded-method", "GET")
///     .header("x-forwarded-host", "api.example.com")
///     .header("x-forwarded-uri", "/orders")
///     .header("x-forwarded-proto", "https")
///     .header("x-forwarded-for", "192.0.2.7")
///     .extension(Peer::new("127.0.0.1".parse()?, false))
///     .body(())?;
/// assert_eq!(authorizer.oneshot(question).await?.status(), 401, "the request has no token");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Authorizer {
    gate: Gate,
    neighbour: Neighbour,
    trusted: Trusted,
    /// The audience of the assertions in responses. `None` disables assertions.
    assertion_audience: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Trusted {
    Proxies,
    Networks(Arc<[IpNet]>),
    /// The listener has already authenticated the peer.
    All,
}

/// Client headers that imitate headers of the gate or of another proxy. The response tells the proxy to remove these
/// headers.
#[derive(Clone, Debug, Default)]
struct Disguises {
    names: Vec<HeaderName>,
    form: QuestionForm,
}

struct Marked {
    of_the_question: Vec<HeaderName>,
    disguises: Disguises,
}

impl Marked {
    fn head_of(self, facts: facts::Facts, mut headers: HeaderMap) -> Result<Parts, Denial> {
        let Self { of_the_question, disguises } = self;
        of_the_question.iter().chain(&disguises.names).for_each(|name| drop(headers.remove(name)));
        let mut parts = facts.into_head(headers)?;
        parts.extensions.insert(disguises);
        Ok(parts)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum QuestionForm {
    #[default]
    Headers,
    /// A gRPC message. Its response does not have HTTP headers.
    #[cfg(feature = "grpc")]
    Message,
}

impl QuestionForm {
    const fn removes_by_name(self, neighbour: Neighbour) -> bool {
        match self {
            Self::Headers => neighbour.removes_by_name(),
            #[cfg(feature = "grpc")]
            Self::Message => true,
        }
    }
}

const KEY_BELONGS: &str = "behind this proxy, send the API key in Authorization as a bearer token";

/// Routes and hosts are matched for the listener that received the check request. Otherwise clients of a local proxy
/// could use the names of this machine's listeners.
fn on_listener_of(asking: Option<&Peer>, mut head: Parts) -> Parts {
    if let Some(asking) = asking
        && let Some(client) = head.extensions.remove::<Peer>()
    {
        let client = client.at_loopback(asking.is_at_loopback());
        head.extensions.insert(match asking.shared_listener() {
            Some(listener) => client.on_listener(listener),
            None => client,
        });
    }
    head
}

impl Authorizer {
    /// Makes an authorizer for this kind of proxy. The authorizer uses the same routes as [`Gate::layer`], but does not
    /// serve the gate's endpoints. By default, the gate's trusted proxies may send check requests: see
    /// [`Self::trusting`].
    #[doc(hidden)]
    pub fn new(gate: &Gate, neighbour: Neighbour) -> Self {
        Self { gate: gate.clone(), neighbour, trusted: Trusted::Proxies, assertion_audience: None }
    }

    /// Accepts check requests only from peers in these networks.
    #[must_use]
    pub fn trusting(self, networks: impl Into<Arc<[IpNet]>>) -> Self {
        Self { trusted: Trusted::Networks(networks.into()), ..self }
    }

    /// Adds assertions for this audience to responses, if the gate makes assertions
    /// ([`GateBuilder::assertion`](super::GateBuilder::assertion)). The upstreams behind the proxy verify the
    /// assertion. The audience must not be an audience of access tokens.
    #[must_use]
    pub fn asserting_to(self, audience: impl Into<Arc<str>>) -> Self {
        Self { assertion_audience: Some(audience.into()), ..self }
    }

    /// Accepts check requests from every peer, because the listener verifies the peers' client certificates.
    #[must_use]
    pub fn trusting_all(self) -> Self {
        Self { trusted: Trusted::All, ..self }
    }

    /// Builds the head of the original request, with its client as the [`Peer`]. Moves the headers out of the check
    /// request.
    ///
    /// # Errors
    /// The peer is not trusted, a fact is missing, repeated or malformed, or a header imitates a header of this gate.
    /// After an error the check request is unchanged.
    pub fn head(&self, question: &mut Parts) -> Result<Parts, Denial> {
        self.admits(question.extensions.get::<Peer>())?;
        if !headers::is_framed_once(&question.headers) {
            return Err(Denial::BadFraming);
        }
        let facts = facts::read(self.neighbour, question, |name| self.is_ours(name))?;
        let marked = self.marked(&question.headers, QuestionForm::Headers)?;
        let head = marked.head_of(facts, std::mem::take(&mut question.headers))?;
        Ok(on_listener_of(question.extensions.get(), head))
    }

    fn admits(&self, peer: Option<&Peer>) -> Result<(), Denial> {
        let networks = match &self.trusted {
            Trusted::Proxies => self.gate.trusted_proxies(),
            Trusted::Networks(networks) => networks,
            Trusted::All => return Ok(()),
        };
        let is_trusted = peer.is_some_and(|peer| {
            let address = peer.address().to_canonical();
            networks.iter().any(|network| network.contains(&address))
        });
        if is_trusted { Ok(()) } else { Err(Denial::UntrustedNeighbour) }
    }

    fn is_ours(&self, name: &str) -> bool {
        let mut is_ours = false;
        self.gate.0.strip(|names| is_ours |= names.protects(name));
        is_ours
    }

    /// Finds the headers that do not belong to the original request.
    ///
    /// # Errors
    /// A header imitates a header of this gate, and the proxy cannot remove the header.
    fn marked(&self, headers: &HeaderMap, form: QuestionForm) -> Result<Marked, Denial> {
        let of_the_question: Vec<_> =
            headers.keys().filter(|name| facts::is_no_header_of_the_request(name)).cloned().collect();
        let mut disguises = Disguises { form, names: Vec::new() };
        let removes = form.removes_by_name(self.neighbour);
        let mut is_disguised = false;
        self.gate.0.strip(|names| {
            if removes {
                disguises.names.extend(of_the_question.iter().filter(|name| names.overrides(name)).cloned());
            }
            for name in headers.keys().filter(|name| names.is_disguise(name)) {
                is_disguised = true;
                disguises.names.push(name.clone());
            }
        });
        if is_disguised && !removes { Err(Denial::DisguisedHeader) } else { Ok(Marked { of_the_question, disguises }) }
    }

    /// Decides on a request with this head. The reply has a [`Verdict`](super::Verdict) in its extensions.
    pub async fn decide(&self, head: Result<Parts, Denial>) -> Reply {
        let gate = &self.gate.0;
        let mut parts = match head {
            Ok(parts) => parts,
            Err(denial) => return answer::refused(self.neighbour, gate, None, denial, None),
        };
        // A 2xx status permits the request, so the gate cannot respond to a preflight itself. Unless the upstream
        // replies to preflights, the preflight becomes an ordinary OPTIONS request.
        if preflight::requested_method(&parts.method, &parts.headers).is_some()
            && !preflight::is_for_upstream(gate, &parts.method, &parts.uri, &parts.headers)
        {
            parts.headers.remove(ACCESS_CONTROL_REQUEST_METHOD);
        }
        // A path that is not canonical is refused, because the proxy forwards its own copy of the path.
        let layer = GateLayer::new(self.gate.clone()).at_edge();
        let admission = layer.admit(&mut parts, EndpointMatch::Refuse);
        match layer.settled(admission, &mut parts).await {
            Settlement::In(permit) => self.permitted(&mut parts, permit),
            Settlement::Refused(denial, route) => {
                answer::refused(self.neighbour, gate, Some(&parts), denial, route.as_ref())
            }
            // A check request does not contain the body of the MCP call.
            Settlement::Body(permitted) => {
                let denial = Denial::BadCall(CallFlaw::NoBody);
                answer::refused(self.neighbour, gate, Some(&parts), denial, Some(permitted.route()))
            }
            Settlement::WrongMethod(reply) => answer::wrong_method(self.neighbour, gate, &reply),
            Settlement::Endpoint(_) | Settlement::Undecided(..) => {
                answer::refused(self.neighbour, gate, Some(&parts), Denial::EndpointElsewhere, None)
            }
        }
    }

    fn permitted(&self, parts: &mut Parts, permit: Permit<Settled>) -> Reply {
        let gate = &self.gate.0;
        let refused =
            |parts: &Parts, denial, route| answer::refused(self.neighbour, gate, Some(parts), denial, Some(route));
        // The proxy forwards the target unchanged, but the upstream must never get a token in the query (T2).
        if has_token_in_query(&parts.uri, gate.places(&permit.route().policy)) {
            return refused(parts, Denial::UnusableCredential, permit.route());
        }
        if self.leaves_key(parts, permit.route()) {
            let mut reply = refused(parts, Denial::UnusableCredential, permit.route());
            reply.headers_mut().insert(answer::DETAIL, HeaderValue::from_static(KEY_BELONGS));
            return reply;
        }
        // The check request counts as concurrent only until the response. The gate does not see when the forwarded
        // request ends.
        let slot = permit.caller().map(|caller| InFlightSlot::enter(gate, caller, || None)).transpose();
        let _slot = match slot {
            Ok(slot) => slot,
            Err(refusal) => return answer::overloaded(self.neighbour, refusal, Some(permit.route())),
        };
        let permitted = permit.into_permitted();
        match answer::allowed(self.neighbour, gate, parts, &permitted, self.assertion_audience.as_ref()) {
            Ok(reply) => answer::passed(reply, permitted),
            Err(denial) => refused(parts, denial, permitted.route()),
        }
    }

    /// Returns whether the upstream would get an API key in a header that the proxy cannot remove. Ignores
    /// `Authorization`, because all example configurations remove it.
    // Requirement K6.
    fn leaves_key(&self, parts: &Parts, route: &Route) -> bool {
        let form = parts.extensions.get().map_or(QuestionForm::Headers, |disguises: &Disguises| disguises.form);
        let takes_keys = route.policy.credentials.key;
        !form.removes_by_name(self.neighbour)
            && self.gate.0.key_headers(parts, takes_keys).any(|name| name != AUTHORIZATION)
    }

    /// Returns the response to a check request that exceeds a bound.
    pub fn overloaded(&self, refusal: rotogate_core::overload::Refusal) -> Reply {
        answer::overloaded(self.neighbour, refusal, None)
    }

    /// Returns `Connection: close` if the check request has a body, because the gate does not read the body.
    pub fn closing(question: &Parts) -> Option<(HeaderName, HeaderValue)> {
        let Parts { version, headers, .. } = question;
        let announces = headers.contains_key(TRANSFER_ENCODING)
            || headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
        (announces && *version < Version::HTTP_2).then(|| (CONNECTION, HeaderValue::from_static("close")))
    }
}

impl<B> Service<Request<B>> for Authorizer {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, question: Request<B>) -> Self::Future {
        let (mut question, _) = question.into_parts();
        let authorizer = self.clone();
        Box::pin(async move {
            let closing = Self::closing(&question);
            let mut reply = authorizer.decide(authorizer.head(&mut question)).await;
            reply.headers_mut().extend(closing);
            Ok(reply.map(|body| Full::new(body.data().clone())))
        })
    }
}
