//! Exchanges tokens for upstreams, after the gate has permitted the request. The upstream gets the exchanged token
//! instead of the caller's token.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::Inner;
use super::browser_request::token_for_service;
use rotogate_core::clock::Timestamp;
use rotogate_core::counters::{ResultCounts, Seldom};
use rotogate_core::denial::Denial;
use rotogate_core::exchange::{ExchangeFault, ExchangedToken, UpstreamExchange};
use rotogate_core::flight::{Flight, Flights};
use rotogate_core::network::Holder;
use rotogate_core::policy::{Owing, Permit, Permitted};
use rotogate_core::random::process_digest;
use rotogate_core::route::Route;
use rotogate_core::token::claims::AccessToken;
use rotogate_core::verify_cache::Verified;

mod ask;
mod sweep;
mod table;

use ask::ProviderPauses;
use table::{Entry, EntryKey, Table};

/// The maximum number of requests to one provider that are in progress or queued.
const MAX_PLACES: usize = 256;
/// The maximum number of slots that one caller may use once half of a provider's slots are taken.
const MAX_OF_CALLER: usize = 16;
/// The delay before the next attempt, unless the provider states one.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(in crate::gate) struct ExchangeRefusal {
    pub(in crate::gate) denial: Denial,
    challenge: Option<HeaderValue>,
}

impl From<Denial> for ExchangeRefusal {
    fn from(denial: Denial) -> Self {
        Self { denial, challenge: None }
    }
}

type ExchangeAnswer = Result<HeaderValue, ExchangeRefusal>;

type Exchanging<'a> = (&'a Arc<UpstreamExchange>, &'a Arc<Verified>);

#[derive(Clone)]
struct Exchanged(HeaderValue);

#[derive(Clone)]
pub(in crate::gate) struct ClaimsChallenge(HeaderValue);

impl ClaimsChallenge {
    pub(in crate::gate) fn state(parts: &http::request::Parts, reply: &mut rotogate_core::reply::Reply) {
        if let Some(Self(challenge)) = parts.extensions.get() {
            reply.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge.clone());
        }
    }
}

#[derive(Default)]
pub(in crate::gate) struct Exchanges {
    state: Mutex<ExchangeState>,
    flights: Flights<EntryKey, ExchangeAnswer>,
    pub(in crate::gate) results: ResultCounts,
}

#[derive(Default)]
struct ExchangeState {
    table: Table<Arc<Verified>>,
    places: HashMap<Arc<str>, usize>,
    of_callers: HashMap<Holder, usize>,
    /// When to retry, for each upstream whose provider refused the gate's credentials.
    quiet: HashMap<Arc<str>, Timestamp>,
    pauses: ProviderPauses,
    not_granted: Seldom,
    swept: Timestamp,
}

impl ExchangeState {
    /// Takes a slot for a request to the provider.
    ///
    /// # Errors
    /// All slots are taken. A caller without competitors may take more slots than the limit for each caller.
    // Requirement D13.
    fn take_place(&mut self, gate: &Arc<Inner>, provider: &Arc<str>, holder: Holder) -> Result<Place, Denial> {
        let taken = self.places.get(provider).copied().unwrap_or_default();
        let of_caller = self.of_callers.get(&holder).copied().unwrap_or_default();
        if taken >= MAX_PLACES || (of_caller >= MAX_OF_CALLER && taken >= MAX_PLACES / 2) {
            return Err(UNAVAILABLE);
        }
        *self.places.entry(Arc::clone(provider)).or_default() += 1;
        *self.of_callers.entry(holder).or_default() += 1;
        Ok(Place { gate: Arc::clone(gate), provider: Arc::clone(provider), holder })
    }
}

rotogate_core::debug_with!(Exchanges);

struct Place {
    gate: Arc<Inner>,
    provider: Arc<str>,
    holder: Holder,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.running.exchanges.state.lock();
        leave(&mut state.places, &self.provider);
        leave(&mut state.of_callers, &self.holder);
    }
}

fn leave<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

const UNAVAILABLE: Denial = Denial::ExchangeUnavailable(TRY_AGAIN);

fn paused_for(left: Duration) -> Denial {
    Denial::ExchangeUnavailable(left.max(TRY_AGAIN))
}

/// The key depends on the caller, the issuer, the upstream and its settings.
fn key_of(exchange: &UpstreamExchange, caller: &Verified) -> Option<EntryKey> {
    let digest = |token: &AccessToken| process_digest(&[token.issuer().as_bytes(), token.expose().as_bytes()]);
    Some(EntryKey { exchange: *exchange.tag(), token: caller.digest(digest)? })
}

