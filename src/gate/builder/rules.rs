//! The part of a builder that a running gate can replace.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::{BuildError, DEFAULT_MAX_ENDPOINT_BODY, sound};
use crate::dialect::kuzzle::actions::is_controller;
use crate::dialect::{self, Dialect};
use crate::gate::browser::Browser;
use crate::gate::endpoint::{CommonRules, Endpoint, Endpoints};
use crate::gate::limits::{RateHeaders, RouteLimits};
use crate::gate::origin::{Origins, origin_of};
use crate::gate::possession::External;
use crate::gate::respond::RefusalHook;
use crate::gate::running::Running;
use crate::gate::{Inner, resources};
use rotogate_core::client::{Client, Clients};
use rotogate_core::clock::EngineClock;
use rotogate_core::dpop::DpopSettings;
use rotogate_core::engine::Engine;
use rotogate_core::headers::{HeaderPattern, ProtectedNames};
use rotogate_core::invalid::InvalidValue;
use rotogate_core::lease::LeaseContext;
use rotogate_core::policy::GateId;
use rotogate_core::route::{
    HostError, Hosts, LimitOver, Resource, Route, RouteError, RoutePolicy, RouteTable, authority, ungoverned,
};
use rotogate_core::session::Binding;
use rotogate_core::session::profile::Profile;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::{IssuerRules, OWN};
use rotogate_core::verify_cache::{
    AssertionHeader, IdentityField, IdentityHeaders, MAX_IDENTITY_HEADERS, TokenChecker,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) clients: Vec<Client>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) profile: Profile,
    pub(super) routes: Vec<Route>,
    /// Whether a path without a route requires a token even if other routes exist.
    pub(super) every_path: bool,
    pub(super) resources: Vec<Resource>,
    pub(super) identity: Option<Vec<(HeaderName, IdentityField)>>,
    pub(super) assertion: Option<AssertionHeader>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) max_endpoint_body: Option<usize>,
    pub(super) public_url: Option<String>,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) hosts: Option<Vec<String>>,
    pub(super) strip: Vec<String>,
    pub(super) keep: Vec<String>,
    pub(super) allowed_origins: Vec<Box<str>>,
    pub(super) refusals: Option<RefusalHook>,
    pub(super) dpop: Option<DpopSettings>,
    pub(super) browser: Option<Browser>,
    pub(super) rate_headers: RateHeaders,
    pub(super) takes_id_jag: bool,
}

pub(super) struct RunningParts {
    pub(super) id: GateId,
    pub(super) running: Arc<Running>,
    pub(super) engine: Arc<Engine>,
    pub(super) checker: Arc<TokenChecker>,
    pub(super) leases: Arc<LeaseContext>,
    pub(super) leeway: Duration,
}

fn is_catch_all(route: &Route) -> bool {
    route.path.starts_with("/{*") && route.hosts.is_empty() && route.methods.is_empty()
}

impl Rules {
    pub(super) fn need_an_issuer(&self) -> bool {
        !self.clients.is_empty() || !self.endpoints.is_empty() || self.sign() || self.browser.is_some()
    }

    fn sign(&self) -> bool {
        self.assertion.is_some()
    }

    pub(super) fn set_clock(&self, clock: &Arc<EngineClock>) {
        let fetched = self.clients.iter().filter_map(|client| client.keys.as_ref()?.keys().live());
        fetched.for_each(|keys| keys.set_clock(clock));
    }

    pub(super) fn check(
        &mut self,
        is_issuer: bool,
        trusted: &[IssuerRules],
        own: &[Box<str>],
        (keyring, has_records): (&Keyring, bool),
    ) -> Result<(), BuildError> {
        if self.every_path && !self.routes.is_empty() && !self.routes.iter().any(is_catch_all) {
            self.routes.push(Route::catch_all(RoutePolicy::default()));
        }
        if self.sign() {
            sound::assertion(keyring)?;
        }
        if let Some(headers) = self.identity.as_ref().filter(|headers| headers.len() > MAX_IDENTITY_HEADERS) {
            return Err(BuildError::IdentityHeaders(headers.len()));
        }
        sound::exchanges(&self.routes)?;
        sound::assertion_audiences(&self.routes, &self.clients, trusted, own)?;
        self.public_url.as_deref().map_or(Ok(()), sound::public_url)?;
        self.authorization_endpoint.as_deref().map_or(Ok(()), sound::authorization_endpoint)?;
        sound::origins(&self.allowed_origins)?;
        sound::clients(&self.clients, &self.endpoints, has_records)?;
        sound::global_revocations(&self.endpoints, has_records)?;
        self.takes_id_jag = trusted.iter().any(|rules| rules.grants.id_jag.is_some());
        if let Some(problem) = self.profile.problems().into_iter().next() {
            return Err(BuildError::Profile(problem));
        }
        names(trusted, &self.routes)?;
        sound::roles(is_issuer.then_some(OWN), trusted, &self.routes)?;
        if let ([only], false) = (trusted, is_issuer) {
            let policies = self.routes.iter_mut().map(|route| &mut route.policy);
            for role in policies.flat_map(|policy| policy.roles.iter_mut().chain(&mut policy.all_roles)) {
                role.issuer.get_or_insert_with(|| only.name.as_ref().into());
            }
        }
        if let Some((strict, envelope)) =
            ungoverned(&self.routes, &Endpoints::envelopes(&self.endpoints), is_controller)
        {
            let id = |place: usize| self.routes.get(place).map(|route| route.id.to_string()).unwrap_or_default();
            return Err(BuildError::Ungoverned { strict: id(strict), envelope: id(envelope) });
        }
        Ok(())
    }

