//! The types of events and their default effects.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The effect of an event at this gate. An event never reverts a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventEffect {
    /// The event revokes the tokens and sessions of its subject.
    End,
    /// Access tokens older than the event are refused. Sessions continue, and their next refresh queries the directory.
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
/// Kinds without a URI, which are not security event tokens.
const OWN: &str = "";

/// Takes the URI prefix, the URI suffix and the default effect for each kind.
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

            /// The name of the kind in the configuration, logs and metrics: the last part of the event's URI.
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
    /// CAEP: the assurance level of the login decreased. An increase is only logged.
    AssuranceLevelChange = CAEP "assurance-level-change" Refresh;
    /// RISC: the user must change a credential.
    AccountCredentialChangeRequired = RISC "account-credential-change-required" Refresh;
    /// CAEP: a device is no longer compliant. If the device became compliant, the event is only logged.
    DeviceComplianceChange = CAEP "device-compliance-change" Log;
    /// CAEP: the risk level changed. A change to `LOW` is only logged.
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
    pub(super) fn from_uri(uri: &str) -> Self {
        let is_it = |kind: &Self| kind.is_event() && uri.strip_prefix(kind.base()) == Some(kind.word());
        Self::ALL.iter().copied().find(is_it).unwrap_or(Self::Other)
    }

    /// Returns whether an event of this kind also revokes the user's API keys.
    pub(crate) const fn ends_keys(self) -> bool {
        matches!(self, Self::AccountDisabled | Self::AccountPurged | Self::GlobalRevocation)
    }

    const fn is_event(self) -> bool {
        !self.base().is_empty()
    }

    /// The kinds whose effect can be configured. Events about a stream have no effect.
    pub fn configurable() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kind| kind.is_event() && kind.base() != SSF)
    }

    /// Returns whether the event reports an improvement. Improvements are only logged, regardless of the configured
    /// effect.
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

/// The effect of each kind of event from one issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventEffects(BTreeMap<EventKind, EventEffect>);

impl EventEffects {
    /// Sets the effect of one kind of event.
    #[must_use]
    pub fn on(mut self, kind: EventKind, effect: EventEffect) -> Self {
        self.0.insert(kind, effect);
        self
    }

    /// Returns the effect of events of this kind.
    pub fn on_event(&self, kind: EventKind) -> EventEffect {
        self.0.get(&kind).copied().unwrap_or(kind.default_effect())
    }

    /// The kinds whose effect differs from the default.
    pub fn chosen(&self) -> impl Iterator<Item = (EventKind, EventEffect)> {
        self.0.iter().map(|(kind, effect)| (*kind, *effect))
    }

    pub(super) fn effect(&self, kind: EventKind, event: &Map<String, Value>) -> EventEffect {
        if kind.is_harmless(event) { EventEffect::Log } else { self.on_event(kind) }
    }
}
