//! `rotogate token inspect`: the decision about a token, and its reason.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::cli::{Failure, admin_client};
use crate::server::build::issuer_rules;
use crate::server::operate::admin::ExplainReport;
use rotogate::remote_keys;
use rotogate_config::{Config, TrustedIssuer};
use rotogate_core::claim::condition::KeptConditions;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::denial::Denial;
use rotogate_core::policy;
use rotogate_core::route::{Auth, RoutePolicy};
use rotogate_core::rule::Rule;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::{
    IssuerKeys, IssuerRules, Keys, OWN, Responses, Told, Verifier, is_jwt_shaped, peek,
};
use rotogate_core::token::{AccessToken, refresh};

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum TokenReport {
    AccessToken(Box<AccessReport>),
    RefreshToken {
        authentic: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
    },
}

impl TokenReport {
    pub(super) fn is_good(&self) -> bool {
        match self {
            Self::AccessToken(report) => report.authentic && report.refused.is_none(),
            Self::RefreshToken { authentic, .. } => *authentic,
        }
    }
}

#[derive(Default, Serialize)]
pub(super) struct AccessReport {
    /// Whether the signature is valid.
    authentic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// `keys` or `introspection`.
    #[serde(skip_serializing_if = "Option::is_none")]
    judged_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Whether the running gate knows a revocation of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<Caller>,
    /// Routes that require a token, with `accepted` or the reason for refusal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RouteDecision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Caller {
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    scope: String,
    audience: Vec<String>,
    roles: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    roles_left_out: bool,
}

#[derive(Serialize)]
struct RouteDecision {
    route: String,
    decision: &'static str,
}

impl AccessReport {
    fn refused(denial: Denial, detail: Option<String>) -> Self {
        let detail = detail.or_else(|| denial.detail().map(str::to_owned));
        Self { refused: Some(denial.reason().to_owned()), detail, ..Self::default() }
    }

    fn accepted(config: &Config, token: &AccessToken) -> Self {
        let asks = |route: &&rotogate_core::route::Route| route.policy.auth != Auth::None;
        let decision = |route: &rotogate_core::route::Route| RouteDecision {
            route: route.id.to_string(),
            decision: judged(&route.policy, token).map_or_else(|denial| denial.reason(), |()| "accepted"),
        };
        Self {
            authentic: true,
            caller: Some(Caller {
                subject: token.subject.to_string(),
                account: token.account().map(str::to_owned),
                client: token.client.as_deref().map(str::to_owned),
                scope: token.scope.as_str().to_owned(),
                audience: token.audience.iter().map(ToString::to_string).collect(),
                roles: token.roles().names().iter().map(ToString::to_string).collect(),
                roles_left_out: token.roles().are_left_out(),
            }),
            routes: config.routes.iter().filter(asks).map(decision).collect(),
            claims: Some(serde_json::Value::Object(token.claims())),
            ..Self::default()
        }
    }
}

/// Conditions on path parameters cannot be decided without a request, so they are skipped.
fn judged(policy: &RoutePolicy, token: &AccessToken) -> Result<(), Denial> {
    policy::judge(policy, token)?;
    let conditions = policy.conditions.as_ref().map(|all| KeptConditions::judged(all, &token.claims()));
    match conditions.and_then(|kept| kept.decided()) {
        Some(false) => Err(Denial::Condition),
        Some(true) | None => Ok(()),
    }
}

