//! The keys of an endpoint with `dialect = "relay"`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::issuers::TrustedIssuer;
use super::provider_client::{self, ProviderClientSettings};
use super::remote::RemoteSource;
use super::{Config, SECOND, check_known, path_in};
use rotogate::dialect::Dialect;
use rotogate::dialect::kuzzle::Kuzzle;
use rotogate::dialect::relay::{PASSWORD, REFRESH_TOKEN, RelayDialect, Wire};
use rotogate::relay::engine::MAX_GRACE;
use rotogate::relay::{AfterUnknown, RelayRules};
use rotogate_core::route::{Auth, Route, WarningKind};
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// A relay: the provider behind an endpoint, and the rules for it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RelaySettings, read by pub(super) read(
        section,
        dir: &Path,
        issuers: &[TrustedIssuer],
        wire: RelayWire,
        own_path: &str,
        is_https: bool,
    ) {
        /// Protocol that the clients and the provider speak: `"oauth"`, `"envelope"`, `"knox"` or `"kuzzle"`.
        reload wire: RelayWire = by { wire },
        /// Name of the entry of `[[issuers]]` for the provider's access tokens, so that the gate can audit and revoke
        /// them. If that entry has `discovery`, `token_url` and `revocation_url` can be absent.
        reload issuer: Option<String> = by { read_issuer(section, issuers, wire) },
        /// URL of the provider's token endpoint; for `"kuzzle"`: of `/_query`. Required, unless `issuer` has
        /// `discovery`.
        reload token_url: Option<String> = by { read_token_url(section, wire, has_discovery(issuers, wire, issuer.as_deref())) },
        /// URL of the provider's revocation endpoint.
        reload revocation_url: Option<String> = by {
            (wire == OAUTH).then(|| section.get("revocation_url", value::asked_url)).flatten()
        },
        /// Path where clients revoke tokens (RFC 7009). It needs `revocation_url` or the issuer's `discovery`.
        reload revocation_path: Option<String> = by {
            let is_discovered = token_url.is_none()
                && revocation_url.is_none()
                && has_discovery(issuers, wire, issuer.as_deref());
            read_revocation_path(section, wire, own_path, revocation_url.is_some(), is_discovered)
        },
        /// Grants that the relay serves. For a grant other than `refresh_token`, such as `authorization_code`, the
        /// relay only forwards the request, and does not store the response.
        reload grants: Vec<String> = by { read_grants(section, wire) },
        /// The time limits, and how the relay handles a retry after a lost response.
        reload rules as "..": RelayRules = by { read_rules(section, &RelayRules::default()) },
        /// The gate's own client at the provider. The gate adds it to each request, so that clients need not send a
        /// secret. `secret_in` is `"basic"` or `"form"`. Instead of a secret, the client may have `key_file` and
        /// `assertion_audience` (docs/clients-without-secrets.md).
        reload client: Option<ProviderClientSettings> = by { read_client(section, dir, wire, &grants) },
        /// File (PEM) with the only certificate authorities that the gate trusts for the provider. Set it if an
        /// internal authority issued the provider's certificate. Default: the system's authorities.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// Whether clients reach the gate by https.
        no_key is_https: bool = by { is_https },
    }
}

/// The protocol of a relay's clients and its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayWire {
    /// A protocol with one operation for each path.
    Plain(Wire),
    /// Kuzzle's protocol, over HTTP and WebSockets.
    Kuzzle,
}

const OAUTH: RelayWire = RelayWire::Plain(Wire::OAuth);

section! {
    impl RelayRules, read by read_rules(section, default: &RelayRules) {
        /// How long a repeated request gets the same response; 60s at most. `"0s"`: only simultaneous requests with the
        /// same refresh token share a response.
        reload grace: Duration = get_or(value::duration_within(Duration::ZERO, MAX_GRACE), default.grace),
        /// How long after the exchange a repeated request gets new tokens, if no token of the lost response was used at
        /// the gate (docs/relay.md). It needs an entry of `[[issuers]]` that accepts the access tokens. `"0s"`: only for
        /// `grace`.
        reload lost_response_window: Duration = get_or(value::duration, default.lost_response_window),
        /// Time limit for the provider's whole response.
        fixed timeout: Duration = get_or(value::duration_within(SECOND, 120 * SECOND), RelayRules::default().timeout),
        /// What the relay does if the provider's response was lost. `"try-once"`: it sends the refresh token once more;
        /// `"refuse"`: it does not send the token again. Write `"refuse"` for a provider that ends the session when a
        /// token is used twice.
        reload after_unknown: AfterUnknown = get_or(value::word_of, default.after_unknown),
    }
}

