//! `[[upstreams]]`: addresses, TLS, timeouts and bounds, ejection and health checks. Each entry has the type
//! [`Upstream`].

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use toml::Value as Toml;

use super::super::declare::section;
use super::super::print::{Print, Words};
use super::super::value::{self, Share};
use super::{AdminConfig, Config, DAY, ServerConfig, path_in, unique};
use rotogate_core::private_file;

use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::assertion::can_sign_assertions;
use rotogate_kit::config::{CertificateAndKey, Section, Value as Raw};
use rotogate_kit::upstream_tls::UpstreamTls;
use rotogate_proxy::{
    ExchangeSettings, HealthCheck, MAX_REQUESTS_PER_CONNECTION, Reuse, Upstream, UpstreamUrl, authorization,
};

/// The minimum of a timeout or an interval.
const MIN_TIME: Duration = Duration::from_millis(100);

fn time() -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(MIN_TIME, DAY)
}

section! {
    impl Upstream, read by read_keys(
        section,
        others: &[Upstream],
        dir: &Path,
        server: &ServerConfig,
        admin: &AdminConfig,
        default: &Upstream,
    ) {
        /// Required: Name by which routes refer to the upstream.
        reload name: String = by {
            unique(section, "name", "a name for routes to use", value::text, others.iter().map(|other| &*other.name))
        },
        /// Required: Addresses of the upstream, such as `["http://127.0.0.1:3000"]`, `"https://…"`, or
        /// `["h2c://127.0.0.1:50051"]` for gRPC over HTTP/2 without TLS. If a host name has several addresses, the gate
        /// uses all of them. `"echo:"`: a built-in server whose response shows the request.
        reload urls: Vec<UpstreamUrl> = by { read_urls(section, server, admin) },
        /// true: the gate forwards the client's `Host`, and uses HTTP/1.1 for `https://`. Set it for an application
        /// that builds links from `Host`.
        reload preserve_host: bool = by { read_preserve_host(section, &urls) },
        /// Maximum number of concurrent requests to one address, streams included. Lower it to the number that the
        /// upstream can serve at the same time.
        reload max_requests: usize = get_or(value::count(1, 1_000_000), default.max_requests),
        /// Time limit for connecting, including TLS, and for looking up the host name.
        fixed connect_timeout: Option<Duration> = some_or(time(), Duration::from_secs(5)),
        /// Time limit for receiving the response's head. Raise it for an upstream that needs longer before it responds.
        reload head_timeout: Option<Duration> = some_or(time(), Duration::from_secs(60)),
        /// How long the upstream may pause while it sends or receives a body. Raise it for an upstream that pauses for
        /// longer within a response, such as a stream with rare events.
        reload idle_timeout: Option<Duration> = some_or(time(), Duration::from_secs(60)),
        reload tls as "..": UpstreamTls = by { read_tls(section, &urls, dir) },
        /// File (0600) with the gate's own credential for the upstream, such as `Bearer …`. It replaces the caller's
        /// credential; the identity headers name the caller. The gate reads the file again when it changes. Set it for
        /// a server that cannot check the gate's tokens.
        reload authorization_file: Option<PathBuf> = by { read_authorization_file(section, dir) },
        /// `aud` of the assertions that the gate sends to the upstream. It must not be an audience of access tokens.
        /// Default: the upstream's `name`.
        reload assertion_audience: Option<String> = get(value::text),
        /// Exchanges the caller's token for a token of the upstream, at an entry of `[[providers]]`
        /// (docs/act-for-a-user.md).
        reload exchange: Option<ExchangeSettings> = table(super::upstream_exchange::read),
        /// Share of `max_requests` that one subject may use while the upstream is busy. If no other subject sends
        /// requests, it may use 7/8 (docs/upstreams.md).
        fixed max_requests_per_caller: usize = share_of(("max_requests", max_requests), Share::Percent(10)),
        /// The same share as `max_requests_per_caller`, but for one client address.
        fixed max_requests_per_address: usize = share_of(("max_requests", max_requests), Share::Percent(25)),
        /// How long a request waits while the upstream has reached `max_requests`, or while the upstream is busy and
        /// the caller has used its share. After that, the request gets 503.
        fixed queue_timeout: Duration = get_or(value::duration_within(Duration::ZERO, DAY), Duration::from_secs(1)),
        /// Number of consecutive failures after which the gate ejects an address, unless it is the only one.
        fixed max_failures: u32 = get_or(value::count(1, 1000), 5),
        /// Duration of an ejection. Each consecutive ejection doubles it, up to 5m.
        fixed eject_for: Duration = get_or(time(), Duration::from_secs(10)),
        /// Path of a periodic GET to each address. An address is healthy if the status is 2xx. Unset: only failed
        /// requests eject an address. Set it if a server can be unhealthy although its requests do not fail.
        reload health: Option<HealthCheck> = by { read_health(section) },
        /// How often the gate resolves a host name.
        fixed dns_refresh: Duration = get_or(time(), Duration::from_secs(30)),
        /// Age after which the gate does not send further requests on a connection.
        fixed max_connection_age: Duration = get_or(time(), Duration::from_secs(300)),
        /// When the gate reuses an HTTP/1.1 connection. `"safe"`: after a complete response; `"never"`: for an upstream
        /// that might send two responses to one request (docs/upstreams.md).
        reload reuse: Reuse = get_or(value::word_of, default.reuse),
        /// Number of requests after which the gate closes an HTTP/1.1 connection.
        fixed max_requests_per_connection: NonZeroU32 = get_or(
            value::nonzero(1_000_000_000),
            MAX_REQUESTS_PER_CONNECTION
        ),
    }
    with {
        /// Time between two health checks of one address.
        fixed health_interval: text = "5s",
        /// Time limit for one health check.
        fixed health_timeout: text = "2.5s",
        /// Number of consecutive successful checks after which an address is healthy.
        fixed healthy_after: number = 2_u32,
        /// Number of consecutive failed checks after which an address is unhealthy.
        fixed unhealthy_after: number = 3_u32,
    }
}

