//! The sessions named in an issuer's accepted tokens. A notice about an unknown session has a wider effect.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use moka::sync::Cache;

use crate::session::VouchedBy;
use crate::token::claims::AccessToken;

/// The maximum number of remembered users, sessions or pairs. Each entry needs four bytes.
const CARRIED: usize = 1 << 16;
/// The maximum number of sessions remembered from notices. A gate may have a thousand issuers.
const NAMED: usize = 1 << 12;
/// The maximum number of users whose `sub` is mapped to a subject.
const MAPPED: u64 = 1 << 14;
const WAYS: usize = 4;

/// Hashes of at most `N` values. The hash is keyed with a secret, so nobody can cause a collision.
#[derive(Default)]
struct Recent<const N: usize> {
    /// 0 marks a free slot.
    places: OnceLock<Box<[AtomicU32]>>,
}

impl<const N: usize> Recent<N> {
    fn ways(places: &[AtomicU32], hash: u64) -> (&[AtomicU32], u32) {
        let ways = places.chunks_exact(WAYS).nth(hash as usize % (N / WAYS)).unwrap_or_default();
        (ways, (hash >> 32) as u32 | 1)
    }

    fn add(&self, hash: u64) {
        let places = self.places.get_or_init(|| (0..N).map(|_| AtomicU32::new(0)).collect());
        let (ways, tag) = Self::ways(places, hash);
        let is_had_by = |place: &AtomicU32| place.load(Relaxed) == tag;
        let takes = |place: &AtomicU32| place.compare_exchange(0, tag, Relaxed, Relaxed).is_ok();
        if !ways.iter().any(is_had_by)
            && !ways.iter().any(takes)
            && let Some(oldest) = ways.get((hash >> 24) as usize % WAYS)
        {
            oldest.store(tag, Relaxed);
        }
    }

    fn has(&self, hash: u64) -> bool {
        let Some(places) = self.places.get() else { return false };
        let (ways, tag) = Self::ways(places, hash);
        ways.iter().any(|place| place.load(Relaxed) == tag)
    }
}

#[derive(Default)]
pub(super) struct SessionsSeen {
    hasher: RandomState,
    carried: Recent<CARRIED>,
    /// Pairs of a session and its user. Sessions in this gate's tokens also have a pair with an empty user.
    owned: Recent<CARRIED>,
    named: Recent<NAMED>,
    users: Recent<CARRIED>,
    /// Maps each `sub` to the user's subject. Stays empty if `sub` itself is the subject.
    mapped: OnceLock<Cache<Box<str>, Box<str>>>,
    names_sessions: AtomicBool,
    /// Whether a token and a notice have named the same session. If so, `session_claim` is correct.
    is_proven: AtomicBool,
    has_tokens: AtomicBool,
    vouches: AtomicBool,
}

crate::debug_with!(SessionsSeen);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Carried,
    /// No token named the session, but tokens have named other sessions of this issuer.
    Elsewhere,
    Unproven,
}

impl SessionsSeen {
    // Requirement S31.
    pub(super) fn note_token(&self, token: &AccessToken) {
        let (sub, subject) = (token.notice_subject(), token.token_subject());
        self.note(token.issuer_session(), sub);
        if !token.has_sub_as_subject() {
            // A notice may name the user by `sub` or by the mapped subject.
            self.users.add(self.hasher.hash_one(subject));
            self.mapped.get_or_init(|| Cache::new(MAPPED)).insert(sub.into(), subject.into());
        }
    }

    pub(super) fn note(&self, session: Option<&str>, user: &str) {
        set(&self.has_tokens);
        self.users.add(self.hasher.hash_one(user));
        let Some(session) = session else { return };
        self.owned.add(self.hasher.hash_one((session, user)));
        let hash = self.hasher.hash_one(session);
        self.carried.add(hash);
        if self.named.has(hash) {
            set(&self.is_proven);
        }
    }

    pub(super) fn note_vouched(&self, by: &VouchedBy) {
        set(&self.vouches);
        self.users.add(self.hasher.hash_one(&*by.subject));
        if let Some(session) = by.session.as_deref() {
            self.owned.add(self.hasher.hash_one((session, &*by.subject)));
            self.owned.add(self.hasher.hash_one((session, "")));
        }
    }

    pub(super) fn knows_user(&self, user: &str) -> bool {
        self.users.has(self.hasher.hash_one(user))
    }

    pub(super) fn knows_session(&self, session: &str) -> bool {
        self.carried.has(self.hasher.hash_one(session)) || self.is_of(session, "")
    }

    pub(super) fn subject_of(&self, sub: &str) -> Option<Box<str>> {
        self.mapped.get()?.get(sub)
    }

