//! T12, T20: no server reads a path as protected, or as more restricted, that the gate reads as public or as less
//! restricted, and no server reads the reverse. The gate's own functions decide on the spellings of
//! `tests/corpus/paths.tsv`, and on thousands made from them and from their pieces; hyper, axum, nginx, Go's and Python's
//! servers then read the forwarded target. Only nginx needs sockets.

pub(crate) mod made;
pub(crate) mod others;
pub(crate) mod rust;

/// The paths that a server may read in a target; empty if the server refuses the target.
pub(crate) type Readings = Vec<String>;

use http::{Method, Request};
use others::Nginx;
use rotogate::session::Scope;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Auth, Match, Route, RoutePolicy, RouteTable, authority};

/// The gate's answer to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Refused,
    /// Forwarded in this form, without a token, or with fewer requirements than other paths.
    Public(String),
    /// Forwarded in this form, for callers that the strictest routes admit.
    Protected(String),
}
use Decision::{Protected, Public, Refused};

/// The steps of the gate before the check of a token.
fn decide(table: &RouteTable, target: &[u8]) -> Decision {
    let Ok(request) = Request::get(target).header("host", "gate.test").body(()) else { return Refused };
    let (parts, ()) = request.into_parts();
    if authority::check(&parts).is_err() {
        return Refused;
    }
    let Ok(path) = CanonicalPath::parse(parts.uri.path()) else { return Refused };
    let Match::Found(route) = table.find(Some("gate.test"), &Method::GET, &path) else { return Refused };
    if rotogate_core::route::admits_path(&route.policy, &path).is_err() {
        return Refused;
    }
    let forwarded = match parts.uri.query() {
        Some(query) => format!("{}?{query}", path.as_str()),
        None => path.as_str().to_owned(),
    };
    let is_strictest = route.policy.auth == Auth::Required && (!restricts(table) || route.policy.scopes == admin());
    if is_strictest { Protected(forwarded) } else { Public(forwarded) }
}

fn admin() -> Scope {
    Scope::parse("admin").unwrap()
}

/// Does the table distinguish between callers, and not only between callers and anonymous clients?
fn restricts(table: &RouteTable) -> bool {
    let private = CanonicalPath::parse("/private/a").unwrap();
    matches!(table.find(None, &Method::GET, &private), Match::Found(route) if route.policy.scopes == admin())
}

/// Only named paths are open, as the documents advise.
fn closed() -> RouteTable {
    let keep = RoutePolicy { keeps_encoded_slash: true, ..RoutePolicy::public() };
    RouteTable::build(vec![
        Route::new("/public/{*rest}", RoutePolicy::public()),
        Route::new("/files/{name}", keep),
        Route::new("/private/{*rest}", RoutePolicy::default()),
    ])
    .unwrap()
}

/// All paths except the named ones are open, which is harder to keep.
fn open() -> RouteTable {
    RouteTable::build(vec![
        Route::new("/{*rest}", RoutePolicy::public()),
        Route::new("/private", RoutePolicy::default()),
        Route::new("/private/{*rest}", RoutePolicy::default()),
    ])
    .unwrap()
}

/// Every path requires a token, and the named paths also a scope.
fn restricted() -> RouteTable {
    let few = RoutePolicy { scopes: admin(), ..RoutePolicy::default() };
    RouteTable::build(vec![
        Route::new("/{*rest}", RoutePolicy::default()),
        Route::new("/private", few.clone()),
        Route::new("/private/{*rest}", few),
    ])
    .unwrap()
}

fn is_private(reading: &str) -> bool {
    reading == "/private" || reading.starts_with("/private/")
}

