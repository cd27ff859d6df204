//! Records the requests and responses of clients of several gates, and checks whether some order explains them.
//!
//! A [`Recorder`] records the beginning and the end of each client operation according to one monotonic clock. For
//! each session, [`judge`] searches for an order of the operations in which every response is correct. If one
//! operation ended before another began, the order keeps them in this sequence. An operation with an unknown
//! outcome may have taken effect at any later time, or never. This is the linearizability search by Wing and Gong,
//! with Lowe's memory of visited states, as in porcupine.
//!
//! Requests with an access token are checked by time bounds instead, because gates learn of revocations with a
//! delay.
//!
//! In a history, an API key is a separate session without refreshes. It is made, replaced, revoked and used.
//!
//! A store may [lose](Loss) acknowledged writes, and the gates may write them back. The session may then be unknown
//! for a while, or permanently. The end of a session must not be lost: an acknowledged logout remains effective,
//! whether or not the store still had the session.

mod client;
mod judge;
mod keys;
mod session;

use std::time::Duration;

pub use client::{At, Held, Recorder};
pub use judge::{Rule, Verdict, judge, judge_with_losses};

/// The lifetime of an API key.
pub const KEY_LIFETIME: Duration = Duration::from_secs(60);

/// The time since the recorder was started.
pub type Moment = Duration;

/// A pair of tokens, or an API key, that a gate issued. It is represented by a number in the history. Equal bytes
/// have the same number.
pub type Pair = usize;

/// The request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A login.
    LogIn,
    /// A refresh with the refresh token of a pair.
    Refresh(Pair),
    /// A revocation of the refresh token of a pair, which ends the session.
    LogOut(Pair),
    /// A request with the access token of a pair.
    Access(Pair),
    /// A request to make an API key.
    MakeKey,
    /// A request to replace a key. The old key remains valid for this time.
    ReplaceKey(Pair, Duration),
    /// A request to revoke a key.
    RevokeKey(Pair),
    /// A request with a key.
    UseKey(Pair),
}

impl Request {
    fn is_of_key(self) -> bool {
        matches!(self, Self::MakeKey | Self::ReplaceKey(..) | Self::RevokeKey(_) | Self::UseKey(_))
    }
}

/// The response to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The gate issued this pair or key.
    Issued(Pair),
    /// The gate accepted the token or key, or acknowledged the end of the session or key.
    Accepted,
    /// The gate rejected the credential.
    Refused,
    /// The outcome is unknown, because of a 503, a lost connection or a missing response.
    InDoubt,
}

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The number of its session in the history.
    pub session: usize,
    /// The number of the gate.
    pub gate: usize,
    pub begin: Moment,
    pub end: Moment,
    pub request: Request,
    pub reply: Reply,
}

impl Operation {
    /// Returns whether this is a refresh whose response contained a pair.
    pub fn is_refreshed(&self) -> bool {
        matches!((self.request, self.reply), (Request::Refresh(_), Reply::Issued(_)))
    }
}

/// A loss of writes in the store. Between these two times, a record may be missing or outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Writes that were acknowledged before this time may be lost.
    pub at: Moment,
    /// The time at which the gates have written back the records that they knew. A record that is missing then
    /// remains missing.
    pub restored: Moment,
}

impl Loss {
    /// Returns whether the gate may have seen the store without the lost writes.
    fn touches(&self, operation: &Operation) -> bool {
        operation.begin < self.restored && operation.end > self.at
    }
}

/// The profile of the sessions. Reissues are not checked, because `lost_response_window` is `"0s"`.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long the predecessor of a pair can be exchanged for the same pair again.
    pub grace: Duration,
    /// The maximum difference between the clocks of the gates.
    pub slack: Duration,
    /// The maximum time until every gate rejects revoked tokens.
    pub staleness: Duration,
    /// Requests that took a gate longer than this are not expected to end a session, because their clients may have
    /// continued at another gate.
    pub held: Duration,
}