    pub(super) fn is_of(&self, session: &str, user: &str) -> bool {
        self.owned.has(self.hasher.hash_one((session, user)))
    }

    /// Returns whether logouts without a session are usual for this issuer. A logout without a session is suspicious if
    /// the issuer normally names the session.
    pub(super) fn is_usual_logout(&self, user: &str) -> bool {
        !self.names_sessions.load(Relaxed) && self.knows_user(user)
    }

    pub(super) fn name(&self, session: &str) -> Named {
        set(&self.names_sessions);
        let hash = self.hasher.hash_one(session);
        self.named.add(hash);
        if self.carried.has(hash) {
            set(&self.is_proven);
            return Named::Carried;
        }
        let vouches_alone = self.vouches.load(Relaxed) && !self.has_tokens.load(Relaxed);
        if self.is_proven.load(Relaxed) || vouches_alone { Named::Elsewhere } else { Named::Unproven }
    }
}

/// Avoids a write if the flag is set, because this function runs for every verified token.
fn set(flag: &AtomicBool) {
    if !flag.load(Relaxed) {
        flag.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n72_a_session_is_known_by_tokens_alone_and_the_newest_always() {
        let seen = SessionsSeen::default();
        assert_eq!(seen.name("a"), Named::Unproven, "no token came");
        seen.note(None, "ada");
        seen.note(Some("b"), "ada");
        assert_eq!(seen.name("a"), Named::Unproven, "and no notice makes it known");
        assert_eq!((seen.name("b"), seen.name("a")), (Named::Carried, Named::Elsewhere));
        for n in 0..4 * CARRIED {
            let session = n.to_string();
            seen.note(Some(&session), "ada");
            assert_eq!(seen.name(&session), Named::Carried, "{n}");
        }
        let known = (0..4 * CARRIED).filter(|n| seen.name(&n.to_string()) == Named::Carried).count();
        assert!((CARRIED / 2..=CARRIED).contains(&known), "{known} of {CARRIED}");
    }

    #[test]
    fn n72_a_token_after_the_notice_of_its_session_proves_the_claim_too() {
        let seen = SessionsSeen::default();
        assert_eq!(seen.name("a"), Named::Unproven);
        seen.note(Some("a"), "ada");
        assert_eq!(seen.name("other"), Named::Elsewhere);
    }

    #[test]
    fn n72_an_issuer_that_vouches_alone_needs_no_token_of_its_own() {
        let seen = SessionsSeen::default();
        seen.note_vouched(&VouchedBy::new("https://idp.test", "ada").session("s"));
        assert_eq!(seen.name("a"), Named::Elsewhere);
        seen.note(Some("b"), "ada");
        assert_eq!(seen.name("a"), Named::Unproven, "its tokens may have another claim");
    }

    #[test]
    fn s15_a_session_is_known_of_its_user_alone_by_a_token_or_by_a_session_that_the_issuer_vouched_for() {
        let seen = SessionsSeen::default();
        seen.note(Some("a"), "ada");
        seen.note_vouched(&VouchedBy::new("https://idp.test", "bob").session("b"));
        seen.note_vouched(&VouchedBy::new("https://idp.test", "eve"));
        let known = |session: &str| ["ada", "bob", "eve"].map(|user| seen.is_of(session, user));
        assert_eq!([known("a"), known("b")], [[true, false, false], [false, true, false]]);
    }

    #[test]
    fn s31_users_and_sessions_are_seen_by_tokens_and_by_sessions_that_the_issuer_vouched_for() {
        let seen = SessionsSeen::default();
        seen.note(Some("a"), "ada");
        seen.note_vouched(&VouchedBy::new("https://idp.test", "bob").session("b"));
        seen.name("c");
        assert_eq!(["ada", "bob", "eve", "a", ""].map(|user| seen.knows_user(user)), [true, true, false, false, false]);
        let known = ["a", "b", "c", "ada", ""].map(|session| seen.knows_session(session));
        assert_eq!(known, [true, true, false, false, false]);
    }

    #[test]
    fn s15_a_logout_without_a_session_is_usual_of_a_known_user_until_a_notice_names_a_session() {
        let seen = SessionsSeen::default();
        seen.note(None, "ada");
        seen.note(Some("b"), "bob");
        seen.note_vouched(&VouchedBy::new("https://idp.test", "eve"));
        let usual = || ["ada", "bob", "eve", "mallory"].map(|user| seen.is_usual_logout(user));
        assert_eq!(usual(), [true, true, true, false]);
        seen.name("a");
        assert_eq!(usual(), [false; 4]);
    }
}
