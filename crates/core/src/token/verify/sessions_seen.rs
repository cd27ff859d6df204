//! Remembers the sessions that an issuer's accepted tokens named. If a notice names a session that no token named, the
//! notice ends more than that session, because the tokens may contain the session in a claim other than
//! `session_claim`.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use moka::sync::Cache;

use crate::session::VouchedBy;
use crate::token::claims::AccessToken;

/// The maximum number of remembered users, of remembered sessions from tokens, and of remembered pairs of session and
/// user. Each entry needs four bytes. An evicted entry is treated as if it had never been seen.
const CARRIED: usize = 1 << 16;
/// The maximum number of remembered sessions from notices. A gate may have a thousand issuers.
const NAMED: usize = 1 << 12;
/// The maximum number of users for whom the subject that belongs to a `sub` is remembered.
const MAPPED: u64 = 1 << 14;
/// The number of slots that one session may use. The newest session always has a slot.
const WAYS: usize = 4;

/// Hashes of at most `N` values. Two different values have the same hash in one of 500 million cases. The hash is keyed
/// with a secret, so that nobody can cause such a collision.
#[derive(Default)]
struct Recent<const N: usize> {
    /// The slots, which are allocated when the first value is added. 0 marks a free slot.
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

/// The sessions that tokens and notices of one issuer have named since the gate started.
#[derive(Default)]
pub(super) struct SessionsSeen {
    hasher: RandomState,
    carried: Recent<CARRIED>,
    /// The pairs of a session and its user. A session at the issuer that belongs to a session of this gate is also
    /// stored without its user.
    owned: Recent<CARRIED>,
    named: Recent<NAMED>,
    /// The users named by tokens, and by the gate's sessions whose users the issuer authenticated.
    users: Recent<CARRIED>,
    /// The subject for each `sub`, if the issuer's subjects are in another claim.
    mapped: OnceLock<Cache<Box<str>, Box<str>>>,
    /// Whether a notice has named a session.
    names_sessions: AtomicBool,
    /// Whether a token and a notice have named the same session, which shows that `session_claim` is the right claim.
    is_proven: AtomicBool,
    has_tokens: AtomicBool,
    vouches: AtomicBool,
}

crate::debug_with!(SessionsSeen);

/// What is known about a session that a notice names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// An accepted token named the session.
    Carried,
    /// No token named the session, but the effect of the notice is known for one of two reasons. Either tokens have
    /// named the sessions of other notices, or the issuer has no tokens at this gate and only authenticates users for
    /// the gate's sessions, which store the issuer's session ids.
    Elsewhere,
    /// It is not known whether any token names the session.
    Unproven,
}

impl SessionsSeen {
    /// Records an accepted token of the issuer.
    // Requirement S31.
    pub(super) fn note_token(&self, token: &AccessToken) {
        let (sub, subject) = (token.notice_subject(), token.token_subject());
        self.note(token.issuer_session(), sub);
        if !token.has_sub_as_subject() {
            // A notice may name the user by `sub` or by the subject.
            self.users.add(self.hasher.hash_one(subject));
            self.mapped.get_or_init(|| Cache::new(MAPPED)).insert(sub.into(), subject.into());
        }
    }

    /// Records an accepted token with this user and this session.
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

    /// Records an accepted token of this gate whose user the issuer authenticated.
    pub(super) fn note_vouched(&self, by: &VouchedBy) {
        set(&self.vouches);
        self.users.add(self.hasher.hash_one(&*by.subject));
        if let Some(session) = by.session.as_deref() {
            self.owned.add(self.hasher.hash_one((session, &*by.subject)));
            self.owned.add(self.hasher.hash_one((session, "")));
        }
    }

    /// Returns whether an accepted token or a session of this gate has named this user.
    pub(super) fn knows_user(&self, user: &str) -> bool {
        self.users.has(self.hasher.hash_one(user))
    }

    /// Returns whether an accepted token or a session of this gate has named this session.
    pub(super) fn knows_session(&self, session: &str) -> bool {
        self.carried.has(self.hasher.hash_one(session)) || self.is_of(session, "")
    }

    /// The subject of the user with this `sub`, if an accepted token contained both.
    pub(super) fn subject_of(&self, sub: &str) -> Option<Box<str>> {
        self.mapped.get()?.get(sub)
    }

    /// Returns whether this is known to be a session of this user. Only the issuer and the user can know the session's
    /// id.
    pub(super) fn is_of(&self, session: &str, user: &str) -> bool {
        self.owned.has(self.hasher.hash_one((session, user)))
    }

    /// Returns whether a logout of this user without a session is usual for the issuer. It is usual if the gate knows
    /// the user, and this issuer's notices never name a session. If the issuer's notices normally name a session, a
    /// notice without a session is suspicious, because its sender need not know a session id.
    pub(super) fn is_usual_logout(&self, user: &str) -> bool {
        !self.names_sessions.load(Relaxed) && self.knows_user(user)
    }

    /// Records a notice that names a session, and returns what is known about the session.
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

/// Sets a flag. It does not write to a flag that is already set, because every verified token calls this.
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
