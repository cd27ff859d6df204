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
//! A store may [lose](Loss) acknowledged writes, and gates write them back. A session may then be unknown for a while, or
//! for ever. The end of a session may not be lost: an acknowledged logout holds even if the store had lost the session.

mod client;
mod judge;
mod session;

use std::time::Duration;

pub use client::{At, Held, Recorder};
pub use judge::{Rule, Verdict, judge, judge_with_losses};

/// The time since the recorder began.
pub type Moment = Duration;

/// A pair of tokens that a gate issued, by its number in the history: equal bytes, equal number.
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
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The gate issued this pair.
    Issued(Pair),
    /// The token passes; or the end of the session is acknowledged.
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
