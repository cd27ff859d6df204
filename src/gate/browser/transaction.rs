//! Logins in progress at a provider. Each login has its own encrypted cookie, so that browser tabs do not disturb each
//! other. The store does not contain these logins.

use std::collections::VecDeque;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::dialect::browser::long_target::{NamedTarget, SHORT};
use crate::dialect::browser::step_up::AskedLogin;
use rotogate_core::clock::Timestamp;
use rotogate_core::credential;
use rotogate_core::denial::{Denial, ProviderFlaw};
use rotogate_core::dpop::memory::once_in_store;
use rotogate_core::fault::{Error, Fault};
use rotogate_core::random::{NoRandomness, are_equal, random};
use rotogate_core::session::SessionId;
use rotogate_core::store::Store;
use rotogate_core::token::session_cookie::LOGIN_NAME as PREFIX;
use rotogate_core::token::{Keyring, login_cookie};

/// The cookie's name contains this many characters of the hash of `state`.
const NAMED: usize = 8;
/// The maximum number of logins in progress in one browser. A new login replaces the oldest one.
// Requirement B31.
const MOST: usize = 12;
/// The maximum size of all login cookies in a request, in bytes. Upstreams reject long request heads.
const MOST_BYTES: usize = 8 << 10;
/// The longest time that a login may take, in seconds.
const LIFETIME: u64 = 600;
/// How far another gate's clock may be ahead, in seconds.
const AHEAD: u64 = 60;
/// A login for the same target within this many seconds counts as repeated.
const AT_ONCE: u64 = 30;
/// The maximum number of repeated logins for one target.
const MOST_AT_ONCE: usize = 4;
const REMEMBERED: usize = 1 << 14;

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(in crate::gate) struct Transaction {
    #[serde(rename = "s")]
    pub(in crate::gate) state: String,
    #[serde(rename = "n")]
    pub(in crate::gate) nonce: String,
    #[serde(rename = "v")]
    pub(in crate::gate) verifier: String,
    /// The page to return to after the login. If the target is long, `rest` is the digest of the whole target.
    #[serde(rename = "t")]
    pub(in crate::gate) to: String,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub(in crate::gate) rest: Option<String>,
    #[serde(flatten)]
    pub(in crate::gate) asked: AskedLogin,
    /// The start of the login, in seconds.
    #[serde(rename = "b")]
    begun: u64,
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<u32>,
    /// When the login ended, in seconds, and its session's id.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    ended: Option<(u64, String)>,
}

impl Transaction {
    // Requirement B28.
    pub(in crate::gate) fn begin(to: &str, asked: AskedLogin, now: Timestamp) -> Result<Self, NoRandomness> {
        let secret = || Ok(URL_SAFE_NO_PAD.encode(random::<32>()?.as_slice()));
        let (state, nonce, verifier) = (secret()?, secret()?, secret()?);
        let begun = now.as_secs();
        let (to, rest) = match to.len() {
            ..=SHORT => (to.to_owned(), None),
            _ => {
                let named = NamedTarget::new(to);
                (named.page, Some(named.digest))
            }
        };
        Ok(Self { state, nonce, verifier, to, rest, asked, begun, made: Vec::new(), ended: None })
    }

