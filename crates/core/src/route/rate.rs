//! Limits on the requests of a route's callers (the configuration key `rate`).

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::{Auth, Route};
use crate::claim::ClaimPath;

const MOST_LIMITS: usize = 8;
const LONGEST_NAME: usize = 64;

/// A limit on the requests of each caller. Only permitted requests are counted.
///
/// The token bucket admits [`burst`](Self::burst) requests at once, and is refilled evenly with `requests` in each
/// `window`.
///
/// ```
/// use std::time::Duration;
/// use rotogate::route::{LimitPer, RateLimit, RoutePolicy};
///
/// const MINUTE: Duration = Duration::from_secs(60);
/// let policy = RoutePolicy::default()
///     .limit(RateLimit::new(LimitPer::Subject, 100, MINUTE))
///     .limit(RateLimit::new(LimitPer::claim("org_id")?, 5000, MINUTE).named("org").over_gates());
/// assert_eq!(policy.rate.len(), 2);
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The name in responses, logs and metrics: up to 64 visible ASCII characters and spaces. Routes with the same name
    /// share the limit.
    ///
    /// The default is the route's name and the counted property.
    pub name: Option<Box<str>>,
    /// The property by which requests are counted.
    pub per: LimitPer,
    /// How many requests are added to the bucket in each window.
    pub requests: NonZeroU32,
    /// The period in which `requests` tokens are added to the bucket.
    pub window: Duration,
    /// How many requests are admitted at once. The default is `requests`.
    pub burst: Option<NonZeroU32>,
    /// Where the requests are counted.
    #[doc(hidden)]
    pub over: LimitOver,
    /// The index of this limit, which the gate assigns.
    #[doc(hidden)]
    pub place: usize,
}

/// The property by which requests are counted. Each value has its own bucket, and callers without the property share
/// one.
///
/// ```
/// use rotogate::route::LimitPer;
///
/// assert_eq!(LimitPer::parse("subject").unwrap(), LimitPer::Subject);
/// assert_eq!(LimitPer::parse("claim:org_id").unwrap().to_string(), "claim:org_id");
/// assert!(LimitPer::parse("user").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitPer {
    /// The subject of an issuer.
    Subject,
    /// The client of an issuer.
    Client,
    /// The API key.
    Key,
    /// The account.
    Account,
    /// The client's address, or its /64 network for IPv6. The limit for a /56 network is 4 times as high, and for a /48
    /// network 32 times.
    Address,
    /// All requests of the route share one bucket.
    Route,
    /// A string, number or boolean claim of the caller's token. Each issuer's values are counted separately.
    Claim(ClaimPath),
}

/// Where requests are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitOver {
    /// Each gate counts its own requests.
    #[default]
    Gate,
    /// All gates that share a store count together.
    Gates,
}

impl LimitPer {
    /// Counts by the value of a claim.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn claim(path: &str) -> Result<Self, crate::invalid::InvalidValue> {
        ClaimPath::parse(path).map(Self::Claim)
    }

    /// Parses a property such as `"subject"` or `"claim:org_id"`.
    ///
    /// # Errors
    /// A message with the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "subject" => Self::Subject,
            "client" => Self::Client,
            "key" => Self::Key,
            "account" => Self::Account,
            "address" => Self::Address,
            "route" => Self::Route,
            text => match text.strip_prefix("claim:") {
                Some(path) => Self::claim(path).map_err(|error| error.to_string())?,
                None => {
                    return Err("expected \"subject\", \"client\", \"key\", \"account\", \"address\", \"route\" or \
                                \"claim:PATH\""
                        .to_owned());
                }
            },
        })
    }

    const fn is_of_token(&self) -> bool {
        !matches!(self, Self::Address | Self::Route)
    }
}

impl fmt::Display for LimitPer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "subject",
            Self::Client => "client",
            Self::Key => "key",
            Self::Account => "account",
            Self::Address => "address",
            Self::Route => "route",
            Self::Claim(path) => return write!(f, "claim:{path}"),
        })
    }
}

impl LimitOver {
    /// The name of this value in `gateway.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Gates => "gates",
        }
    }
}

impl RateLimit {
    /// Limits the requests in each window, for each gate separately. Zero `requests` are treated as one.
    pub fn new(per: LimitPer, requests: u32, window: Duration) -> Self {
        let requests = NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN);
        Self { name: None, per, requests, window, burst: None, over: LimitOver::Gate, place: 0 }
    }

    /// Sets the name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Counts the requests at all gates that share a store.
    #[must_use]
    pub const fn over_gates(mut self) -> Self {
        self.over = LimitOver::Gates;
        self
    }

    /// The name of this limit on the route.
    pub fn name_on(&self, route: &str) -> Box<str> {
        self.name.clone().unwrap_or_else(|| format!("{route} {}", self.per).into())
    }

    pub(super) fn counts_as(&self, other: &Self) -> bool {
        (&self.per, self.requests, self.window, self.burst, self.over)
            == (&other.per, other.requests, other.window, other.burst, other.over)
    }
}

