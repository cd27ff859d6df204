//! Decides when a key may sign, and when it may be removed.

use std::path::Path;
use std::time::Duration;

use crate::audit::{self, KeyEvent};
use crate::server::build::stores::shared_store;
use rotogate::Gate;
use rotogate::gate::JWKS_MAX_AGE;
use rotogate::program::BROWSER;
use rotogate::store::redb::RedbStore;
use rotogate_config::Config;
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::store::{NODE_HEARD_WITHIN, NODE_KEPT, NodeRow, NodeSeen, Store};
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::{KeyState, Keyring};

mod refresh;

use refresh::{knows, left_by, refresh_needed, sessions_of};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a forced `retire` waits for the store.
const LOOK_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum RollError {
    #[error("{0}")]
    Unknown(String),
    /// The key may not sign yet, or is still needed.
    #[error("{0}")]
    TooEarly(String),
    #[error("{0}")]
    Failed(String),
}

impl RollError {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Returns the running gates, and the current time of the shared store or of this machine.
async fn look(store: Option<&dyn Store>) -> Result<(Vec<NodeSeen>, Timestamp), RollError> {
    Ok(match store.and_then(Store::shared) {
        Some(shared) => {
            let nodes = shared.nodes().await.map_err(RollError::failed)?;
            (nodes, shared.last_known_time().await.map_err(RollError::failed)?)
        }
        None => (Vec::new(), SystemTime::new().wall()),
    })
}

/// Returns the listed gates that have stopped, or cannot reach the store.
async fn ended(store: Option<&dyn Store>, now: Timestamp) -> Result<Vec<NodeSeen>, RollError> {
    let Some(shared) = store.and_then(Store::shared) else { return Ok(Vec::new()) };
    let seen = shared.nodes_within(NODE_KEPT).await.map_err(RollError::failed)?;
    Ok(seen.into_iter().filter(|seen| now.since(seen.beat) > NODE_HEARD_WITHIN).collect())
}

pub(crate) fn time(of: std::time::SystemTime) -> Timestamp {
    Timestamp::ZERO.plus(of.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
}

/// Loads the keys. Fails if no key has this name.
fn keys_with(folder: &Path, name: &str) -> Result<Keyring, RollError> {
    let keyring = load(folder)?;
    let (is_there, list) = match Keyring::refresh_id(name) {
        Some(id) => (keyring.refresh_keys().contains(id), "keys list --refresh"),
        None => (keyring.signing_key(name).is_some(), "keys list"),
    };
    let missing = || RollError::Unknown(format!("{}: there is no key {name}; see rotogate {list}", folder.display()));
    is_there.then_some(keyring).ok_or_else(missing)
}

pub(crate) fn load(folder: &Path) -> Result<Keyring, RollError> {
    let keyring = Keyring::load_if_there(folder).map_err(RollError::failed)?;
    keyring.ok_or_else(|| {
        RollError::Failed(format!(
            "{}: there is no `keyring.toml`: create keys with `rotogate keys init`, or copy the key folder of another \
             gate that uses the store",
            folder.display()
        ))
    })
}

fn is_in_use(keyring: &Keyring, name: &str) -> bool {
    keyring.signer().kid() == name || Keyring::refresh_id(name) == Some(keyring.refresh_keys().current())
}

/// Waits until every verifier accepts this key. A public key must have been published for at least `after`.
async fn until_it_may_sign(
    config: &Config,
    keyring: &Keyring,
    name: &str,
    (wait, after): (bool, Duration),
) -> Result<(), RollError> {
    let refresh = Keyring::refresh_id(name);
    let published_for = JWKS_MAX_AGE.max(after);
    let store = shared_store(config, keyring).await.map_err(RollError::failed)?;
    loop {
        let written = Keyring::written_at(&config.issuer.keys, name).map_err(RollError::failed)?;
        let written = written.map_or(Timestamp::ZERO, time);
        let (nodes, now) = look(store.as_deref()).await?;
        let why = match refresh {
            Some(id) => {
                let print = keyring.refresh_keys().print(id);
                lacking(&nodes, now, |seen| knows(&seen.row, id, print.as_deref()))
            }
            None => why_not(name, (written, published_for), &nodes, now),
        };
        let Some(why) = why else { return Ok(()) };
        if !wait {
            return Err(RollError::TooEarly(format!("{name} cannot sign yet: {why}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn names(nodes: &[NodeSeen], now: Timestamp, are: impl Fn(&NodeSeen) -> bool) -> Option<String> {
    let named = nodes.iter().filter(|seen| are(seen)).map(|seen| {
        let ago = rotogate_core::clock::written(Duration::from_secs(now.since(seen.beat).as_secs()));
        format!("{} (last report {ago} ago)", seen.row.node)
    });
    let named: Vec<_> = named.collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn lacking(nodes: &[NodeSeen], now: Timestamp, has: impl Fn(&NodeSeen) -> bool) -> Option<String> {
    let lacking = names(nodes, now, |seen| !has(seen))?;
    Some(format!("these gates of the store cannot verify its tokens: {lacking}"))
}

/// Returns why some verifier might refuse this key.
fn why_not(
    kid: &str,
    (written, published_for): (Timestamp, Duration),
    nodes: &[NodeSeen],
    now: Timestamp,
) -> Option<String> {
    if let Some(why) = lacking(nodes, now, |seen| seen.row.kids.iter().any(|known| **known == *kid)) {
        return Some(why);
    }
    let left = since(written, nodes).plus(published_for).since(now);
    (left > Duration::ZERO).then(|| {
        format!("for another {}, other verifiers may use cached keys that were published before {kid}", rounded(left))
    })
}

/// Returns when the last gate got its current keys. A restart of a gate resets the time.
fn since(written: Timestamp, nodes: &[NodeSeen]) -> Timestamp {
    nodes.iter().map(|seen| Timestamp::from_millis(seen.row.keys_since)).fold(written, Timestamp::max)
}

fn rounded(left: Duration) -> String {
    rotogate_core::clock::written(Duration::from_secs(left.as_secs() + 1))
}

pub(crate) struct Longest {
    pub(crate) access: Duration,
    idle: Duration,
    /// How long a refresh token can be reused after its exchange.
    again: Duration,
    /// The longest lifetime of a browser session.
    cookie: Duration,
}

impl Longest {
    pub(crate) fn new(config: &Config) -> Self {
        let base = &config.sessions.profile;
        let clients = config.clients.iter().map(|client| &client.profile);
        let all = config.endpoints.iter().map(|endpoint| &endpoint.profile).chain(clients);
        let all: Vec<_> = all.map(|own| own.over(base)).chain([base.clone()]).collect();
        let most = |of: fn(&rotogate_core::session::profile::Profile) -> Duration| {
            all.iter().map(of).max().unwrap_or_default()
        };
        let relays = config.endpoints.iter().filter_map(|endpoint| Some(endpoint.relay.as_ref()?.rules));
        let relays = relays.map(|rules| rules.grace.max(rules.lost_response_window)).max();
        let leeway = config.issuer.leeway;
        let browsers = config.endpoints.iter().filter(|endpoint| endpoint.dialect == BROWSER);
        Self {
            access: most(|profile| profile.max_access_ttl).saturating_add(leeway),
            idle: most(|profile| profile.idle_ttl),
            again: most(|profile| profile.grace.max(profile.lost_response_window))
                .max(relays.unwrap_or_default())
                .saturating_add(leeway),
            cookie: browsers.map(|endpoint| endpoint.profile.over(base).session_ttl).max().unwrap_or_default(),
        }
    }

    /// How long a client may present a refresh token or a cookie that it has.
    pub(crate) fn refresh(&self) -> Duration {
        self.idle.max(self.again).max(self.cookie)
    }
}

/// The running gate that removes a key.
pub(crate) struct AskingGate<'a> {
    pub(crate) gate: &'a Gate,
    /// The embedded store, which other processes cannot open.
    pub(crate) store: Option<&'a RedbStore>,
}

#[derive(Default)]
struct KeyNeeds {
    /// Why the key must stay.
    reasons: Vec<String>,
    notes: Vec<String>,
}

impl KeyNeeds {
    fn refusal(self, name: &str) -> RollError {
        RollError::TooEarly(format!(
            "the key {name} is still needed: {}",
            [self.reasons, self.notes].concat().join("; ")
        ))
    }

    fn warning(self, name: &str) -> Option<String> {
        let reasons =
            (!self.reasons.is_empty()).then(|| format!("the key {name} was still needed: {}", self.reasons.join("; ")));
        let told: Vec<_> = reasons.into_iter().chain(self.notes).map(|what| format!("warning: {what}")).collect();
        (!told.is_empty()).then(|| told.join("\n"))
    }
}

async fn needs_of(
    config: &Config,
    keyring: &Keyring,
    name: &str,
    asking: Option<&AskingGate<'_>>,
) -> Result<KeyNeeds, RollError> {
    let changed = time(Keyring::changed_at(&config.issuer.keys).map_err(RollError::failed)?);
    let store = shared_store(config, keyring).await.map_err(RollError::failed)?;
    let (nodes, now) = look(store.as_deref()).await?;
    let ended = ended(store.as_deref(), now).await?;
    let longest = Longest::new(config);
    let refresh = Keyring::refresh_id(name);
    let used = used_until_the_end(&ended, now, |row| match refresh {
        Some(id) => row.refresh_current == Some(id),
        None => *row.signing == *name,
    });
    let window = if refresh.is_some() { longest.again } else { longest.access };
    let mut needs = KeyNeeds::default();
    match refresh {
        None => needs.reasons.extend(needed(name, changed, &nodes, now, longest.access)),
        Some(id) => {
            let sessions = match &store {
                Some(store) => Some(sessions_of(&**store, id, now, longest.idle).await?),
                None => None,
            };
            needs.reasons.extend(refresh_needed(id, changed, (&nodes, sessions), now, &longest));
            left_by(config, keyring, id, (now, asking), &mut needs).await?;
        }
    }
    if let Some((last, names)) = used {
        match may_be_used(last, &names, window, now) {
            Some(why) => needs.reasons.push(why),
            None => needs.notes.push(format!(
                "these gates of the store used {name} until they stopped: {names}. Copy the key folder to each of \
                 them before it starts again"
            )),
        }
    }
    Ok(needs)
}

fn used_until_the_end(
    ended: &[NodeSeen],
    now: Timestamp,
    uses: impl Fn(&NodeRow) -> bool,
) -> Option<(Timestamp, String)> {
    let last = ended.iter().filter(|seen| uses(&seen.row)).map(|seen| seen.beat).max()?;
    Some((last, names(ended, now, |seen| uses(&seen.row))?))
}

/// Returns why tokens from stopped gates may be valid, or `None` if they have expired.
fn may_be_used(last: Timestamp, names: &str, window: Duration, now: Timestamp) -> Option<String> {
    let left = last.plus(window).since(now);
    (left > Duration::ZERO).then(|| {
        format!(
            "for another {}, tokens may be in use that these gates of the store created with it before they stopped: \
             {names}",
            rounded(left)
        )
    })
}

/// Returns why a former signing key is still needed, or `None` if it is not.
fn needed(kid: &str, changed: Timestamp, nodes: &[NodeSeen], now: Timestamp, access: Duration) -> Option<String> {
    if let Some(signing) = names(nodes, now, |seen| *seen.row.signing == *kid) {
        return Some(format!("these gates of the store sign with it: {signing}"));
    }
    let left = since(changed, nodes).plus(access).since(now);
    (left > Duration::ZERO).then(|| format!("access tokens that it signed may be in use for another {}", rounded(left)))
}

/// Adds a key, or a secret for refresh tokens, that does not sign yet.
pub(crate) fn add(config: &Config, algorithm: Option<Algorithm>, refresh: bool) -> Result<String, RollError> {
    let folder = &config.issuer.keys;
    load(folder)?;
    let kid = match refresh {
        true => Keyring::add_refresh(folder).map(audit::refresh_name),
        false => Keyring::add(folder, algorithm.unwrap_or(config.issuer.algorithm), KeyState::Verifying),
    };
    let kid = kid.map_err(RollError::failed)?;
    audit::write_key(KeyEvent::Added, &kid);
    Ok(kid)
}

/// Makes a key the signing key. `when` states whether to wait for other verifiers, and the minimum publication time.
/// `None` promotes the key immediately, even if verifiers would refuse its tokens.
pub(crate) async fn promote(config: &Config, kid: &str, when: Option<(bool, Duration)>) -> Result<(), RollError> {
    let folder = &config.issuer.keys;
    let keyring = keys_with(folder, kid)?;
    // A second write would reset the time since the last change of the keys.
    if is_in_use(&keyring, kid) {
        return Ok(());
    }
    if let Some(when) = when {
        until_it_may_sign(config, &keyring, kid, when).await?;
    }
    match Keyring::refresh_id(kid) {
        Some(id) => Keyring::make_current(folder, id),
        None => Keyring::make_signing(folder, kid),
    }
    .map_err(RollError::failed)?;
    audit::write_key(KeyEvent::Promoted, kid);
    Ok(())
}

/// Removes a key that is no longer needed. With `force`, removes any key, and returns a warning if the key was needed.
pub(crate) async fn retire(
    config: &Config,
    kid: &str,
    force: bool,
    asking: Option<AskingGate<'_>>,
) -> Result<Option<String>, RollError> {
    let keyring = keys_with(&config.issuer.keys, kid)?;
    if is_in_use(&keyring, kid) {
        return Err(RollError::TooEarly(format!(
            "{kid} is in use here: first let another key sign, with `rotogate keys promote`"
        )));
    }
    let looked = needs_of(config, &keyring, kid, asking.as_ref());
    let needs = if force {
        let unknown = |why: &dyn std::fmt::Display| KeyNeeds {
            reasons: Vec::new(),
            notes: vec![format!("could not check whether {kid} was still needed: {why}")],
        };
        match tokio::time::timeout(LOOK_FOR, looked).await {
            Ok(looked) => looked.unwrap_or_else(|error| unknown(&error)),
            Err(_) => unknown(&"the store did not respond in time"),
        }
    } else {
        let needs = looked.await?;
        if !needs.reasons.is_empty() {
            return Err(needs.refusal(kid));
        }
        needs
    };
    Keyring::retire(&config.issuer.keys, kid).map_err(RollError::failed)?;
    audit::write_key(KeyEvent::Retired, kid);
    Ok(needs.warning(kid))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn node(name: &str, kids: &[&str], keys_since: Timestamp) -> NodeSeen {
        let signing = kids[0].into();
        let kids = kids.iter().map(|kid| (*kid).into()).collect();
        let keys_since = keys_since.as_millis();
        let row =
            NodeRow { node: name.into(), kids, signing, keys_since, refresh_current: Some(1), ..NodeRow::default() };
        NodeSeen { row, beat: Timestamp::from_secs(1_000_000) }
    }

    #[test]
    fn c28_a_key_signs_once_every_gate_has_it_and_no_verifier_has_older_keys() {
        let at = |seconds: u64| Timestamp::from_secs(1_000_000 + seconds);
        let nodes = [node("a", &["k1", "k2"], at(0)), node("b", &["k1"], at(0))];
        let why = why_not("k2", (at(0), JWKS_MAX_AGE), &nodes, at(3)).unwrap();
        assert!(why.contains("b (last report 3s ago)") && !why.contains("a ("), "{why}");
        let nodes = [node("a", &["k1", "k2"], at(0)), node("b", &["k1", "k2"], at(100))];
        assert!(why_not("k2", (at(0), JWKS_MAX_AGE), &nodes, at(399)).unwrap().contains("published before"));
        assert_eq!(why_not("k2", (at(0), JWKS_MAX_AGE), &nodes, at(400)), None);
        assert!(why_not("k2", (at(50), JWKS_MAX_AGE), &[], at(349)).is_some(), "a gate with a store of its own");
        assert_eq!(why_not("k2", (at(50), JWKS_MAX_AGE), &[], at(350)), None);
    }

    #[test]
    fn c28_a_key_goes_once_no_gate_signs_with_it_and_its_last_token_has_expired() {
        let at = |seconds: u64| Timestamp::from_secs(1_000_000 + seconds);
        let hour = Duration::from_secs(3600);
        let nodes = [node("a", &["k2", "k1"], at(0)), node("b", &["k1", "k2"], at(0))];
        let why = needed("k1", at(0), &nodes, at(9999), hour).unwrap();
        assert!(why.contains("b (") && !why.contains("a ("), "{why}");
        let nodes = [node("a", &["k2", "k1"], at(0)), node("b", &["k2", "k1"], at(10))];
        assert!(needed("k1", at(0), &nodes, at(3609), hour).unwrap().contains("may be in use"));
        assert_eq!(needed("k1", at(0), &nodes, at(3610), hour), None);
        assert!(needed("k1", at(20), &nodes, at(3619), hour).is_some(), "the folder here changed later");
    }

    #[test]
    fn c28_a_key_stays_while_a_token_may_live_of_a_gate_that_signed_by_it_until_it_ended() {
        let at = |seconds: u64| Timestamp::from_secs(1_000_000 + seconds);
        let hour = Duration::from_secs(3600);
        let mut later = node("b", &["k1"], at(0));
        later.beat = at(50);
        let ended = [node("a", &["k1"], at(0)), later, node("c", &["k2", "k1"], at(0))];
        let (last, names) = used_until_the_end(&ended, at(400), |row| &*row.signing == "k1").unwrap();
        assert_eq!(last, at(50));
        assert!(names.contains("a (last report 6m 40s ago), b (last report") && !names.contains("c ("), "{names}");
        let why = may_be_used(last, &names, hour, at(3649)).unwrap();
        assert!(why.contains("before they stopped: a ("), "{why}");
        assert_eq!(may_be_used(last, &names, hour, at(3650)), None);
        assert_eq!(used_until_the_end(&ended, at(400), |row| &*row.signing == "k3"), None);
    }
}
