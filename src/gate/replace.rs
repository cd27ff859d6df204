//! Replaces keys, rules and bounds of a running gate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[cfg(feature = "relay")]
use super::relay::NextRelay;
use super::{Bounds, BuildError, Gate, GateBuilder, Rates, builder, nodes};
use rotogate_core::token::claims::TokenStyle;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::live_keys::Validity;
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, Verifier};
use rotogate_core::verify_cache::IdentityHeaders;

/// Keys and issuer rules that a gate can switch to: see [`Gate::prepare_keys`].
///
/// ```
/// use std::sync::Arc;
/// use rotogate::Gate;
/// use rotogate::gate::BuildError;
/// use rotogate::token::Keyring;
///
/// /// Goes on with other keys and other rules, or with neither.
/// fn renew(gate: &Gate, keys: Keyring, rules: rotogate::gate::GateBuilder) -> Result<Gate, BuildError> {
///     let keys = gate.prepare_keys(Arc::new(keys), Vec::new())?;
///     let rules = gate.prepare_rules(rules)?;
///     gate.use_keys(keys);
///     Ok(gate.use_rules(rules))
/// }
/// ```
#[derive(Debug)]
pub struct PreparedKeys {
    verifier: Verifier,
    keyring: Arc<Keyring>,
}

/// Rules that a gate can switch to: see [`Gate::prepare_rules`].
///
/// ```
/// use rotogate::Gate;
/// use rotogate::gate::BuildError;
/// use rotogate::route::{Route, RoutePolicy};
///
/// /// The gate with one route. Make the layer of new requests of this one.
/// fn reload(gate: &Gate) -> Result<Gate, BuildError> {
///     let rules = Gate::builder().route(Route::catch_all(RoutePolicy::default()));
///     Ok(gate.use_rules(gate.prepare_rules(rules)?))
/// }
/// ```
#[derive(Debug)]
pub struct PreparedRules {
    pub(super) gate: Gate,
    pub(super) styles: Vec<(Box<str>, TokenStyle)>,
    pub(super) identity: IdentityHeaders,
    #[cfg(feature = "relay")]
    pub(super) relays: Vec<NextRelay>,
    pub(super) rates: Rates,
    pub(super) keep_login_origin: bool,
    pub(super) max_stream: Duration,
}

impl PreparedRules {
    /// The gate with these rules.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Gate {
    /// Replaces the bounds on concurrency and buffers for new requests.
    pub fn set_bounds(&self, bounds: &Bounds) {
        self.0.running.overload.set(bounds);
        self.0.checker.callers().set(bounds.requests_per_caller);
    }

    /// Mints and verifies with other keys, and trusts exactly these issuers, from the next request on. Tokens of an
    /// issuer whose keys and rules stay the same remain in the cache of verified tokens. Tokens of an issuer that is no
    /// longer in `trusted`, or whose rules differ, are refused, and their long-lived connections end within a second.
    /// Routes stay: they name issuers, and accept no other issuer unless its rules say `everywhere`.
    ///
    /// # Errors
    /// No verifier can be made from the keys. The old keys stay in use.
    pub fn set_keys(&self, keyring: Keyring, trusted: Vec<IssuerRules>) -> Result<(), BuildError> {
        self.swap_keys(Arc::new(keyring), trusted).map(drop)
    }

    /// [`Self::set_keys`] that also returns whether keys or rules differ.
    ///
    /// # Errors
    /// As [`Self::set_keys`].
    pub fn swap_keys(&self, keyring: Arc<Keyring>, trusted: Vec<IssuerRules>) -> Result<bool, BuildError> {
        Ok(self.use_keys(self.prepare_keys(keyring, trusted)?))
    }

    /// The part of [`Self::swap_keys`] that can fail. Changes nothing.
    ///
    /// # Errors
    /// As [`Self::set_keys`].
    pub fn prepare_keys(&self, keyring: Arc<Keyring>, trusted: Vec<IssuerRules>) -> Result<PreparedKeys, BuildError> {
        if self.0.checker.asserts() {
            builder::assertion(&keyring)?;
        }
        let verifier = builder::verifier(self.own_rules(&keyring), trusted)?;
        Ok(PreparedKeys { verifier, keyring })
    }

