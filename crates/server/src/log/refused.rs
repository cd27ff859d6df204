//! The last requests that the gate refused or could not serve, for the admin listener (requirement P73). They are in
//! memory only. A request that passes is not kept.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::header::HOST;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use parking_lot::Mutex;

use super::access::proved_names;
use super::without_secrets;
use rotogate::gate::{Reason, Verdict};
use rotogate_core::context::{Context, is_deceptive};
use rotogate_core::network::{Network, networks};

pub(crate) const KEPT_REQUESTS: usize = 1000;
/// The maximum number of one address, or of one IPv6 /64. An address at this bound displaces only its own requests.
const OF_ONE_ADDRESS: usize = 64;
/// The most parameter names that are read.
const MAX_NAMES: usize = 16;
const MAX_NAME_BYTES: usize = 32;
/// Stands for what was hidden or cut off.
pub(crate) const HIDDEN: char = '…';

static REFUSED: LazyLock<Refused> = LazyLock::new(Refused::default);

/// The target of a request, as references to the received bytes, in case the request is refused.
#[derive(Debug)]
pub(crate) struct RequestTarget {
    uri: Uri,
    host: Option<HeaderValue>,
}

impl RequestTarget {
    pub(crate) fn new<B>(request: &Request<B>) -> Self {
        let uri = request.uri().clone();
        let host = if uri.authority().is_some() { None } else { request.headers().get(HOST).cloned() };
        Self { uri, host }
    }

    /// The host and port, without a user name and a password.
    fn host(&self) -> Cow<'_, str> {
        let host = match (self.uri.authority(), &self.host) {
            (Some(authority), _) => Cow::Borrowed(authority.as_str()),
            (None, Some(host)) => String::from_utf8_lossy(host.as_bytes()),
            (None, None) => Cow::Borrowed(""),
        };
        match host.rfind('@') {
            Some(at) => Cow::Owned(host.get(at + 1..).unwrap_or_default().to_owned()),
            None => host,
        }
    }

    /// The names of the query's parameters. What has no `=`, or does not look like a name, could be a secret.
    fn parameter_names(&self) -> String {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.[]".contains(&b);
        // Base64 may end with `=`.
        let is_value = |value: &str| !value.trim_matches('=').is_empty();
        let name = |parameter: &str| match parameter.split_once('=') {
            Some((name, value))
                if is_value(value) && (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain) =>
            {
                name.to_owned()
            }
            Some(_) | None => HIDDEN.to_string(),
        };
        let mut parameters =
            self.uri.query().into_iter().flat_map(|query| query.split('&')).filter(|it| !it.is_empty());
        let mut names: Vec<_> = parameters.by_ref().take(MAX_NAMES).map(name).collect();
        names.extend(parameters.next().map(|_| HIDDEN.to_string()));
        names.join("&")
    }
}

/// How the gate refused a request.
pub(crate) struct RefusalFacts<'a> {
    pub(crate) context: &'a Context,
    pub(crate) method: &'a Method,
    pub(crate) target: &'a RequestTarget,
    pub(crate) status: StatusCode,
    pub(crate) reason: Reason,
    pub(crate) verdict: Option<&'a Verdict>,
    /// The route's label in the metrics.
    pub(crate) route: &'a str,
    pub(crate) upstream: Option<&'a str>,
    /// The time since 1970.
    pub(crate) micros: u64,
}

/// A string of a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    RequestId,
    Method,
    Host,
    Path,
    /// The names of the query's parameters, separated by `&`.
    Query,
    Route,
    /// The route's path pattern, or the operation of an endpoint.
    Pattern,
    Subject,
    Client,
    Upstream,
}

impl Part {
    const NUMBER: usize = 10;

    /// The maximum length in bytes. The lengths and the other fields of a request take at most 1 KiB.
    const fn most(self) -> usize {
        match self {
            Self::RequestId => 128,
            Self::Path => 256,
            Self::Host | Self::Query | Self::Pattern => 96,
            Self::Route | Self::Subject => 64,
            Self::Client | Self::Upstream => 48,
            Self::Method => 16,
        }
    }
}

/// A request that the gate refused or could not serve.
#[derive(Debug)]
pub(crate) struct RefusedRequest {
    /// The time since 1970.
    pub(crate) micros: u64,
    pub(crate) outcome: &'static str,
    pub(crate) detail: Option<&'static str>,
    pub(crate) status: StatusCode,
    pub(crate) client: Option<IpAddr>,
    /// The end of each part in `text`.
    ends: [u16; Part::NUMBER],
    text: Box<str>,
}

