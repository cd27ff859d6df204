//! Other rules and keys, put in force while tokens are in the cache.

use super::*;
use crate::clock::ManualTime;
use crate::limit::{Limits, Rates};
use crate::session::Scope;
use crate::session::confirm::Confirmations;
use crate::token::keyring::Keyring;
use crate::token::mint::mint;
use crate::token::verify::IssuerKeys;
use crate::token::{MintedClaims, TokenStyle};

const T0: Timestamp = Timestamp::from_millis(1_700_000_000_400);
const ISSUERS: [&str; 3] = ["https://own.test", "https://one.test", "https://two.test"];

struct World {
    checker: TokenChecker,
    /// The keys of each issuer.
    rings: [Keyring; 3],
    limits: Limits,
    confirmations: Confirmations,
}

impl World {
    fn new() -> Self {
        let time = ManualTime::at(T0);
        let rings = [(); 3].map(|()| Keyring::ephemeral().unwrap());
        let clock = Arc::new(EngineClock::start(time.clone(), Timestamp::ZERO, Duration::ZERO));
        let list = Arc::new(RevocationList::new());
        let verifier = Verifier::new(vec![own(&rings[0])]).unwrap();
        let checker = TokenChecker::new(verifier, clock, list, IdentityHeaders::default(), 1 << 20, usize::MAX);
        Self { checker, rings, limits: Limits::new(Rates::default(), time), confirmations: Confirmations::default() }
    }

    /// The rules of another issuer, read again.
    fn rules(&self, at: usize) -> IssuerRules {
        let keys = IssuerKeys::from_jwks(self.rings[at].jwks().to_string().as_bytes(), None).unwrap();
        IssuerRules::external(ISSUERS[at], vec!["api".into()], keys).named(format!("issuer-{at}"))
    }

    fn trust(&self, others: Vec<IssuerRules>) -> bool {
        let mut rules = vec![own(&self.rings[0])];
        rules.extend(others);
        self.checker.set_verifier(Verifier::new(rules).unwrap())
    }

    fn token(&self, at: usize) -> String {
        let claims = MintedClaims {
            delegation: None,
            issuer: ISSUERS[at],
            subject: "ada",
            audience: &["api".into()],
            expires: T0.plus(Duration::from_secs(3600)),
            issued_at: T0,
            jti: "j",
            client: "app",
            scope: &Scope::default(),
            session: None,
            account: None,
            bound_to: None,
            certificate: None,
            vouched_by: None,
            own: None,
            style: TokenStyle::default(),
        };
        mint(self.rings[at].signer(), &claims).unwrap().expose().to_owned()
    }

    fn shown(&self) -> MissContext<'_> {
        let (limits, confirmations) = (&self.limits, &self.confirmations);
        MissContext { limits, confirmations, source: None.into(), introspected: None }
    }

    fn check(&self, token: &str) -> Result<Arc<Verified>, Denial> {
        self.checker.check(Credential::new(token), || self.shown(), &mut ())
    }

    /// May a long-lived connection with this token go on?
    fn goes_on(&self, verified: &Arc<Verified>) -> Result<(), Denial> {
        self.checker.check_again(verified, None, OnExpiry::Close)
    }
}

fn own(ring: &Keyring) -> IssuerRules {
    IssuerRules::own(ISSUERS[0], vec!["api".into()], ring, Duration::ZERO)
}

