use super::*;
use crate::claim::condition::Condition;
use crate::route::RoutePolicy;

fn route(id: &str, hosts: &[&str], methods: &[Method], path: &str) -> Route {
    Route {
        listeners: Vec::new(),
        id: id.into(),
        hosts: hosts.iter().map(|&h| h.to_owned()).collect(),
        methods: methods.to_vec(),
        path: path.to_owned(),
        kuzzle: Vec::new(),
        calls: Vec::new(),
        policy: RoutePolicy::default(),
        assertion_audience: None,
        upstream: None,
        exchange: None,
    }
}

fn find(table: &RouteTable, host: Option<&str>, method: &Method, path: &str) -> String {
    match table.find(host, method, &CanonicalPath::parse(path).unwrap()) {
        Match::Found(route) => route.id.to_string(),
        Match::Ambiguous(route) => format!("ambiguous {}", route.id),
        Match::MethodNotAllowed(allow) => {
            format!("405 {}", allow.iter().map(Method::as_str).collect::<Vec<_>>().join(","))
        }
        Match::None => "404".to_owned(),
    }
}

fn problems(routes: Vec<Route>) -> Vec<(usize, String)> {
    RouteTable::build(routes).unwrap_err().into_iter().map(|e| (e.route, e.problem.to_string())).collect()
}

#[test]
fn the_most_specific_path_wins_in_any_order() {
    let mut routes = vec![
        route("rest", &[], &[], "/{*rest}"),
        route("public", &[], &[], "/public/{*rest}"),
        route("admin", &[], &[], "/public/admin"),
        route("user", &[], &[], "/users/{id}"),
        route("me", &[], &[], "/users/me"),
        route("posts", &[], &[], "/users/{id}/posts"),
        route("any user", &[], &[], "/users/{*rest}"),
        route("top", &[], &[], "/{name}"),
        route("deep", &[], &[], "/users/{id}/posts/{post}/{*rest}"),
    ];
    for _ in 0..2 {
        routes.reverse();
        let table = RouteTable::build(routes.clone()).unwrap();
        let table = |path| find(&table, None, &Method::GET, path);
        assert_eq!(table("/"), "rest");
        assert_eq!(table("/x/y"), "rest");
        assert_eq!(table("/x"), "top");
        assert_eq!(table("/public"), "top");
        assert_eq!(table("/public/"), "public");
        assert_eq!(table("/publicly/"), "rest");
        assert_eq!(table("/public/a/b"), "public");
        assert_eq!(table("/public/admin"), "admin");
        assert_eq!(table("/public/admin/"), "public");
        assert_eq!(table("/public/Admin"), "public");
        assert_eq!(table("/public;x/a"), "rest");
        assert_eq!(table("/users/me"), "me");
        assert_eq!(table("/users/7"), "user");
        assert_eq!(table("/users/me/posts"), "posts");
        assert_eq!(table("/users/7/posts/"), "any user");
        assert_eq!(table("/users/7/posts/1"), "any user");
        assert_eq!(table("/users/7/posts/1/"), "deep");
        assert_eq!(table("/users/me/posts/1/x/y"), "deep");
        assert_eq!(table("/users/me/else"), "any user");
        assert_eq!(table("/users/"), "any user");
    }
}

#[test]
fn t12_an_escaped_slash_does_not_end_a_segment() {
    let table =
        RouteTable::build(vec![route("one", &[], &[], "/x/{id}"), route("two", &[], &[], "/x/{id}/y")]).unwrap();
    assert_eq!(find(&table, None, &Method::GET, "/x/a%2Fy"), "one");
}

#[test]
fn what_no_route_names_is_not_found() {
    let table = RouteTable::build(vec![route("a", &[], &[], "/a")]).unwrap();
    for path in ["/", "/a/", "/A", "/a;x", "/ab", "/a/b"] {
        assert_eq!(find(&table, None, &Method::GET, path), "404", "{path}");
    }
    assert_eq!(find(&RouteTable::build(vec![]).unwrap(), None, &Method::GET, "/"), "404");
}

#[test]
fn a_method_never_falls_through_to_a_less_specific_route() {
    let routes =
        vec![route("lax", &[], &[], "/{*rest}"), route("strict", &[], &[Method::POST, Method::GET], "/orders/{id}")];
    let table = RouteTable::build(routes).unwrap();
    assert_eq!(find(&table, None, &Method::GET, "/orders/1"), "strict");
    assert_eq!(find(&table, None, &Method::HEAD, "/orders/1"), "strict");
    assert_eq!(find(&table, None, &Method::DELETE, "/orders/1"), "405 GET,HEAD,POST");
    assert_eq!(find(&table, None, &Method::DELETE, "/orders"), "lax");
}

#[test]
fn routes_of_one_path_share_out_the_methods() {
    let routes = vec![
        route("read", &[], &[Method::GET], "/x/{*rest}"),
        route("write", &[], &[Method::POST, Method::PUT], "/x/{*rest}"),
        route("others", &[], &[], "/x/{*rest}"),
        route("exact", &[], &[Method::PUT], "/x/"),
    ];
    let table = RouteTable::build(routes).unwrap();
    assert_eq!(find(&table, None, &Method::GET, "/x/1"), "read");
    assert_eq!(find(&table, None, &Method::HEAD, "/x/1"), "read");
    assert_eq!(find(&table, None, &Method::PUT, "/x/1"), "write");
    assert_eq!(find(&table, None, &Method::DELETE, "/x/1"), "others");
    assert_eq!(find(&table, None, &Method::GET, "/x/"), "405 PUT");
}

