//! The table of endpoints: finds the endpoint of a request by its path.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{Endpoint, JWKS_PATH};
use crate::dialect::{self, Dialect, Protocol, ServedPath};
use crate::gate::BuildError;
use crate::gate::browser::BrowserEndpoint;
use crate::gate::metadata::{self, Metadata};
use crate::gate::relay::EndpointRelay;
use crate::gate::resources::ReadyResource;
use rotogate_core::client::Client;
use rotogate_core::engine::APPLICATION;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::session::{Session, profile::Profile};
use rotogate_core::token::claims::TokenStyle;

/// An endpoint that is ready to serve.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) profile: Profile,
    pub(super) clients: Option<Vec<Box<str>>>,
    /// What the metadata say about the endpoint, if it has metadata.
    pub(super) published: Option<Published>,
    /// The client of the endpoint's sessions, if the protocol does not name a client. This client is public.
    pub(super) client: Option<Arc<Client>>,
    pub(super) accepts: Vec<Box<str>>,
    /// The dialects of `accepts` in which an access token is also the refresh credential.
    pub(super) by_access: Vec<Box<str>>,
    /// The relay to the provider behind the endpoint.
    pub(super) relay: Option<Arc<EndpointRelay>>,
    /// The settings of browser logins, if this is the browser endpoint.
    pub(super) browser: Option<Arc<BrowserEndpoint>>,
    /// The listeners that serve the endpoint. If the list is empty, all listeners do.
    pub(super) listeners: Vec<Box<str>>,
    /// The only account that the endpoint serves, if it is bound to one.
    pub(super) account: Option<Box<str>>,
    /// Whether a path of the endpoint contains `{account}`.
    pub(super) names_accounts: bool,
}

/// The endpoint's metadata, and the names in them.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) issuer: String,
    pub(super) token_endpoint: String,
}

/// The rules that all endpoints of a gate share.
pub(in crate::gate) struct CommonRules<'a> {
    pub(in crate::gate) profile: &'a Profile,
    pub(in crate::gate) clients: &'a [Client],
    pub(in crate::gate) issuer: &'a str,
    pub(in crate::gate) public_url: &'a str,
    /// The authorization endpoint, which the metadata of `issuer` name.
    pub(in crate::gate) authorization_endpoint: Option<&'a str>,
    pub(in crate::gate) has_directory: bool,
    pub(in crate::gate) is_issuer: bool,
    pub(in crate::gate) uses_dpop: bool,
    /// Whether any issuer's identity assertions are accepted as grants.
    pub(in crate::gate) takes_id_jag: bool,
    /// The path of the only endpoint for global revocation. If there are several, it is `None`, because the metadata
    /// can name only one.
    pub(in crate::gate) global_revocation: Option<String>,
    pub(in crate::gate) resources: &'a [ReadyResource],
}

/// The dialects that endpoints may name.
struct KnownDialects {
    all: Vec<&'static str>,
    /// The dialects in which an access token is also the refresh credential.
    by_access: Vec<Box<str>>,
}

impl KnownDialects {
    fn new(endpoints: &[Endpoint]) -> Self {
        let served = endpoints.iter().map(|endpoint| &endpoint.dialect);
        let by_access = served.clone().filter(|dialect| dialect.refreshes_by_access());
        let all =
            served.map(|dialect| dialect.name()).chain(dialect::registry::NAMES.iter().copied()).chain([APPLICATION]);
        Self { by_access: by_access.map(|dialect| dialect.name().into()).collect(), all: all.collect() }
    }
}