/// All the spellings.
fn targets() -> Vec<Vec<u8>> {
    let mut targets: Vec<Vec<u8>> = crate::corpus::paths().into_iter().map(|spelling| spelling.target).collect();
    targets.extend(made::targets(&targets, 60_000));
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// Every server's readings of every target.
fn all_readings(targets: &[Vec<u8>]) -> Vec<(&'static str, Vec<Readings>)> {
    let nginx = Nginx::start();
    vec![
        ("hyper", rust::hyper(targets)),
        ("axum", rust::axum(targets)),
        ("nginx", nginx.read(targets)),
        ("Go", others::go(targets)),
        ("Python", others::python(targets)),
    ]
}

#[test]
fn t12_what_is_public_is_private_in_no_servers_reading_and_what_is_private_in_all_of_them() {
    let targets = targets();
    for (name, table) in [("closed", closed()), ("open", open()), ("restricted", restricted())] {
        let decisions: Vec<Decision> = targets.iter().map(|target| decide(&table, target)).collect();
        let mut forwarded: Vec<(Vec<u8>, bool)> = decisions
            .into_iter()
            .filter_map(|decision| match decision {
                Refused => None,
                Public(target) => Some((target.into_bytes(), false)),
                Protected(target) => Some((target.into_bytes(), true)),
            })
            .collect();
        forwarded.sort_unstable();
        forwarded.dedup();
        let protected = forwarded.iter().filter(|(_, protected)| *protected).count();
        assert!(protected > 300 && forwarded.len() - protected > 300, "{name}: {protected} of {}", forwarded.len());
        let sent: Vec<Vec<u8>> = forwarded.iter().map(|(target, _)| target.clone()).collect();
        for (server, readings) in all_readings(&sent) {
            let taken = readings.iter().filter(|readings| !readings.is_empty()).count();
            assert!(taken > sent.len() / 2, "{server} refused nearly everything");
            for ((target, protected), readings) in forwarded.iter().zip(&readings) {
                let target = String::from_utf8_lossy(target);
                let agreed = |reading: &String| match *protected {
                    true => is_private(reading),
                    false => !is_private(reading),
                };
                assert!(
                    readings.iter().all(agreed),
                    "{name}, {server}: {target} ({protected}) is read as {readings:?}"
                );
            }
        }
    }
}

#[test]
fn t12_where_only_what_is_named_is_open_no_reading_however_lax_leads_out_of_it() {
    let table = closed();
    let public: Vec<Vec<u8>> = targets()
        .iter()
        .filter_map(|target| match decide(&table, target) {
            Public(forwarded) => Some(forwarded.into_bytes()),
            Protected(_) | Refused => None,
        })
        .collect();
    for (target, readings) in public.iter().zip(rust::laxest(&public)) {
        let stays = |reading: &String| ["/public", "/files"].iter().any(|prefix| reading.starts_with(prefix));
        assert!(readings.iter().all(stays), "{} is read as {readings:?}", String::from_utf8_lossy(target));
    }
}

#[test]
fn t20_no_reading_however_lax_leads_from_a_less_restricted_route_to_a_restricted_one() {
    for (name, table) in [("open", open()), ("restricted", restricted())] {
        let lax: Vec<Vec<u8>> = targets()
            .iter()
            .filter_map(|target| match decide(&table, target) {
                Public(forwarded) => Some(forwarded.into_bytes()),
                Protected(_) | Refused => None,
            })
            .collect();
        assert!(lax.len() > 1000, "{name}: {}", lax.len());
        for (target, readings) in lax.iter().zip(rust::laxest_of_all(&lax)) {
            let leads = readings.iter().find(|reading| is_private(reading));
            assert_eq!(leads, None, "{name}: {}", String::from_utf8_lossy(target));
        }
    }
}

/// A test of the test: it catches a gate that compares prefixes, a common mistake.
#[test]
fn a_gate_that_matches_by_prefix_is_caught_by_every_server_that_resolves_dots() {
    let naive: Vec<Vec<u8>> = targets().into_iter().filter(|target| target.starts_with(b"/public/")).collect();
    for (server, readings) in all_readings(&naive) {
        let caught = readings.iter().filter(|readings| readings.iter().any(|reading| is_private(reading))).count();
        let resolves = !matches!(server, "hyper" | "axum");
        assert_eq!(caught > 0, resolves, "{server}: {caught}");
    }
    let caught = rust::laxest(&naive).iter().flatten().filter(|reading| is_private(reading)).count();
    assert!(caught > 100, "{caught}");
}