/// Returns the first invalid limit: the index of its route, and the reason.
// Requirement K23.
pub fn unusable_limit(routes: &[Route]) -> Option<(usize, String)> {
    let mut known: Vec<(Box<str>, &RateLimit, usize)> = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let rate = &route.policy.rate;
        if rate.len() > MOST_LIMITS {
            return Some((index, format!("has {} limits, but at most {MOST_LIMITS} are allowed", rate.len())));
        }
        for limit in rate {
            let (name, per) = (limit.name_on(&route.id), &limit.per);
            let problem = if limit.window.checked_div(limit.requests.get()).is_none_or(|every| every.is_zero()) {
                Some("allows more than one request per nanosecond".to_owned())
            } else if route.policy.auth == Auth::None && per.is_of_token() {
                Some(format!(
                    "counts per {per}, but with auth = \"none\" no caller is known; count per address or route"
                ))
            } else if !(1..=LONGEST_NAME).contains(&name.len())
                || name.bytes().any(|byte| !(b' '..=b'~').contains(&byte))
            {
                Some(format!("is called {name:?}; give it a name of 1 to {LONGEST_NAME} visible ASCII characters"))
            } else {
                known.iter().find(|(known, ..)| *known == name).and_then(|(_, other, place)| {
                    match limit.counts_as(other) {
                        true if *place == index => Some(format!("occurs twice (name {name:?}); remove one of them")),
                        true => None,
                        false => Some(format!(
                            "has the same name as another limit, {name:?}, but differs from it; give the two limits \
                             different names"
                        )),
                    }
                })
            };
            if let Some(problem) = problem {
                return Some((index, problem));
            }
            known.push((name, limit, index));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RoutePolicy;

    const MINUTE: Duration = Duration::from_secs(60);

    fn routes(policies: Vec<RoutePolicy>) -> Vec<Route> {
        policies.into_iter().enumerate().map(|(n, policy)| Route::new(format!("/{n}"), policy)).collect()
    }

    #[test]
    fn k23_a_limit_that_cannot_be_used_is_named() {
        let limit = || RateLimit::new(LimitPer::Subject, 100, MINUTE);
        let on = |policy: RoutePolicy, limits: &[RateLimit]| limits.iter().cloned().fold(policy, RoutePolicy::limit);
        let said =
            |policies: Vec<RoutePolicy>| unusable_limit(&routes(policies)).map_or_else(String::new, |(_, why)| why);
        let own = || on(RoutePolicy::default(), &[limit()]);
        assert_eq!(said(vec![own(), own()]), "", "each route has its own");
        let org = limit().named("org");
        let one = std::slice::from_ref(&org);
        assert_eq!(said(vec![on(own(), one), on(own(), one)]), "", "routes share it");
        let table = [
            (vec![on(own(), &[limit()])], "occurs twice"),
            (vec![on(own(), one), on(own(), &[org.clone().over_gates()])], "differ"),
            (vec![on(own(), one), on(own(), &[RateLimit { burst: NonZeroU32::new(7), ..org.clone() }])], "differ"),
            (vec![on(RoutePolicy::public(), &[limit()])], "no caller is known"),
            (vec![on(own(), &[limit().named("")])], "give it a name"),
            (vec![on(own(), &[limit().named("\u{e9}t\u{e9}")])], "give it a name"),
            (vec![on(own(), &[limit().named("a\nb")])], "give it a name"),
            (vec![on(own(), &[RateLimit::new(LimitPer::Client, u32::MAX, Duration::from_nanos(9))])], "nanosecond"),
            (vec![on(RoutePolicy::default(), &vec![limit(); 9])], "at most 8 are allowed"),
        ];
        for (policies, expected) in table {
            let said = said(policies);
            assert!(said.contains(expected), "{said}: {expected}");
        }
        let public = RateLimit::new(LimitPer::Address, 1, MINUTE);
        assert_eq!(said(vec![on(RoutePolicy::public(), &[public])]), "");
    }

    #[test]
    fn k23_what_is_counted_is_a_word_or_the_path_of_a_claim() {
        for text in ["subject", "client", "key", "account", "address", "route", "claim:realm.org", "claim:\"a:b\""] {
            assert_eq!(LimitPer::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "Subject", "claim:", "claim:a[0]", "claims:a", "ip"] {
            assert!(LimitPer::parse(bad).is_err(), "{bad}");
        }
    }
}