/// Checks a token, and fetches the issuer's keys if needed. Introspection sends the token to its issuer, so it requires
/// `online`.
pub(super) async fn inspect(
    config: &Config,
    keyring: &Keyring,
    token: &str,
    issuer: Option<&str>,
    online: bool,
) -> Result<TokenReport, Failure> {
    if token.starts_with(refresh::PREFIX) {
        let authentic = refresh::authenticate(keyring.refresh_keys(), token);
        return Ok(TokenReport::RefreshToken {
            authentic: authentic.is_some(),
            session: authentic.as_ref().map(|known| known.session.to_string()),
            generation: authentic.as_ref().map(|known| known.generation.get()),
        });
    }
    let known = |name: &&str| *name == OWN || config.issuers.iter().any(|issuer| issuer.name == **name);
    if let Some(name) = issuer.filter(|name| !known(name)) {
        let names: Vec<_> = config.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        let names = [&[OWN], names.as_slice()].concat().join(", ");
        return Err(Failure::Usage(format!("--issuer {name}: unknown issuer; expected one of {names}")));
    }
    let is_meant = |candidate: &&TrustedIssuer| match issuer {
        Some(name) => candidate.name == name,
        None => names_or_introspects(candidate, token),
    };
    let mut meant = config.issuers.iter().filter(is_meant);
    let report = match (meant.next(), meant.next()) {
        (Some(trusted), None) => of_another(config, trusted, token, online).await?,
        (Some(first), Some(second)) => {
            let (first, second) = (&first.name, &second.name);
            let why = format!(
                "both issuer {first} and issuer {second} may have issued the token; name one of them with `--issuer`"
            );
            AccessReport::refused(Denial::UnknownIssuer, Some(why))
        }
        (None, _) => {
            let own: Arc<str> = config.issuer.url.as_str().into();
            let audience = config.issuer.audience.iter().map(|one| one.as_str().into()).collect();
            let rules = IssuerRules::own(own, audience, keyring, config.issuer.leeway);
            let report = by_keys(config, rules, token)?;
            AccessReport { issuer: report.authentic.then(|| OWN.to_owned()), ..report }
        }
    };
    let report = if report.authentic && report.refused.is_none() {
        with_revocation(config, token, report).await
    } else {
        report
    };
    Ok(TokenReport::AccessToken(Box::new(report)))
}

/// Asks the first suitable route of the running gate whether the token is revoked.
async fn with_revocation(config: &Config, token: &str, report: AccessReport) -> AccessReport {
    let not_checked = |why: &str| Some(format!("not checked: {why}"));
    let is_accepted = |id: &str| report.routes.iter().any(|it| it.route == id && it.decision == "accepted");
    let Some(route) = config.routes.iter().find(|route| is_accepted(&route.id)) else {
        return AccessReport { revocation: not_checked("no route accepts the token"), ..report };
    };
    let path =
        route.path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
    let question = json!({ "path": path, "method": route.methods.first().map(http::Method::as_str),
        "host": route.hosts.first().map(|host| host.replace('*', "x")), "token": token });
    let asked: Result<ExplainReport, _> = admin_client::post(&config.admin.access(), "/v1/explain", &question).await;
    let said = match asked {
        Ok(said) => said,
        Err(failure) => return AccessReport { revocation: not_checked(&failure.to_string()), ..report },
    };
    match said.rules.iter().find(|rule| rule.rule == Rule::Revocation.word()) {
        Some(rule) if rule.result == "fail" => AccessReport {
            revocation: Some(rule.detail.clone()),
            refused: Some(said.outcome),
            detail: said.detail,
            routes: Vec::new(),
            ..report
        },
        Some(rule) if rule.result == "ok" => AccessReport { revocation: Some("none".to_owned()), ..report },
        Some(_) | None => AccessReport { revocation: not_checked("another rule refuses the token first"), ..report },
    }
}

/// Returns whether the token may be from this issuer. A JWT names its issuer, and an opaque token has the issuer's
/// prefix.
fn names_or_introspects(issuer: &TrustedIssuer, token: &str) -> bool {
    if is_jwt_shaped(token) {
        return peek(token).and_then(|says| says.issuer).is_some_and(|named| *named == *issuer.url);
    }
    issuer.introspection.as_ref().is_some_and(|introspection| token.starts_with(&introspection.prefix))
}