impl RefusedRequest {
    fn new(refusal: &RefusalFacts<'_>) -> Self {
        let RefusalFacts { context, method, target, verdict, reason, .. } = *refusal;
        let pattern = match verdict {
            Some(Verdict { route: Some(route), .. }) => Cow::Borrowed(&*route.path),
            Some(verdict) => {
                verdict.operation().map_or(Cow::default(), |(dialect, name)| format!("{dialect} {name}").into())
            }
            None => Cow::default(),
        };
        let (client, subject) = verdict.and_then(Verdict::who).map_or((None, None), proved_names);
        let parts: [(Part, &str); Part::NUMBER] = [
            (Part::RequestId, context.id().to_str().unwrap_or_default()),
            (Part::Method, method.as_str()),
            (Part::Host, &target.host()),
            (Part::Path, &without_secrets(target.uri.path())),
            (Part::Query, &target.parameter_names()),
            (Part::Route, refusal.route),
            (Part::Pattern, &pattern),
            (Part::Subject, subject.unwrap_or_default()),
            (Part::Client, client.unwrap_or_default()),
            (Part::Upstream, refusal.upstream.unwrap_or_default()),
        ];
        let (mut text, mut ends) = (String::new(), [0; Part::NUMBER]);
        for ((part, value), end) in parts.into_iter().zip(&mut ends) {
            text.push_str(&shortened(value, part.most()));
            *end = u16::try_from(text.len()).unwrap_or(u16::MAX);
        }
        let (outcome, detail) = (reason.word(), reason.detail());
        let client = context.client().map(|client| client.to_canonical());
        Self { micros: refusal.micros, outcome, detail, status: refusal.status, client, ends, text: text.into() }
    }

    /// Returns a string, which is empty if it is unknown.
    pub(crate) fn part(&self, part: Part) -> &str {
        let end = |index: usize| self.ends.get(index).copied().map_or(0, usize::from);
        let (index, start) = (part as usize, (part as usize).checked_sub(1).map_or(0, end));
        self.text.get(start..end(index)).unwrap_or_default()
    }

    /// Returns whether a string equals `value`, which is shortened like the string.
    pub(crate) fn has(&self, part: Part, value: &str) -> bool {
        !value.is_empty() && self.part(part) == shortened(value, part.most())
    }

    fn network(&self) -> Option<Network> {
        networks(self.client?).next().map(|(network, _)| network)
    }
}

/// Returns at most `most` bytes of `text`, without characters that hide or reorder others.
fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    for c in text.chars() {
        let c = if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c };
        if short.len() + c.len_utf8() > most {
            while short.len() + HIDDEN.len_utf8() > most && short.pop().is_some() {}
            short.push(HIDDEN);
            break;
        }
        short.push(c);
    }
    Cow::Owned(short)
}

#[derive(Debug, Default)]
struct Refused(Mutex<RefusedQueue>);

#[derive(Debug, Default)]
struct RefusedQueue {
    next: u64,
    /// By number: the oldest is first.
    all: BTreeMap<u64, Arc<RefusedRequest>>,
    /// The numbers of each address, the oldest first.
    of_address: HashMap<Option<Network>, VecDeque<u64>>,
}

impl Refused {
    fn keep(&self, request: RefusedRequest) {
        let displaced = self.0.lock().add(Arc::new(request));
        // The lock is free while the memory is freed.
        drop(displaced);
    }

    /// Returns the requests with their numbers, the newest first.
    fn newest(&self) -> Vec<(u64, Arc<RefusedRequest>)> {
        self.0.lock().all.iter().rev().map(|(number, request)| (*number, Arc::clone(request))).collect()
    }
}

impl RefusedQueue {
    /// Returns the displaced request. The effort does not depend on the number of addresses.
    fn add(&mut self, request: Arc<RefusedRequest>) -> Option<Arc<RefusedRequest>> {
        let number = self.next;
        self.next += 1;
        let own = self.of_address.entry(request.network()).or_default();
        own.push_back(number);
        let oldest = if own.len() > OF_ONE_ADDRESS { own.pop_front() } else { None };
        self.all.insert(number, request);
        if let Some(oldest) = oldest {
            return self.all.remove(&oldest);
        }
        if self.all.len() <= KEPT_REQUESTS {
            return None;
        }
        // The oldest of all requests is also the oldest of its address.
        let (_, oldest) = self.all.pop_first()?;
        if let Entry::Occupied(mut own) = self.of_address.entry(oldest.network()) {
            own.get_mut().pop_front();
            if own.get().is_empty() {
                own.remove();
            }
        }
        Some(oldest)
    }
}

pub(crate) fn keep(refusal: &RefusalFacts<'_>) {
    REFUSED.keep(RefusedRequest::new(refusal));
}

pub(crate) fn newest() -> Vec<(u64, Arc<RefusedRequest>)> {
    REFUSED.newest()
}

#[cfg(test)]
mod tests {
    use rotogate_core::context::trace::Trace;
    use rotogate_core::denial::Denial;

    use super::*;

    fn request(id: &str, from: &str, target: &str, headers: &[(&str, &str)]) -> RefusedRequest {
        let context = Context::new(HeaderValue::from_str(id).unwrap(), from.parse().unwrap(), Trace::None);
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let long = "x".repeat(500);
        RefusedRequest::new(&RefusalFacts {
            context: &context,
            method: request.method(),
            target: &RequestTarget::new(&request),
            status: StatusCode::UNAUTHORIZED,
            reason: Reason::from(Denial::TokenExpired),
            verdict: None,
            route: &long,
            upstream: Some(&long),
            micros: 7,
        })
    }

