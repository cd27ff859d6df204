//! The rules for a client's token exchange (RFC 8693).

use crate::denial::Denial;
use crate::session::Scope;
use crate::token::claims::AccessToken;
use crate::token::verify::OWN;

/// The rules for a client that exchanges a user's token for a token of another service.
///
/// ```
/// use rotogate::client::{Client, ExchangeRules, Grant, SecretHash};
///
/// // `orders` was called with a token for `orders-api`, and calls `billing` for the same user.
/// let rules = ExchangeRules { audiences: vec!["orders-api".into()], to: vec!["billing".into()], ..ExchangeRules::default() };
/// let orders = Client {
///     secret_hash: Some(SecretHash::new("$argon2id$…")),
///     grants: vec![Grant::TokenExchange],
///     exchange: Some(rules),
///     ..Client::public("orders")
/// };
/// let builder = rotogate::Gate::builder().client(orders);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRules {
    /// The client's own audiences.
    pub audiences: Vec<Box<str>>,
    /// The audiences for which the client may get tokens.
    pub to: Vec<Box<str>>,
    /// The issuers whose tokens the client may exchange. `self` is our own issuer.
    pub issuers: Vec<Box<str>>,
    /// The scopes that the new tokens may have, or `None` for no restriction.
    pub scopes: Option<Scope>,
    /// The maximum number of actors in a new token, including the client.
    pub depth: usize,
}

impl Default for ExchangeRules {
    /// The default permits only tokens of the gate without an actor.
    fn default() -> Self {
        let issuers = vec![OWN.into()];
        Self { audiences: Vec::new(), to: Vec::new(), issuers, scopes: None, depth: 1 }
    }
}

impl ExchangeRules {
    /// The maximum [`depth`](Self::depth).
    pub const MAX_DEPTH: usize = 8;

    /// Checks that the client may exchange this token.
    ///
    /// # Errors
    /// [`Denial::NotExchangeable`].
    // Requirement D1.
    pub(crate) fn admit(&self, client: &str, subject: &AccessToken) -> Result<(), Denial> {
        let is_of_client = subject.is_ours() && subject.client.as_deref() == Some(client);
        let refused = if !self.issuers.iter().any(|name| **name == **subject.issuer_name()) {
            "this client may not exchange tokens of this issuer"
        } else if !is_of_client && !subject.is_for(&self.audiences) {
            "the token was not meant for this client"
        } else if subject.response().is_some() {
            // A revocation at the issuer would not affect the exchanged token.
            "the token can be checked only by introspection, so it cannot be exchanged"
        } else if subject.token_subject().is_empty() || subject.is_clients_own() {
            "the token was issued to a client for itself, so there is no user to act for"
        } else {
            return Ok(());
        };
        Err(Denial::NotExchangeable(refused))
    }

    /// Returns the audience of the new token.
    ///
    /// # Errors
    /// [`Denial::InvalidTarget`].
    pub(crate) fn target(&self, asked: Option<&str>) -> Result<Box<str>, Denial> {
        let found = match (asked, &*self.to) {
            (Some(asked), to) => to.iter().find(|one| ***one == *asked),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.cloned().ok_or(Denial::InvalidTarget)
    }

    /// The scope is never wider than the scope of the exchanged token.
    ///
    /// # Errors
    /// [`Denial::InvalidScope`].
    // Requirement D6.
    pub(crate) fn granted(
        &self,
        asked: Option<&Scope>,
        client: Option<&Scope>,
        subject: &Scope,
    ) -> Result<Scope, Denial> {
        let limits = [self.scopes.as_ref(), client];
        let most = limits.into_iter().flatten().fold(subject.clone(), |scope, limit| scope.intersection(limit));
        match asked {
            _ if most.is_empty() => Err(Denial::InvalidScope),
            None => Ok(most),
            Some(asked) if !asked.is_empty() && asked.is_within(&most) => Ok(asked.clone()),
            Some(_) => Err(Denial::InvalidScope),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope() -> impl Strategy<Value = Scope> {
        proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4)
            .prop_map(|it| Scope::parse(&it.join(" ")).unwrap())
    }

    fn link() -> impl Strategy<Value = (Option<Scope>, Option<Scope>, Option<Scope>)> {
        let maybe = || proptest::option::of(scope());
        (maybe(), maybe(), maybe())
    }

    proptest! {
        #[test]
        fn d6_no_chain_of_exchanges_has_a_wider_scope(first in scope(), chain in proptest::collection::vec(link(), 1..6)) {
            let mut held = first;
            for (rules, client, asked) in chain {
                let of = ExchangeRules { scopes: rules.clone(), ..ExchangeRules::default() };
                let Ok(granted) = of.granted(asked.as_ref(), client.as_ref(), &held) else { break };
                let limits = [Some(&held), rules.as_ref(), client.as_ref(), asked.as_ref()];
                for limit in limits.into_iter().flatten() {
                    prop_assert!(granted.is_within(limit), "{granted:?} {limit:?}");
                }
                prop_assert!(!granted.is_empty());
                held = granted;
            }
        }
    }

    #[test]
    fn d1_a_target_is_named_byte_for_byte_or_the_only_one() {
        let rules = |to: &[&str]| ExchangeRules {
            to: to.iter().map(|one| (*one).into()).collect(),
            ..ExchangeRules::default()
        };
        assert_eq!(rules(&["a"]).target(None).as_deref(), Ok("a"));
        assert_eq!(rules(&["a", "b"]).target(Some("b")).as_deref(), Ok("b"));
        for (to, asked) in [(&["a", "b"][..], None), (&[], None), (&["a"], Some("A")), (&["a"], Some(""))] {
            assert_eq!(rules(to).target(asked), Err(Denial::InvalidTarget));
        }
    }
}
