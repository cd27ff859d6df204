//! `[[upstreams]]`: addresses, TLS, timeouts and bounds, ejection and health checks. An entry is the proxy's
//! [`Upstream`].

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use toml::{Table, Value};

use super::super::print::{self, number, put, put_some, texts, time};
use super::super::raw::Section;
use super::super::value::{self, Share};
use super::{AdminConfig, Config, DAY, ServerConfig, path_in};
use rotogate_core::private_file;
use rotogate_core::token::assertion::can_sign_assertions;
use rotogate_kit::upstream_tls::UpstreamTls;
use rotogate_proxy::authorization;
use rotogate_proxy::{HealthCheck, Reuse, Upstream, UpstreamUrl};

/// The shortest time of a timeout or an interval.
const MIN_TIME: Duration = Duration::from_millis(100);
/// The default of `head_timeout`.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn read(sections: &[Section<'_>], dir: &Path, server: &ServerConfig, admin: &AdminConfig) -> Vec<Upstream> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    for section in sections {
        section.later(&["http2", "balance"]);
        let name = section.require("name", "a name for routes to use", value::text).unwrap_or_default();
        if !name.is_empty() && upstreams.iter().any(|other| other.name == name) {
            section.blame("name", format!("\"{name}\" is listed twice; remove or rename one of the two"));
        }
        upstreams.push(upstream(section, name, dir, server, admin));
        section.finish();
    }
    upstreams
}

fn upstream(section: &Section<'_>, name: String, dir: &Path, server: &ServerConfig, admin: &AdminConfig) -> Upstream {
    let default = Upstream::new(name, urls(section, server, admin));
    let time = |key, min, default: Duration| section.get(key, value::duration_within(min, DAY)).unwrap_or(default);
    let count = |key, max, default: u32| section.get(key, value::count(1, max)).unwrap_or(default);
    let preserve_host = section.get("preserve_host", value::boolean).unwrap_or(false);
    if preserve_host && default.urls.iter().any(|url| matches!(url, UpstreamUrl::H2c(_))) {
        let message = "is impossible for an h2c:// address, where :authority names the upstream; X-Forwarded-Host has \
                       what the client sent";
        section.blame("preserve_host", message);
    }
    let max_requests = section.get("max_requests", value::count(1, 1_000_000)).unwrap_or(default.max_requests);
    let part = |key, percent| {
        let amount = section.get(key, value::share).unwrap_or(Share::Percent(percent)).of(max_requests);
        if amount > max_requests {
            section.blame(key, format!("is {amount}, and max_requests is {max_requests}; expected no more than that"));
        }
        amount
    };
    Upstream {
        preserve_host,
        connect_timeout: Some(time("connect_timeout", MIN_TIME, server.connect_timeout)),
        head_timeout: Some(time("head_timeout", MIN_TIME, HEAD_TIMEOUT)),
        idle_timeout: Some(time("idle_timeout", MIN_TIME, server.idle_timeout)),
        tls: read_tls(section, &default.urls, dir),
        authorization_file: section.get("authorization_file", path_in(dir)).inspect(|path| {
            if let Some(why) = private_file::denied_as_another(path) {
                section.blame_unchecked("authorization_file", why);
            } else if let Err(message) = authorization::load(path) {
                section.blame("authorization_file", message);
            }
        }),
        assertion_audience: section.get("assertion_audience", value::text),
        max_requests,
        max_requests_per_caller: part("max_requests_per_caller", 10),
        max_requests_per_address: part("max_requests_per_address", 25),
        queue_timeout: time("queue_timeout", Duration::ZERO, default.queue_timeout),
        max_failures: count("max_failures", 1000, default.max_failures),
        eject_for: time("eject_for", MIN_TIME, default.eject_for),
        health: section.has("health").then(|| read_health(&section.section("health"))).flatten(),
        dns_refresh: time("dns_refresh", MIN_TIME, default.dns_refresh),
        max_connection_age: time("max_connection_age", MIN_TIME, default.max_connection_age),
        reuse: section
            .get("reuse", value::word(&[("safe", Reuse::Safe), ("never", Reuse::Never)], &[]))
            .unwrap_or(default.reuse),
        max_requests_per_connection: section
            .get("max_requests_per_connection", value::nonzero(1_000_000_000))
            .unwrap_or(default.max_requests_per_connection),
        ..default
    }
}