    /// Checks that two sources of users cannot name the same subject.
    pub(super) fn check_sources(&self, trusted: &mut [IssuerRules], has_users: bool) -> Result<(), BuildError> {
        let provider = self.browser.as_ref().and_then(Browser::issuer);
        sound::sources(trusted, provider, self.clients.iter(), has_users)
    }

    pub(super) fn check_gates_alone(&self) -> Result<(), BuildError> {
        let is_over_gates = |route: &&Route| route.policy.rate.iter().any(|limit| limit.over == LimitOver::Gates);
        self.routes.iter().find(is_over_gates).map_or(Ok(()), |route| {
            let why = "counts over all gates, but `limits_per_node` lets each gate count separately".to_owned();
            Err(BuildError::Limit { route: route.id.to_string(), why })
        })
    }

    pub(super) fn identity(&self, trusted: &[IssuerRules]) -> IdentityHeaders {
        let headers = self.identity.clone().unwrap_or_else(|| default_identity_headers(trusted));
        IdentityHeaders { headers, assertion: self.assertion.clone() }
    }

    pub(super) fn into_inner(
        mut self,
        kept: RunningParts,
        identity: &IdentityHeaders,
        old: Option<&Inner>,
    ) -> Result<Inner, BuildError> {
        let RunningParts { id, running, engine, checker, leases, leeway } = kept;
        let protected = ProtectedNames::new(identity.names().map(HeaderName::as_str));
        let protected = protected.with(patterns(&self.strip)?, patterns(&self.keep)?);
        let dialects = dialects(&self.routes)?;
        let mut routes =
            if self.routes.is_empty() { vec![Route::catch_all(RoutePolicy::default())] } else { self.routes };
        let of_issuer = || running.is_issuer.then(|| origin_of(engine.issuer())).flatten();
        let public_url = self.public_url.or_else(of_issuer).unwrap_or_default();
        let uses_dpop = self.dpop.is_some()
            || self.clients.iter().any(|client| client.dpop != Binding::Off)
            || routes.iter().any(|route| route.policy.dpop_required);
        if !running.is_issuer && public_url.is_empty() {
            needs_no_url(uses_dpop, !self.resources.is_empty())?;
        }
        let limits = RouteLimits::new(&mut routes, &engine, self.rate_headers, old.map(|old| &old.limits))?;
        let resources = resources::ready(self.resources, &mut routes, engine.issuer(), (&public_url, uses_dpop), old)?;
        let asking = asking(&routes);
        let external = External::new(&public_url, self.hosts.as_deref().unwrap_or_default(), &routes);
        let hosts = self.hosts.map(|hosts| served_hosts(&hosts, &public_url, &routes)).transpose()?;
        let common = CommonRules {
            profile: &self.profile,
            clients: &self.clients,
            issuer: engine.issuer(),
            public_url: &public_url,
            authorization_endpoint: self.authorization_endpoint.as_deref(),
            has_directory: running.has_directory,
            is_issuer: running.is_issuer,
            uses_dpop,
            takes_id_jag: self.takes_id_jag,
            global_revocation: Endpoint::sole_path(&self.endpoints, dialect::GLOBAL_REVOCATION),
            resources: &resources,
        };
        let sessions = self.browser.as_ref().map(Browser::session_rules).unwrap_or_default();
        let browser = self.browser.take().map(|browser| browser.ready(&public_url, &self.allowed_origins));
        let (endpoint, browser) = browser.transpose()?.unzip();
        self.endpoints.extend(endpoint);
        let endpoints = Endpoints::new(self.endpoints, &common)?;
        let clients = Clients::new(self.clients, Arc::clone(&running.passwords))?;
        Ok(Inner {
            id,
            leases,
            endpoints,
            resources,
            origins: Origins::new(&public_url, self.allowed_origins, sessions),
            browser,
            clients: match old {
                Some(old) => clients.following(&old.clients),
                None => clients,
            },
            asking,
            routes: RouteTable::build(routes)
                .map_err(|errors| BuildError::Routes(errors.iter().map(unusable).collect()))?,
            hosts,
            dialects,
            protected,
            profile: self.profile,
            leeway,
            trusted_proxies: self.trusted_proxies,
            max_endpoint_body: self.max_endpoint_body.unwrap_or(DEFAULT_MAX_ENDPOINT_BODY),
            refusals: self.refusals,
            is_replaced: AtomicBool::new(false),
            uses_dpop,
            external,
            limits,
            running,
            engine,
            checker,
        })
    }
}

