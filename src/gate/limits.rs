//! The request limits of routes, which count permitted requests (docs/limits.md).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::builder::error::BuildError;
use super::{Identity, Inner};
use crate::dialect::Reply;
use crate::gate::verdict::Who;
use rotogate_core::claim::ClaimPath;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{Engine, HeldUp, Origin};
use rotogate_core::limit::Left;
use rotogate_core::limit::callers::{CallerLimits, LimitedCaller, LimitedRequest, RunningLimit, Unmet};
use rotogate_core::policy::{Owing, Permit, QuotaFields};
use rotogate_core::reply::seconds;
use rotogate_core::route::{RateLimit, Route, RoutePolicy, unusable_limit};
use rotogate_core::verify_cache::Verified;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
const ROUNDS: usize = 32;

/// Selects the replies that state a route's limits (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RateHeaders {
    #[default]
    Refused,
    Always,
    Off,
}

#[derive(Debug)]
pub(super) struct RouteLimits {
    /// The counters, which a new configuration takes over.
    callers: Arc<CallerLimits>,
    all: Vec<(RateLimit, Arc<RunningLimit>)>,
    headers: RateHeaders,
}

pub(super) type CallLimits = Vec<Arc<RunningLimit>>;
pub(super) type GovernedCall = (Permit<Owing>, CallLimits);

#[derive(Clone)]
pub(super) struct OverQuota(Arc<Verified>);

impl RouteLimits {
    /// Prepares the limits of the routes, and keeps the counts of a running gate.
    pub(super) fn new(
        routes: &mut [Route],
        engine: &Engine,
        headers: RateHeaders,
        old: Option<&Self>,
    ) -> Result<Self, BuildError> {
        if let Some((index, why)) = unusable_limit(routes) {
            let route = routes.get(index).map(|route| route.id.to_string()).unwrap_or_default();
            return Err(BuildError::Limit { route, why });
        }
        let begun = || Arc::new(CallerLimits::new(engine.limits(), engine.clock().source()));
        let callers = old.map_or_else(begun, |old| Arc::clone(&old.callers));
        let mut all: Vec<(RateLimit, Arc<RunningLimit>)> = Vec::new();
        for route in routes {
            for limit in &mut route.policy.rate {
                let name = limit.name_on(&route.id);
                let known = all.iter().position(|(_, known)| known.name() == &*name);
                limit.place = known.unwrap_or(all.len());
                if known.is_none() {
                    all.push((limit.clone(), callers.running_limit(&name, limit)));
                }
            }
        }
        Ok(Self { callers, all, headers })
    }

    pub(super) fn put_in_force(&self) {
        self.callers.use_limits(self.all.iter().map(|(limit, running)| (running, limit)));
    }

    /// The number of requests that each limit refused.
    pub(super) fn refused_requests(&self) -> Vec<(&'static str, u64)> {
        self.callers.refused_requests()
    }

    fn of_policy<'a>(&'a self, policy: &'a RoutePolicy) -> impl Iterator<Item = &'a Arc<RunningLimit>> {
        policy.rate.iter().filter_map(|limit| self.all.get(limit.place)).map(|(_, running)| running)
    }
}

impl OverQuota {
    pub(super) fn who(parts: &Parts, denial: Denial) -> Option<Who> {
        let Denial::QuotaExceeded(..) = denial else { return None };
        parts.extensions.get::<Self>().map(|over| Who::Caller(Identity::new(Arc::clone(&over.0))))
    }
}