impl RelaySettings {
    /// Returns the dialect of the relay's endpoint.
    pub fn dialect(&self) -> Box<dyn Dialect> {
        match self.wire {
            RelayWire::Plain(wire) => Box::new(RelayDialect {
                wire,
                grants: self.grants.clone(),
                client: self.client.as_ref().map(|client| client.id.clone()),
                revocation_path: self.revocation_path.clone(),
            }),
            RelayWire::Kuzzle => kuzzle(self.is_https),
        }
    }
}

fn kuzzle(is_https: bool) -> Box<dyn Dialect> {
    Box::new(Kuzzle { relay: true, secure_cookies: is_https, host_cookie: false })
}

/// Returns the default path of an endpoint with this protocol.
pub(super) fn default_path(wire: RelayWire) -> String {
    let dialect = match wire {
        RelayWire::Plain(wire) => Box::new(RelayDialect { wire, ..RelayDialect::default() }),
        RelayWire::Kuzzle => kuzzle(false),
    };
    dialect.default_path().to_owned()
}

impl Words for RelayWire {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("oauth", OAUTH),
        ("envelope", Self::Plain(Wire::Envelope)),
        ("knox", Self::Plain(Wire::Knox)),
        ("kuzzle", Self::Kuzzle),
    ];
}

impl Words for AfterUnknown {
    const WORDS: &'static [(&'static str, Self)] = &[("try-once", Self::TryOnce), ("refuse", Self::Refuse)];
}

/// The grants that may use the gate's own client. Each of these grants requires a credential of a user. With other
/// grants, such as `client_credentials`, anybody could get tokens through the gate.
const OF_USERS: [&str; 4] =
    [REFRESH_TOKEN, PASSWORD, "authorization_code", "urn:ietf:params:oauth:grant-type:device_code"];

impl Config {
    /// Returns the path of each relay that keeps responses after `grace`, and the routes that accept its provider's
    /// access tokens. A request on such a route shows that the client has received the response.
    pub fn relay_routes(&self) -> Vec<(&str, Vec<&str>)> {
        let keeps = |relay: &RelaySettings| relay.rules.lost_response_window > relay.rules.grace;
        let relays = self.endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.relay.as_ref()?)));
        let kept = relays.filter(|(_, relay)| keeps(relay));
        kept.map(|(endpoint, relay)| (endpoint.path.as_str(), self.routes_of(relay.issuer.as_deref()))).collect()
    }

    /// The routes that accept tokens of this issuer, or of any issuer in `[[issuers]]`.
    fn routes_of(&self, issuer: Option<&str>) -> Vec<&str> {
        let issuers = || self.issuers.iter().filter(|known| issuer.is_none_or(|name| name == known.name));
        let accepts = |route: &&Route| {
            matches!(route.policy.auth, Auth::Required | Auth::Optional)
                && issuers().any(|issuer| route.policy.takes(&issuer.name, issuer.everywhere))
        };
        self.routes.iter().filter(accepts).map(|route| &*route.id).collect()
    }
}

