//! The folder of a gate: configuration, keys and store. It is made once and copied for each start, so that no cell sees
//! changes of another.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::clock::Timestamp;
use rotogate::gate::NewSession;
use rotogate::session::{Generation, RevokedBecause, Scope, Session, Status};
use rotogate::store::redb::{Options, RedbStore};
use rotogate::store::{Inserted, Store, SubjectBound};
use rotogate::token::Keyring;
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;
use rotogate_core::token::seal::sealed;
use rotogate_directories::users::FileDirectory;
use rotogate_server::server::AdminToken;

use crate::client::Speech;
use crate::contender::Question;
use crate::keys::{self, AUDIENCE, ISSUER};
use crate::limits::Limits;
use crate::tokens::{self, CLIENT};

const LEEWAY: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(24 * 3600);
/// How many writes share a commit.
const AT_ONCE: usize = 8192;
/// The first number of the revoked sessions: none of them has a token.
const REVOKED_FROM: usize = 1 << 32;

/// The contents of a store when a gate opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Contents {
    /// Live sessions whose tokens are unused.
    pub sessions: usize,
    /// Live revocations, of other sessions.
    pub revoked: usize,
    /// Sessions with a refresh token.
    pub chains: usize,
}

/// The addresses of a gate.
pub struct Place<'a> {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub upstreams: &'a [SocketAddr],
    pub workers: usize,
    /// Where other proxies ask, and how.
    pub asked: Option<(Question, SocketAddr)>,
    /// The folder with the certificate, if clients speak TLS.
    pub tls: Option<&'a PathBuf>,
    pub speech: Speech,
}

/// A folder to copy.
pub struct Template {
    folder: PathBuf,
    /// The refresh tokens of the chains.
    pub refresh_tokens: Vec<String>,
}

impl Template {
    /// Makes one in a new folder, with the keys of `keys`.
    pub async fn make(folder: PathBuf, keys: &Path, begun: Timestamp, contents: Contents) -> Result<Self> {
        private_dir(&folder)?;
        copy(&keys::keyring(keys), &folder.join("keys"))?;
        let keyring = Keyring::load(&folder.join("keys"))?;
        let options = Options::new(ISSUER, keyring.id(), LEEWAY);
        let store = RedbStore::open(folder.join("rotogate.redb"), options)?;
        let signer = keyring.signer().kid().to_owned();
        for batch in batches(contents.sessions) {
            let records = batch.map(|number| sealed(keyring.refresh_keys(), record(begun, number, &signer)));
            let records = records.collect::<Option<Vec<_>>>().context("a record cannot be sealed")?;
            let inserts = records.into_iter().map(|record| store.insert(record, SubjectBound::NONE));
            let inserted = try_join_all(inserts).await?;
            anyhow::ensure!(inserted.iter().all(|one| matches!(one, Inserted::Inserted(_))), "a session was not taken");
        }
        for batch in batches(contents.revoked) {
            try_join_all(batch.map(|number| store.revoke(revocation(begun, number), RevokedBecause::Operator))).await?;
        }
        let mut refresh_tokens = Vec::new();
        if contents.chains > 0 {
            let gate = Gate::builder()
                .issuer(ISSUER)
                .audience([AUDIENCE])
                .keys(keyring)
                .client(Client::public(CLIENT))
                .shared_store(Arc::new(store.clone()));
            let gate = gate.build().await?;
            for number in 0..contents.chains {
                let issued = gate.sessions().start(NewSession::new(format!("chain-{number}"), CLIENT)).await;
                let issued = issued.map_err(|error| anyhow::anyhow!("{error:?}"))?;
                let refresh = issued.refresh_token.context("a refresh token")?;
                refresh_tokens.push(refresh.expose().to_owned());
            }
        }
        store.close().await?;
        // A gate that restarts finds these files, too.
        let made = AdminToken::load_or_create(&folder.join("admin.token"));
        made.map_err(|error| anyhow::anyhow!(error))?;
        FileDirectory::create_with_first_user(&folder.join("users.toml"), Arc::default(), begun)?;
        Ok(Self { folder, refresh_tokens })
    }

    /// A copy in a new folder, with a configuration for these addresses.
    pub fn copy_to(&self, folder: &Path, place: &Place<'_>) -> Result<()> {
        copy(&self.folder, folder)?;
        Ok(fs::write(folder.join("gateway.toml"), configuration(place))?)
    }
}