fn read_health(section: &Section<'_>) -> Option<HealthCheck> {
    let mut check = HealthCheck::new(section.get("health", health_path)?);
    let tests = section.for_tests();
    check.interval = tests.get_or("health_interval", time(), check.interval);
    check.timeout = tests.get_or("health_timeout", time(), check.interval / 2);
    check.healthy_after = tests.get_or("healthy_after", value::count(1, 1000), check.healthy_after);
    check.unhealthy_after = tests.get_or("unhealthy_after", value::count(1, 1000), check.unhealthy_after);
    Some(check)
}

fn health_path(v: &Raw) -> Result<PathAndQuery, String> {
    let fits = |text: &str| text.starts_with('/') && !text.contains('#');
    let path = v.as_text().filter(|text| fits(text)).and_then(|text| text.parse().ok());
    path.ok_or_else(|| {
        format!("expected the path of the health check, such as `health = \"/healthz\"`, found {}", v.describe())
    })
}

impl Print for HealthCheck {
    fn print(&self) -> Toml {
        self.path.as_str().into()
    }
}

section! {
    impl UpstreamTls, read by read_tls_keys(section, dir: &Path) {
        /// The gate's client certificate for mutual TLS, and its private key.
        reload client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// File (PEM) with the only certificate authorities that the gate trusts for the upstream. Verification cannot
        /// be turned off. Default: the system's authorities.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// Name that the upstream's certificate must have. Set it if `urls` contain IP addresses. Default: the host in
        /// the URL.
        reload server_name: Option<String> = get(value::text),
    }
}

impl Words for Reuse {
    const WORDS: &'static [(&'static str, Self)] = &[("safe", Self::Safe), ("never", Self::Never)];
}

pub(super) fn read(
    section: &Section<'_>,
    above: &[Upstream],
    dir: &Path,
    server: &ServerConfig,
    admin: &AdminConfig,
) -> Upstream {
    section.later(&["http2", "balance"]);
    read_keys(section, above, dir, server, admin, &Upstream::new(String::new(), Vec::new()))
}