impl Ready {
    fn new(
        endpoint: Endpoint,
        (names_accounts, published): (bool, Option<Published>),
        common: &CommonRules<'_>,
        dialects: &KnownDialects,
    ) -> Result<Self, BuildError> {
        let failed = |problem: String| BuildError::endpoint(endpoint.dialect.name(), endpoint.base(), problem);
        let client = own_client(&endpoint, common.clients).map_err(failed)?;
        if names_accounts && endpoint.account.is_some() {
            return Err(failed("the endpoint is bound to one account, but its path contains {account}".to_owned()));
        }
        if let Some(unknown) = endpoint.accepts.iter().find(|other| !dialects.all.contains(&&***other)) {
            return Err(failed(format!(
                "`accepts` contains {unknown:?}, which is not a dialect: expected the name of a dialect, or \
                 {APPLICATION:?} for sessions that the application starts"
            )));
        }
        let impossible = endpoint.accepts.iter().find(|other| !dialects.by_access.contains(other));
        if endpoint.dialect.refreshes_by_access()
            && let Some(other) = impossible
        {
            return Err(failed(format!(
                "`accepts` contains {other:?}, whose access tokens cannot be used to refresh, so sessions of that \
                 dialect could never be refreshed here"
            )));
        }
        let profile = endpoint.profile.over(&endpoint.dialect.profile().over(common.profile));
        // Contradictory rules are reported when the gate is built, instead of at a client's first refresh.
        let of_clients = common.clients.iter().map(|client| client.profile.over(&profile));
        let mut all_rules = std::iter::once(profile.clone()).chain(of_clients);
        if let Some(problem) = all_rules.find_map(|rules| rules.problems().into_iter().next()) {
            return Err(failed(problem.to_string()));
        }
        let mut accepts = endpoint.accepts;
        accepts.push(endpoint.dialect.name().into());
        Ok(Self {
            client,
            relay: endpoint.relay,
            browser: endpoint.browser,
            listeners: endpoint.listeners,
            account: endpoint.account,
            by_access: accepts.iter().filter(|name| dialects.by_access.contains(name)).cloned().collect(),
            dialect: endpoint.dialect,
            profile,
            clients: endpoint.clients,
            published,
            accepts,
            names_accounts,
        })
    }
}

/// The client of an endpoint's sessions, if the protocol does not name a client. It is the registered client with its
/// grants and scopes or, if no client is registered, a public client. A confidential client is an error, because it
/// could not authenticate (requirement R20).
fn own_client(endpoint: &Endpoint, clients: &[Client]) -> Result<Option<Arc<Client>>, String> {
    let default = endpoint.dialect.client();
    let Some(id) = endpoint.client.as_deref().or(default) else { return Ok(None) };
    // If several clients have the same id, the last one is used.
    match clients.iter().rev().find(|client| *client.id == *id) {
        Some(client) if client.is_confidential() => Err(format!(
            "the client {id:?} is confidential, but this protocol cannot carry a client secret; name a public client"
        )),
        Some(client) => Ok(Some(Arc::new(client.clone()))),
        None if endpoint.client.is_none() => Ok(Some(Arc::new(Client::public(id)))),
        None => Err(format!("the client {id:?} is not registered")),
    }
}

/// The operation or document that the gate serves at one of its paths.
#[derive(Clone, Debug)]
enum PathEntry {
    Operation { endpoint: usize, served: Arc<ServedPath> },
    Jwks,
    Metadata(usize),
    Resource(usize),
}

impl PathEntry {
    fn endpoint(&self) -> Option<usize> {
        match self {
            Self::Operation { endpoint, .. } => Some(*endpoint),
            Self::Jwks | Self::Metadata(_) | Self::Resource(_) => None,
        }
    }
}

/// The requests that can carry wrapped calls to an endpoint with this dialect at `base`.
pub fn envelopes(dialect: &dyn Dialect, base: &str) -> Vec<(Method, String)> {
    let is_envelope = |served: &ServedPath| dialect.protocol().is_some_and(|own| own.is_envelope(served.operation));
    let served = dialect.serves(base).into_iter().filter(is_envelope);
    served.filter_map(|served| Some((served.methods.first()?.clone(), served.template))).collect()
}

/// All endpoints by path.
#[derive(Debug)]
pub(in crate::gate) struct Endpoints {
    ready: Vec<Ready>,
    exact: matchit::Router<PathEntry>,
    /// The path templates in lower case, to find near misses.
    loose: matchit::Router<Option<usize>>,
    /// The first characters of the templates' first segments: one bit for each character, in lower case.
    begins: u128,
    /// The metadata documents.
    metadata: Vec<Bytes>,
}