#[test]
fn i44_another_set_of_issuers_leaves_the_tokens_of_those_that_stay() {
    let w = World::new();
    let tokens = [0, 1, 2].map(|at| w.token(at));
    let [of_own, of_one, of_two] = &tokens;
    let first = w.check(of_own).unwrap();
    assert_eq!(w.check(of_one).unwrap_err(), Denial::UnknownIssuer);

    // Two issuers are added.
    assert!(w.trust(vec![w.rules(1), w.rules(2)]));
    assert!(Arc::ptr_eq(&first, &w.check(of_own).unwrap()), "our own token stays");
    let [one, two] = [of_one, of_two].map(|token| w.check(token).unwrap());
    assert!(!w.trust(vec![w.rules(1), w.rules(2)]), "the same, read again");

    // The rules of one issuer change, and the order changes.
    let mut other = w.rules(2);
    other.audience = ["other".into()].into();
    assert!(w.trust(vec![other, w.rules(1)]));
    assert!(Arc::ptr_eq(&first, &w.check(of_own).unwrap()));
    assert!(Arc::ptr_eq(&one, &w.check(of_one).unwrap()));
    let anew = w.check(of_two).unwrap();
    assert!(!Arc::ptr_eq(&two, &anew), "it is judged by the new rules");
    assert_eq!(*anew.token().vouching_issuer().audience, [Box::<str>::from("other")]);
    assert_eq!([w.goes_on(&one), w.goes_on(&two), w.goes_on(&anew)], [Ok(()), Err(Denial::UnknownIssuer), Ok(())]);

    // One issuer is removed.
    assert!(w.trust(vec![w.rules(1)]));
    assert_eq!(w.check(of_two).unwrap_err(), Denial::UnknownIssuer);
    assert_eq!([w.goes_on(&one), w.goes_on(&anew)], [Ok(()), Err(Denial::UnknownIssuer)]);
    assert!(Arc::ptr_eq(&one, &w.check(of_one).unwrap()));
    assert_eq!(w.checker.cached(), 2, "the memory of the others is free");
}

#[test]
fn i44_other_keys_of_one_issuer_leave_the_rules_and_the_connections_of_known_keys() {
    let mut w = World::new();
    w.trust(vec![w.rules(1), w.rules(2)]);
    let (of_one, of_two) = (w.token(1), w.token(2));
    let [one, two] = [&of_one, &of_two].map(|token| w.check(token).unwrap());
    // The key of the second issuer, and one more.
    let mut jwks: serde_json::Value = serde_json::from_str(&w.rings[2].jwks().to_string()).unwrap();
    let more: serde_json::Value = serde_json::from_str(&Keyring::ephemeral().unwrap().jwks().to_string()).unwrap();
    jwks["keys"].as_array_mut().unwrap().extend(more["keys"].as_array().unwrap().clone());
    let keys = IssuerKeys::from_jwks(jwks.to_string().as_bytes(), None).unwrap();
    let rules = IssuerRules::external(ISSUERS[2], vec!["api".into()], keys).named("issuer-2");
    assert!(w.trust(vec![w.rules(1), rules]));
    assert!(Arc::ptr_eq(&one, &w.check(&of_one).unwrap()));
    assert!(w.check(&of_two).is_ok());
    assert_eq!(w.goes_on(&two), Ok(()), "its key is still there");
    w.rings[2] = Keyring::ephemeral().unwrap();
    assert!(w.trust(vec![w.rules(1), w.rules(2)]));
    assert_eq!(w.check(&of_two).unwrap_err(), Denial::UnknownKey);
    assert_eq!(w.goes_on(&two), Err(Denial::UnknownKey));
    assert!(Arc::ptr_eq(&one, &w.check(&of_one).unwrap()));
}

#[test]
fn i44_what_a_request_of_before_puts_into_the_cache_does_not_count() {
    let w = World::new();
    w.trust(vec![w.rules(1), w.rules(2)]);
    let token = w.token(2);
    let old = w.check(&token).unwrap();
    w.trust(vec![w.rules(1)]);
    // A request that began before the change ends after it.
    let keys = w.checker.keys.load_full();
    keys.cache.insert(keys.key(&token).owned(), Arc::clone(&old));
    assert_eq!(w.check(&token).unwrap_err(), Denial::UnknownIssuer);
    keys.cache.insert(keys.key(&token).owned(), Arc::clone(&old));
    assert_eq!(w.checker.verify_ignoring_expiry(&token, Duration::ZERO, w.shown()).unwrap_err(), Denial::UnknownIssuer);
    // As above, with changed rules instead of a removed issuer.
    let mut other = w.rules(2);
    other.audience = ["other".into()].into();
    w.trust(vec![w.rules(1), other]);
    let keys = w.checker.keys.load_full();
    keys.cache.insert(keys.key(&token).owned(), Arc::clone(&old));
    assert_eq!(*w.check(&token).unwrap().token().vouching_issuer().audience, [Box::<str>::from("other")]);
}