    /// Records the browser's earlier logins, if the target immediately requires another login.
    ///
    /// # Errors
    /// The browser has already completed the login that the target requires. Without this error, the target could
    /// require logins endlessly.
    // Requirement B36.
    pub(in crate::gate) fn follow(
        &mut self,
        headers: &HeaderMap,
        session: Option<SessionId>,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<(), Box<AskedLogin>> {
        let Some(session) = session.filter(|_| !self.asked.is_plain()).map(|session| session.to_string()) else {
            return Ok(());
        };
        let latest = self.asked.age().map_or(AT_ONCE, |age| AT_ONCE.min(age.as_secs()));
        let made = credential::cookies_with_prefix(headers, PREFIX).find_map(|(name, value)| {
            let known = Self::open(std::str::from_utf8(name).ok()?, value, keyring)?;
            let (at, of) = known.ended.as_ref()?;
            (known.is_for(self) && *of == session && now.as_secs().abs_diff(*at) <= latest).then_some(known)
        });
        let Some(made) = made else { return Ok(()) };
        if made.made.contains(&self.digest()) || made.made.len() >= MOST_AT_ONCE {
            return Err(Box::new(made.asked.clone()));
        }
        self.made.clone_from(&made.made);
        Ok(())
    }

    fn is_for(&self, other: &Self) -> bool {
        self.to == other.to && self.rest == other.rest
    }

    fn digest(&self) -> u32 {
        let hash = digest(&SHA256, self.asked.to_string().as_bytes());
        hash.as_ref().first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
    }

    /// Replaces the cookie of a finished login with a cookie that does not contain secrets. [`Self::follow`] needs the
    /// new cookie to detect a repeated login.
    pub(in crate::gate) fn end(&self, reply: &mut HeaderMap, session: SessionId, keyring: &Keyring, now: Timestamp) {
        let name = name_of(&self.state);
        let ended = Self {
            state: String::new(),
            nonce: String::new(),
            verifier: String::new(),
            to: self.to.clone(),
            rest: self.rest.clone(),
            asked: self.asked.clone(),
            begun: self.begun,
            made: self.made.iter().copied().chain([self.digest()]).collect(),
            ended: Some((now.as_secs(), session.to_string())),
        };
        let sealed = serde_json::to_vec(&ended).ok().filter(|_| !self.asked.is_plain());
        match sealed.and_then(|text| login_cookie::seal(keyring.refresh_keys(), &name, &text).ok()) {
            Some(value) => drop(reply.append(SET_COOKIE, cookie(&name, &value, AT_ONCE))),
            None => clear(reply, &name),
        }
    }

    /// Only the browser that began the login has its cookie.
    // Requirement B29.
    pub(in crate::gate) fn of_state(
        headers: &HeaderMap,
        state: &str,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Option<Self> {
        let name = name_of(state);
        let mut found = credential::cookies(headers, &name);
        let (Some(value), None) = (found.next(), found.next()) else { return None };
        let transaction = Self::open(&name, value, keyring)?;
        let is_its = are_equal(transaction.state.as_bytes(), state.as_bytes());
        (is_its && transaction.is_live(now)).then_some(transaction)
    }

    fn open(name: &str, value: &[u8], keyring: &Keyring) -> Option<Self> {
        let text = login_cookie::open(keyring.refresh_keys(), name, value)?;
        serde_json::from_slice(&text).ok()
    }

    fn is_live(&self, now: Timestamp) -> bool {
        match now.as_secs().checked_sub(self.begun) {
            Some(age) => age < LIFETIME,
            None => self.begun.saturating_sub(now.as_secs()) <= AHEAD,
        }
    }

    // Requirement B31.
    pub(in crate::gate) fn put(
        &self,
        reply: &mut HeaderMap,
        request: &HeaderMap,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let name = name_of(&self.state);
        let text =
            Zeroizing::new(serde_json::to_vec(self).map_err(|_| Fault::Signing("a login could not be encrypted"))?);
        let value = login_cookie::seal(keyring.refresh_keys(), &name, &text)?;
        let mut others: Vec<(String, usize, u64)> = Vec::new();
        for (name, value) in credential::cookies_with_prefix(request, PREFIX) {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            // Cookies that cannot be decrypted or are too old are dropped first.
            let known = Self::open(name, value, keyring).filter(|known| known.is_live(now));
            let begun = known.map_or(0, |known| known.begun);
            others.push((name.to_owned(), name.len() + value.len(), begun));
        }
        // Browsers send the oldest cookie first. Logins in the same second have equal times.
        others.reverse();
        others.sort_by_key(|(_, _, begun)| std::cmp::Reverse(*begun));
        let mut room = MOST_BYTES.saturating_sub(name.len() + value.len());
        for (place, (other, bytes, begun)) in others.iter().enumerate() {
            match room.checked_sub(*bytes).filter(|_| *begun > 0 && place + 1 < MOST) {
                Some(left) => room = left,
                None => {
                    room = 0;
                    clear(reply, other);
                }
            }
        }
        reply.append(SET_COOKIE, cookie(&name, &value, LIFETIME));
        Ok(())
    }

    pub(in crate::gate) fn clear(&self, reply: &mut HeaderMap) {
        clear(reply, &name_of(&self.state));
    }
}

/// The name does not reveal `state`.
fn name_of(state: &str) -> String {
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, state.as_bytes()));
    format!("{PREFIX}{}", hash.get(..NAMED).unwrap_or_default())
}