/// No audience of an upstream or an authorizer is one of access tokens: an assertion must open no route.
pub(super) fn check_assertions(
    config: &Config,
    identity: &Section<'_>,
    (upstreams, authorizers): (&[Section<'_>], &[Section<'_>]),
) {
    if config.identity.assertion.is_some() && !can_sign_assertions(config.issuer.algorithm) {
        let message = format!(
            "needs a key that others can verify with, and algorithm of [issuer] is {}; expected one such as \"EdDSA\"",
            config.issuer.algorithm
        );
        identity.blame("assertion", message);
    }
    let of_routes = config.routes.iter().flat_map(|route| &route.policy.audiences);
    let of_issuers = config.issuers.iter().flat_map(|issuer| &issuer.audience);
    let taken: Vec<&String> = config.issuer.audience.iter().chain(of_routes).chain(of_issuers).collect();
    let of_upstreams = upstreams.iter().zip(&config.upstreams);
    let of_upstreams = of_upstreams.map(|(section, one)| (section, one.assertion_audience.as_ref(), Some(&one.name)));
    let of_authorizers = authorizers.iter().zip(&config.authorizers);
    let of_authorizers = of_authorizers.map(|(section, one)| (section, one.assertion_audience.as_ref(), None));
    for (section, audience, otherwise) in of_upstreams.chain(of_authorizers) {
        if audience.is_some() && config.identity.assertion.is_none() {
            section
                .blame("assertion_audience", "has no effect without `assertion` in [identity]; add it, or remove this");
        }
        let key = if audience.is_some() { "assertion_audience" } else { "name" };
        if let Some(audience) = audience.or(otherwise)
            && config.identity.assertion.is_some()
            && taken.contains(&audience)
        {
            let message =
                format!("\"{audience}\" is an audience of access tokens, too; an assertion needs another one");
            section.blame(key, message);
        }
    }
}

fn urls(section: &Section<'_>, server: &ServerConfig, admin: &AdminConfig) -> Vec<UpstreamUrl> {
    if !section.has("urls") {
        section.require("urls", "a list such as [\"http://127.0.0.1:3000\"]", value::text);
    }
    let urls = section.indexed("urls", value::upstream_url);
    if urls.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("urls", "is empty; expected at least one address");
    }
    let urls = urls.unwrap_or_default();
    for (index, url) in &urls {
        if let Some(what) = loops_back(url, server, admin) {
            section.blame_element("urls", *index, format!("is {what}: requests would come back to the gate"));
        }
    }
    urls.into_iter().map(|(_, url)| url).collect()
}

/// `ca`, `server_name` and `client_cert`. The verification of an upstream cannot be turned off (requirement T16); the
/// usual names of such a key get an error that says so.
fn read_tls(section: &Section<'_>, urls: &[UpstreamUrl], dir: &Path) -> UpstreamTls {
    for key in ["verify", "insecure", "insecure_skip_verify", "danger_accept_invalid_certs"] {
        if section.has(key) {
            section.get(key, |_| -> Result<(), String> {
                Err("an upstream's certificate is always verified; name its authority: ca = \"ca.pem\"".to_owned())
            });
        }
    }
    let client_cert = section.has("client_cert").then(|| {
        let pair = section.section("client_cert");
        let file = |key| pair.require(key, "a PEM file", path_in(dir));
        let both = file("cert").zip(file("key"));
        pair.finish();
        both
    });
    let tls = UpstreamTls {
        ca: section.get("ca", path_in(dir)),
        server_name: section.get("server_name", value::text),
        client_cert: client_cert.flatten(),
    };
    if urls.iter().any(|url| matches!(url, UpstreamUrl::Https(_))) {
        if !section.is_bad() {
            if let Some(why) = tls.files().find_map(private_file::denied) {
                section.blame_unchecked(if tls.client_cert.is_some() { "client_cert" } else { "ca" }, why);
            } else if let Err(error) = tls.load() {
                section.blame(error.key, error.message);
            }
        }
        return tls;
    }
    for key in ["ca", "server_name", "client_cert"] {
        // Such a key suggests TLS, but no address uses it.
        if section.has(key) && !urls.is_empty() {
            section.blame(key, "only applies to https:// addresses, and urls has none; remove it");
        }
    }
    tls
}

fn read_health(section: &Section<'_>) -> Option<HealthCheck> {
    let path = section.require("path", "a path such as \"/healthz\"", |v| {
        let path = value::text(v)?;
        let parsed = path.parse::<PathAndQuery>().ok().filter(|_| path.starts_with('/') && !path.contains('#'));
        parsed.ok_or_else(|| format!("expected a path such as \"/healthz\", found {}", v.describe()))
    });
    let default = HealthCheck::new(path.clone().unwrap_or_else(|| PathAndQuery::from_static("/")));
    let time = |key, default: Duration| section.get(key, value::duration_within(MIN_TIME, DAY)).unwrap_or(default);
    let count = |key, default: u32| section.get(key, value::count(1, 1000)).unwrap_or(default);
    let check = HealthCheck {
        interval: time("interval", default.interval),
        timeout: time("timeout", default.timeout),
        healthy_after: count("healthy_after", default.healthy_after),
        unhealthy_after: count("unhealthy_after", default.unhealthy_after),
        ..default
    };
    section.finish();
    path.map(|_| check)
}

