//! The types of events, and what each does here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What an event does here. Nothing un-revokes.
///
/// ```
/// use rotogate::token::{EventEffect, EventEffects, EventKind};
///
/// let effects = EventEffects::default().on(EventKind::DeviceComplianceChange, EventEffect::Refresh);
/// assert_eq!(effects.on_event(EventKind::DeviceComplianceChange), EventEffect::Refresh);
/// assert_eq!(effects.on_event(EventKind::SessionRevoked), EventEffect::End, "a default");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventEffect {
    /// Tokens and sessions of its subject end.
    End,
    /// Access tokens that were issued until then are refused. Our sessions go on: their next token asks the directory.
    Refresh,
    /// A line in the log.
    Log,
}

impl EventEffect {
    /// Its word in the configuration, logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Refresh => "refresh",
            Self::Log => "log",
        }
    }
}

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";
/// Of no security event token.
const OWN: &str = "";

/// Declares the kinds: the start of their URI, the rest of it, and the default.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $base:ident $word:literal $effect:ident;)*) => {
        /// The type of an event of another issuer.
        ///
        /// ```
        /// use rotogate::token::EventKind;
        ///
        /// assert_eq!(EventKind::CredentialChange.word(), "credential-change");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its word in the configuration, logs and metrics: the end of its URI.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            const fn base(self) -> &'static str {
                match self { $(Self::$kind => $base,)* }
            }

            const fn default_effect(self) -> EventEffect {
                match self { $(Self::$kind => EventEffect::$effect,)* }
            }
        }
    };
}

// Requirement S19.
kinds! {
    /// CAEP: a session was revoked.
    SessionRevoked = CAEP "session-revoked" End;
    /// RISC: all sessions of a user were revoked.
    SessionsRevoked = RISC "sessions-revoked" End;
    /// RISC: an account was disabled.
    AccountDisabled = RISC "account-disabled" End;
    /// RISC: an account was deleted.
    AccountPurged = RISC "account-purged" End;
    /// RISC: a credential of the user is known to others.
    CredentialCompromise = RISC "credential-compromise" End;
    /// CAEP: a credential of the user was changed or revoked; a new one alone is logged.
    CredentialChange = CAEP "credential-change" Refresh;
    /// CAEP: the claims of a token changed.
    TokenClaimsChange = CAEP "token-claims-change" Refresh;
    /// CAEP: the login counts for less; a change to more is logged.
    AssuranceLevelChange = CAEP "assurance-level-change" Refresh;
    /// RISC: the user must change a credential.
    AccountCredentialChangeRequired = RISC "account-credential-change-required" Refresh;
    /// CAEP: a device complies no more; a change to `compliant` is logged.
    DeviceComplianceChange = CAEP "device-compliance-change" Log;
    /// CAEP: the risk is rated otherwise; a change to `LOW` is logged.
    RiskLevelChange = CAEP "risk-level-change" Log;
    /// CAEP: a session began.
    SessionEstablished = CAEP "session-established" Log;
    /// CAEP: a session is in use.
    SessionPresented = CAEP "session-presented" Log;
    /// RISC: an account was enabled.
    AccountEnabled = RISC "account-enabled" Log;
    /// RISC: the user has another name.
    IdentifierChanged = RISC "identifier-changed" Log;
    /// RISC: the name belongs to another user now.
    IdentifierRecycled = RISC "identifier-recycled" Log;
    /// SSF: the answer to a request for verification.
    Verification = SSF "verification" Log;
    /// SSF: the transmitter changed the status of the stream.
    StreamUpdated = SSF "stream-updated" Log;
    /// OpenID Connect: a logout token.
    Logout = OWN "backchannel-logout" End;
    /// A request for global token revocation.
    GlobalRevocation = OWN "global-token-revocation" End;
    /// Any other type.
    Other = OWN "other" Log;
}

impl EventKind {
    /// The kind of a URI of `events`.
    pub(super) fn from_uri(uri: &str) -> Self {
        let is_it = |kind: &Self| kind.is_event() && uri.strip_prefix(kind.base()) == Some(kind.word());
        Self::ALL.iter().copied().find(is_it).unwrap_or(Self::Other)
    }

    /// Does a security event token have this type?
    const fn is_event(self) -> bool {
        !self.base().is_empty()
    }

    /// The kinds whose effect can be chosen: those of a stream itself have none.
    pub fn configurable() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kind| kind.is_event() && kind.base() != SSF)
    }

    /// A change for the better, which is logged, whatever the configuration says.
    fn is_harmless(self, event: &Map<String, Value>) -> bool {
        let says = |name: &str, what: &str| event.get(name).and_then(Value::as_str) == Some(what);
        match self {
            Self::CredentialChange => says("change_type", "create"),
            Self::AssuranceLevelChange => says("change_direction", "increase"),
            Self::DeviceComplianceChange => says("current_status", "compliant"),
            Self::RiskLevelChange => says("current_level", "LOW"),
            _ => false,
        }
    }
}

/// What the events of an issuer do: the defaults, and what is configured besides.
///
/// ```
/// use rotogate::token::{EventEffect, EventEffects, EventKind};
///
/// let effects = EventEffects::default().on(EventKind::CredentialChange, EventEffect::End);
/// assert_eq!(effects.on_event(EventKind::CredentialChange), EventEffect::End);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventEffects(BTreeMap<EventKind, EventEffect>);

impl EventEffects {
    /// With another effect of one kind.
    #[must_use]
    pub fn on(mut self, kind: EventKind, effect: EventEffect) -> Self {
        self.0.insert(kind, effect);
        self
    }

    /// The effect of one kind.
    pub fn on_event(&self, kind: EventKind) -> EventEffect {
        self.0.get(&kind).copied().unwrap_or(kind.default_effect())
    }

    /// Those that are not the defaults.
    pub fn chosen(&self) -> impl Iterator<Item = (EventKind, EventEffect)> {
        self.0.iter().map(|(kind, effect)| (*kind, *effect))
    }

    /// The effect of one event.
    pub(super) fn effect(&self, kind: EventKind, event: &Map<String, Value>) -> EventEffect {
        if kind.is_harmless(event) { EventEffect::Log } else { self.on_event(kind) }
    }
}