fn clear(reply: &mut HeaderMap, name: &str) {
    let is_ours = name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == NAMED && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    });
    if is_ours {
        reply.append(SET_COOKIE, cookie(name, "", 0));
    }
}

/// `SameSite=Lax`, because the browser returns from another site.
fn cookie(name: &str, value: &str, seconds: u64) -> HeaderValue {
    let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    // The conversion cannot fail: the value is base64url, and the rest is fixed.
    let mut cookie = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

/// Remembers the logins whose code was sent to the provider, so that no code is sent twice. An entry is kept as long as
/// the login's cookie is accepted.
// Requirement B34.
#[derive(Debug, Default)]
pub(in crate::gate) struct SpentLogins(Mutex<VecDeque<(u64, [u8; 16])>>);

impl SpentLogins {
    /// Marks this login as used at all gates that share the store.
    ///
    /// # Errors
    /// [`ProviderFlaw::NotBegun`] if the login is already marked. A fault of the store.
    pub(in crate::gate) async fn spend(
        &self,
        transaction: &Transaction,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<(), Error> {
        let spent_before = || Error::from(Denial::ProviderLogin(ProviderFlaw::NotBegun));
        let name = self.spend_here(transaction, now).ok_or_else(spent_before)?;
        let Some(shared) = store.shared() else { return Ok(()) };
        match once_in_store(shared, name, Duration::from_secs(LIFETIME + 2 * AHEAD)).await {
            Err(Error::Denied(_)) => Err(spent_before()),
            counted => counted,
        }
    }

    /// Returns the login's name in the store, or `None` if the login was already used.
    fn spend_here(&self, transaction: &Transaction, now: Timestamp) -> Option<[u8; 16]> {
        let hash = digest(&SHA256, transaction.state.as_bytes());
        let name = *hash.as_ref().first_chunk()?;
        let now = now.as_secs();
        let mut spent = self.0.lock();
        while spent.front().is_some_and(|(until, _)| *until <= now) || spent.len() >= REMEMBERED {
            spent.pop_front();
        }
        if spent.iter().any(|(_, known)| *known == name) {
            return None;
        }
        spent.push_back((now + LIFETIME, name));
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;
    use rotogate_core::clock::ManualTime;
    use rotogate_core::session::step_up::StepUp;
    use rotogate_core::store::conformance::nodes::{MemoryNode, Way};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn after(seconds: u64) -> Timestamp {
        Timestamp::from_secs(NOW.as_secs() + seconds)
    }

    #[derive(Default)]
    struct Jar(Vec<(String, String)>);

    impl Jar {
        fn headers(&self) -> HeaderMap {
            let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
            HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap())])
        }

        fn store(&mut self, reply: &HeaderMap) {
            self.store_for(reply, LIFETIME);
        }

        fn store_for(&mut self, reply: &HeaderMap, seconds: u64) {
            for set in reply.get_all(SET_COOKIE) {
                assert!(set.is_sensitive());
                let (pair, attributes) = set.to_str().unwrap().split_once("; ").unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                self.0.retain(|(known, _)| known != name);
                if attributes == format!("Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}") {
                    self.0.push((name.to_owned(), value.to_owned()));
                } else {
                    assert_eq!((value, attributes), ("", "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
                }
            }
        }

        fn begin(&mut self, to: &str, keyring: &Keyring, now: Timestamp) -> String {
            let (begun, mut reply) = (Transaction::begin(to, AskedLogin::default(), now).unwrap(), HeaderMap::new());
            begun.put(&mut reply, &self.headers(), keyring, now).unwrap();
            self.store(&reply);
            begun.state.clone()
        }

        fn has(&self, state: &str, keyring: &Keyring, now: Timestamp) -> Option<String> {
            Transaction::of_state(&self.headers(), state, keyring, now).map(|found| found.to.clone())
        }
    }

    #[test]
    fn b30_b31_twelve_logins_are_under_way_side_by_side_and_the_oldest_goes() {
        let (keyring, mut jar) = (Keyring::ephemeral().unwrap(), Jar::default());
        let states: Vec<_> = (0..20).map(|n| jar.begin(&format!("/{n}"), &keyring, after(n))).collect();
        assert_eq!(jar.0.len(), MOST);
        for (n, state) in states.iter().enumerate() {
            let expected = (n >= 8).then(|| format!("/{n}"));
            assert_eq!(jar.has(state, &keyring, after(20)), expected);
        }
        // A browser that restores many tabs begins their logins within one second.
        let mut jar = Jar::default();
        let states: Vec<_> = (0..16).map(|n| jar.begin(&format!("/{n}"), &keyring, after(0))).collect();
        for (n, state) in states.iter().enumerate() {
            assert_eq!(jar.has(state, &keyring, after(1)).is_some(), n >= 4, "{n}");
        }
        // Attack 17.
        for n in 0..1000 {
            jar.begin("/", &keyring, after(30 + n / 100));
        }
        assert_eq!(jar.0.len(), MOST);
        // A long target makes the cookie several times larger.
        for n in 0..12 {
            jar.begin(&format!("/{}", "x".repeat(SHORT - 1)), &keyring, after(60 + n));
        }
        assert!(jar.headers()[COOKIE].len() <= MOST_BYTES + 64, "{}", jar.headers()[COOKIE].len());
        assert_eq!(jar.0.len(), 2);
    }

    #[test]
    fn b29_a_login_is_that_of_its_state_and_browser_for_ten_minutes() {
        let (keyring, mut jar) = (Keyring::ephemeral().unwrap(), Jar::default());
        let state = jar.begin("/x", &keyring, NOW);
        assert_eq!(jar.has(&state, &keyring, after(599)), Some("/x".to_owned()));
        assert_eq!(jar.has(&state, &keyring, after(600)), None);
        assert_eq!(jar.has(&state, &Keyring::ephemeral().unwrap(), NOW), None);
        assert_eq!(Jar::default().has(&state, &keyring, NOW), None);
        // Attack 9: another tab's cookie is refused, even under this tab's cookie name.
        let other = jar.begin("/y", &keyring, NOW);
        let (name, _) = jar.0[0].clone();
        let (_, foreign) = jar.0[1].clone();
        assert_eq!(jar.has(&other, &keyring, NOW), Some("/y".to_owned()));
        let swapped = Jar(vec![(name.clone(), foreign)]);
        assert_eq!(swapped.has(&state, &keyring, NOW), None);
        let twice = Jar(vec![jar.0[0].clone(), (name, jar.0[0].1.clone())]);
        assert_eq!(twice.has(&state, &keyring, NOW), None);
    }

    #[test]
    fn b31_garbage_of_our_names_goes_and_no_other_cookie_is_touched() {
        let keyring = Keyring::ephemeral().unwrap();
        let mut jar = Jar(vec![
            (format!("{PREFIX}AAAAAAAA"), "garbage".to_owned()),
            (format!("{PREFIX}x; a"), "b".to_owned()),
            (format!("{PREFIX}too-long-a-name"), "c".to_owned()),
            ("app".to_owned(), "d".to_owned()),
        ]);
        jar.begin("/", &keyring, NOW);
        assert!(!jar.0.iter().any(|(_, value)| value == "garbage"));
        assert_eq!(jar.0.len(), 4);
    }

    #[test]
    fn b36_a_target_that_asks_at_once_for_a_login_that_was_just_made_is_not_followed() {
        let keyring = Keyring::ephemeral().unwrap();
        let [ours, other] = [1, 2].map(|n| SessionId::from_bytes([n; 16]));
        let asks = |acr: &str| AskedLogin::of_route(Some(&StepUp { acr: vec![acr.into()], max_age: None }));
        let login = |to: &str, asked: AskedLogin, now| Transaction::begin(to, asked, now).unwrap();
        let mut jar = Jar::default();
        let follow = |jar: &Jar, to: &str, asked: AskedLogin, session, now| {
            let mut begun = login(to, asked, now);
            let followed = begun.follow(&jar.headers(), session, &keyring, now);
            followed.map(|()| begun).map_err(|made| made.to_string())
        };
        let end = |jar: &mut Jar, begun: &Transaction| {
            let mut reply = HeaderMap::new();
            begun.end(&mut reply, ours, &keyring, NOW);
            jar.store_for(&reply, AT_ONCE);
        };
        let gold = follow(&jar, "/x", asks("gold"), Some(ours), NOW).unwrap();
        let (state, name) = (gold.state.clone(), name_of(&gold.state));
        end(&mut jar, &gold);
        assert!(jar.0.len() == 1 && jar.0[0].0 == name, "it replaced the cookie of the login");
        assert!(jar.has(&state, &keyring, NOW).is_none() && jar.has("", &keyring, NOW).is_none());
        assert_eq!(follow(&jar, "/x", asks("gold"), Some(ours), after(29)).err().unwrap(), "acr_values=gold");
        // There is no loop with another page, a later time, another session or no session.
        for (to, session, now) in
            [("/y", Some(ours), NOW), ("/x", Some(ours), after(31)), ("/x", Some(other), NOW), ("/x", None, NOW)]
        {
            assert!(follow(&jar, to, asks("gold"), session, now).is_ok_and(|begun| begun.made.is_empty()), "{to}");
        }
        assert!(follow(&jar, "/x", AskedLogin::default(), Some(ours), NOW).is_ok());
        let silver = follow(&jar, "/x", asks("silver"), Some(ours), NOW).unwrap();
        end(&mut jar, &silver);
        jar.0.retain(|(known, _)| *known != name);
        assert_eq!(follow(&jar, "/x", asks("gold"), Some(ours), NOW).err().unwrap(), "acr_values=silver");
        for acr in ["a", "b"] {
            let next = follow(&jar, "/x", asks(acr), Some(ours), NOW).unwrap();
            jar.0.clear();
            end(&mut jar, &next);
        }
        assert_eq!(follow(&jar, "/x", asks("c"), Some(ours), NOW).err().unwrap(), "acr_values=b");
        let fresh = || AskedLogin::read(Some("max_age=2"));
        let mut jar = Jar::default();
        end(&mut jar, &login("/x", fresh(), NOW));
        assert!(follow(&jar, "/x", fresh(), Some(ours), after(2)).is_err());
        assert!(follow(&jar, "/x", fresh(), Some(ours), after(3)).is_ok());
        let mut jar = Jar::default();
        end(&mut jar, &login("/x", AskedLogin::default(), NOW));
        assert!(jar.0.is_empty());
    }

    #[test]
    fn b34_a_login_is_spent_once_for_as_long_as_its_cookie_may_come() {
        let (spent, first) = (SpentLogins::default(), Transaction::begin("/", AskedLogin::default(), NOW).unwrap());
        let second = Transaction::begin("/", AskedLogin::default(), NOW).unwrap();
        let is_new = |login, now| spent.spend_here(login, now).is_some();
        assert!(is_new(&first, NOW) && is_new(&second, after(1)));
        assert!(!is_new(&first, after(599)) && !is_new(&second, after(599)));
        assert!(is_new(&Transaction::begin("/", AskedLogin::default(), after(700)).unwrap(), after(700)));
        assert_eq!(spent.0.lock().len(), 1);
    }

    #[tokio::test]
    async fn b34_a_login_is_spent_once_at_gates_that_share_a_store() {
        let time = ManualTime::at(NOW);
        let node = MemoryNode::first("https://gate.test", Duration::from_secs(5), time.clone());
        let (one, other) = (node.another(), node);
        let gates = [SpentLogins::default(), SpentLogins::default(), SpentLogins::default()];
        let [login, lost] = [(); 2].map(|()| Transaction::begin("/", AskedLogin::default(), NOW).unwrap());
        gates[0].spend(&login, &one, NOW).await.unwrap();
        let again = gates[1].spend(&login, &other, NOW).await;
        assert!(matches!(again, Err(Error::Denied(Denial::ProviderLogin(ProviderFlaw::NotBegun)))), "{again:?}");
        // A gate whose clock is a minute behind accepts the cookie for a minute longer.
        time.advance(Duration::from_secs(659));
        gates[2].spend(&login, &other, after(599)).await.unwrap_err();
        one.set_way(Way::Cut);
        let unknown = gates[0].spend(&lost, &one, after(599)).await;
        assert!(matches!(unknown, Err(Error::Failed(_))), "{unknown:?}");
    }
}