    fn keep(refused: &Refused, from: &str, number: usize) {
        (0..number).for_each(|id| refused.keep(request(&id.to_string(), from, "/x", &[])));
    }

    fn ids_from(refused: &Refused, from: &str) -> Vec<String> {
        let all = refused.newest().into_iter().filter(|(_, it)| it.client == Some(from.parse().unwrap()));
        all.map(|(_, it)| it.part(Part::RequestId).to_owned()).collect()
    }

    #[test]
    fn p73_one_address_displaces_only_its_own_requests() {
        let refused = Refused::default();
        keep(&refused, "192.0.2.1", 3);
        keep(&refused, "192.0.2.2", 5000);
        assert_eq!(ids_from(&refused, "192.0.2.1"), ["2", "1", "0"]);
        let flood = ids_from(&refused, "192.0.2.2");
        assert_eq!((flood.len(), &*flood[0], &*flood[63]), (64, "4999", "4936"), "the newest stay");
        // Every address of an IPv6 /64 belongs to the same client, as do an IPv4 address and its mapped form.
        (0..200).for_each(|last| keep(&refused, &format!("2001:db8::{last:x}"), 1));
        keep(&refused, "::ffff:192.0.2.1", 62);
        assert_eq!(refused.newest().len(), 64 + 64 + 64);
        assert_eq!(ids_from(&refused, "192.0.2.1").len(), 64);
    }

    #[test]
    fn p73_at_most_1000_requests_are_kept_and_nothing_of_the_others() {
        let refused = Refused::default();
        for number in 0..3000 {
            keep(&refused, &format!("10.0.{}.{}", number / 250, number % 250), 1);
        }
        let all = refused.newest();
        assert_eq!((all.len(), all[0].0, all[999].0), (1000, 2999, 2000));
        keep(&refused, "10.0.11.249", 100);
        let kept = refused.0.lock();
        assert_eq!(kept.all.len(), 1000);
        assert_eq!(kept.of_address.values().map(VecDeque::len).sum::<usize>(), 1000);
        assert!(kept.of_address.len() <= 1000 && kept.of_address.values().all(|own| !own.is_empty()));
    }

    #[test]
    fn p73_a_request_takes_at_most_1_kib() {
        let (long, id) = ("ü".repeat(3000), "i".repeat(128));
        let target = format!("/{}?{}", "p".repeat(9000), "name=1&".repeat(1000));
        let host = HeaderValue::from_str(&"h".repeat(900)).unwrap();
        let kept = request(&id, "192.0.2.1", &target, &[("host", host.to_str().unwrap())]);
        let longest = [Part::Method, Part::Pattern, Part::Subject, Part::Client];
        let left: usize = longest.map(Part::most).iter().sum();
        assert!(size_of::<RefusedRequest>() + kept.text.len() + left <= 1024, "{kept:?}");
        assert_eq!(kept.part(Part::RequestId), id, "whole, because operators search for it");
        for part in [Part::Host, Part::Path, Part::Query, Part::Route, Part::Upstream] {
            let text = kept.part(part);
            assert!(text.ends_with(HIDDEN) && text.len() <= part.most(), "{part:?}: {text}");
        }
        assert!(kept.has(Part::Route, &"x".repeat(500)) && !kept.has(Part::Route, "x"));
        let short = shortened(&long, 64);
        assert!(short.ends_with(HIDDEN) && (60..=64).contains(&short.len()), "{short}");
        assert_eq!(shortened("a\u{202e}b\n", 64), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn p73_values_of_a_query_and_credentials_are_not_kept() {
        let folder = "f".repeat(43);
        let target = format!(
            "/ui/{folder}/x?access_token=s3cret&s3cret&{}=1&=s3cret&a[b]=s3cret=s3cret&s3cret==&b%3Ds3cret=1",
            "s3cret".repeat(9)
        );
        let credentials =
            [("authorization", "Bearer s3cret"), ("cookie", "a=s3cret"), ("host", "ada:s3cret@gate.test:8443")];
        let kept = request("1", "192.0.2.1", &target, &credentials);
        assert!(!kept.text.contains("s3cret") && !kept.text.contains(&folder), "{kept:?}");
        assert_eq!(kept.part(Part::Query), "access_token&…&…&…&a[b]&…&…");
        assert_eq!((kept.part(Part::Path), kept.part(Part::Host)), ("/ui/…/x", "gate.test:8443"));
        let kept = request("1", "192.0.2.1", "http://ada:s3cret@gate.test/x", &[]);
        assert_eq!((kept.part(Part::Host), kept.part(Part::Query)), ("gate.test", ""), "{kept:?}");
        assert!(!kept.text.contains("s3cret"), "{kept:?}");
    }
}