/// The operation of an endpoint that a request names.
#[derive(Debug)]
pub(in crate::gate) struct MatchedOperation {
    pub(super) endpoint: usize,
    pub(super) served: Arc<ServedPath>,
    pub(super) params: Vec<(String, String)>,
}

impl MatchedOperation {
    /// The index of the endpoint, for [`Endpoints::dialect`].
    pub(in crate::gate) const fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// The dialect's name for the operation.
    pub(in crate::gate) fn name(&self) -> &'static str {
        self.served.operation
    }
}

/// The endpoint, document or similar path that a request's path matches.
#[derive(Debug)]
pub(in crate::gate) enum Hit {
    Operation(MatchedOperation),
    Jwks,
    /// The metadata document with this index.
    Metadata(usize),
    /// The document of the resource with this index.
    Resource(usize),
    /// A path that resembles a path of this endpoint. `None` if it resembles the path of one of the gate's documents.
    NearMiss(Option<usize>),
}

impl Endpoints {
    /// Returns the style of access token that the clients of each dialect need.
    pub(in crate::gate) fn styles(endpoints: &[Endpoint]) -> Vec<(Box<str>, TokenStyle)> {
        let style = |dialect: &dyn Dialect| dialect.protocol().map_or_else(TokenStyle::default, Protocol::token_style);
        endpoints.iter().map(|endpoint| (endpoint.dialect.name().into(), style(&*endpoint.dialect))).collect()
    }

    /// The requests that can carry wrapped calls.
    pub(crate) fn envelopes(endpoints: &[Endpoint]) -> Vec<(Method, String)> {
        let of = |endpoint: &Endpoint| envelopes(endpoint.dialect.as_ref(), endpoint.base());
        endpoints.iter().flat_map(of).collect()
    }

    /// Builds the table of these endpoints.
    ///
    /// # Errors
    /// Returns an error if paths or rules of endpoints contradict each other.
    pub(in crate::gate) fn new(endpoints: Vec<Endpoint>, common: &CommonRules<'_>) -> Result<Self, BuildError> {
        let mut all = Self {
            ready: Vec::new(),
            exact: matchit::Router::new(),
            loose: matchit::Router::new(),
            begins: 0,
            metadata: Vec::new(),
        };
        if common.is_issuer {
            all.insert("the gate", JWKS_PATH, PathEntry::Jwks)?;
        }
        for (index, resource) in common.resources.iter().enumerate() {
            all.insert("the gate", &resource.document_path, PathEntry::Resource(index))?;
        }
        let dialects = KnownDialects::new(&endpoints);
        for endpoint in endpoints {
            let names_accounts = all.insert_paths(&endpoint)?;
            let published = all.insert_metadata(&endpoint, common)?;
            all.ready.push(Ready::new(endpoint, (names_accounts, published), common, &dialects)?);
        }
        Ok(all)
    }

    /// The issuer and the token endpoint in each metadata document.
    #[cfg(feature = "program")]
    pub(in crate::gate) fn token_endpoints(&self) -> impl Iterator<Item = (&str, &str)> {
        let published = self.ready.iter().filter_map(|ready| ready.published.as_ref());
        published.map(|names| (&*names.issuer, &*names.token_endpoint))
    }

    /// Inserts the paths of an endpoint. Returns whether any of them contains `{account}`.
    fn insert_paths(&mut self, endpoint: &Endpoint) -> Result<bool, BuildError> {
        let index = self.ready.len();
        let mut names_accounts = false;
        for served in endpoint.dialect.serves(endpoint.base()) {
            names_accounts |= served.template.contains("{account}");
            let template = served.template.clone();
            let entry = PathEntry::Operation { endpoint: index, served: Arc::new(served) };
            self.insert(endpoint.dialect.name(), &template, entry)?;
        }
        Ok(names_accounts)
    }