    /// The rules for this gate's own tokens, if it is an issuer.
    fn own_rules(&self, keyring: &Keyring) -> Option<IssuerRules> {
        self.0.running.is_issuer.then(|| builder::own_rules(&self.0.engine, keyring, self.0.leeway))
    }

    /// Mints and verifies with the prepared keys: the part of [`Self::swap_keys`] that cannot fail. Returns whether
    /// keys or rules differ.
    pub fn use_keys(&self, PreparedKeys { verifier, keyring }: PreparedKeys) -> bool {
        // The verifier is replaced first, because otherwise the gate could mint a token that it refuses.
        let other = self.0.checker.set_verifier(verifier);
        #[cfg(feature = "relay")]
        self.0.running.relays.iter().for_each(|relay| relay.set_keyring(&keyring));
        if keyring.fingerprint() != *self.0.running.row.get().keyring {
            nodes::keys::say(&self.0.running.row, &keyring, self.0.engine.clock().now());
        }
        self.0.engine.set_keyring(keyring);
        other
    }

    /// This gate with the rules of a builder: its routes, clients, endpoints with the settings of their relays, profile,
    /// hosts, trusted proxies, CORS origins, identity headers, rates and bound of bodies. All other state stays this gate's and is shared with it;
    /// other values of the builder are ignored. Changes nothing.
    ///
    /// # Errors
    /// As [`GateBuilder::build`]. An endpoint with a relay must already have one in the running gate.
    pub fn prepare_rules(&self, builder: GateBuilder) -> Result<PreparedRules, BuildError> {
        builder.prepare_rules(self)
    }

    /// Puts the prepared rules in force, and returns the gate with them, for a server to replace its services. Requests
    /// that a service of this gate has admitted continue under its rules. Call it once for a gate: later rules are for
    /// the gate that this returns.
    pub fn use_rules(&self, prepared: PreparedRules) -> Self {
        let PreparedRules {
            gate,
            styles,
            identity,
            #[cfg(feature = "relay")]
            relays,
            rates,
            keep_login_origin,
            max_stream,
        } = prepared;
        // Put the rules in force first: from then on, each of the two gates strips the identity headers of both gates.
        self.0.running.put_in_force(&gate.0);
        self.0.is_replaced.store(true, Ordering::Release);
        self.0.engine.set_styles(styles);
        self.0.engine.set_keep_login_origin(keep_login_origin);
        self.0.engine.limits().set_rates(rates);
        gate.0.limits.put_in_force(gate.0.engine.limits());
        self.0.leases.set_max_stream(max_stream);
        self.0.checker.set_identity(identity);
        self.0.running.decisions.forget_all();
        #[cfg(feature = "relay")]
        relays.into_iter().for_each(|(relay, config)| relay.replace(config, &self.keyring()));
        self.0.running.clients.store(Arc::new(gate.0.clients.ids()));
        gate
    }

    /// Replaces the keys of one trusted issuer from the next request on: for an application that fetches them itself. A
    /// token whose key was removed is refused, and its long-lived connections end within a second. Own tokens, other
    /// issuers and the tokens of the remaining keys stay in the cache. Equal keys change nothing.
    ///
    /// To build the gate before the first keys are known, use
    /// [`IssuerKeys::unknown`](rotogate_core::token::IssuerKeys::unknown): until then the issuer's tokens are answered
    /// with 503 and `Retry-After`.
    ///
    /// ```
    /// use rotogate::gate::{BuildError, Gate};
    /// use rotogate::token::IssuerKeys;
    ///
    /// /// Called with each JWK set that the application fetched.
    /// fn renew(gate: &Gate, jwks: &[u8]) -> Result<(), BuildError> {
    ///     gate.set_trusted("partner", IssuerKeys::from_jwks(jwks, None)?)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`BuildError::UnknownIssuer`]: no trusted issuer has this name.
    pub fn set_trusted(&self, name: &str, keys: IssuerKeys) -> Result<(), BuildError> {
        let live = self.0.checker.keys_of(name).ok_or_else(|| BuildError::UnknownIssuer(name.to_owned()))?;
        live.set(keys, Validity::ENDLESS);
        Ok(())
    }
}
