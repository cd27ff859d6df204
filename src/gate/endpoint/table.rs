//! Finds the endpoint of a request by its path.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{Endpoint, JWKS_PATH};
use crate::dialect::{self, Dialect, Protocol, ServedPath};
use crate::gate::browser::BrowserEndpoint;
use crate::gate::builder::error::BuildError;
use crate::gate::metadata::{self, Metadata};
use crate::gate::relay::EndpointRelay;
use crate::gate::resources::ReadyResource;
use rotogate_core::client::Client;
use rotogate_core::engine::APPLICATION;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::session::{Session, profile::Profile};
use rotogate_core::token::claims::TokenStyle;

#[derive(Debug)]
pub(super) struct Ready {
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) profile: Profile,
    pub(super) clients: Option<Vec<Box<str>>>,
    pub(super) published: Option<Published>,
    /// Set if the protocol does not name a client. This client is public.
    pub(super) client: Option<Arc<Client>>,
    pub(super) accepts: Vec<Box<str>>,
    /// The dialects in `accepts` for which an access token is also a refresh credential.
    pub(super) by_access: Vec<Box<str>>,
    pub(super) relay: Option<Arc<EndpointRelay>>,
    pub(super) browser: Option<Arc<BrowserEndpoint>>,
    /// If empty, all listeners serve the endpoint.
    pub(super) listeners: Vec<Box<str>>,
    pub(super) account: Option<Box<str>>,
    pub(super) names_accounts: bool,
}

#[derive(Debug)]
pub(super) struct Published {
    pub(super) issuer: String,
    pub(super) token_endpoint: String,
}

pub(in crate::gate) struct CommonRules<'a> {
    pub(in crate::gate) profile: &'a Profile,
    pub(in crate::gate) clients: &'a [Client],
    pub(in crate::gate) issuer: &'a str,
    pub(in crate::gate) public_url: &'a str,
    pub(in crate::gate) authorization_endpoint: Option<&'a str>,
    pub(in crate::gate) has_directory: bool,
    pub(in crate::gate) is_issuer: bool,
    pub(in crate::gate) uses_dpop: bool,
    pub(in crate::gate) takes_id_jag: bool,
    /// The path of the endpoint for global revocation. `None` if there are several, because the metadata can name only
    /// one.
    pub(in crate::gate) global_revocation: Option<String>,
    pub(in crate::gate) resources: &'a [ReadyResource],
}

struct KnownDialects {
    all: Vec<&'static str>,
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
        // Contradictory rules fail when the gate is built, not at a client's first refresh.
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

/// Returns the client of an endpoint's sessions, if the protocol does not name one. A confidential client is an error,
/// because it could not authenticate (requirement R20).
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

/// Returns the method and path of each request that can carry calls to an endpoint with this dialect.
pub fn envelopes(dialect: &dyn Dialect, base: &str) -> Vec<(Method, String)> {
    let is_envelope = |served: &ServedPath| dialect.protocol().is_some_and(|own| own.is_envelope(served.operation));
    let served = dialect.serves(base).into_iter().filter(is_envelope);
    served.filter_map(|served| Some((served.methods.first()?.clone(), served.template))).collect()
}

#[derive(Debug)]
pub(in crate::gate) struct Endpoints {
    ready: Vec<Ready>,
    exact: matchit::Router<PathEntry>,
    /// The path templates in lower case, to find similar paths.
    loose: matchit::Router<Option<usize>>,
    /// The first characters of the templates, in lower case, as a bit set of ASCII codes.
    begins: u128,
    metadata: Vec<Bytes>,
}

#[derive(Debug)]
pub(in crate::gate) struct MatchedOperation {
    pub(super) endpoint: usize,
    pub(super) served: Arc<ServedPath>,
    pub(super) params: Vec<(String, String)>,
}

impl MatchedOperation {
    pub(in crate::gate) const fn endpoint(&self) -> usize {
        self.endpoint
    }

    pub(in crate::gate) fn name(&self) -> &'static str {
        self.served.operation
    }
}

#[derive(Debug)]
pub(in crate::gate) enum Hit {
    Operation(MatchedOperation),
    Jwks,
    Metadata(usize),
    Resource(usize),
    /// The path resembles a path of this endpoint. `None` means a path of the gate's own documents.
    NearMiss(Option<usize>),
}