/// The configuration: only the differences from the shipped one, with reasons.
fn configuration(place: &Place<'_>) -> String {
    let Place { listen, admin, upstreams, workers, asked, tls, speech } = place;
    let connections = Limits::get().connections;
    let secured = tls.map_or_else(String::new, |keys| {
        format!(
            "tls = {{ cert = \"{}\", key = \"{}\" }}\n",
            crate::tls::certificate(keys).display(),
            crate::tls::key(keys).display()
        )
    });
    let scheme = if matches!(speech, Speech::Calls(_)) { "h2c" } else { "http" };
    let urls: Vec<_> = upstreams.iter().map(|upstream| format!("\"{scheme}://{upstream}\"")).collect();
    let urls = urls.join(", ");
    let upgrade = if *speech == Speech::Messages { "upgrade = true\n" } else { "" };
    let public = if tls.is_some() { "https" } else { "http" };
    let authorizer = asked.map_or_else(String::new, |(question, asked)| {
        let kind = match question {
            Question::ForwardAuth => "kind = \"nginx\"",
            Question::ExtAuthz => "kind = \"ext-authz\"",
        };
        format!("[[authorizers]]\n{kind}\nlisten = \"{asked}\"\ntrusted_proxies = [\"127.0.0.1/32\"]\n")
    });
    format!(
        r#"[server]
listen = "{listen}"
public_url = "{public}://{listen}"
# What the load says.
hosts = ["api.example.com"]
drain_timeout = "1s"
# As long as the peers wait: idle connections stay open.
head_timeout = "60s"
workers = {workers}
# One address opens them all.
max_connections = {connections}
max_connections_per_address = {connections}
{secured}[admin]
listen = "{admin}"
token_file = "admin.token"
[issuer]
url = "{ISSUER}"
audience = ["{AUDIENCE}"]
keys = "keys"
[store]
path = "rotogate.redb"
[directory]
kind = "file"
path = "users.toml"
[limits]
# Few chains and one address make all the rotations that the bench asks for.
refresh_per_session = "1000000/1s"
refresh_per_address = "1000000/1s"
[[clients]]
id = "{CLIENT}"
[[endpoints]]
dialect = "oauth2"
path = "/connect/token"
accepts = ["application"]
[[upstreams]]
name = "app"
urls = [{urls}]
# A caller who is alone may have 7/8 of them: more than the streams of any row.
max_requests = 8192
[[routes]]
path = "/public/{{*rest}}"
auth = "none"
upstream = "app"
{upgrade}[[routes]]
path = "/{{*rest}}"
upstream = "app"
{upgrade}{authorizer}"#
    )
}

/// The numbers below `number`, some at a time.
fn batches(number: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..number).step_by(AT_ONCE).map(move |from| from..number.min(from + AT_ONCE))
}

/// A session after its login.
fn record(begun: Timestamp, number: usize, kid: &str) -> Session {
    Session {
        id: tokens::session(begun, number),
        secret: SessionSecret::new([7; 16]),
        subject: tokens::subject(number).into(),
        account: None,
        bound_to: None,
        certificate: None,
        browser: None,
        seal: Seal::default(),
        resource: None,
        vouched_by: None,
        client: CLIENT.into(),
        scope: Scope::default(),
        dialect: "application".into(),
        expires: begun.plus(LONG),
        latest_access_expires: begun.plus(LONG),
        current: Generation::FIRST,
        previous: Generation::NONE,
        rotated_at: Timestamp::ZERO,
        issued_at: begun,
        confirmed: false,
        last: LastPair { scope: Scope::default(), access_expires: begun.plus(LONG), kid: kid.into(), refresh_key: 1 },
        status: Status::Live,
        revision: 1,
        user_agent: None,
        address: None,
        claims: rotogate::claim::OwnClaims::default(),
    }
}

fn revocation(begun: Timestamp, number: usize) -> Revocation {
    Revocation {
        target: Target::Session(tokens::session(begun, REVOKED_FROM + number)),
        effect: Effect::SESSION_REVOKED,
        until: begun.plus(LONG),
    }
}

fn private_dir(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?)
}

/// Copies a folder with its file modes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    private_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
