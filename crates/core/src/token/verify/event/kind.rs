//! The types of events, and the effect of each type at this gate.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The effect of an event at this gate. No event reverts a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventEffect {
    /// The event ends tokens and sessions of its subject.
    End,
    /// Access tokens that are older than the event are refused. The gate's sessions continue, and their next refresh
    /// queries the directory.
    Refresh,
    /// The event is only logged.
    Log,
}

impl EventEffect {
    /// The name of the effect in the configuration, logs and metrics.
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
/// The placeholder for the start of the URI, for kinds that are not security event tokens.
const OWN: &str = "";

/// Declares each kind with the start of its URI, the rest of its URI, and its default effect.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $base:ident $word:literal $effect:ident;)*) => {
        /// The type of an event that another issuer reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// All types of events.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name of the kind in the configuration, logs and metrics. It is the end of the event's URI.
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
    /// RISC: a credential of the user was compromised.
    CredentialCompromise = RISC "credential-compromise" End;
    /// CAEP: a credential of the user was changed or revoked. If a credential was created, the event is only logged.
    CredentialChange = CAEP "credential-change" Refresh;
    /// CAEP: the claims of a token changed.
    TokenClaimsChange = CAEP "token-claims-change" Refresh;
    /// CAEP: the assurance level of the login decreased. If it increased, the event is only logged.
    AssuranceLevelChange = CAEP "assurance-level-change" Refresh;
    /// RISC: the user must change a credential.
    AccountCredentialChangeRequired = RISC "account-credential-change-required" Refresh;
    /// CAEP: a device is no longer compliant. If it became compliant, the event is only logged.
    DeviceComplianceChange = CAEP "device-compliance-change" Log;
    /// CAEP: the risk level changed. If it changed to `LOW`, the event is only logged.
    RiskLevelChange = CAEP "risk-level-change" Log;
    /// CAEP: a session began.
    SessionEstablished = CAEP "session-established" Log;
    /// CAEP: a session is in use.
    SessionPresented = CAEP "session-presented" Log;
    /// RISC: an account was enabled.
    AccountEnabled = RISC "account-enabled" Log;
    /// RISC: the user's identifier changed.
    IdentifierChanged = RISC "identifier-changed" Log;
    /// RISC: the identifier now belongs to another user.
    IdentifierRecycled = RISC "identifier-recycled" Log;
    /// SSF: the response to a verification request.
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
    /// The kind of event that a URI in `events` names.
    pub(super) fn from_uri(uri: &str) -> Self {
        let is_it = |kind: &Self| kind.is_event() && uri.strip_prefix(kind.base()) == Some(kind.word());
        Self::ALL.iter().copied().find(is_it).unwrap_or(Self::Other)
    }

    /// Returns whether an event of this kind that ends a user also ends the user's API keys. This is the case if the
    /// user no longer has an account, or if the issuer requests the end of all tokens and sessions.
    pub(crate) const fn ends_keys(self) -> bool {
        matches!(self, Self::AccountDisabled | Self::AccountPurged | Self::GlobalRevocation)
    }

    /// Returns whether a security event token can have this type.
    const fn is_event(self) -> bool {
        !self.base().is_empty()
    }

    /// The kinds whose effect can be configured. Events about a stream have no effect.
    pub fn configurable() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kind| kind.is_event() && kind.base() != SSF)
    }

    /// Returns whether the event reports an improvement, such as a higher assurance level. Such an event is only
    /// logged, whatever effect is configured.
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

/// The effects of an issuer's events: the defaults, and the exceptions from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventEffects(BTreeMap<EventKind, EventEffect>);

impl EventEffects {
    /// Sets the effect of one kind of event.
    #[must_use]
    pub fn on(mut self, kind: EventKind, effect: EventEffect) -> Self {
        self.0.insert(kind, effect);
        self
    }

    /// The effect of one kind.
    pub fn on_event(&self, kind: EventKind) -> EventEffect {
        self.0.get(&kind).copied().unwrap_or(kind.default_effect())
    }

    /// The effects that differ from the defaults.
    pub fn chosen(&self) -> impl Iterator<Item = (EventKind, EventEffect)> {
        self.0.iter().map(|(kind, effect)| (*kind, *effect))
    }

    /// The effect of one event.
    pub(super) fn effect(&self, kind: EventKind, event: &Map<String, Value>) -> EventEffect {
        if kind.is_harmless(event) { EventEffect::Log } else { self.on_event(kind) }
    }
}