impl Endpoints {
    pub(in crate::gate) fn styles(endpoints: &[Endpoint]) -> Vec<(Box<str>, TokenStyle)> {
        let style = |dialect: &dyn Dialect| dialect.protocol().map_or_else(TokenStyle::default, Protocol::token_style);
        endpoints.iter().map(|endpoint| (endpoint.dialect.name().into(), style(&*endpoint.dialect))).collect()
    }

    pub(crate) fn envelopes(endpoints: &[Endpoint]) -> Vec<(Method, String)> {
        let of = |endpoint: &Endpoint| envelopes(endpoint.dialect.as_ref(), endpoint.base());
        endpoints.iter().flat_map(of).collect()
    }

    /// Builds the table.
    ///
    /// # Errors
    /// Paths or rules of endpoints contradict each other.
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

    pub(in crate::gate) fn token_endpoints(&self) -> impl Iterator<Item = (&str, &str)> {
        let published = self.ready.iter().filter_map(|ready| ready.published.as_ref());
        published.map(|names| (&*names.issuer, &*names.token_endpoint))
    }

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
        // Templates that differ only in case share one entry.
        match self.loose.insert(template.to_ascii_lowercase(), endpoint) {
            Ok(()) | Err(matchit::InsertError::Conflict { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    pub(in crate::gate) fn profile_for(&self, session: &Session) -> Option<&Profile> {
        self.for_session(session).map(|ready| &ready.profile)
    }

    pub(in crate::gate) fn client_of(&self, session: &Session) -> Option<&Arc<Client>> {
        self.for_session(session)?.client.as_ref().filter(|client| client.id == session.client)
    }

    pub(in crate::gate) fn browser_client(&self) -> Option<&Arc<Client>> {
        self.browser()?.client.as_ref()
    }

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
        // An endpoint with the session's own dialect has priority.
        let is_own = |ready: &&Ready| *ready.dialect.name() == *session.dialect;
        self.ready.iter().filter(serves).find(is_own).or_else(|| self.ready.iter().find(serves))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Ready> {
        self.ready.get(index)
    }

    pub(super) fn metadata(&self, index: usize) -> Bytes {
        self.metadata.get(index).cloned().unwrap_or_default()
    }

    pub(in crate::gate) fn upgrades(&self, operation: &MatchedOperation) -> bool {
        let protocol = self.dialect(operation.endpoint).and_then(<dyn Dialect>::protocol);
        protocol.is_some_and(|protocol| protocol.upgrades(operation.served.operation))
    }

    pub(in crate::gate) fn opens_sockets_of(&self, dialect: &str) -> bool {
        let of_dialect = self.ready.iter().map(|ready| ready.dialect.as_ref()).find(|known| known.name() == dialect);
        let opens = |found: &dyn Dialect, protocol: &dyn Protocol| {
            found.serves("").iter().any(|path| protocol.upgrades(path.operation))
        };
        of_dialect.is_some_and(|found| found.protocol().is_some_and(|protocol| opens(found, protocol)))
    }

    /// If empty, all listeners serve the operation.
    pub(in crate::gate) fn listeners(&self, operation: &MatchedOperation) -> &[Box<str>] {
        self.ready.get(operation.endpoint).map_or(&[], |endpoint| &endpoint.listeners)
    }

    pub(in crate::gate) fn dialect(&self, endpoint: usize) -> Option<&dyn Dialect> {
        self.ready.get(endpoint).map(|endpoint| endpoint.dialect.as_ref())
    }

    pub(in crate::gate) fn dialect_named(&self, name: &str) -> Option<&dyn Dialect> {
        self.ready.iter().map(|endpoint| endpoint.dialect.as_ref()).find(|dialect| dialect.name() == name)
    }

    /// A dialect can recognise its clients by their headers on any path.
    pub(in crate::gate) fn dialect_of_client(&self, headers: &HeaderMap) -> Option<&dyn Dialect> {
        self.ready.iter().map(|endpoint| endpoint.dialect.as_ref()).find(|dialect| dialect.knows(headers))
    }

    /// `raw` is the path as the client spelt it.
    pub(in crate::gate) fn find(&self, path: &CanonicalPath, raw: &str) -> Option<Hit> {
        // Most requests are for other paths, and end here. A near miss has the same first letter or digit.
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
