//! Checks a builder's values when the gate is built.

use std::collections::HashSet;

use http::Uri;

use super::BuildError;
use crate::dialect::GLOBAL_REVOCATION;
use crate::gate::Endpoint;
use crate::gate::origin::origin_of;
use rotogate_core::client::{Client, ExchangeRules, Grant};
use rotogate_core::route::{Auth, Route, all_roles_problem, role_problem};
use rotogate_core::token::assertion::can_sign_assertions;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::{IssuerRules, RulesError, UserSource, bare_source, is_name};

/// Checks that an issuer is an https URL without query and fragment (RFC 8414 §2). An attacker on the network could
/// impersonate an issuer over plain http.
pub(super) fn issuer(issuer: &str, plain: bool) -> Result<(), BuildError> {
    let refuse = |why| Err(BuildError::Issuer { issuer: issuer.to_owned(), why });
    let Some((uri, host)) = url(issuer) else {
        return refuse("it is not a URL: write `https://` and a host, without user, query and fragment");
    };
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if plain || is_loopback(&host) => Ok(()),
        Some("http") => refuse("plain http is allowed only on loopback, unless you call `dangerous_plain_issuer()`"),
        Some(_) | None => refuse("its scheme is not https"),
    }
}

pub(super) fn public_url(public: &str) -> Result<(), BuildError> {
    let is_origin = url(public)
        .is_some_and(|(uri, _)| matches!(uri.scheme_str(), Some("http" | "https")) && matches!(uri.path(), "" | "/"));
    if is_origin { Ok(()) } else { Err(BuildError::PublicUrl(public.to_owned())) }
}

/// See RFC 6749 §3.1.
pub(super) fn authorization_endpoint(given: &str) -> Result<(), BuildError> {
    let before = given.split_once('?').map_or(given, |(before, _)| before);
    let is_url =
        !given.contains('#') && url(before).is_some_and(|(uri, _)| matches!(uri.scheme_str(), Some("http" | "https")));
    if is_url { Ok(()) } else { Err(BuildError::AuthorizationEndpoint(given.to_owned())) }
}

/// An origin in another spelling could not match any request's `Origin`.
pub(super) fn origins(allowed: &[Box<str>]) -> Result<(), BuildError> {
    match allowed.iter().find(|origin| origin_of(origin).as_deref() != Some(origin)) {
        Some(origin) => Err(BuildError::Origin(origin.to_string())),
        None => Ok(()),
    }
}

/// Checks that a client is registered once, that its id fits into a token, and that its settings allow its grants.
pub(super) fn clients(clients: &[Client], endpoints: &[Endpoint], has_records: bool) -> Result<(), BuildError> {
    let refuse = |client: &str, why| Err(BuildError::Client { client: client.to_owned(), why });
    let mut known = HashSet::new();
    for client in clients {
        if !is_name(&client.id) {
            return refuse(&client.id, "a token cannot contain its id");
        }
        if !known.insert(&*client.id) {
            return refuse(&client.id, "it is registered twice");
        }
        if client.secret_hash.is_some() && !cfg!(feature = "passwords") {
            return refuse(&client.id, "its secret cannot be checked: this build lacks the feature `passwords`");
        }
        if let Some(why) = exchange(client) {
            return refuse(&client.id, why);
        }
        if client.secret_hash.is_some() && client.keys.is_some() {
            return refuse(&client.id, "it has both a secret and keys, but a client authenticates in only one way");
        }
        if client.keys.is_some() && !has_records {
            return refuse(
                &client.id,
                "each of its assertions may be used only once, so the gate needs a store for used assertions: call \
                 `.row_store(…)`",
            );
        }
        if !client.is_confidential() && client.may(Grant::ClientCredentials) {
            return refuse(&client.id, "client_credentials are for clients with a secret or keys (RFC 6749 §4.4)");
        }
    }
    let named = endpoints.iter().flat_map(Endpoint::named_clients);
    match named.into_iter().find(|client| !known.contains(client)) {
        Some(client) => refuse(client, "an endpoint names this client, which is not registered: call `.client(…)`"),
        None => Ok(()),
    }
}