/// Warns about relays that keep responses although no route accepts the provider's access tokens.
pub(super) fn check_seen(config: &Config, sections: &[Section<'_>]) {
    for (path, routes) in config.relay_routes() {
        let section = config.endpoints.iter().zip(sections).find(|(endpoint, _)| endpoint.path == path);
        if let (Some((_, section)), true) = (section, routes.is_empty()) {
            let message = "has no effect, because no route accepts the provider's access tokens, so the gate cannot \
                           see whether a response arrived. Add an entry of `[[issuers]]` for these tokens, name it in \
                           `issuer`, and accept it on a route. Or write \"0s\" if a lost response may cost a login \
                           after `grace`";
            section.warn(WarningKind::NoAccess, "lost_response_window", message);
        }
    }
}

/// The protocol of an endpoint.
pub(super) fn wire(section: &Section<'_>) -> RelayWire {
    section.get_or("wire", value::word_of, OAUTH)
}

fn read_issuer(section: &Section<'_>, issuers: &[TrustedIssuer], wire: RelayWire) -> Option<String> {
    let name = if wire == RelayWire::Kuzzle {
        section.require("issuer", "the entry of [[issuers]] for the Kuzzle server", value::text)?
    } else {
        section.get("issuer", value::text)?
    };
    check_known(section, "issuer", "issuer", &name, issuers.iter().map(|issuer| issuer.name.as_str()));
    if wire == RelayWire::Kuzzle && issuers.iter().any(|known| known.name == name && !known.is_kuzzle()) {
        let message = format!(
            "\"{name}\" does not check tokens at the Kuzzle server; its entry needs `introspection = {{ url = \
             \"https://…/_checkToken\" }}`"
        );
        section.blame("issuer", message);
    }
    Some(name)
}

/// Whether the issuer's discovery document names the endpoints.
fn has_discovery(issuers: &[TrustedIssuer], wire: RelayWire, issuer: Option<&str>) -> bool {
    let is_discovered = |issuer: &TrustedIssuer| issuer.keys.remote().is_some_and(RemoteSource::is_discovered);
    wire == OAUTH && issuers.iter().any(|known| issuer == Some(known.name.as_str()) && is_discovered(known))
}

fn read_token_url(section: &Section<'_>, wire: RelayWire, has_discovery: bool) -> Option<String> {
    let token_url = if has_discovery {
        section.get("token_url", value::asked_url)
    } else {
        let what = "the https URL of the provider's token endpoint, or an issuer with `discovery`";
        section.require("token_url", what, value::asked_url)
    };
    let has_path = |fits: fn(&str) -> bool| {
        let url = token_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
        url.is_none_or(|url| fits(url.path()) && url.query().is_none())
    };
    match wire {
        RelayWire::Plain(wire) if wire.is_grpc() && !has_path(|path| path == "/") => {
            section.blame("token_url", "expected a URL without a path, because the protocol defines the paths");
        }
        RelayWire::Kuzzle if !has_path(|path| path.ends_with("/_query")) => {
            section.blame("token_url", "expected the URL of the Kuzzle server's `/_query`");
        }
        RelayWire::Plain(_) | RelayWire::Kuzzle => {}
    }
    token_url
}

fn read_revocation_path(
    section: &Section<'_>,
    wire: RelayWire,
    own_path: &str,
    has_url: bool,
    is_discovered: bool,
) -> Option<String> {
    let path = (wire == OAUTH).then(|| section.get("revocation_path", plain_path)).flatten();
    if path.is_some() != has_url && !is_discovered && !section.is_bad() {
        let (there, missing) = if path.is_some() {
            ("revocation_path", "`revocation_url`, the provider's endpoint")
        } else {
            ("revocation_url", "`revocation_path`, where clients send revocations")
        };
        section.blame(there, format!("needs {missing}"));
    }
    if path.as_deref().is_some_and(|path| path == own_path) {
        section.blame("revocation_path", "is already the path of the endpoint itself; expected another path");
    }
    path
}

fn read_grants(section: &Section<'_>, wire: RelayWire) -> Vec<String> {
    let grants = section.list("grants", grant).unwrap_or_else(|| vec![REFRESH_TOKEN.to_owned()]);
    if grants.is_empty() && !section.is_bad() {
        section.blame("grants", "is empty, so the endpoint would not accept any request; expected \"refresh_token\"");
    }
    let known: &[&str] = match wire {
        OAUTH => return grants,
        // Logins pass through a route.
        RelayWire::Kuzzle => &[REFRESH_TOKEN],
        RelayWire::Plain(_) => &[REFRESH_TOKEN, PASSWORD],
    };
    if let Some(other) = grants.iter().find(|grant| !known.contains(&grant.as_str())) {
        let known = known.iter().map(|grant| format!("\"{grant}\"")).collect::<Vec<_>>().join(" and ");
        section.blame("grants", format!("this protocol supports only {known}, found \"{other}\""));
    }
    grants
}

fn read_client(
    section: &Section<'_>,
    dir: &Path,
    wire: RelayWire,
    grants: &[String],
) -> Option<ProviderClientSettings> {
    if wire != OAUTH {
        return None;
    }
    let client = section.table("client", |section| provider_client::read_keys(section, dir))?;
    if let Some(own) = grants.iter().find(|grant| !OF_USERS.contains(&grant.as_str())) {
        section.blame(
            "grants",
            format!(
                "\"{own}\" cannot be combined with `client`: the gate would authenticate such a request as its own \
                 client, so anybody could get that client's tokens. Remove the grant, or remove `client` so that \
                 clients authenticate themselves"
            ),
        );
    }
    Some(client)
}

fn grant(v: &Raw) -> Result<String, String> {
    let fits = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    value::fitting(v, "a grant type such as \"refresh_token\"", fits)
}

/// A path without parameters.
pub(super) fn plain_path(v: &Raw) -> Result<String, String> {
    let path = value::pattern(v)?;
    if path.contains(['{', '}']) || path.ends_with('/') {
        return Err(format!(
            "expected a path without parameters and without a slash at its end, found {}",
            v.describe()
        ));
    }
    Ok(path)
}
