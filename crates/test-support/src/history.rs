//! Records the operations of clients of several gates, and checks whether some order explains the responses.
//!
//! A [`Recorder`] records the beginning and end of each operation by a monotonic clock. [`judge`] searches each session
//! for an order in which every response is correct. Operations that did not overlap keep their order. An operation with
//! an unknown outcome may have taken effect later, or never. This is the linearizability search by Wing and Gong, with
//! Lowe's memory of visited states, as in porcupine.
//!
//! Requests with an access token are checked by time bounds, because gates learn of revocations with a delay. A gate may
//! replace a pair whose response was lost. It must not do so once the store knows that the pair was used, and must do so
//! if nobody used it.
//!
//! In a history, an API key is a session without refreshes.
//!
//! A store may [lose](Loss) acknowledged writes, which the gates may write back. A session may then be unknown. An
//! acknowledged logout must stay effective.

mod client;
mod judge;
mod keys;
mod session;

use std::time::Duration;

pub use client::{At, Held, OAuth2, Recorder, Refreshed, Wire, is_acknowledged, is_unknown, send};
pub use judge::{Rule, Verdict, judge, judge_with_losses};

pub const KEY_LIFETIME: Duration = Duration::from_secs(60);

/// The time since the recorder was started.
pub type Moment = Duration;

/// The number of an issued pair or API key in the history. Pairs or keys with equal bytes have the same number.
pub type Pair = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    LogIn,
    /// A refresh with the refresh token of a pair.
    Refresh(Pair),
    /// A revocation of a pair's refresh token, which ends the session.
    LogOut(Pair),
    /// A request with the access token of a pair.
    Access(Pair),
    /// A look at the session's record: accepted if the store knows that a token of this pair was used.
    Confirmed(Pair),
    MakeKey,
    /// A request to replace a key. The old key stays valid for this time.
    ReplaceKey(Pair, Duration),
    RevokeKey(Pair),
    UseKey(Pair),
}

impl Request {
    fn is_of_key(self) -> bool {
        matches!(self, Self::MakeKey | Self::ReplaceKey(..) | Self::RevokeKey(_) | Self::UseKey(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Issued(Pair),
    /// The gate accepted the credential, or acknowledged a revocation.
    Accepted,
    /// The gate rejected the credential.
    Refused,
    /// The outcome is unknown: a 503, a lost connection or no response.
    InDoubt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub session: usize,
    pub gate: usize,
    pub begin: Moment,
    pub end: Moment,
    pub request: Request,
    pub reply: Reply,
}

impl Operation {
    /// Returns whether this is a refresh that returned a pair.
    pub fn is_refreshed(&self) -> bool {
        matches!((self.request, self.reply), (Request::Refresh(_), Reply::Issued(_)))
    }
}

/// A loss of writes. Between `at` and `restored`, a record may be missing or outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Earlier acknowledged writes may be lost.
    pub at: Moment,
    /// When the gates have finished writing back records. A record that is missing at this time is lost.
    pub restored: Moment,
}

impl Loss {
    /// Returns whether the operation may miss the lost writes.
    fn touches(&self, operation: &Operation) -> bool {
        operation.begin < self.restored && operation.end > self.at
    }
}

/// The sessions' profile.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long an exchanged refresh token still returns the same pair.
    pub grace: Duration,
    /// How long a token is exchanged again after that, if nobody used the pair for which it was exchanged.
    pub lost_response_window: Duration,
    /// Whether a reuse ends the session. Otherwise it is only refused.
    pub reuse_ends: bool,
    /// Whether a rotation ends the access tokens before it.
    pub ends_previous: bool,
    /// The maximum difference between the gates' clocks.
    pub slack: Duration,
    /// The maximum time until every gate rejects revoked tokens.
    pub staleness: Duration,
    /// A refused refresh that takes longer than this does not count as reuse. The client may have continued at another
    /// gate.
    pub held: Duration,
}

impl Rules {
    /// No window, and the default profile of most dialects.
    pub const STRICT: Self = Self {
        grace: Duration::ZERO,
        lost_response_window: Duration::ZERO,
        reuse_ends: true,
        ends_previous: false,
        slack: Duration::from_secs(1),
        staleness: Duration::from_secs(1),
        held: Duration::from_secs(5),
    };
}
