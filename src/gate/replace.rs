use std::sync::Arc;
use std::time::Duration;

use super::relay::NextRelay;
use super::{Bounds, BuildError, Gate, Rates, builder, nodes};
use rotogate_core::token::claims::TokenStyle;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::live_keys::Validity;
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, Verifier};
use rotogate_core::verify_cache::IdentityHeaders;

/// Keys and issuer rules for [`Gate::set_keys`].
#[derive(Debug)]
pub struct PreparedKeys {
    verifier: Verifier,
    keyring: Arc<Keyring>,
}

/// Rules from [`Gate::prepare_rules`].
#[derive(Debug)]
pub struct PreparedRules {
    pub(super) gate: Gate,
    pub(super) styles: Vec<(Box<str>, TokenStyle)>,
    pub(super) identity: IdentityHeaders,
    pub(super) relays: Vec<NextRelay>,
    pub(super) rates: Rates,
    pub(super) keep_login_origin: bool,
    pub(super) max_stream: Duration,
}

impl PreparedKeys {
    /// Performs the part of [`Gate::set_keys`] that can fail, without changing the gate.
    ///
    /// # Errors
    /// See [`Gate::set_keys`].
    pub fn new(gate: &Gate, keyring: Arc<Keyring>, trusted: Vec<IssuerRules>) -> Result<Self, BuildError> {
        if gate.0.checker.asserts() {
            builder::assertion(&keyring)?;
        }
        let verifier = builder::verifier(gate.own_rules(&keyring), trusted)?;
        Ok(Self { verifier, keyring })
    }

    /// Performs the part of [`Gate::set_keys`] that cannot fail. Returns whether keys or rules have changed.
    pub fn put_in_force(self, Gate(gate): &Gate) -> bool {
        let Self { verifier, keyring } = self;
        gate.engine.set_sources(Arc::clone(verifier.sources()));
        // The verifier comes before the signer, because otherwise the gate could mint a token that it refuses.
        let other = gate.checker.set_verifier(verifier);
        gate.running.relays.iter().for_each(|relay| relay.set_keyring(&keyring));
        if keyring.fingerprint() != *gate.running.row.get().keyring {
            nodes::keys::say(&gate.running.row, &keyring, gate.engine.clock().now());
        }
        gate.engine.set_keyring(keyring);
        other
    }
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

    /// Replaces the keys and the trusted issuers from the next request on. If an issuer keeps its keys and rules, its
    /// tokens stay in the cache of verified tokens. If an issuer's rules change, or the issuer is removed, its tokens
    /// are refused. Its long-lived connections end within a second. Routes do not change. To change only the gate's own
    /// keys, call [`Gate::set_keyring`].
    ///
    /// # Errors
    /// Fails if the keys cannot be used. The old keys then stay in use.
    pub fn set_keys(&self, keyring: Keyring, mut trusted: Vec<IssuerRules>) -> Result<(), BuildError> {
        let provider = self.0.browser.as_ref().and_then(|browser| browser.issuer());
        builder::sources(&mut trusted, provider, self.0.clients.all(), self.0.engine.has_users())?;
        PreparedKeys::new(self, Arc::new(keyring), trusted)?.put_in_force(self);
        Ok(())
    }

    /// Rotates the gate's own keys from the next request on. The trusted issuers stay the same. Keep the previous key
    /// in the new keyring, so that tokens with this key stay valid until they expire.
    ///
    /// ```
    /// use rotogate::Gate;
    /// use rotogate::gate::BuildError;
    /// use rotogate::token::Keyring;
    ///
    /// /// Called when the application has reloaded its keys.
    /// fn rotate(gate: &Gate, keys: Keyring) -> Result<(), BuildError> {
    ///     gate.set_keyring(keys)
    /// }
    /// ```
    ///
    /// # Errors
    /// Fails if the keys cannot be used. The old keys then stay in use.
    pub fn set_keyring(&self, keyring: Keyring) -> Result<(), BuildError> {
        self.set_keys(keyring, self.0.checker.trusted())
    }

    fn own_rules(&self, keyring: &Keyring) -> Option<IssuerRules> {
        self.0.running.is_issuer.then(|| builder::own_rules(&self.0.engine, keyring, self.0.leeway))
    }

    /// Prepares new rules from a builder. The rules are its routes, clients, endpoints, relay settings, profile, hosts,
    /// trusted proxies, CORS origins, identity headers, rates and body limit. All other values of the builder are
    /// ignored. Does not change this gate.
    ///
    /// # Errors
    /// See [`GateBuilder::build`](super::GateBuilder::build). An endpoint can have a relay only if it already has one
    /// in the running gate.
    #[doc(hidden)]
    pub fn prepare_rules(&self, builder: super::GateBuilder) -> Result<PreparedRules, BuildError> {
        builder.prepare_rules(self)
    }

    /// Applies the prepared rules, and returns the gate with these rules. Requests that are already admitted continue
    /// under the old rules. Call this method once per gate, and apply later rules to the returned gate.
    #[doc(hidden)]
    pub fn use_rules(&self, prepared: PreparedRules) -> Self {
        let PreparedRules { gate, styles, identity, relays, rates, keep_login_origin, max_stream } = prepared;
        // This step comes first. From now on, the old gate and the new gate each remove the identity headers of both
        // gates.
        self.0.running.put_in_force(&gate.0);
        self.0.is_replaced.store(true, std::sync::atomic::Ordering::Release);
        self.0.engine.set_styles(styles);
        self.0.engine.set_keep_login_origin(keep_login_origin);
        self.0.engine.limits().set_rates(rates);
        gate.0.limits.put_in_force();
        self.0.leases.set_max_stream(max_stream);
        self.0.checker.set_identity(identity);
        relays.into_iter().for_each(|(relay, config)| relay.replace(config, &self.0.engine));
        self.0.running.clients.store(Arc::new(gate.0.clients.ids()));
        gate
    }

    /// Replaces the keys of one trusted issuer from the next request on. For applications that fetch the keys
    /// themselves. A token whose key was removed is refused, and its long-lived connections end within a second. Other
    /// tokens stay in the cache.
    ///
    /// To build the gate before the keys are known, use
    /// [`IssuerKeys::unknown`](rotogate_core::token::IssuerKeys::unknown). Requests with the issuer's tokens then get
    /// 503 with `Retry-After`.
    ///
    /// ```
    /// use rotogate::{Gate, gate::BuildError};
    /// use rotogate::token::IssuerKeys;
    ///
    /// /// Called with each JWK set that the application fetched.
    /// fn renew(gate: &Gate, jwks: &[u8]) -> Result<(), BuildError> {
    ///     gate.set_trusted("partner", IssuerKeys::from_jwks(jwks, None)?)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`BuildError::UnknownIssuer`] if no trusted issuer has this name.
    pub fn set_trusted(&self, name: &str, keys: IssuerKeys) -> Result<(), BuildError> {
        let live = self.0.checker.keys_of(name).ok_or_else(|| BuildError::UnknownIssuer(name.to_owned()))?;
        live.set(keys, Validity::ENDLESS);
        Ok(())
    }
}