/// A request for global revocation is accepted only once, so the gate needs a store that records these requests.
pub(super) fn global_revocations(endpoints: &[Endpoint], has_records: bool) -> Result<(), BuildError> {
    match Endpoint::paths(endpoints, GLOBAL_REVOCATION).next() {
        Some(path) if !has_records => {
            const WHY: &str = "the gate must remember used requests in a store: call `.row_store(…)`";
            Err(BuildError::endpoint(GLOBAL_REVOCATION, path, WHY))
        }
        Some(_) | None => Ok(()),
    }
}

// Requirement D1.
fn exchange(client: &Client) -> Option<&'static str> {
    match &client.exchange {
        None if client.may(Grant::TokenExchange) => Some("token exchange needs rules: set `exchange`"),
        None => None,
        Some(_) if !client.may(Grant::TokenExchange) => Some("`exchange` has no effect without `Grant::TokenExchange`"),
        Some(_) if !client.is_confidential() => {
            Some("token exchange is for clients with a secret or keys (RFC 8693 §5)")
        }
        Some(rules) if rules.to.iter().any(|to| to.is_empty()) => Some("an audience of `exchange` is empty"),
        Some(rules) if rules.to.is_empty() => Some("`exchange.to` names no audience"),
        Some(rules) if !(1..=ExchangeRules::MAX_DEPTH).contains(&rules.depth) => {
            Some("`exchange.depth` must be 1 to 8")
        }
        Some(_) => None,
    }
}

/// Checks that a role belongs to an issuer whose tokens the route accepts, and whose rules name claims for roles.
pub(super) fn roles(own: Option<&str>, trusted: &[IssuerRules], routes: &[Route]) -> Result<(), BuildError> {
    for route in routes {
        let others = trusted.iter().filter(|rules| route.policy.takes(&rules.name, rules.everywhere));
        let own = own.filter(|own| route.policy.takes(own, true));
        let taken: Vec<&str> = own.into_iter().chain(others.clone().map(|rules| &*rules.name)).collect();
        let all = &route.policy.all_roles;
        for role in route.policy.roles.iter().chain(all) {
            let named = |rules: &&IssuerRules| role.issuer.as_ref().is_none_or(|issuer| *rules.name == **issuer);
            let has_none = others.clone().filter(named).any(|rules| rules.claims.roles.is_empty());
            let none = has_none.then_some(
                "belongs to an issuer whose rules do not name a claim with roles: call `IssuerRules::roles`",
            );
            if let Some(why) = role_problem(role, &taken).or(none) {
                return Err(BuildError::Role { route: route.id.to_string(), role: role.to_string(), why });
            }
        }
        if let (Some(role), Some(why)) = (all.first(), all_roles_problem(all)) {
            return Err(BuildError::Role { route: route.id.to_string(), role: role.to_string(), why });
        }
    }
    Ok(())
}

/// Checks that two sources of users cannot name the same subject.
// Requirement I67.
pub(in crate::gate) fn sources<'a>(
    trusted: &mut [IssuerRules],
    provider: Option<&str>,
    clients: impl Iterator<Item = &'a Client>,
    has_users: bool,
) -> Result<(), BuildError> {
    const BARE: &str =
        "it needs a `subject_prefix`, because two users could otherwise have the same subject at this gate";
    let refuse = |rules: &IssuerRules| Err(RulesError::Rule { issuer: rules.issuer.to_string(), why: BARE }.into());
    let exchanged: Vec<_> = clients.filter_map(|client| client.exchange.as_ref()).flat_map(|it| &it.issuers).collect();
    let is_exchanged = |rules: &IssuerRules| exchanged.iter().any(|name| ***name == *rules.name);
    if let Some(bare) = trusted.iter().find(|rules| rules.subject_prefix.is_empty() && is_exchanged(rules)) {
        return refuse(bare);
    }
    if let Some(rules) = trusted.iter_mut().find(|rules| provider == Some(&*rules.issuer)) {
        rules.logs_in_browsers = true;
    }
    let named: Vec<_> = trusted.iter().filter(|rules| rules.names_subjects() || is_exchanged(rules)).collect();
    let own = has_users.then_some(UserSource::Own);
    let sources: Vec<_> = named.iter().map(|rules| UserSource::Issuer(&rules.subject_prefix)).chain(own).collect();
    bare_source(&sources).and_then(|place| named.get(place)).map_or(Ok(()), |rules| refuse(rules))
}

