//! The events of a gate that an application can follow. [`EventFeed::tell`] also writes the audit trail.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tracing::field::display;
use tracing::{info, warn};

use super::audit::{SessionEvent, TARGET, address};
use super::evidence::{Evidence, LastRefresh};
use super::{Origin, Refresh};
use crate::context::Context;
use crate::denial::{Class, Denial};
use crate::reason::Reason;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::profile::OnReuse;
use crate::session::rotation::Reuse;
use crate::session::{RevokedBecause, Session, SessionId};

const CAPACITY: usize = 1024;

/// An event at this gate.
///
/// ```
/// use rotogate::gate::GateEvent;
///
/// /// A line for the security team.
/// fn line(event: &GateEvent) -> Option<String> {
///     match event {
///         GateEvent::Reuse { session, subject, .. } => Some(format!("{subject}: a stolen refresh token? session {session}")),
///         GateEvent::Ended { target, because, by, .. } => Some(format!("{target:?} ended: {because:?} by {by:?}")),
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
        /// The account of the session, if there is one.
        account: Option<Box<str>>,
        /// The address of the login, if it is known.
        address: Option<IpAddr>,
    },
    /// A login was refused.
    LoginRefused {
        /// The subject, if the directory knows the user. The submitted name is omitted, because users may type a
        /// password there by mistake.
        subject: Option<Box<str>>,
        /// The client.
        client: Box<str>,
        /// The address, if it is known.
        address: Option<IpAddr>,
    },
    /// A superseded refresh token was presented late, so it may have been stolen. Each session that ends because of the
    /// reuse has its own event.
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
    /// The sessions or tokens of a target were revoked.
    Ended {
        /// The target.
        target: Target,
        /// The reason.
        because: RevokedBecause,
        /// The operator or user who revoked the target (`rotogate.actor` in the audit trail). `None` if a client or a
        /// rule caused the revocation, or if the application did not give a name.
        by: Option<Arc<str>>,
    },
    /// A request was refused.
    Refused {
        /// The class of the denial.
        class: Class,
        /// The rule that refused the request.
        reason: Reason,
    },
}

/// Where a revocation is kept until the store accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwedPlace {
    File,
    Memory,
}

pub(super) enum Happening<'a> {
    /// A session began. `name` is the name in the login request.
    Begun { session: &'a Session, name: Option<&'a str>, origin: &'a Origin },
    /// `name_hash` replaces the name, because users may type a password there by mistake.
    LoginRefused {
        subject: Option<&'a str>,
        name_hash: Option<&'a str>,
        account: Option<&'a str>,
        client: &'a str,
        origin: &'a Origin,
    },
    /// A client presented a superseded refresh token too late.
    Reuse { session: &'a Session, reuse: Reuse, evidence: &'a Evidence, refresh: &'a Refresh<'a> },
    /// A revocation, which may not yet be in the store.
    Ended { entry: &'a Revocation, because: RevokedBecause, owed: Option<OwedPlace> },
    /// The store accepted a revocation, which an earlier event already reported.
    Stored { entry: &'a Revocation, because: RevokedBecause },
}

impl Happening<'_> {
    fn log(&self) {
        match *self {
            Self::Begun { session, name, origin } => log_begun(session, name, origin),
            Self::LoginRefused { subject, name_hash, account, client, origin } => warn!(
                target: TARGET,
                event = "login_refused",
                user.id = subject,
                user.name_hash = name_hash,
                rotogate.account = account,
                rotogate.client.id = client,
                client.address = address(origin),
                "login refused",
            ),
            Self::Reuse { session, reuse, evidence, refresh } => log_reuse(session, reuse, evidence, refresh),
            Self::Ended { entry, because, owed } => log_ended(entry, because, owed),
            Self::Stored { entry, because } => log_ended(entry, because, None),
        }
    }

    fn event(&self) -> Option<GateEvent> {
        Some(match *self {
            Self::Begun { session, origin, .. } => GateEvent::Begun {
                session: session.id,
                subject: session.subject.as_ref().into(),
                client: session.client.as_ref().into(),
                account: session.account.as_deref().map(Into::into),
                address: origin.address,
            },
            Self::LoginRefused { subject, client, origin, .. } => GateEvent::LoginRefused {
                subject: subject.map(Into::into),
                client: client.into(),
                address: origin.address,
            },
            Self::Reuse { session, refresh, .. } => GateEvent::Reuse {
                session: session.id,
                subject: session.subject.as_ref().into(),
                client: session.client.as_ref().into(),
                address: refresh.origin.address,
            },
            Self::Ended { entry, because, .. } => {
                let by = Context::current().and_then(|context| context.actor().map(|actor| Arc::clone(&actor.name)));
                GateEvent::Ended { target: entry.target.clone(), because, by }
            }
            Self::Stored { .. } => return None,
        })
    }
}

/// The events of a gate, in order. A slow receiver misses old events once more than 1024 are waiting.
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
    /// Waits for the next event. Returns `None` once the gate has shut down.
    pub async fn next(&mut self) -> Option<GateEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(count)) => self.missed = self.missed.saturating_add(count),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The number of missed events.
    pub const fn missed(&self) -> u64 {
        self.missed
    }
}

/// Without receivers, an event costs one atomic load.
#[derive(Debug, Default)]
pub(super) struct EventFeed {
    sender: OnceLock<Sender<GateEvent>>,
}

impl EventFeed {
    pub(super) fn follow(&self) -> GateEvents {
        GateEvents { receiver: self.sender.get_or_init(|| channel(CAPACITY).0).subscribe(), missed: 0 }
    }