    /// Inserts the metadata of an OAuth endpoint, and returns the names in them. The first endpoint uses the gate's
    /// issuer.
    fn insert_metadata(
        &mut self,
        endpoint: &Endpoint,
        common: &CommonRules<'_>,
    ) -> Result<Option<Published>, BuildError> {
        let (base, public_url) = (endpoint.base(), common.public_url);
        let Some(paths) = endpoint.dialect.protocol().and_then(|own| own.oauth(base)) else { return Ok(None) };
        let own = match self.metadata.is_empty() {
            true => Some(common.issuer.to_owned()),
            false => metadata::issuer_of_endpoint(public_url, base),
        };
        let Some(own) = own.filter(|own| self.is_issuer_free(own)) else { return Ok(None) };
        for path in metadata::paths(&own) {
            self.insert("the gate", &path, PathEntry::Metadata(self.metadata.len()))?;
        }
        let served = |client: &&Client| endpoint.clients.as_ref().is_none_or(|ids| ids.contains(&client.id));
        let (clients, has_directory) = (common.clients.iter().filter(served), common.has_directory);
        let mut metadata = Metadata::new(&own, public_url, &paths, clients, has_directory, common.uses_dpop);
        metadata.authorization_endpoint = common.authorization_endpoint.filter(|_| self.metadata.is_empty());
        let protected = common.resources.iter().filter(|resource| resource.is_ours);
        metadata.protected_resources = protected.map(|resource| &*resource.url).collect();
        metadata.announce_id_jag(common.takes_id_jag);
        metadata.global_token_revocation_endpoint =
            common.global_revocation.as_ref().map(|path| format!("{}{path}", public_url.trim_end_matches('/')));
        self.metadata.push(metadata.to_bytes());
        let token_endpoint = metadata.token_endpoint.clone();
        Ok(Some(Published { issuer: own, token_endpoint }))
    }

    /// Returns whether the paths for this issuer's metadata are still unused.
    fn is_issuer_free(&self, issuer: &str) -> bool {
        metadata::paths(issuer).iter().all(|path| self.exact.at(path).is_err())
    }