/// Assertions need a key pair, because upstreams verify them with the gate's published keys.
pub(in crate::gate) fn assertion(keyring: &Keyring) -> Result<(), BuildError> {
    match keyring.signer().algorithm() {
        algorithm if can_sign_assertions(algorithm) => Ok(()),
        algorithm => Err(BuildError::Assertion(format!(
            "the signing key is for {algorithm}, and upstreams do not have its secret to verify assertions; sign \
             with EdDSA, ES256 or RS256"
        ))),
    }
}

/// An access token must not have the audience of an assertion, because an upstream could replay the assertion.
pub(super) fn assertion_audiences(
    routes: &[Route],
    clients: &[Client],
    trusted: &[IssuerRules],
    own: &[Box<str>],
) -> Result<(), BuildError> {
    let audiences = || {
        let of_routes = routes.iter().flat_map(|route| &route.policy.audiences).map(String::as_str);
        let of_issuers = trusted.iter().flat_map(|rules| rules.audience.iter()).map(|one| &**one);
        let exchanged = clients.iter().filter_map(|client| client.exchange.as_ref()).flat_map(|rules| &rules.to);
        own.iter().chain(exchanged).map(|one| &**one).chain(of_routes).chain(of_issuers)
    };
    let mut asserted = routes.iter().filter_map(|route| route.assertion_audience.as_deref());
    match asserted.find(|audience| audience.is_empty() || audiences().any(|one| one == *audience)) {
        Some(audience) => Err(BuildError::Assertion(format!(
            "the audience {audience:?} of an upstream is also an audience of access tokens; choose another audience"
        ))),
        None => Ok(()),
    }
}

/// The exchanged token replaces the caller's token, so the route must require a caller.
// Requirement D11.
pub(super) fn exchanges(routes: &[Route]) -> Result<(), BuildError> {
    let is_wrong = |route: &&Route| route.policy.forward_token || route.policy.auth != Auth::Required;
    match routes.iter().filter(|route| route.exchange.is_some()).find(is_wrong) {
        Some(route) => Err(BuildError::Exchange(route.id.to_string())),
        None => Ok(()),
    }
}

fn url(text: &str) -> Option<(Uri, String)> {
    if text.contains(['#', '?']) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    Some((uri, host))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t33_an_issuer_is_an_https_url_or_on_loopback() {
        for good in [
            "https://id.example",
            "https://id.example:8443/acme/",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]",
            "http://app.localhost/",
        ] {
            assert!(issuer(good, false).is_ok(), "{good}");
        }
        for bad in [
            "my-app",
            "",
            "/x",
            "https://",
            "ftp://id.example",
            "http://id.example",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "https://id.example/?x=1",
            "https://id.example/#x",
            "https://user@id.example",
        ] {
            assert!(issuer(bad, false).is_err(), "{bad}");
        }
        assert!(issuer("http://id.example", true).is_ok());
        assert!(issuer("my-app", true).is_err());
    }

    #[test]
    fn t33_what_no_browser_and_no_client_could_use_is_refused() {
        for (good, bad) in [("https://a.example", "https://a.example/"), ("http://a.example:81", "http://a.example:80")]
        {
            assert!(origins(&[good.into()]).is_ok(), "{good}");
            assert!(origins(&[good.into(), bad.into()]).is_err(), "{bad}");
        }
        assert!(public_url("https://a.example/").is_ok());
        for bad in ["https://a.example/x", "a.example", "wss://a.example", "https://a.example?x"] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
        for good in ["https://idp.example/authorize", "http://127.0.0.1/a?p=x"] {
            assert!(authorization_endpoint(good).is_ok(), "{good}");
        }
        for bad in ["/authorize", "https://idp.example/a#b", "https://idp.example/a?b#c", "urn:x", "https://u@x/"] {
            assert!(authorization_endpoint(bad).is_err(), "{bad}");
        }
        let web = Client::public("web");
        assert!(clients(std::slice::from_ref(&web), &[], false).is_ok());
        for bad in [
            vec![web.clone(), web.clone()],
            vec![Client::public("")],
            vec![Client { grants: vec![Grant::ClientCredentials], ..web }],
        ] {
            assert!(clients(&bad, &[], false).is_err(), "{bad:?}");
        }
    }
}
