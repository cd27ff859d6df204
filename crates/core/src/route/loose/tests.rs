use http::Method;

use super::*;
use crate::route::path::CanonicalPath;
use crate::route::{Match, Route, RoutePolicy, RouteTable};
use crate::session::Scope;

fn scoped(scope: &str) -> RoutePolicy {
    RoutePolicy { scopes: Scope::parse(scope).unwrap(), ..RoutePolicy::default() }
}

fn table(routes: &[(&str, RoutePolicy)]) -> RouteTable {
    RouteTable::build(routes.iter().map(|(path, policy)| Route::new(*path, policy.clone())).collect()).unwrap()
}

/// The pattern of the route that a path takes, with `!` before it if the path is ambiguous.
fn take(table: &RouteTable, method: &Method, path: &str) -> String {
    match table.find(Some("gate.test"), method, &CanonicalPath::parse(path).unwrap()) {
        Match::Found(route) => route.path.clone(),
        Match::Ambiguous(route) => format!("!{}", route.path),
        Match::MethodNotAllowed(_) => "405".to_owned(),
        Match::None => "404".to_owned(),
    }
}

fn get(table: &RouteTable, path: &str) -> String {
    take(table, &Method::GET, path)
}

#[test]
fn t20_no_common_reading_of_a_path_reaches_a_stricter_route() {
    let table = table(&[("/{*rest}", RoutePolicy::default()), ("/admin/{*rest}", scoped("admin"))]);
    for path in [
        "/admin;x=1/users",
        "/admin;/users",
        "/Admin/users",
        "/ADMIN/users",
        "/admin%3B/users",
        "/admin%3b/users",
        "/admin%253B/users",
        "/admin%20/users",
        "/admin%20%20/users",
        "/admin./users",
        "/admin.../users",
        "/admin.%20./users",
        "/admin%2520/users",
        "/admin.;x/users",
        "/admin;x./users",
        "/Admin.;x/users",
        "/%2561dmin/users",
        "/;/admin/users",
        "/;x/admin/users",
        "/%20/admin/users",
        "/%20admin/users",
        "/admin%3Fx/users",
        "/admin%3F",
        "/admin%23",
        "/Admin/%253f",
        "/admin",
        "/Admin",
        "/admin;",
        "/admin;x",
        "/admin.",
        "/ADMIN/",
        "/admin;/",
        "/admin%3Bx/",
    ] {
        assert_eq!(get(&table, path), "!/{*rest}", "{path}");
    }
    for path in ["/admin/users", "/admin/", "/admin/;x", "/admin/Users;x", "/admin/a.", "/admin/;x/y."] {
        assert_eq!(get(&table, path), "/admin/{*rest}", "{path}");
    }
    for path in ["/", "/x", "/X", "/x/Admin/", "/administration", "/admin-x/", "/x;y", "/x.", "/admi", "/adm%20in"] {
        assert_eq!(get(&table, path), "/{*rest}", "{path}");
    }
    assert!(
        readings("/%E2%84%AA").contains(&PathReading::Folded("/k".to_owned())),
        "the Kelvin sign folds to a letter"
    );
}

#[test]
fn t20_a_spelling_of_a_laxer_or_equal_route_is_served_as_it_is() {
    let open = table(&[("/{*rest}", RoutePolicy::default()), ("/public/{*rest}", RoutePolicy::public())]);
    for (path, route) in [
        ("/public/", "/public/{*rest}"),
        ("/public/X;y.", "/public/{*rest}"),
        ("/Public/x", "/{*rest}"),
        ("/public", "/{*rest}"),
        ("/public;/x", "/{*rest}"),
    ] {
        assert_eq!(get(&open, path), route, "{path}");
    }
    let same = table(&[("/{*rest}", RoutePolicy::default()), ("/a/{*rest}", RoutePolicy::default())]);
    assert_eq!((get(&same, "/A/x"), get(&same, "/a")), ("/{*rest}".to_owned(), "/{*rest}".to_owned()));
}

#[test]
fn t20_a_slash_at_the_end_is_a_reading_unless_both_forms_are_named() {
    // The operator names both, and so distinguishes them.
    let both = table(&[("/p", RoutePolicy::public()), ("/p/{*rest}", RoutePolicy::default())]);
    assert_eq!((get(&both, "/p"), get(&both, "/p/")), ("/p".to_owned(), "/p/{*rest}".to_owned()));
    let named = table(&[("/{id}", RoutePolicy::public()), ("/{id}/{*rest}", RoutePolicy::default())]);
    assert_eq!((get(&named, "/7"), get(&named, "/7/")), ("/{id}".to_owned(), "/{id}/{*rest}".to_owned()));
    // No route names `/admin` or `/p/` here.
    let bare = table(&[("/{id}", RoutePolicy::public()), ("/admin/{*rest}", RoutePolicy::default())]);
    assert_eq!((get(&bare, "/7"), get(&bare, "/admin")), ("/{id}".to_owned(), "!/{id}".to_owned()));
    let slash = table(&[("/{*rest}", RoutePolicy::public()), ("/p", RoutePolicy::default())]);
    assert_eq!((get(&slash, "/p"), get(&slash, "/p/")), ("/p".to_owned(), "!/{*rest}".to_owned()));
    let parts = table(&[("/{*rest}", RoutePolicy::public()), ("/{a}/x", RoutePolicy::default())]);
    assert_eq!((get(&parts, "/b/x/"), get(&parts, "/B/X")), ("!/{*rest}".to_owned(), "!/{*rest}".to_owned()));
    // A pattern with a trailing slash names that path, too.
    let written = table(&[("/p/", RoutePolicy::public()), ("/p", RoutePolicy::default())]);
    assert_eq!((get(&written, "/p"), get(&written, "/p/")), ("/p".to_owned(), "/p/".to_owned()));
}

