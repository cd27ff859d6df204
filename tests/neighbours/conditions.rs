//! Conditions on claims, at each place where the real binary judges a route.

use super::scene::{NGINX, Scene, bearer, run};
use support::stub::HEAD;

const ROUTES: &str = r#"
[[routes]]
path = "/web/{*rest}"
when = { client_id = "web", jti = { exists = true } }
upstream = "app"
[[routes]]
path = "/other/{*rest}"
when_any = [ { client_id = { not = "web" } }, { plan = { not = "free" } }, { gen = { min = 9999 } } ]
upstream = "app"
[[routes]]
path = "/users/{user}/{*rest}"
when = { sub = { param = "user" } }
upstream = "app"
[[routes]]
path = "/_query"
kuzzle = ["*"]
dialect = "kuzzle"
upstream = "app"
[[routes]]
kuzzle = ["document:delete"]
when = { client_id = "other" }
[[routes]]
path = "/{index}/{collection}/{id}"
when = { sub = { param = "index" } }
upstream = "app"
[[endpoints]]
dialect = "kuzzle"
"#;

#[test]
fn k20_a_condition_is_judged_over_http_and_grpc_for_other_proxies_and_for_each_call_in_an_envelope() {
    let scene = Scene::on(HEAD, NGINX, ROUTES);
    let tokens = scene.login();
    let good = bearer(&tokens);
    let subject = scene.about("GET", "/web/a", &[&good]).header("x-auth-subject").to_owned();
    assert!(!subject.is_empty());
    let header = good.split_once(": ").unwrap().1;
    let status = |path: &str, more: &[(&str, &str)]| scene.get(path, header, more);
    let own = format!("/users/{subject}/a");
    for (path, expected) in [("/web/a", 200), ("/other/a", 403), (own.as_str(), 200), ("/users/somebody/a", 403)] {
        let reply = status(path, &[]);
        assert_eq!(reply.status.as_u16(), expected, "{path}: {reply:?}");
        // K22: a refusal by condition names no scope.
        let challenge = reply.headers.get("www-authenticate").map(|it| it.to_str().unwrap()).unwrap_or_default();
        assert!(!challenge.contains(" scope="), "{challenge}");
        assert_eq!(scene.about("GET", path, &[&good]).status, expected, "{path} of another proxy");
        let grpc = status(path, &[("content-type", "application/grpc")]);
        let code = grpc.headers.get("grpc-status").map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(code.as_deref(), (expected == 403).then_some("7"), "{path} over gRPC");
    }
    let call = |action: &str, index: &str| scene.call_kuzzle(header, action, index, "1");
    assert_eq!([call("get", &subject), call("get", "somebody"), call("delete", &subject)], [200, 403, 403]);
    let series = "rotogate_requests_total{route=\"/users/{user}/{*rest}\",outcome=\"condition\",code=\"403\"}";
    assert_eq!(run(scene.gate.metric(series)), 2, "the request, and the question of the other proxy");
}
