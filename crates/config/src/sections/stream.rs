//! `stream` of an entry of `[[issuers]]`: the delivery of its security events to the gate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::clients::scopes;
use super::issuers::EventsConfig;
use super::provider_client::{self, ProviderClientSettings};
use super::{DAY, SECOND, path_in};
use rotogate_core::session::Scope;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// `stream` of an entry of `[[issuers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct StreamConfig, read by read_keys(section, dir: &Path, issuer: &StreamIssuer<'_>) {
        /// Issuer URL of the transmitter, exactly as in its metadata. Default: the `url` of the entry.
        reload transmitter: String = get_or(value::asked_url, issuer.url.to_owned()),
        /// `"poll"`: the gate fetches the events (RFC 8936). `"push"`: the transmitter posts to the endpoint `events`,
        /// and gets the token in its `token_file` from the gate.
        reload delivery: StreamDelivery = get_or(value::word_of, StreamDelivery::Poll),
        /// Accepted audiences of the stream. Default: that of `events`.
        reload audience: Vec<String> = by { read_audience(section, issuer) },
        /// The gate's client at the transmitter: `id`, and `key_file` or `secret_file`. Its tokens come from
        /// `token_url`.
        reload client: Option<ProviderClientSettings> = table(|section| read_client(section, dir)),
        /// Instead of `client`: the file with a token for the transmitter (0600), read for each request.
        reload token_file: Option<PathBuf> = get(path_in(dir)),
        /// Token endpoint for `client`. Required, unless the issuer has `discovery`.
        reload token_url: Option<String> = get(value::asked_url),
        /// Scopes that `client` asks for.
        reload scopes: Scope = by {
            scopes(section, "scopes").unwrap_or_else(|| Scope::parse(SCOPES).unwrap_or_default())
        },
        /// Types of the events to request. Default: those that end sessions or refresh data (docs/signals.md).
        reload events: Vec<String> = by { read_events(section) },
        /// Further hosts of the transmitter's URLs.
        reload hosts: Vec<String> = list_or_empty(host),
        /// How often the gate requests a verification event and the stream's status; 1m to 1d.
        reload verify_every: Duration = get_or(value::duration_within(60 * SECOND, DAY), 3600 * SECOND),
        /// Only trusted authorities, in PEM. Default: the system's.
        reload ca: Option<PathBuf> = get(path_in(dir)),
    }
}

/// The facts from other keys of the entry.
pub(super) struct StreamIssuer<'a> {
    pub(super) url: &'a str,
    pub(super) events: Option<&'a EventsConfig>,
    pub(super) is_discovered: bool,
}

/// The delivery of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDelivery {
    /// The gate fetches events.
    Poll,
    /// The transmitter pushes events.
    Push,
}

impl Words for StreamDelivery {
    const WORDS: &'static [(&'static str, Self)] = &[("poll", Self::Poll), ("push", Self::Push)];
}

/// The types of events that end sessions or refresh data at this gate.
const EVENTS: [&str; 9] = [
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "https://schemas.openid.net/secevent/caep/event-type/credential-change",
    "https://schemas.openid.net/secevent/caep/event-type/token-claims-change",
    "https://schemas.openid.net/secevent/caep/event-type/assurance-level-change",
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
    "https://schemas.openid.net/secevent/risc/event-type/account-credential-change-required",
];

/// The scopes of the interoperability profile (CAEP Interop 1.0 §2.7.3).
const SCOPES: &str = "ssf.read ssf.manage";

pub(super) fn read(issuer: &Section<'_>, dir: &Path, of: &StreamIssuer<'_>) -> Option<StreamConfig> {
    if issuer.has("stream") && !cfg!(feature = "signals") {
        issuer.section("stream");
        issuer.blame("stream", value::needs_feature("stream", "signals"));
        return None;
    }
    issuer.table("stream", |section| {
        let config = read_keys(section, dir, of);
        match (&config.client, &config.token_file) {
            (None, None) if !section.is_bad() => {
                section
                    .blame("client", "is missing: expected { id = \"gate\", key_file = \"gate.pem\" }, or token_file");
            }
            (Some(_), Some(_)) => {
                section.blame("token_file", "conflicts with client; the gate authenticates in one way");
            }
            (Some(_), None) if config.token_url.is_none() && !of.is_discovered => {
                section.blame(
                    "token_url",
                    "is missing: expected the token endpoint for client, or an issuer with discovery",
                );
            }
            _ => {}
        }
        if config.delivery == StreamDelivery::Push && of.events.is_none() {
            section
                .blame("delivery", "is \"push\", and the entry has no events: expected the endpoint where they come");
        }
        config
    })
}

fn read_audience(section: &Section<'_>, issuer: &StreamIssuer<'_>) -> Vec<String> {
    let of_events = issuer.events.map(|events| events.audience.clone()).unwrap_or_default();
    let audience = section.list("audience", value::text).unwrap_or(of_events);
    if audience.is_empty() && !section.is_bad() {
        section
            .blame("audience", "is missing or empty; expected what the transmitter calls this gate, such as its URL");
    }
    audience
}

fn read_client(section: &Section<'_>, dir: &Path) -> ProviderClientSettings {
    let client = provider_client::read_keys(section, dir);
    if client.secret_file.is_none() && client.key.is_none() && !section.is_bad() {
        section.blame("key_file", "is missing: a transmitter serves a client that proves itself alone");
    }
    client
}

fn read_events(section: &Section<'_>) -> Vec<String> {
    let events = section.list("events", value::text).unwrap_or_else(|| EVENTS.map(str::to_owned).to_vec());
    if events.is_empty() {
        section.blame("events", "is empty: a stream without events says nothing");
    }
    events
}

fn host(v: &Raw) -> Result<String, String> {
    let host = value::text(v)?.to_ascii_lowercase();
    let uri: Option<Uri> = format!("https://{host}/").parse().ok();
    match uri.and_then(|uri| uri.authority().map(|authority| authority.as_str() == host && !host.contains('@'))) {
        Some(true) => Ok(host),
        Some(false) | None => Err(format!("expected a host such as \"ssf.example.com\", found {}", v.describe())),
    }
}