    fn insert(&mut self, dialect: &str, template: &str, entry: PathEntry) -> Result<(), BuildError> {
        let failed = |error: matchit::InsertError| BuildError::Endpoint {
            dialect: dialect.to_owned(),
            path: template.to_owned(),
            problem: match error {
                matchit::InsertError::Conflict { with } => {
                    format!("the path conflicts with {with}, which is served already: change one of the two paths")
                }
                other => format!("the path is not a valid template: {other}"),
            },
        };
        let endpoint = entry.endpoint();
        self.exact.insert(template, entry).map_err(failed)?;
        self.begins |= match template.as_bytes() {
            [b'/', first, ..] if *first != b'{' => 1 << (first.to_ascii_lowercase() % 128),
            _ => u128::MAX,
        };
        // Templates that differ only in case share one loose template.
        match self.loose.insert(template.to_ascii_lowercase(), endpoint) {
            Ok(()) | Err(matchit::InsertError::Conflict { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Returns the profile of the endpoint at which a session is refreshed.
    pub(in crate::gate) fn profile_for(&self, session: &Session) -> Option<&Profile> {
        self.for_session(session).map(|ready| &ready.profile)
    }

    /// Returns the client of the endpoint at which a session is refreshed, if the protocol does not name a client.
    pub(in crate::gate) fn client_of(&self, session: &Session) -> Option<&Arc<Client>> {
        self.for_session(session)?.client.as_ref().filter(|client| client.id == session.client)
    }

    /// The client of browser sessions.
    pub(in crate::gate) fn browser_client(&self) -> Option<&Arc<Client>> {
        self.browser()?.client.as_ref()
    }

    /// The profile of browser sessions.
    pub(in crate::gate) fn browser_profile(&self) -> Option<&Profile> {
        Some(&self.browser()?.profile)
    }

    fn browser(&self) -> Option<&Ready> {
        self.ready.iter().find(|ready| ready.browser.is_some())
    }

    fn for_session(&self, session: &Session) -> Option<&Ready> {
        let serves = |ready: &&Ready| {
            ready.accepts.contains(&session.dialect)
                && ready.clients.as_ref().is_none_or(|clients| clients.contains(&session.client))
        };
        // An endpoint with the session's own dialect takes precedence over an endpoint that only accepts this dialect's
        // sessions.
        let is_own = |ready: &&Ready| *ready.dialect.name() == *session.dialect;
        self.ready.iter().filter(serves).find(is_own).or_else(|| self.ready.iter().find(serves))
    }

    /// The endpoint with this index.
    pub(super) fn get(&self, index: usize) -> Option<&Ready> {
        self.ready.get(index)
    }

    /// The authorization server metadata, for clients that know only the issuer.
    pub(super) fn metadata(&self, index: usize) -> Bytes {
        self.metadata.get(index).cloned().unwrap_or_default()
    }

    /// Returns whether an operation serves only upgrades.
    pub(in crate::gate) fn upgrades(&self, operation: &MatchedOperation) -> bool {
        let protocol = self.dialect(operation.endpoint).and_then(<dyn Dialect>::protocol);
        protocol.is_some_and(|protocol| protocol.upgrades(operation.served.operation))
    }

    /// Returns whether an endpoint with this dialect opens the dialect's WebSockets.
    pub(in crate::gate) fn opens_sockets_of(&self, dialect: &str) -> bool {
        let of_dialect = self.ready.iter().map(|ready| ready.dialect.as_ref()).find(|known| known.name() == dialect);
        let opens = |found: &dyn Dialect, protocol: &dyn Protocol| {
            found.serves("").iter().any(|path| protocol.upgrades(path.operation))
        };
        of_dialect.is_some_and(|found| found.protocol().is_some_and(|protocol| opens(found, protocol)))
    }

    /// The listeners that serve an operation. If the list is empty, all listeners do.
    pub(in crate::gate) fn listeners(&self, operation: &MatchedOperation) -> &[Box<str>] {
        self.ready.get(operation.endpoint).map_or(&[], |endpoint| &endpoint.listeners)
    }

    /// The dialect of an endpoint.
    pub(in crate::gate) fn dialect(&self, endpoint: usize) -> Option<&dyn Dialect> {
        self.ready.get(endpoint).map(|endpoint| endpoint.dialect.as_ref())
    }

    /// The dialect with this name, with the options of the first endpoint that uses it.
    pub(in crate::gate) fn dialect_named(&self, name: &str) -> Option<&dyn Dialect> {
        self.ready.iter().map(|endpoint| endpoint.dialect.as_ref()).find(|dialect| dialect.name() == name)
    }

    /// The dialect that recognises the request as coming from one of its clients, whatever the path.
    pub(in crate::gate) fn dialect_of_client(&self, headers: &HeaderMap) -> Option<&dyn Dialect> {
        self.ready.iter().map(|endpoint| endpoint.dialect.as_ref()).find(|dialect| dialect.knows(headers))
    }

    /// Finds the endpoint for a request with this path. `raw` is the path as the client spelt it.
    pub(in crate::gate) fn find(&self, path: &CanonicalPath, raw: &str) -> Option<Hit> {
        // For most requests, the search ends here. Decoding a path, however leniently it is done, does not change these
        // characters at its start.
        if let [b'/', first @ (b'a'..=b'z' | b'0'..=b'9'), ..] = path.as_str().as_bytes()
            && self.begins >> first & 1 == 0
        {
            return None;
        }
        match self.exact.at(path.as_str()) {
            Ok(found) => {
                let account = found.params.get("account").unwrap_or_default();
                let spelt = |spelling: &&str| spelling.replace("{account}", account) == raw;
                Some(match found.value {
                    PathEntry::Jwks if !path.is_rewritten() => Hit::Jwks,
                    PathEntry::Metadata(index) if !path.is_rewritten() => Hit::Metadata(*index),
                    PathEntry::Operation { endpoint, served }
                        if !path.is_rewritten() || served.spellings.iter().any(spelt) =>
                    {
                        let params = found.params.iter();
                        let params = params.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                        Hit::Operation(MatchedOperation { endpoint: *endpoint, served: Arc::clone(served), params })
                    }
                    PathEntry::Resource(index) if !path.is_rewritten() => Hit::Resource(*index),
                    PathEntry::Jwks | PathEntry::Metadata(_) | PathEntry::Resource(_) | PathEntry::Operation { .. } => {
                        Hit::NearMiss(found.value.endpoint())
                    }
                })
            }
            Err(_) => self.loose.at(&path.loose()).ok().map(|found| Hit::NearMiss(*found.value)),
        }
    }
}
