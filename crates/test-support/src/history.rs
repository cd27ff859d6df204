//! What clients of several gates asked and were told, and whether that can be explained.
//!
//! A [`Recorder`] notes each operation of each client with its begin and end by one monotonic clock. [`judge`] looks for
//! one order of them, session by session, in which every answer is right: it keeps the order of operations of which one
//! had ended before the other began, and takes those whose outcome is unknown for done at any time since, or never. This
//! is linearizability as Wing and Gong search for it, with Lowe's memory of the states seen: the method of porcupine.
//!
//! What is asked with an access token is judged by bounds instead: gates know of revocations a little later.
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

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It logged in.
    LogIn,
    /// It presented the refresh token of a pair.
    Refresh(Pair),
    /// It revoked the refresh token of a pair, and so the session.
    LogOut(Pair),
    /// It sent a request with the access token of a pair.
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

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This pair, or this key.
    Issued(Pair),
    /// The token or the key passes; or the end of the session or of the key is acknowledged.
    Accepted,
    /// The credential is not good.
    Refused,
    /// 503, a connection that ended, or no answer: done or not.
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
    /// What was acknowledged before may be gone.
    pub at: Moment,
    /// The gates have written back what they knew. What is missing now stays so.
    pub restored: Moment,
}

impl Loss {
    /// Did the gate see the store without what it lost?
    fn touches(&self, operation: &Operation) -> bool {
        operation.begin < self.restored && operation.end > self.at
    }
}

/// The profile of the sessions. Reissues are not judged: `lost_response_window` is `"0s"`.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long the predecessor of a pair is exchanged for the same pair again.
    pub grace: Duration,
    /// How much the gates' time may be off from each other.
    pub slack: Duration,
    /// After how long every gate refuses what was revoked.
    pub staleness: Duration,
    /// Requests that a gate held for longer end no session: their clients may have gone on elsewhere.
    pub held: Duration,
}