async fn of_another(
    config: &Config,
    issuer: &TrustedIssuer,
    token: &str,
    online: bool,
) -> Result<AccessReport, Failure> {
    let mut rules = issuer_rules::load_issuer(issuer).map_err(Failure::Failed)?;
    let is_asked = issuer.introspection.as_ref().is_some_and(|it| it.always || !is_jwt_shaped(token));
    let has_keys = issuer.keys.file().is_some() || issuer.keys.remote().is_some();
    let mut report = AccessReport::default();
    // An introspected JWT is also verified with the issuer's keys.
    if !is_asked || (has_keys && is_jwt_shaped(token)) {
        if let Some(source) = issuer.keys.remote() {
            match remote_keys::inspect(source.issuer.clone()).await {
                Ok(found) => rules.keys = Keys::Live(found.keys.into()),
                Err(failure) => rules.keys = unknown(&mut report, &failure),
            }
        }
        let fetched = report.detail.take();
        report = by_keys(config, rules.clone(), token)?;
        report.detail = fetched.or(report.detail);
        report.judged_by = Some("keys");
    }
    if is_asked && (report.authentic || report.refused.is_none()) {
        report = by_introspection(config, issuer, &rules, token, online).await?;
        report.judged_by = Some("introspection");
    }
    Ok(AccessReport { issuer: Some(issuer.name.clone()), ..report })
}

fn unknown(report: &mut AccessReport, failure: &remote_keys::FetchFailure) -> Keys {
    report.detail = Some(format!("{}: {failure}", failure.cause));
    Keys::Live(IssuerKeys::unknown().into())
}

fn by_keys(config: &Config, rules: IssuerRules, token: &str) -> Result<AccessReport, Failure> {
    let expected = Arc::clone(&rules.issuer);
    let verifier = Verifier::new(vec![rules]).map_err(Failure::failed)?;
    let now = SystemTime::new().wall();
    Ok(match verifier.verify(token, now, now) {
        Ok(access) => AccessReport::accepted(config, &access),
        // Without a known issuer, the claims cannot be trusted.
        Err(Denial::UnknownIssuer) => {
            let named = peek(token).and_then(|says| says.issuer).unwrap_or_default();
            let why = format!(
                "the token's `iss` is {named:?}; expected {:?}, or name the issuer with `--issuer`",
                &*expected
            );
            AccessReport::refused(Denial::UnknownIssuer, Some(why))
        }
        // The signature of the token is valid, so its claims can be shown.
        Err(denial @ (Denial::TokenExpired | Denial::TokenNotYetValid)) => {
            let AccessReport { refused, detail, .. } = AccessReport::refused(denial, None);
            let found = verifier.in_its_time(token).map(|access| AccessReport::accepted(config, &access));
            AccessReport { refused, detail, routes: Vec::new(), ..found.unwrap_or_default() }
        }
        Err(denial) => {
            let claim = verifier.refused_in_words(token, denial, now).map(|claim| match denial.detail() {
                Some(detail) => format!("{claim}: {detail}"),
                None => claim,
            });
            AccessReport::refused(denial, claim)
        }
    })
}

async fn by_introspection(
    config: &Config,
    issuer: &TrustedIssuer,
    rules: &IssuerRules,
    token: &str,
    online: bool,
) -> Result<AccessReport, Failure> {
    let Some(settings) = &issuer.introspection else { return Ok(AccessReport::default()) };
    if !online {
        let why = format!("only the issuer can decide; `--online` sends the token to {}", settings.url);
        return Ok(AccessReport::refused(Denial::IntrospectionUnavailable(settings.timeout), Some(why)));
    }
    let introspection = issuer_rules::load_introspection(settings, &issuer.files)
        .map_err(|fault| Failure::Failed(fault.to_string()))?;
    let unavailable = |why| AccessReport::refused(Denial::IntrospectionUnavailable(settings.timeout), Some(why));
    let response = match introspection.introspector.introspect(token).await {
        Ok(response) => response,
        Err(fault) => return Ok(unavailable(format!("{}: {fault}", fault.cause))),
    };
    Ok(match Responses::new(rules).read(token, &response, SystemTime::new().wall()) {
        Ok(Told::Active(access)) => AccessReport::accepted(config, &access),
        Ok(Told::Inactive) => AccessReport::refused(Denial::TokenInactive, Some("active is false".to_owned())),
        Ok(Told::Refused(denial)) => AccessReport::refused(denial, None),
        Err(why) => unavailable(format!("malformed: {why}")),
    })
}