/// The address of the gate that an upstream is, if it is one (requirement O1).
fn loops_back(url: &UpstreamUrl, server: &ServerConfig, admin: &AdminConfig) -> Option<String> {
    if reaches(url, admin.listen) {
        return Some(format!("our own admin listener, {}", admin.listen));
    }
    if let Some(own) = server.addresses().find(|own| reaches(url, *own)) {
        return Some(format!("our own listener, {own}"));
    }
    let url = url.address()?;
    let public = &server.public_url;
    let is_tls = public.scheme_str() == Some("https");
    let public_host = public.host().unwrap_or_default().trim_matches(['[', ']']);
    let public_port = public.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let same = public_host.eq_ignore_ascii_case(url.name()) && public_port == url.port();
    (is_tls == url.is_tls() && same).then(|| "our own public_url".to_owned())
}

/// Whether a connection to `url` reaches a listener at `listen`.
fn reaches(url: &UpstreamUrl, listen: SocketAddr) -> bool {
    let Some(url) = url.address() else { return false };
    if url.port() != listen.port() {
        return false;
    }
    let name = url.name().trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return is_local(listen.ip().to_canonical());
    }
    // An unspecified address connects to this machine.
    let Ok(to) = name.parse::<IpAddr>().map(|ip| ip.to_canonical()) else { return false };
    let at = listen.ip().to_canonical();
    to == at || (is_local(to) && at.is_unspecified()) || (to.is_unspecified() && is_local(at))
}

fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

pub(super) fn print(upstream: &Upstream) -> Value {
    let Upstream {
        name,
        urls,
        preserve_host,
        connect_timeout,
        head_timeout,
        idle_timeout,
        tls,
        authorization_file,
        assertion_audience,
        max_requests,
        max_requests_per_caller,
        max_requests_per_address,
        queue_timeout,
        max_failures,
        eject_for,
        health,
        dns_refresh,
        max_connection_age,
        reuse,
        max_requests_per_connection,
    } = upstream;
    let mut table = Table::new();
    put(&mut table, "name", name.as_str());
    put(&mut table, "urls", texts::<UpstreamUrl>(urls));
    put(&mut table, "preserve_host", *preserve_host);
    put_some(&mut table, "connect_timeout", connect_timeout.map(time));
    put_some(&mut table, "head_timeout", head_timeout.map(time));
    put_some(&mut table, "idle_timeout", idle_timeout.map(time));
    let UpstreamTls { ca, server_name, client_cert } = tls;
    put_some(&mut table, "ca", ca.as_deref().map(print::path));
    put_some(&mut table, "server_name", server_name.as_deref());
    if let Some((cert, key)) = client_cert {
        let mut pair = Table::new();
        put(&mut pair, "cert", print::path(cert));
        put(&mut pair, "key", print::path(key));
        put(&mut table, "client_cert", pair);
    }
    put_some(&mut table, "authorization_file", authorization_file.as_deref().map(print::path));
    put_some(&mut table, "assertion_audience", assertion_audience.as_deref());
    put(&mut table, "max_requests", number(*max_requests));
    put(&mut table, "max_requests_per_caller", number(*max_requests_per_caller));
    put(&mut table, "max_requests_per_address", number(*max_requests_per_address));
    put(&mut table, "queue_timeout", time(*queue_timeout));
    put(&mut table, "max_failures", number(*max_failures));
    put(&mut table, "eject_for", time(*eject_for));
    if let Some(HealthCheck { path, interval, timeout, healthy_after, unhealthy_after }) = health {
        let mut check = Table::new();
        put(&mut check, "path", path.as_str());
        put(&mut check, "interval", time(*interval));
        put(&mut check, "timeout", time(*timeout));
        put(&mut check, "healthy_after", number(*healthy_after));
        put(&mut check, "unhealthy_after", number(*unhealthy_after));
        put(&mut table, "health", check);
    }
    put(&mut table, "dns_refresh", time(*dns_refresh));
    put(&mut table, "max_connection_age", time(*max_connection_age));
    let reuse = match reuse {
        Reuse::Safe => "safe",
        Reuse::Never => "never",
    };
    put(&mut table, "reuse", reuse);
    put(&mut table, "max_requests_per_connection", number(max_requests_per_connection.get()));
    table.into()
}