    /// The audit trail gets all events.
    // Requirement O51.
    pub(super) fn tell(&self, happening: &Happening<'_>) {
        happening.log();
        self.send(|| happening.event());
    }

    /// The access log records refused requests, so the audit trail omits them.
    pub(super) fn tell_refused(&self, denial: &Denial) {
        self.send(|| Some(GateEvent::Refused { class: denial.class(), reason: Reason::denied(denial) }));
    }

    fn send(&self, event: impl FnOnce() -> Option<GateEvent>) {
        let Some(sender) = self.sender.get().filter(|sender| sender.receiver_count() > 0) else { return };
        if let Some(event) = event() {
            // Sending fails only without a receiver.
            let _ = sender.send(event);
        }
    }
}

fn log_begun(session: &Session, name: Option<&str>, origin: &Origin) {
    let event = if session.browser.is_some() { SessionEvent::BrowserLogin } else { SessionEvent::Login };
    info!(
        target: TARGET,
        event = event.name(),
        session.id = %session.id,
        user.id = &*session.subject,
        user.name = name,
        rotogate.account = session.account.as_deref(),
        rotogate.client.id = &*session.client,
        rotogate.dialect = &*session.dialect,
        scope = session.scope.as_str(),
        client.address = address(origin),
        user_agent.original = origin.user_agent.as_deref(),
        "login",
    );
}

fn log_reuse(session: &Session, reuse: Reuse, evidence: &Evidence, refresh: &Refresh<'_>) {
    let Refresh { origin, client, profile, .. } = refresh;
    let last = evidence.last.as_deref();
    warn!(
        target: TARGET,
        event = "reuse",
        verdict = evidence.verdict.word(),
        session.id = %session.id,
        user.id = &*session.subject,
        rotogate.client.id = &*client.id,
        rotogate.generation = session.current.get(),
        generations_old = reuse.generations_old,
        superseded_for_ms = reuse.superseded_for.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        client.address = address(origin),
        user_agent.original = origin.user_agent.as_deref(),
        login.time = %session.created().rfc3339(),
        login.address = session.address.map(display),
        login.user_agent = session.user_agent.as_deref(),
        last_refresh.time = %session.issued_at.rfc3339(),
        last_refresh.address = last.and_then(|last| last.origin.address).map(display),
        last_refresh.user_agent = last.and_then(|last| last.origin.user_agent.as_deref()),
        last_refresh.replays = last.map(LastRefresh::replays),
        is_confirmed = session.confirmed,
        confirmed_at = last.and_then(LastRefresh::confirmed_at).map(|at| display(at.rfc3339())),
        same_address_as_login = evidence.same_address_as_login,
        same_user_agent_as_login = evidence.same_user_agent_as_login,
        same_address_as_last_refresh = evidence.same_address_as_last_refresh,
        same_user_agent_as_last_refresh = evidence.same_user_agent_as_last_refresh,
        action = match profile.on_reuse {
            OnReuse::RevokeSession => "revoke-session",
            OnReuse::RevokeSubject => "revoke-subject",
            OnReuse::Deny => "deny",
        },
        "reuse",
    );
}

/// If a revocation is not yet in the store, another line follows once the store accepts it.
fn log_ended(entry: &Revocation, because: RevokedBecause, owed: Option<OwedPlace>) {
    let (effect, not_before) = match entry.effect {
        Effect::Minimum { .. } | Effect::Gone => ("gone", None),
        Effect::NotBefore(moment) => ("not_before", Some(display(moment.rfc3339()))),
        Effect::NotBeforeWithKeys { sessions, .. } => ("not_before_with_keys", Some(display(sessions.rfc3339()))),
    };
    let (kind, issuer, of): (_, Option<&str>, Option<&dyn std::fmt::Display>) = match &entry.target {
        Target::Session(session) => ("session", None, Some(session)),
        Target::Subject { issuer, subject } => ("subject", Some(issuer), Some(subject)),
        Target::Client { issuer, client } => ("client", Some(issuer), Some(client)),
        Target::Global => ("global", None, None),
        Target::Token { issuer, jti } => ("token", Some(issuer), Some(jti)),
    };
    let (because, is_daily) = match because {
        RevokedBecause::Logout => ("logout", true),
        RevokedBecause::Reuse => ("reuse", false),
        RevokedBecause::OtherClient => ("other-client", false),
        RevokedBecause::Operator => ("operator", false),
        RevokedBecause::TooMany => ("too-many", false),
        RevokedBecause::UserChanged => ("user-changed", false),
        RevokedBecause::Restored => ("restored", false),
        RevokedBecause::IssuerLogout => ("issuer-logout", true),
        RevokedBecause::ProviderRefused => ("provider-refused", false),
        RevokedBecause::GlobalRevocation => ("global-revocation", false),
    };
    let of = of.map(display);
    let context = Context::current();
    let actor = context.as_ref().and_then(Context::actor);
    let (owed, outcome) = match owed {
        None => (None, None),
        Some(OwedPlace::File) => (Some("file"), None),
        // The process may end before the revocation reaches the store.
        Some(OwedPlace::Memory) => (Some("memory"), Some("unknown")),
    };
    macro_rules! line {
        ($level:ident) => {
            $level!(
                target: TARGET,
                event = "revocation",
                event.outcome = outcome,
                kind,
                of,
                rotogate.issuer = issuer,
                effect,
                not_before,
                because,
                owed,
                rotogate.actor = actor.map(|actor| &*actor.name),
                rotogate.actor.role = actor.map(|actor| actor.role),
                rotogate.actor.via = actor.map(|actor| actor.via),
                "revocation"
            )
        };
    }
    if is_daily { line!(info) } else { line!(warn) }
}
