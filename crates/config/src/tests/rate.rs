//! `rate` of a route.

use super::*;
use rotogate_core::route::{LimitPer, RateLimit};

const ROUTE: &str =
    "[[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n[[routes]]\npath = \"/a\"\nupstream = \"app\"\n";

fn on_route(rate: &str) -> Vec<String> {
    said(&format!("{ROUTE}rate = [{rate}]\n"))
}

#[test]
fn k23_a_limit_that_cannot_be_used_is_an_error_at_its_key() {
    let table = [
        ("{ per = \"user\", limit = \"1/1m\" }", "per", "expected \"subject\""),
        ("{ per = \"claim:a[0]\", limit = \"1/1m\" }", "per", "use dots to separate"),
        ("{ limit = \"1/1m\" }", "per", "missing"),
        ("{ per = \"subject\" }", "limit", "missing"),
        ("{ per = \"subject\", limit = \"1\" }", "limit", "expected a rate"),
        ("{ per = \"subject\", limit = \"0/1m\" }", "limit", "expected a rate"),
        ("{ per = \"subject\", limit = \"1/1m\", burst = 5 }", "burst", "was removed: "),
        ("{ per = \"subject\", limit = \"1/1m\", over = \"all\" }", "over", "expected"),
        ("{ per = \"subject\", limit = \"1/1m\", name = \"a\\u00e9\" }", "rate", "visible ASCII"),
        ("{ per = \"subject\", limit = \"1/1m\", nome = \"a\" }", "nome", "unknown key"),
        (
            "{ per = \"subject\", limit = \"1/1m\" }, { per = \"subject\", limit = \"9/1h\" }",
            "rate",
            "give the two limits different names",
        ),
    ];
    for (rate, key, expected) in table {
        let found = on_route(rate);
        assert!(found.len() == 1 && found[0].contains(key) && found[0].contains(expected), "{rate}: {found:?}");
    }
    let found = said(&format!("{ROUTE}auth = \"none\"\nrate = [{{ per = \"subject\", limit = \"1/1m\" }}]\n"));
    assert!(found.len() == 1 && found[0].contains("no caller is known"), "{found:?}");
}

#[test]
fn k25_a_limit_is_what_an_application_writes_and_prints_as_it_was_written() {
    let rate = "{ per = \"subject\", limit = \"100/1m\" }, { per = \"claim:org\", limit = \"5000/1m 30s\", over = \
                \"gates\", name = \"org\" }";
    let text = format!("{MINIMAL}{ROUTE}rate = [{rate}]\n");
    let config = read(&text).unwrap();
    let minute = Duration::from_secs(60);
    let route = config.routes.iter().find(|route| route.path == "/a").unwrap();
    let expected = [
        RateLimit::new(LimitPer::Subject, 100, minute),
        RateLimit::new(LimitPer::claim("org").unwrap(), 5000, minute * 3 / 2).named("org").over_gates(),
    ];
    assert_eq!(route.policy.rate, expected);
    let printed = config.to_toml();
    assert!(printed.contains("limit = \"100/1m\"") && printed.contains("limit = \"5000/1m30s\""), "{printed}");
    assert_eq!(read(&printed).unwrap().routes, config.routes);
}
