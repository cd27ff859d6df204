//! The requests and answers of clients of several gates, and a check that some order explains them.
//!
//! A [`Recorder`] notes the begin and the end of each operation of each client by one monotonic clock. [`judge`]
//! searches, session by session, for an order of the operations in which every answer is right. If one operation ended
//! before another began, the order keeps them so. An operation with an unknown outcome may have happened at any later
//! time, or never. This is the search for linearizability by Wing and Gong, with Lowe's memory of visited states, as in
//! porcupine.
//!
//! Requests with an access token are judged by time bounds instead, because gates learn of revocations with a delay.
//!
//! An API key is a session of its own in a history, without refreshes: it is made, replaced, revoked, and used.
//!
//! A store may [lose](Loss) what it had acknowledged, and be given it back. Then a session may be unknown for a while, or
//! for good. Its end may not: an acknowledged logout holds, whether or not the store had the session.

mod client;
mod judge;
mod keys;
mod session;

use std::time::Duration;

pub use client::{At, Held, Recorder};
pub use judge::{Rule, Verdict, judge, judge_with_losses};

/// How long an API key lives.
pub const KEY_LIFETIME: Duration = Duration::from_secs(60);

/// Since the recorder began.
pub type Moment = Duration;

/// A pair of tokens, or an API key, that a gate issued, by its number in the history: equal bytes, equal number.
pub type Pair = usize;

/// The request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A login.
    LogIn,
    /// A refresh with the refresh token of a pair.
    Refresh(Pair),
    /// A revocation of the refresh token of a pair, and so of the session.
    LogOut(Pair),
    /// A request with the access token of a pair.
    Access(Pair),
    /// It made an API key.
    MakeKey,
    /// It replaced a key, which lives on for so long.
    ReplaceKey(Pair, Duration),
    /// It revoked a key.
    RevokeKey(Pair),
    /// It sent a request with a key.
    UseKey(Pair),
}

impl Request {
    fn is_of_key(self) -> bool {
        matches!(self, Self::MakeKey | Self::ReplaceKey(..) | Self::RevokeKey(_) | Self::UseKey(_))
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This pair, or this key.
    Issued(Pair),
    /// The token or the key passes; or the end of the session or of the key is acknowledged.
    Accepted,
    /// The gate refused the credential.
    Refused,
    /// 503, a connection that ended, or no answer: the outcome is unknown.
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
    /// A refresh that was answered with a pair.
    pub fn is_refreshed(&self) -> bool {
        matches!((self.request, self.reply), (Request::Refresh(_), Reply::Issued(_)))
    }
}

/// The store lost writes: between these moments a record may be missing or old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Writes that were acknowledged before this moment may be lost.
    pub at: Moment,
    /// The gates have written back the records that they knew. A record that is missing now stays missing.
    pub restored: Moment,
}

impl Loss {
    /// May the gate have seen the store without the lost writes?
    fn touches(&self, operation: &Operation) -> bool {
        operation.begin < self.restored && operation.end > self.at
    }
}

/// The profile of the sessions. Reissues are not judged: `lost_response_window` is `"0s"`.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long the predecessor of a pair is exchanged for the same pair again.
    pub grace: Duration,
    /// The greatest difference between the clocks of the gates.
    pub slack: Duration,
    /// The time after which every gate refuses revoked tokens.
    pub staleness: Duration,
    /// Requests that a gate held for longer are not expected to end a session: their clients may have continued at
    /// another gate.
    pub held: Duration,
}