fn read_preserve_host(section: &Section<'_>, urls: &[UpstreamUrl]) -> bool {
    let preserve_host = section.get_or("preserve_host", value::boolean, false);
    if preserve_host && urls.iter().any(|url| matches!(url, UpstreamUrl::H2c(_))) {
        let message = "cannot be used with an h2c:// address, because `:authority` must name the upstream; the \
                       client's host is in `X-Forwarded-Host`";
        section.blame("preserve_host", message);
    }
    preserve_host
}

fn read_authorization_file(section: &Section<'_>, dir: &Path) -> Option<PathBuf> {
    section.get("authorization_file", path_in(dir)).inspect(|path| {
        if let Some(why) = private_file::denied_as_another(path) {
            section.blame_unchecked("authorization_file", why);
        } else if let Err(message) = authorization::load(path) {
            section.blame("authorization_file", message);
        }
    })
}

/// Checks that no assertion audience of an upstream or an authorizer is also an audience of access tokens. Otherwise an
/// assertion could be used as a token.
pub(super) fn check_assertions(
    config: &Config,
    identity: &Section<'_>,
    (upstreams, authorizers): (&[Section<'_>], &[Section<'_>]),
) {
    if config.identity.assertion.is_some() && !can_sign_assertions(config.issuer.algorithm) {
        identity.blame("assertion", unpublished_key(config.issuer.algorithm));
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
            section.blame(
                "assertion_audience",
                "has no effect without `assertion` in `[identity]`; add `assertion`, or remove this configuration key",
            );
        }
        let key = if audience.is_some() { "assertion_audience" } else { "name" };
        if let Some(audience) = audience.or(otherwise)
            && config.identity.assertion.is_some()
            && taken.contains(&audience)
        {
            let message = format!(
                "\"{audience}\" is already an audience of access tokens; choose another audience for assertions"
            );
            section.blame(key, message);
        }
    }
}

pub(super) fn unpublished_key(algorithm: Algorithm) -> String {
    format!(
        "needs a signing key that others can verify with, but `algorithm` of `[issuer]` is {algorithm}; expected one \
         such as \"EdDSA\""
    )
}

fn read_urls(section: &Section<'_>, server: &ServerConfig, admin: &AdminConfig) -> Vec<UpstreamUrl> {
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
            section.blame_element("urls", *index, format!("is {what}, so requests would come back to the gate"));
        }
    }
    urls.into_iter().map(|(_, url)| url).collect()
}

/// An upstream's certificate is always verified (requirement T16).
fn read_tls(section: &Section<'_>, urls: &[UpstreamUrl], dir: &Path) -> UpstreamTls {
    let remedy = "an upstream's certificate is always verified; name the file of its certificate authority, such as \
                  `ca = \"ca.pem\"`";
    section.misplaced(&["verify", "insecure", "insecure_skip_verify", "danger_accept_invalid_certs"], remedy);
    let tls = read_tls_keys(section, dir);
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
    if !urls.is_empty() {
        let message = "only applies to https:// addresses, but `urls` has none; remove it";
        section.blame_present(&["ca", "server_name", "client_cert"], message);
    }
    tls
}

/// Describes the gate's listener behind the URL (requirement O1).
fn loops_back(url: &UpstreamUrl, server: &ServerConfig, admin: &AdminConfig) -> Option<String> {
    if reaches(url, admin.listen) {
        return Some(format!("the gate's own admin listener, {}", admin.listen));
    }
    if let Some(own) = server.addresses().find(|own| reaches(url, *own)) {
        return Some(format!("the gate's own listener, {own}"));
    }
    let url = url.address()?;
    let public = &server.public_url;
    let is_tls = public.scheme_str() == Some("https");
    let public_host = public.host().unwrap_or_default().trim_matches(['[', ']']);
    let public_port = public.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let same = public_host.eq_ignore_ascii_case(url.name()) && public_port == url.port();
    (is_tls == url.is_tls() && same).then(|| "the gate's own `public_url`".to_owned())
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
    // A connection to an unspecified address reaches this machine.
    let Ok(to) = name.parse::<IpAddr>().map(|ip| ip.to_canonical()) else { return false };
    let at = listen.ip().to_canonical();
    to == at || (is_local(to) && at.is_unspecified()) || (to.is_unspecified() && is_local(at))
}

fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}