#[test]
fn t20_what_the_operator_spells_out_is_exempt_and_so_is_a_route_that_says_so() {
    let exact = RoutePolicy { compares_exactly: true, ..RoutePolicy::public() };
    let table = table(&[
        ("/{*rest}", RoutePolicy::public()),
        ("/admin/{*rest}", RoutePolicy::default()),
        ("/Admin/help", RoutePolicy::public()),
        ("/s3/{*key}", exact),
        ("/S3/{*key}", RoutePolicy::default()),
    ]);
    assert_eq!(get(&table, "/Admin/help"), "/Admin/help");
    assert_eq!(get(&table, "/Admin/Help"), "!/{*rest}");
    assert_eq!(get(&table, "/s3/Key;a."), "/s3/{*key}");
}

#[test]
fn t20_a_pattern_in_upper_case_is_served_in_its_own_spelling() {
    let table = table(&[("/{*rest}", RoutePolicy::default()), ("/test.Echo/{method}", RoutePolicy::public())]);
    assert_eq!(get(&table, "/test.Echo/Unary"), "/test.Echo/{method}");
    assert_eq!(get(&table, "/test.echo/Unary"), "/{*rest}");
    let odd = self::table(&[("/{*rest}", RoutePolicy::default()), ("/a;v=1/B.", RoutePolicy::public())]);
    assert_eq!(get(&odd, "/a;v=1/B."), "/a;v=1/B.");
}

#[test]
fn t20_every_lax_reading_counts_not_only_the_laxest() {
    // A server that folds case and keeps the dot reads `/a/b.`; one that also cuts the dot reads `/a/b`, which is open.
    let table = table(&[
        ("/{*rest}", RoutePolicy::optional()),
        ("/a/{*rest}", RoutePolicy::default()),
        ("/a/b", RoutePolicy::public()),
        ("/Case/{*rest}", RoutePolicy::default()),
        ("/case/x", RoutePolicy::public()),
    ]);
    assert_eq!(get(&table, "/A/b."), "!/{*rest}");
    assert_eq!(get(&table, "/A/b"), "/{*rest}");
    assert_eq!(get(&table, "/Case;/x"), "!/{*rest}");
}

#[test]
fn t20_a_stricter_route_of_other_methods_counts_as_well() {
    let mut strict = Route::new("/admin/{*rest}", scoped("admin"));
    strict.methods = vec![Method::GET];
    let mut public = Route::new("/items/{*rest}", RoutePolicy::public());
    public.methods = vec![Method::GET];
    let table =
        RouteTable::build(vec![Route::new("/{*rest}", RoutePolicy::default()), strict.clone(), public]).unwrap();
    let post = |path| take(&table, &Method::POST, path);
    assert_eq!(
        (post("/admin/x"), post("/Admin/x"), post("/admin")),
        ("405".into(), "!/{*rest}".into(), "!/{*rest}".into())
    );
    // A less strict route does not: it opens no way around another.
    assert_eq!(
        (post("/items/1"), post("/items"), post("/Items/1")),
        ("405".into(), "/{*rest}".into(), "/{*rest}".into())
    );
    // The route of the same method decides, if there is one.
    let mut write = Route::new("/admin/{*rest}", RoutePolicy::default());
    write.methods = vec![Method::POST];
    let table = RouteTable::build(vec![Route::new("/{*rest}", RoutePolicy::default()), strict, write]).unwrap();
    assert_eq!(take(&table, &Method::POST, "/Admin/x"), "/{*rest}");
    assert_eq!(take(&table, &Method::GET, "/Admin/x"), "!/{*rest}");
}

#[test]
fn t20_each_host_has_its_own_readings() {
    let mut strict = Route::new("/admin/{*rest}", RoutePolicy::default());
    strict.hosts = vec!["a.test".to_owned()];
    let mut rest = Route::new("/{*rest}", RoutePolicy::public());
    rest.hosts = vec!["a.test".to_owned()];
    let table = RouteTable::build(vec![strict, rest, Route::new("/{*rest}", RoutePolicy::public())]).unwrap();
    let path = CanonicalPath::parse("/Admin/x").unwrap();
    assert!(matches!(table.find(Some("a.test"), &Method::GET, &path), Match::Ambiguous(_)));
    assert!(matches!(table.find(Some("b.test"), &Method::GET, &path), Match::Found(_)));
}