#[test]
fn t10_unusual_methods_are_served_only_where_they_are_listed() {
    let track = Method::from_bytes(b"TRACK").unwrap();
    let table = RouteTable::build(vec![
        route("all", &[], &[], "/a"),
        route("listed", &[], &[Method::TRACE, track.clone()], "/b"),
    ])
    .unwrap();
    for method in ["TRACE", "CONNECT", "TRACK", "PRI", "get", "propfind", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let refused = find(&table, None, &method, "/a");
        assert!(refused.starts_with("405 ACL,") && refused.contains(",GET,HEAD,"), "{method}: {refused}");
    }
    // A route without a list serves every method of IANA's registry but those.
    for method in methods::defaults() {
        assert_eq!(find(&table, None, &method, "/a"), "all", "{method}");
    }
    assert!(methods::defaults().any(|method| method.as_str() == "PROPFIND"));
    assert_eq!(find(&table, None, &track, "/b"), "listed");
}

#[test]
fn a_named_host_has_its_own_routes_and_no_others() {
    let routes = vec![
        route("any", &[], &[], "/{*rest}"),
        route("api", &["API.example.com", "[2001:DB8::1]"], &[], "/v1/{*rest}"),
    ];
    let table = RouteTable::build(routes).unwrap();
    for host in ["api.example.com", "Api.Example.COM:8443", "api.example.com.", "[2001:db8::1]:80"] {
        assert_eq!(find(&table, Some(host), &Method::GET, "/v1/x"), "api", "{host}");
        assert_eq!(find(&table, Some(host), &Method::GET, "/x"), "404", "{host}");
    }
    for host in [None, Some("example.com"), Some("xapi.example.com"), Some("api.example.com.evil.test")] {
        assert_eq!(find(&table, host, &Method::GET, "/v1/x"), "any", "{host:?}");
    }
}

#[test]
fn all_bad_routes_are_reported_at_once_by_their_place() {
    let found = problems(vec![
        route("ok", &[], &[], "/ok"),
        route("brace", &[], &[], "/{a"),
        route("relative", &[], &[], "a"),
        route("rest", &[], &[], "/{*rest}/x"),
        route("double", &[], &[], "/a//b"),
        route("escape", &[], &[], "/%7euser"),
        route("dots", &[], &[], "/a/../b"),
        route("host", &["a:80", "*.x"], &[], "/h"),
        route("part", &[], &[], "/a-{b}"),
        route("name", &[], &[], "/{a b}/{}"),
        route("braces", &[], &[], "/{{a}}"),
        route("same", &[], &[], "/ok"),
        route("same2", &[], &[Method::GET], "/p/{a}"),
        route("same3", &[], &[Method::GET], "/p/{b}"),
    ]);
    let places: Vec<usize> = found.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 13], "{found:#?}");
    assert!(found.contains(&(11, "it serves the same host, path and method as another route, \"/ok\"".to_owned())));
    let same = "it serves the same host, path and method as another route, \"/p/{a}\"".to_owned();
    assert!(found.contains(&(13, same)), "{found:#?}");
    assert!(found.iter().any(|(_, text)| text.contains("\"~user\"")));
}

#[test]
fn t21_the_notation_of_other_proxies_is_refused_with_ours_beside_it() {
    for (foreign, ours) in [
        ("/admin/*", "/admin/{*rest}"),
        ("/admin/**", "/admin/{*rest}"),
        ("/*", "/{*rest}"),
        ("/admin*", "/{*rest}"),
        ("/a/*/b", "/a/{segment2}/b"),
        ("/a/**/b", "/a/{segment2}/b"),
        ("/x/:id", "/x/{id}"),
        ("/x/:id/posts/:post_id", "/x/{id}/posts/{post_id}"),
        ("/a/{id}.json", "/a/{id}"),
        ("/a/v{version}/b", "/a/{version}/b"),
        ("/a/{id:int}", "/a/{id}"),
        ("/a/{**path}", "/a/{*path}"),
        ("/a/*path", "/a/{*rest}"),
        ("/a/{id", "/a/{id}"),
        ("/a/id}", "/a/{segment2}"),
        ("/a/{}", "/a/{segment2}"),
    ] {
        let found = problems(vec![route("one", &[], &[], foreign)]);
        let [(0, problem)] = found.as_slice() else { panic!("{foreign}: {found:?}") };
        assert!(problem.ends_with(&format!("; write {ours:?}")), "{foreign}: {problem}");
        assert!(RouteTable::build(vec![route("one", &[], &[], ours)]).is_ok(), "{ours}");
    }
    // A colon within a segment is a custom verb, and means itself.
    for good in ["/docs:batchGet", "/v1/{name}/x:cancel", "/a:b/{*rest}", "/a%2Ab"] {
        assert_eq!(RouteTable::build(vec![route("one", &[], &[], good)]).map(drop), Ok(()), "{good}");
    }
}

#[test]
fn a_parameter_of_a_condition_must_be_in_the_pattern() {
    let param = Conditions::new(vec![Condition::param("a", "org").unwrap()], Vec::new()).unwrap();
    assert_eq!(missing_param(&param, "/orgs/{org}/{*rest}"), None);
    assert_eq!(missing_param(&param, "/orgs/{id}"), Some("org"));
    assert_eq!(missing_param(&param, ""), Some("org"));
}
