//! Finds the tokens, cookies, sealed records and API keys that still need a refresh secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rotogate_core::clock::Timestamp;
use rotogate_core::engine::api_keys::keys_by_secret;
use rotogate_core::session::{Session, Status};
use rotogate_core::store::{Filter, NodeRow, NodeSeen, Store};
use rotogate_core::token::keyring::Keyring;

use super::{AskingGate, KeyNeeds, Longest, RollError, names, rounded, since};
use crate::server::build::stores::{Stores, open_stores};
use rotogate_config::{Config, StoreConfig};

const PAGE: usize = 256;

/// Returns whether the gate has this secret. Another secret may have the same id.
pub(super) fn knows(row: &NodeRow, id: u8, print: Option<&str>) -> bool {
    let at = row.refresh_keys.iter().position(|known| *known == id);
    at.is_some_and(|at| row.refresh_prints.get(at).is_none_or(|known| Some(&**known) == print))
}

/// Counts the API keys whose HMAC uses the secret.
// Requirement K4.
pub(super) async fn left_by(
    config: &Config,
    keyring: &Keyring,
    id: u8,
    (now, asking): (Timestamp, Option<&AskingGate<'_>>),
    needs: &mut KeyNeeds,
) -> Result<(), RollError> {
    let has_keys = config.api_keys.is_some();
    let stores = match &config.store {
        _ if !has_keys => return Ok(()),
        StoreConfig::Memory => None,
        StoreConfig::Redb(settings) => match asking.and_then(|asking| asking.store) {
            Some(store) => Some(Stores { sessions: Arc::new(store.clone()), rows: Arc::new(store.clone()) }),
            None if !settings.path.exists() => return Ok(()),
            None => match open_stores(config, keyring).await {
                Ok(stores) => Some(stores),
                Err(error) => {
                    needs.reasons.push(format!(
                        "API keys may depend on it, but the store cannot be read: {error}. Let the running gate do \
                         this, or stop the gate"
                    ));
                    return Ok(());
                }
            },
        },
        #[cfg(any(feature = "postgres", feature = "redis"))]
        _ => Some(open_stores(config, keyring).await.map_err(RollError::failed)?),
    };
    if has_keys {
        let keys = asking.and_then(|asking| asking.gate.api_keys());
        let counts = match (keys, &stores) {
            (Some(keys), _) => keys.by_secret().await.map_err(RollError::failed)?,
            (None, Some(stores)) => {
                let (list, _) = stores.sessions.revocations().await.map_err(RollError::failed)?;
                let counts = keys_by_secret(&*stores.rows, (&list, &config.issuer.url), now).await;
                counts.map_err(RollError::failed)?
            }
            (None, None) => BTreeMap::new(),
        };
        needs.reasons.extend(counts.get(&id).copied().map(keys_known_by));
    }
    Ok(())
}

fn keys_known_by(left: u64) -> String {
    let (keys, were, them) =
        if left == 1 { ("key depends", "it was", "it") } else { ("keys depend", "they were", "them") };
    format!(
        "{left} API {keys} on it, because {were} not used since another secret became current: use, rotate or revoke \
         {them}"
    )
}

/// Describes the tokens and records that still need a refresh secret. If sessions cannot be listed, their longest
/// possible lifetime is assumed.
pub(super) fn refresh_needed(
    id: u8,
    changed: Timestamp,
    (nodes, sessions): (&[NodeSeen], Option<u64>),
    now: Timestamp,
    longest: &Longest,
) -> Option<String> {
    let makes = |seen: &NodeSeen| seen.row.refresh_current.is_none_or(|current| current == id);
    if let Some(making) = names(nodes, now, makes) {
        return Some(format!("these gates of the store may create refresh tokens with it: {making}"));
    }
    if let Some(sessions) = sessions.filter(|sessions| *sessions > 0) {
        return Some(match sessions {
            1 => "the refresh token or cookie of 1 session was created with it".to_owned(),
            _ => format!("the refresh tokens or cookies of {sessions} sessions were created with it"),
        });
    }
    let known = if sessions.is_some() { longest.again } else { longest.refresh() };
    let left = since(changed, nodes).plus(known).since(now);
    (left > Duration::ZERO)
        .then(|| format!("for another {}, clients may present refresh tokens that were created with it", rounded(left)))
}

/// Counts the live sessions with a refresh token, cookie or sealed record from this secret.
pub(super) async fn sessions_of(store: &dyn Store, id: u8, now: Timestamp, idle: Duration) -> Result<u64, RollError> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = store.list(Filter::All, after, PAGE).await.map_err(RollError::failed)?;
        count += page.sessions.iter().filter(|session| needs(session, id, now, idle)).count() as u64;
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

fn needs(session: &Session, id: u8, now: Timestamp, idle: Duration) -> bool {
    session.status == Status::Live
        && (session.last.refresh_key == id || session.seal.key() == Some(id) || made_cookie(session, id))
        && session.expires > now
        && now.since(session.issued_at) < idle
}

/// Returns whether this secret created the session's browser cookie.
fn made_cookie(session: &Session, id: u8) -> bool {
    session.browser.as_deref().is_some_and(|browser| browser.key == id)
}

#[cfg(test)]
mod tests {
    use rotogate::Gate;
    use rotogate::gate::NewSession;
    use rotogate_core::client::Client;
    use rotogate_core::session::BrowserBinding;

    use super::super::tests::node;
    use super::*;

    #[test]
    fn c28_a_gate_with_another_secret_of_the_same_id_does_not_know_its_tokens() {
        let refresh_prints = vec!["one".into(), "two".into()];
        let row = NodeRow { refresh_keys: vec![1, 2], refresh_prints, ..NodeRow::default() };
        assert!(knows(&row, 2, Some("two")) && !knows(&row, 2, Some("one")) && !knows(&row, 3, Some("two")));
        let row = NodeRow { refresh_prints: Vec::new(), ..row };
        assert!(knows(&row, 2, Some("one")), "a version that does not say");
    }

    #[tokio::test]
    async fn j28_a_refresh_secret_is_needed_by_the_token_of_a_session_and_by_the_seal_of_its_record() {
        let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
        let gate = gate.client(Client::public("web")).build().await.unwrap();
        let id = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap().session.unwrap();
        let record = gate.sessions().get(id).await.unwrap().unwrap();
        let (key, now, idle) = (record.last.refresh_key, record.issued_at, Duration::from_secs(60));
        let with = |token: u8, seal: u8| {
            let mut one = record.clone();
            one.last.refresh_key = token;
            // A seal consists of the key's id and 16 bytes.
            one.seal = serde_json::from_value(serde_json::to_value((seal, [0_u8; 16])).unwrap()).unwrap();
            one
        };
        let is_needed = |session: &Session| needs(session, key, now, idle);
        let other = key.wrapping_add(1);
        assert!(is_needed(&record) && is_needed(&with(key, other)) && !is_needed(&with(other, other)));
        let sealed = with(other, key);
        assert!(is_needed(&sealed), "no gate could check the record without it");
        assert!(!needs(&sealed, key, now.plus(idle), idle) && !needs(&sealed, key, record.expires, Duration::MAX));
        // Renewing a browser session does not change the cookie.
        let mut renewed = with(other, other);
        renewed.browser = Some(Box::new(BrowserBinding { key, digest: [7; 32], at_provider: false, device: None }));
        assert!(is_needed(&renewed));
        renewed.browser =
            Some(Box::new(BrowserBinding { key: other, digest: [7; 32], at_provider: false, device: None }));
        assert!(!is_needed(&renewed));
    }

    #[test]
    fn c28_a_refresh_secret_goes_once_no_session_has_a_token_or_cookie_by_it() {
        let at = |seconds: u64| Timestamp::from_secs(1_000_000 + seconds);
        let [access, idle, again] = [600, 1000, 100].map(Duration::from_secs);
        let longest = Longest { access, idle, again, cookie: Duration::ZERO };
        let nodes = [node("a", &["k1"], at(0))];
        let why = refresh_needed(1, at(0), (&nodes, Some(0)), at(5000), &longest).unwrap();
        assert!(why.contains("a (last report"), "{why}");
        let mut rolled = node("a", &["k1"], at(50));
        rolled.row.refresh_current = Some(2);
        let rolled = [rolled];
        assert!(refresh_needed(1, at(0), (&rolled, Some(3)), at(5000), &longest).unwrap().contains("3 sessions"));
        assert!(refresh_needed(1, at(0), (&rolled, Some(0)), at(149), &longest).is_some(), "a repeat may come");
        assert_eq!(refresh_needed(1, at(0), (&rolled, Some(0)), at(150), &longest), None);
        assert!(refresh_needed(1, at(0), (&[], None), at(999), &longest).is_some(), "sessions cannot be asked");
        assert_eq!(refresh_needed(1, at(0), (&[], None), at(1000), &longest), None);
        // A browser cookie lasts as long as its session.
        let longest = Longest { cookie: Duration::from_secs(3000), ..longest };
        assert!(refresh_needed(1, at(0), (&[], None), at(2999), &longest).is_some());
        assert_eq!(refresh_needed(1, at(0), (&[], None), at(3000), &longest), None);
        assert_eq!(refresh_needed(1, at(0), (&rolled, Some(0)), at(150), &longest), None, "its sessions are counted");
    }
}