impl Inner {
    pub(super) fn limits_of<'a>(&self, rules: impl IntoIterator<Item = &'a Route>) -> Vec<Arc<RunningLimit>> {
        let all = rules.into_iter().flat_map(|rule| self.limits.of_policy(&rule.policy).cloned().collect::<Vec<_>>());
        all.collect()
    }

    /// Counts a request against the limits of its route and further limits. If one limit refuses, the other limits do
    /// not count the request either.
    ///
    /// # Errors
    /// The limit refuses the request, or must first query the store.
    pub(super) fn count(
        &self,
        parts: &Parts,
        caller: Option<&Arc<Verified>>,
        policy: &RoutePolicy,
        more: &[Arc<RunningLimit>],
    ) -> Result<Option<Box<QuotaFields>>, Unmet> {
        let mut fields = (self.limits.headers == RateHeaders::Always).then(<(String, String)>::default);
        self.with_limited(parts, caller, |request| {
            let own = self.limits.of_policy(policy);
            // A limit that several routes share must count the request only once.
            let further = more.iter().enumerate().filter(|(at, limit)| {
                let before = more.iter().take(*at).chain(self.limits.of_policy(policy));
                !before.into_iter().any(|known| Arc::ptr_eq(known, limit))
            });
            let mut all = own.chain(further.map(|(_, limit)| limit)).map(|limit| &**limit);
            CallerLimits::take_request(&mut all, request, &mut |limit, left| {
                if let Some((policies, lefts)) = &mut fields {
                    put(policies, lefts, (limit.name(), limit.quota()), left);
                }
            })
        })?;
        let value = |text: String| HeaderValue::try_from(text).ok();
        Ok(fields.filter(|(policies, _)| !policies.is_empty()).and_then(|(policies, lefts)| {
            Some(Box::new(QuotaFields { policy: value(policies)?, left: value(lefts)? }))
        }))
    }

    /// Like [`Self::count`], but waits for the store if a limit needs it.
    ///
    /// # Errors
    /// A limit refuses the request.
    pub(super) async fn count_waiting(
        &self,
        parts: &Parts,
        caller: Option<&Arc<Verified>>,
        policy: &RoutePolicy,
        more: &[Arc<RunningLimit>],
    ) -> Result<Option<Box<QuotaFields>>, Denial> {
        let mut refused = ("", Duration::ZERO);
        for _ in 0..ROUNDS {
            match self.count(parts, caller, policy, more) {
                Ok(fields) => return Ok(fields),
                Err(Unmet::Refused(name, wait)) => {
                    refused = (name, wait);
                    break;
                }
                Err(Unmet::Pending(pending)) => {
                    refused.0 = pending.limit();
                    pending.answered().await;
                }
            }
        }
        Err(self.exceeded(parts, caller, refused))
    }

    pub(super) fn exceeded(
        &self,
        parts: &Parts,
        caller: Option<&Arc<Verified>>,
        (name, wait): (&'static str, Duration),
    ) -> Denial {
        let denial = Denial::QuotaExceeded(name, wait.max(Duration::from_secs(1)));
        let origin = Origin { address: self.address_of(parts), ..Origin::default() };
        self.engine.tell_held_up(&denial.into(), &origin, || {
            let token = caller.map(|caller| caller.token());
            HeldUp {
                session: token.and_then(|token| token.session).map(|(id, _)| id),
                subject: token.map(|token| token.subject.clone()),
                account: token.and_then(|token| token.account()).map(Into::into),
                client: token.and_then(|token| token.client.clone()),
                ..HeldUp::default()
            }
        });
        denial
    }

    pub(super) fn note_exceeded(parts: &mut Parts, caller: Option<&Arc<Verified>>) {
        if let Some(caller) = caller {
            parts.extensions.insert(OverQuota(Arc::clone(caller)));
        }
    }

    pub(super) fn foreseen_limit(&self, parts: &Parts, permitted: &Permit<Owing>) -> Option<Result<(), Denial>> {
        let policy = &permitted.route().policy;
        let rules = self.limits_of_call(policy, parts);
        if policy.rate.is_empty() && rules.is_empty() {
            return None;
        }
        let looked = self.with_limited(parts, permitted.caller(), |request| {
            let all = self.limits.of_policy(policy).chain(&rules).map(|limit| &**limit);
            CallerLimits::look_request(all, request)
        });
        Some(match looked {
            Err(Unmet::Refused(name, wait)) => Err(Denial::QuotaExceeded(name, wait)),
            Ok(()) | Err(Unmet::Pending(_)) => Ok(()),
        })
    }

    pub(super) fn limit_names(&self, policy: &RoutePolicy) -> String {
        self.limits.of_policy(policy).map(|limit| limit.name()).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn has_limit(&self, policy: &RoutePolicy, name: &str) -> bool {
        self.limits.of_policy(policy).any(|limit| limit.name() == name)
    }

    fn with_limited<T>(
        &self,
        parts: &Parts,
        caller: Option<&Arc<Verified>>,
        then: impl FnOnce(&LimitedRequest<'_>) -> T,
    ) -> T {
        let token = caller.map(|caller| caller.token());
        let claim = |path: &ClaimPath| caller?.counted_claim(path, said);
        let caller = token.map(|token| LimitedCaller {
            issuer: token.issuer(),
            subject: &token.subject,
            client: token.limited_client(),
            account: token.account(),
            claim: &claim,
        });
        let address = || -> Option<IpAddr> { self.address_of(parts) };
        then(&LimitedRequest { caller, address: &address })
    }

    pub(super) fn state_quota(&self, denial: Denial, reply: &mut Reply) {
        let Denial::QuotaExceeded(name, wait) = denial else { return };
        let Some(quota) = self.limits.callers.quota(name).filter(|_| self.limits.headers != RateHeaders::Off) else {
            return;
        };
        let (mut policy, mut left) = <(String, String)>::default();
        put(&mut policy, &mut left, (name, quota), Left { requests: 0, reset: wait });
        if let (Ok(policy), Ok(left)) = (HeaderValue::try_from(policy), HeaderValue::try_from(left)) {
            add(reply.headers_mut(), &QuotaFields { policy, left });
        }
    }
}

/// Appends the fields, because the service may have added its own limits.
pub(super) fn add(headers: &mut http::HeaderMap, fields: &QuotaFields) {
    headers.append(POLICY, fields.policy.clone());
    headers.append(LEFT, fields.left.clone());
}

/// The string `"1"` and the number 1 count separately.
fn said(value: &Value) -> Option<String> {
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Appends a limit to both header fields, which are lists of strings with parameters (RFC 9651 §3.1).
// Requirement K19.
fn put(policies: &mut String, lefts: &mut String, (name, (requests, window)): (&str, (u32, Duration)), left: Left) {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    let between = if policies.is_empty() { "" } else { ", " };
    let _ = write!(policies, "{between}\"{name}\";q={requests}");
    // The parameter `w` can only state whole seconds.
    if window.subsec_nanos() == 0 {
        let _ = write!(policies, ";w={}", window.as_secs());
    }
    let _ = write!(lefts, "{between}\"{name}\";r={};t={}", left.requests, seconds(left.reset));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k19_the_fields_are_lists_of_strings_with_integers() {
        let (mut policies, mut lefts) = <(String, String)>::default();
        let left = |requests, millis| Left { requests, reset: Duration::from_millis(millis) };
        put(&mut policies, &mut lefts, ("org", (5000, Duration::from_secs(60))), left(0, 11_001));
        put(&mut policies, &mut lefts, ("a \"b\" \\", (1, Duration::from_millis(1500))), left(7, 0));
        assert_eq!(policies, r#""org";q=5000;w=60, "a \"b\" \\";q=1"#);
        assert_eq!(lefts, r#""org";r=0;t=12, "a \"b\" \\";r=7;t=1"#);
    }

    #[test]
    fn the_text_of_a_number_is_another_key_than_the_number() {
        let key = |text: &str| said(&serde_json::from_str(text).unwrap());
        assert_ne!(key("\"1\""), key("1"));
        assert_eq!(key("[1]"), None);
    }
}