/// Checks a resource server without a public URL.
///
/// # Errors
/// A configured feature needs the public URL.
fn needs_no_url(uses_dpop: bool, describes_resources: bool) -> Result<(), BuildError> {
    let needs = [(uses_dpop, "the check of DPoP proofs"), (describes_resources, "the description of a resource")];
    let needed = needs.into_iter().find(|(is_used, _)| *is_used);
    needed.map_or(Ok(()), |(_, what)| Err(BuildError::NoPublicUrl(what)))
}

fn served_hosts(given: &[String], public_url: &str, routes: &[Route]) -> Result<Hosts, HostError> {
    let mut hosts = Hosts::default();
    let uri = public_url.parse::<http::Uri>().ok();
    if let Some(public) = uri.as_ref().and_then(http::Uri::authority) {
        hosts.add(authority::host_of(public.as_str()))?;
    }
    let named = routes.iter().flat_map(|route| &route.hosts);
    given.iter().chain(named).try_for_each(|host| hosts.add(host))?;
    Ok(hosts)
}

fn asking(routes: &[Route]) -> Vec<RoutePolicy> {
    let policies = routes.iter().map(|route| &route.policy);
    policies.filter(|policy| !policy.audiences.is_empty()).cloned().collect()
}

fn dialects(routes: &[Route]) -> Result<Vec<Box<dyn Dialect>>, BuildError> {
    let mut found: Vec<Box<dyn Dialect>> = Vec::new();
    for name in routes.iter().filter_map(|route| route.policy.dialect.as_deref()) {
        if !found.iter().any(|dialect| dialect.name() == name) {
            found.push(
                dialect::registry::by_name(name, &dialect::registry::Options::default())
                    .ok_or_else(|| BuildError::Dialect(name.to_owned()))?,
            );
        }
    }
    Ok(found)
}

fn names(trusted: &[IssuerRules], routes: &[Route]) -> Result<(), BuildError> {
    let is_known = |name: &str| name == OWN || trusted.iter().any(|rules| *rules.name == *name);
    match routes.iter().flat_map(|route| &route.policy.issuers).find(|name| !is_known(name)) {
        Some(name) => Err(BuildError::UnknownIssuer(name.clone())),
        None => Ok(()),
    }
}

fn unusable(error: &RouteError) -> InvalidValue {
    InvalidValue::new(error.to_string())
}

fn patterns(texts: &[String]) -> Result<Vec<HeaderPattern>, BuildError> {
    let parsed = texts
        .iter()
        .map(|text| HeaderPattern::parse(text).map_err(|why| BuildError::HeaderPattern { pattern: text.clone(), why }));
    parsed.collect()
}

/// With several issuers, the default headers contain the issuer, because a subject is ambiguous without its issuer. If
/// the rules of another issuer name claims for roles, the default headers also contain the roles.
fn default_identity_headers(trusted: &[IssuerRules]) -> Vec<(HeaderName, IdentityField)> {
    let issuer = (!trusted.is_empty()).then_some((HeaderName::from_static("x-auth-issuer"), IdentityField::Issuer));
    let has_roles = trusted.iter().any(|rules| !rules.claims.roles.is_empty());
    let roles = has_roles.then_some((HeaderName::from_static("x-auth-roles"), IdentityField::Roles));
    [
        (HeaderName::from_static("x-auth-subject"), IdentityField::Subject),
        (HeaderName::from_static("x-auth-account"), IdentityField::Account),
        (HeaderName::from_static("x-auth-client"), IdentityField::Client),
        (HeaderName::from_static("x-auth-scope"), IdentityField::Scope),
        (HeaderName::from_static("x-auth-session"), IdentityField::Session),
    ]
    .into_iter()
    .chain(issuer)
    .chain(roles)
    .collect()
}
