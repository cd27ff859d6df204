//! Model Context Protocol (MCP) calls on the routes of a resource.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::builder::error::BuildError;
use super::{Inner, resources};
use crate::dialect::said_json;
use rotogate_core::denial::{CallFlaw, Denial};
use rotogate_core::limit::callers::RunningLimit;
use rotogate_core::mcp::{self, Call, CallHead, Message, MessageId, has_call_headers};
use rotogate_core::policy;
use rotogate_core::refusal::ChallengeParams;
use rotogate_core::reply::Reply;
use rotogate_core::route::{CallRule, CallRules, Mcp, Route, RoutePolicy};
use rotogate_core::rule::Rule;
use rotogate_core::session::Scope;
use rotogate_core::token::observer::Observer;
use rotogate_core::verify_cache::Verified;

#[derive(Debug)]
pub(super) struct ReadyMcp {
    pub(super) settings: Mcp,
    pub(super) rules: CallRules,
    has_limits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadVerdict {
    /// The request is not a call, or its call has already been authorised.
    Decided,
    NeedsBody,
    WrongMethod,
}

/// What the body says about a call, kept in the request's extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct CallContext {
    pub(super) id: Option<MessageId>,
    /// The call and its token's scopes, for an older protocol version. In these versions, headers do not name the
    /// call, and a client requests only the scopes of the latest challenge.
    older: Option<(Call<'static>, Scope)>,
}

impl ReadyMcp {
    /// The new rules continue the counts of the rules in `old`.
    pub(super) fn new(path: &str, settings: Mcp, routes: &[Route], old: Option<&Inner>) -> Result<Self, BuildError> {
        let refuse = |why| BuildError::Resource { path: path.to_owned(), why: String::into(why) };
        if let Some(why) = settings.problem() {
            return Err(refuse(why));
        }
        let of_it = routes.iter().filter(|route| route.policy.resource.as_deref() == Some(path));
        let mut rules = CallRules::new(of_it).map_err(refuse)?;
        let known = old.and_then(|old| resources::named(&old.resources, Some(path)));
        if let Some(known) = known.and_then(|known| known.mcp.as_ref()) {
            rules.count_on(&known.rules);
        }
        let has_limits = rules.iter().any(|rule| !rule.route.policy.rate.is_empty());
        Ok(Self { settings, rules, has_limits })
    }

    /// Returns whether a rule for calls has limits.
    pub(super) const fn has_limits(&self) -> bool {
        self.has_limits
    }

    /// The resource must accept the call's protocol version.
    fn head<'a>(&self, headers: &'a HeaderMap) -> Result<CallHead<'a>, CallFlaw> {
        let head = CallHead::read(headers)?;
        match head.version {
            Some(version) if self.settings.versions.iter().any(|listed| listed == version) => Ok(head),
            Some(_) => Err(CallFlaw::UnsupportedVersion),
            None if self.settings.takes_older() => Ok(head),
            None => Err(CallFlaw::HeaderMismatch("MCP-Protocol-Version is missing")),
        }
    }

    fn judge<O: Observer>(
        &self,
        gate: &Inner,
        caller: Option<&Arc<Verified>>,
        call: &Call<'_>,
        observer: &mut O,
    ) -> Result<(), Denial> {
        for rule in self.rules.of_call(call) {
            let judged = match caller {
                Some(caller) => policy::judge_call(&rule.route, caller, || gate.engine.clock().wall(), observer),
                None => observer.judged(Rule::Credential, Err(Denial::NoCredential)),
            };
            if O::HAS_EFFECTS {
                rule.count(judged.is_ok());
            }
            judged?;
        }
        Ok(())
    }
}

impl Inner {
    pub(super) fn mcp(&self, policy: &RoutePolicy) -> Option<&ReadyMcp> {
        policy.resource.as_deref()?;
        resources::named(&self.resources, policy.resource.as_deref())?.mcp.as_ref()
    }

