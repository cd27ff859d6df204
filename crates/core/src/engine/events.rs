//! The events of a gate that an application may follow: sessions that begin and end, reuse, refusals.

use std::net::IpAddr;
use std::sync::OnceLock;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use crate::denial::Class;
use crate::reason::Reason;
use crate::revocation::Target;
use crate::session::{RevokedBecause, Session, SessionId};

/// How many events may wait for a receiver.
const CAPACITY: usize = 1024;

/// An event at this gate. Events at other gates of the store are not included.
///
/// ```
/// use rotogate::gate::GateEvent;
///
/// /// A line for the security team.
/// fn line(event: &GateEvent) -> Option<String> {
///     match event {
///         GateEvent::Reuse { session, subject, .. } => Some(format!("{subject}: a stolen refresh token? session {session}")),
///         GateEvent::Ended { target, because } => Some(format!("{target:?} ended: {because:?}")),
///         _ => None,
///     }
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GateEvent {
    /// A session began.
    Begun {
        /// The id of the session.
        session: SessionId,
        /// The `sub` of the session's user.
        subject: Box<str>,
        /// The client of the session.
        client: Box<str>,
        /// The account of the session, if the session has an account.
        account: Option<Box<str>>,
        /// The address of the login, if it is known.
        address: Option<IpAddr>,
    },
    /// A login was refused: unknown user, wrong password, or disabled.
    LoginRefused {
        /// The subject, if the directory knows the user. The event does not contain the submitted name, because people
        /// type passwords into the name field.
        subject: Option<Box<str>>,
        /// The client.
        client: Box<str>,
        /// The address, if it is known.
        address: Option<IpAddr>,
    },
    /// A superseded refresh token was presented too late to be a retry: it may be stolen. The sessions that end because
    /// of it have events of their own.
    Reuse {
        /// The session.
        session: SessionId,
        /// The user of the session.
        subject: Box<str>,
        /// The client of the session.
        client: Box<str>,
        /// The address of the presenter, if it is known.
        address: Option<IpAddr>,
    },
    /// A session ended, or all of a subject, of a client, or of the gate; or a token was revoked.
    Ended {
        /// The ended session, subject or client.
        target: Target,
        /// The reason, and the actor.
        because: RevokedBecause,
    },
    /// A request was refused before it reached the service.
    Refused {
        /// The class, which is all that the client learned.
        class: Class,
        /// The rule, by its name in the log.
        reason: Reason,
    },
}

impl GateEvent {
    /// A session began.
    pub(super) fn begun(session: &Session, address: Option<IpAddr>) -> Self {
        Self::Begun {
            session: session.id,
            subject: session.subject.as_ref().into(),
            client: session.client.as_ref().into(),
            account: session.account.as_deref().map(Into::into),
            address,
        }
    }

    /// A refresh token of this session was presented too late.
    pub(super) fn reuse(session: &Session, address: Option<IpAddr>) -> Self {
        let (subject, client) = (session.subject.as_ref().into(), session.client.as_ref().into());
        Self::Reuse { session: session.id, subject, client, address }
    }
}

/// The events of a gate, in order. At most 1024 events wait for their receiver. A slower receiver misses the oldest
/// events, and counts them.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let mut events = gate.events();
/// gate.sessions().start(NewSession::new("ada", "web")).await?;
/// let event = events.next().await;
/// assert!(matches!(event, Some(rotogate::gate::GateEvent::Begun { subject, .. }) if &*subject == "ada"));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct GateEvents {
    receiver: Receiver<GateEvent>,
    missed: u64,
}

impl GateEvents {
    /// The next event. `None` once the gate has ended.
    pub async fn next(&mut self) -> Option<GateEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(count)) => self.missed = self.missed.saturating_add(count),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The number of events that were missed because the receiver was too slow.
    pub const fn missed(&self) -> u64 {
        self.missed
    }
}

/// Sends events to all receivers. Without a receiver, an event costs one atomic load.
#[derive(Debug, Default)]
pub(super) struct EventFeed {
    sender: OnceLock<Sender<GateEvent>>,
}

impl EventFeed {
    pub(super) fn follow(&self) -> GateEvents {
        GateEvents { receiver: self.sender.get_or_init(|| channel(CAPACITY).0).subscribe(), missed: 0 }
    }

    pub(super) fn tell(&self, event: impl FnOnce() -> GateEvent) {
        if let Some(sender) = self.sender.get().filter(|sender| sender.receiver_count() > 0) {
            // An error means that the last receiver was just dropped.
            let _ = sender.send(event());
        }
    }
}
