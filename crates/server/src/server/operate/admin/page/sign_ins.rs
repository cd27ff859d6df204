//! The signed-in operators. A browser has a random cookie. Name and role are only in memory, and the admin token is not
//! stored. A sign-in ends when the operator's token is replaced.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::{Mutex, MutexGuard};
use rotogate_core::clock::TimeSource;
use rotogate_core::random::{NoRandomness, random};

use crate::server::build::admin_tokens::{AdminToken, AdminTokens, Holder};

/// How long a sign-in lasts without a request. `TOTAL` is the maximum duration of a sign-in.
pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);
pub(super) const TOTAL: Duration = Duration::from_secs(8 * 3600);
/// Beyond this number, the least recently used sign-in ends.
const MOST: usize = 256;

/// The SHA-256 digest of a cookie. Sign-ins are looked up by this digest, so that the lookup time does not reveal the
/// cookie.
type CookieDigest = [u8; 32];

pub(crate) struct SignIns {
    all: Mutex<HashMap<CookieDigest, SignIn>>,
    time: Arc<dyn TimeSource>,
}

rotogate_core::debug_with!(SignIns);

struct SignIn {
    holder: Holder,
    token: Weak<AdminToken>,
    csrf: Arc<str>,
    place: Arc<str>,
    began: Duration,
    used: Duration,
    /// The next view shows this notice once.
    notice: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct SignedIn {
    pub(super) holder: Holder,
    pub(super) csrf: Arc<str>,
    /// The folder in which the cookie is valid.
    pub(super) place: Arc<str>,
    key: CookieDigest,
}

impl SignedIn {
    pub(super) fn folder(&self) -> String {
        format!("/ui/{}/", self.place)
    }
}

pub(super) fn secret() -> Result<String, NoRandomness> {
    random::<32>().map(|bytes| URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

fn key_of(cookie: &str) -> CookieDigest {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    key
}

impl SignIns {
    pub(crate) fn new(time: Arc<dyn TimeSource>) -> Self {
        Self { all: Mutex::default(), time }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<CookieDigest, SignIn>> {
        self.all.lock()
    }

    pub(super) fn begin(&self, holder: Holder, token: &Arc<AdminToken>) -> Result<(String, Arc<str>), NoRandomness> {
        let (cookie, csrf) = (secret()?, secret()?.into());
        let place: Arc<str> = secret()?.into();
        let now = self.time.monotonic();
        let mut all = self.all();
        all.retain(|_, sign_in| sign_in.lasts(now));
        if all.len() >= MOST
            && let Some(oldest) = all.iter().min_by_key(|(_, sign_in)| sign_in.used).map(|(key, _)| *key)
        {
            let _ = all.remove(&oldest);
        }
        let token = Arc::downgrade(token);
        let sign_in = SignIn { holder, token, csrf, place: Arc::clone(&place), began: now, used: now, notice: None };
        let _ = all.insert(key_of(&cookie), sign_in);
        Ok((cookie, place))
    }

    pub(super) fn find(&self, cookie: &str, tokens: &AdminTokens) -> Option<SignedIn> {
        let (key, now) = (key_of(cookie), self.time.monotonic());
        let mut all = self.all();
        let sign_in = all.get_mut(&key)?;
        if !sign_in.lasts(now) || !tokens.has(&sign_in.token) {
            let _ = all.remove(&key);
            return None;
        }
        sign_in.used = now;
        let (csrf, place) = (Arc::clone(&sign_in.csrf), Arc::clone(&sign_in.place));
        Some(SignedIn { holder: sign_in.holder.clone(), csrf, place, key })
    }

    pub(super) fn end(&self, caller: &SignedIn) {
        let _ = self.all().remove(&caller.key);
    }

    pub(super) fn leave_notice(&self, caller: &SignedIn, text: String) {
        if let Some(sign_in) = self.all().get_mut(&caller.key) {
            sign_in.notice = Some(text);
        }
    }

    pub(super) fn take_notice(&self, caller: &SignedIn) -> Option<String> {
        self.all().get_mut(&caller.key)?.notice.take()
    }
}

impl SignIn {
    fn lasts(&self, now: Duration) -> bool {
        now < self.used + IDLE && now < self.began + TOTAL
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rotogate_core::clock::{ManualTime, Timestamp};

    use super::*;
    use rotogate_config::{AdminConfig, AdminRole};
    use rotogate_core::context::Actor;

    struct Scene {
        time: Arc<ManualTime>,
        all: SignIns,
        tokens: AdminTokens,
        holder: Holder,
        token: Arc<AdminToken>,
        _folder: tempfile::TempDir,
    }

    fn tokens_in(file: &Path) -> AdminTokens {
        let config = AdminConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            token_file: file.to_owned(),
            tokens: Vec::new(),
            probes: None,
            dangerous_non_loopback: false,
            hosts: Vec::new(),
        };
        AdminTokens::load_or_create(&config).unwrap()
    }

    fn scene() -> Scene {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.token");
        let tokens = tokens_in(&path);
        let presented = std::fs::read_to_string(&path).unwrap();
        let (_, token) = tokens.entry(presented.trim()).unwrap();
        let holder = Holder { actor: Actor { name: "ada".into(), role: "admin", via: "page" }, role: AdminRole::Admin };
        let all = SignIns::new(Arc::clone(&time) as Arc<dyn TimeSource>);
        Scene { time, all, tokens, holder, token, _folder: folder }
    }

    #[test]
    fn p56_a_sign_in_ends_half_an_hour_after_its_last_request_and_after_eight_hours() {
        let Scene { time, all, tokens, holder, token, .. } = scene();
        let idle = all.begin(holder.clone(), &token).unwrap().0;
        let used = all.begin(holder, &token).unwrap().0;
        let minute = Duration::from_secs(60);
        for _ in 0..16 {
            time.advance(IDLE - minute);
            assert_eq!(all.find(&used, &tokens).unwrap().holder.role, AdminRole::Admin);
        }
        assert!(all.find(&idle, &tokens).is_none(), "nobody used it");
        time.advance(16 * minute);
        assert!(all.find(&used, &tokens).is_none(), "eight hours");
        assert!(all.find("another cookie", &tokens).is_none());
    }

    #[test]
    fn p56_sign_ins_are_bounded_and_one_in_use_stays() {
        let Scene { time, all, tokens, holder, token, .. } = scene();
        let first = all.begin(holder.clone(), &token).unwrap().0;
        let second = all.begin(holder.clone(), &token).unwrap().0;
        for _ in 0..2 * MOST {
            time.advance(Duration::from_millis(1));
            assert!(all.find(&first, &tokens).is_some());
            drop(all.begin(holder.clone(), &token).unwrap());
        }
        assert_eq!(all.all().len(), MOST);
        assert!(all.find(&second, &tokens).is_none());
    }

    #[test]
    fn p56_a_sign_in_ends_with_its_token() {
        let Scene { all, tokens, holder, token, _folder: folder, .. } = scene();
        let cookie = all.begin(holder, &token).unwrap().0;
        let caller = all.find(&cookie, &tokens).unwrap();
        all.leave_notice(&caller, "1 session ended".to_owned());
        assert_eq!(all.take_notice(&caller).as_deref(), Some("1 session ended"));
        assert_eq!(all.take_notice(&caller), None);
        let now_in_force = tokens_in(&folder.path().join("other.token"));
        assert!(all.find(&cookie, &now_in_force).is_none());
        assert!(all.find(&cookie, &tokens).is_none(), "for good");
    }
}