/// A token without a session is identified by its subject.
fn session_of(token: &AccessToken) -> Box<[u8]> {
    let (kind, of) = match (&token.session, token.issuer_session()) {
        (Some((session, _)), _) => (2, &session.as_bytes()[..]),
        (None, Some(session)) => (1, session.as_bytes()),
        (None, None) => (0, token.token_subject().as_bytes()),
    };
    [token.issuer().as_bytes(), &[0, kind], of].concat().into()
}

/// The header's bytes are zeroised when the header is dropped.
fn header(token: &ExchangedToken) -> Option<HeaderValue> {
    let text = Zeroizing::new([b"Bearer ", token.token.as_bytes()].concat());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the exchanged token or the session's access token, for the service behind the gate.
///
/// # Errors
/// Without the token, the request is not forwarded.
// Requirement D11.
pub(in crate::gate) fn token_for_upstream(
    gate: &Arc<Inner>,
    parts: &mut Parts,
    permitted: &Permitted,
) -> Result<Option<HeaderValue>, Denial> {
    if let Some(token) = gate.exchanged_token(permitted, &mut parts.extensions)? {
        return Ok(Some(token));
    }
    let policy = &permitted.route().policy;
    permitted.caller().map(|caller| token_for_service(gate, parts, policy, caller)).transpose().map(Option::flatten)
}

impl Exchanges {
    fn find(&self, key: &EntryKey, now: Timestamp) -> Option<ExchangeAnswer> {
        self.state.lock().table.find(key, now).map(|entry| entry.answer(|| now))
    }

    pub(in crate::gate) fn drop_entry(&self, exchange: &UpstreamExchange, caller: &Verified) {
        if let Some(key) = key_of(exchange, caller) {
            self.state.lock().table.remove(&key);
        }
    }

    /// Each exchange has its own slot, because it may outlive the client's connection.
    // Requirements D13 and D16.
    fn join(
        &self,
        gate: &Arc<Inner>,
        exchanging: Exchanging<'_>,
        key: EntryKey,
    ) -> Result<(Option<Place>, Flight<ExchangeAnswer>), Denial> {
        let mut state = self.state.lock();
        let (exchange, caller) = exchanging;
        match self.flights.get(&key) {
            Some(flight) => Ok((Some(state.take_place(gate, &exchange.provider, caller.holder())?), flight)),
            None => Ok((None, self.begin(&mut state, gate, exchanging, key)?)),
        }
    }

    fn begin(
        &self,
        state: &mut ExchangeState,
        gate: &Arc<Inner>,
        (exchange, caller): Exchanging<'_>,
        key: EntryKey,
    ) -> Result<Flight<ExchangeAnswer>, Denial> {
        self.flights.join(key, &Handle::current(), || {
            let now = gate.engine.clock().now();
            if state.quiet.get(&exchange.upstream).is_some_and(|until| now < *until) {
                return Err(UNAVAILABLE);
            }
            let pauses = state.pauses.of_exchange(exchange);
            // Check the pause before taking a slot, because dropping a slot here would deadlock.
            pauses.admit(caller.holder(), gate.engine.clock().source().monotonic()).map_err(paused_for)?;
            let place = state.take_place(gate, &exchange.provider, caller.holder())?;
            let (gate, exchange, caller) = (Arc::clone(gate), Arc::clone(exchange), Arc::clone(caller));
            Ok(async move {
                let _place = place;
                let asked = gate.ask_provider(&exchange, &caller, &pauses).await;
                gate.settle_exchange(&exchange, caller, key, asked)
            })
        })
    }
}

impl Inner {
    // Requirements D12, D14 and D15.
    fn settle_exchange(
        &self,
        exchange: &UpstreamExchange,
        caller: Arc<Verified>,
        key: EntryKey,
        asked: Result<ExchangedToken, ExchangeFault>,
    ) -> ExchangeAnswer {
        let (now, exchanges) = (self.engine.clock().now(), &self.running.exchanges);
        let session = session_of(caller.token());
        if let Err(denial) = self.checker.check_known(Arc::clone(&caller), &mut ()) {
            exchanges.results.count(&exchange.provider, "revoked");
            exchanges.state.lock().table.remove_session(&session);
            return Err(denial.into());
        }
        let is_undecided = matches!(asked, Err(ExchangeFault::Unavailable(..) | ExchangeFault::TooMany(..)));
        let (answer, kept_for) = match asked {
            Ok(token) => match header(&token) {
                Some(value) => (Ok(value), exchange.kept_for(token.expires_in)),
                None => (Err(UNAVAILABLE.into()), Duration::ZERO),
            },
            Err(fault) => {
                exchanges.results.count(&exchange.provider, fault.word());
                self.refused_exchange(exchange, fault, now)
            }
        };
        if now >= exchanges.state.lock().swept.plus(SWEEP_EVERY) {
            self.sweep_exchanges();
        }
        let mut state = exchanges.state.lock();
        let until = now.plus(kept_for).min(caller.token().expires);
        if answer.is_ok() {
            exchanges.results.count(&exchange.provider, "ok");
        }
        match state.table.find_mut(&key, now).filter(|entry| is_undecided && entry.answer.is_ok()) {
            Some(entry) => entry.renew_from = now.plus(kept_for.max(TRY_AGAIN)),
            None if now < until => {
                let renew_from = until.minus(until.since(now) / 5);
                state.table.insert(key, Entry { answer: answer.clone(), renew_from, until, session, caller });
            }
            None => {}
        }
        answer
    }

    fn exchanging<'a>(route: &'a Route, caller: Option<&'a Arc<Verified>>) -> Option<Result<Exchanging<'a>, Denial>> {
        let exchange = route.exchange.as_ref()?;
        let caller = caller.ok_or(Denial::NoCredential);
        // A token of any other issuer must not reach this provider.
        let is_of = |caller: &&Arc<Verified>| match exchange.takes_id_token {
            true => caller.token().is_at_provider() && *caller.token().vouching_issuer().name() == *exchange.issuer,
            false => **caller.token().issuer_name() == *exchange.issuer && caller.session_token().is_none(),
        };
        Some(
            caller
                .and_then(|caller| Some(caller).filter(is_of).ok_or(Denial::ExchangeRefused))
                .map(|it| (exchange, it)),
        )
    }

    pub(in crate::gate) fn owes_exchange(self: &Arc<Self>, permit: &Permit<Owing>) -> bool {
        let exchanging = Self::exchanging(permit.route(), permit.caller());
        let Some(Ok((exchange, caller))) = exchanging else { return false };
        let (now, Some(key)) = (self.engine.clock().now(), key_of(exchange, caller)) else { return true };
        let exchanges = &self.running.exchanges;
        let mut state = exchanges.state.lock();
        let Some(entry) = state.table.find(&key, now) else { return true };
        if now >= entry.renew_from && entry.answer.is_ok() && exchanges.flights.get(&key).is_none() {
            let _ = exchanges.begin(&mut state, self, (exchange, caller), key);
        }
        false
    }

    /// Waits for the exchange of a permitted request.
    ///
    /// # Errors
    /// The request must not reach its upstream.
    pub(in crate::gate) async fn exchanged(
        self: &Arc<Self>,
        permit: &Permit<Owing>,
        extensions: &mut http::Extensions,
    ) -> Result<(), Denial> {
        extensions.remove::<Exchanged>();
        let Some(exchanging) = Self::exchanging(permit.route(), permit.caller()) else { return Ok(()) };
        let (exchange, caller) = exchanging?;
        let exchanges = &self.running.exchanges;
        let key = key_of(exchange, caller).ok_or(UNAVAILABLE)?;
        let answer = match exchanges.find(&key, self.engine.clock().now()) {
            Some(answer) => answer,
            None => {
                let (_place, flight) = exchanges.join(self, (exchange, caller), key)?;
                flight.outcome().await.unwrap_or_else(|| Err(UNAVAILABLE.into()))
            }
        };
        match answer {
            Ok(value) => drop(extensions.insert(Exchanged(value))),
            Err(refusal) => {
                if let Some(challenge) = refusal.challenge {
                    extensions.insert(ClaimsChallenge(challenge));
                }
                return Err(refusal.denial);
            }
        }
        Ok(())
    }

    /// Returns `None` if the route does not exchange tokens. Call [`owes_exchange`](Self::owes_exchange) first, because
    /// it checks the expiry.
    ///
    /// # Errors
    /// No token is available at the moment.
    // Requirement D11.
    pub(in crate::gate) fn exchanged_token(
        self: &Arc<Self>,
        permitted: &Permitted,
        extensions: &mut http::Extensions,
    ) -> Result<Option<HeaderValue>, Denial> {
        let Some(exchanging) = Self::exchanging(permitted.route(), permitted.caller()) else { return Ok(None) };
        let (exchange, caller) = exchanging?;
        if let Some(Exchanged(value)) = extensions.remove::<Exchanged>() {
            return Ok(Some(value));
        }
        let key = key_of(exchange, caller).ok_or(UNAVAILABLE)?;
        let now = || self.engine.clock().now();
        let kept = self.running.exchanges.state.lock().table.get(&key).map(|entry| entry.answer(now));
        kept.ok_or(UNAVAILABLE)?.map(Some).map_err(|refusal| {
            if let Some(challenge) = refusal.challenge {
                extensions.insert(ClaimsChallenge(challenge));
            }
            refusal.denial
        })
    }
}

#[cfg(test)]
mod tests;