    /// Checks the head of a permitted request to a resource. If the headers name the call, the call is authorised
    /// before its body is read.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub(super) fn judge_head<O: Observer>(
        &self,
        mcp: &ReadyMcp,
        parts: &Parts,
        caller: Option<&Arc<Verified>>,
        observer: &mut O,
    ) -> Result<HeadVerdict, Denial> {
        // A page that uses DNS rebinding still states its own origin in `Origin`.
        let is_ours = self.origins.admit_page(&parts.headers, &mcp.settings.origins);
        observer.judged(Rule::Origin, if is_ours { Ok(()) } else { Err(Denial::CrossOrigin) })?;
        match parts.method {
            Method::POST => {}
            // In older versions, GET opens the stream of a session, and DELETE ends the session.
            Method::GET | Method::DELETE if mcp.settings.takes_older() => return Ok(HeadVerdict::Decided),
            _ => return Ok(HeadVerdict::WrongMethod),
        }
        let head = mcp.head(&parts.headers);
        // The error response needs the request's id, which is in the body.
        let is_readable = !mcp.settings.headers_alone && is_plain_json(&parts.headers).is_ok();
        if head.is_err() && is_readable && O::HAS_EFFECTS {
            return Ok(HeadVerdict::NeedsBody);
        }
        let head = observer.read(Rule::Route, head.map_err(Denial::BadCall))?;
        if let Some(call) = head.into_call() {
            mcp.judge(self, caller, &call, observer)?;
        }
        match mcp.settings.headers_alone {
            true => Ok(HeadVerdict::Decided),
            // Explain requests have no body, and may omit `Content-Type`.
            false if !O::HAS_EFFECTS && !parts.headers.contains_key(CONTENT_TYPE) => Ok(HeadVerdict::NeedsBody),
            false => {
                observer.judged(Rule::Route, is_plain_json(&parts.headers).map_err(Denial::BadCall))?;
                Ok(HeadVerdict::NeedsBody)
            }
        }
    }

    /// Checks the body of a call whose head was already checked.
    ///
    /// # Errors
    /// The reason for the refusal.
    // Requirements M5 and M7.
    pub(super) fn judge_body(
        &self,
        mcp: &ReadyMcp,
        parts: &mut Parts,
        caller: Option<&Arc<Verified>>,
        body: &[u8],
    ) -> Result<(), Denial> {
        let mut context = CallContext::default();
        let judged = self.judge_message(mcp, &parts.headers, caller, body, &mut context);
        parts.extensions.insert(context);
        judged
    }

    fn judge_message(
        &self,
        mcp: &ReadyMcp,
        headers: &HeaderMap,
        caller: Option<&Arc<Verified>>,
        body: &[u8],
        context: &mut CallContext,
    ) -> Result<(), Denial> {
        let read = mcp::read(body);
        context.id = read.as_ref().map_or_else(|(_, id)| id.clone(), |message| message.id().cloned());
        let head = mcp.head(headers).map_err(Denial::BadCall)?;
        let message: Message<'_> = read.map_err(|(flaw, _)| Denial::BadCall(flaw))?;
        head.agree(&message).map_err(Denial::BadCall)?;
        let call = message.call();
        let is_older = !head.version.is_some_and(has_call_headers);
        if call.method.is_none() && !is_older {
            return Err(Denial::BadCall(CallFlaw::NotOneMessage(
                "the body is a response, but in this version of MCP only servers send responses",
            )));
        }
        if head.into_call().is_some_and(|known| known == call) {
            return Ok(());
        }
        if is_older {
            let granted = caller.map(|caller| caller.token().scope.clone()).unwrap_or_default();
            context.older = Some((call.clone().into_owned(), granted));
        }
        mcp.judge(self, caller, &call, &mut ())
    }

    /// Adds the call's requirements, so that one response names all required scopes.
    // Requirement M9.
    pub(super) fn ask_of_call<'a>(
        &'a self,
        asked: &mut ChallengeParams<'a>,
        policy: &'a RoutePolicy,
        parts: &'a Parts,
    ) {
        let Some((mcp, call, granted)) = self.known_call(policy, parts) else { return };
        let mut scopes = asked.scopes.clone().into_owned();
        for rule in mcp.rules.of_call(&call) {
            scopes = scopes.union(&rule.route.policy.asked_scopes());
            asked.step_up = rule.route.policy.step_up.as_ref().or(asked.step_up);
        }
        if let Some(granted) = granted {
            scopes = scopes.union(granted);
        }
        asked.scopes = std::borrow::Cow::Owned(scopes);
    }

    /// Returns the call and its settings. For an older protocol version, also returns the scopes of the token.
    fn known_call<'a>(
        &'a self,
        policy: &RoutePolicy,
        parts: &'a Parts,
    ) -> Option<(&'a ReadyMcp, Call<'a>, Option<&'a Scope>)> {
        let mcp = self.mcp(policy)?;
        match parts.extensions.get::<CallContext>().and_then(|context| context.older.as_ref()) {
            Some((call, granted)) => Some((mcp, call.clone(), Some(granted))),
            None => Some((mcp, CallHead::read(&parts.headers).ok()?.into_call()?, None)),
        }
    }

    pub(super) fn limits_of_call(&self, policy: &RoutePolicy, parts: &Parts) -> Vec<Arc<RunningLimit>> {
        let has_limits = self.mcp(policy).is_some_and(ReadyMcp::has_limits);
        let known = if has_limits { self.known_call(policy, parts) } else { None };
        let Some((mcp, call, _)) = known else { return Vec::new() };
        self.limits_of(mcp.rules.of_call(&call).map(|rule| &*rule.route))
    }

    pub(super) fn rules_of_call(&self, policy: &RoutePolicy, parts: &Parts) -> Vec<Arc<Route>> {
        let Some((mcp, call, _)) = self.known_call(policy, parts) else { return Vec::new() };
        mcp.rules.of_call(&call).map(|rule| Arc::clone(&rule.route)).collect()
    }

    pub(super) fn bad_call(&self, flaw: CallFlaw, policy: &RoutePolicy, parts: &Parts) -> Reply {
        let id = parts.extensions.get::<CallContext>().and_then(|context| context.id.as_ref());
        let supported = self.mcp(policy).map(|mcp| mcp.settings.versions.as_slice()).unwrap_or_default();
        let requested = CallHead::read(&parts.headers).ok().and_then(|head| head.version);
        mcp::reply(flaw, id, supported, requested)
    }

    pub(crate) fn call_counts(&self) -> impl Iterator<Item = (&str, &CallRule)> {
        let all = self.resources.iter().filter_map(|resource| Some((&*resource.path, resource.mcp.as_ref()?)));
        all.flat_map(|(path, mcp)| mcp.rules.iter().map(move |rule| (path, rule)))
    }
}

fn is_plain_json(headers: &HeaderMap) -> Result<(), CallFlaw> {
    let is_plain = said_json(headers) == Some(true) && !headers.contains_key(CONTENT_ENCODING);
    if is_plain { Ok(()) } else { Err(CallFlaw::MediaType) }
}
