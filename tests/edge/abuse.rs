//! A1, A3: rate limits, and that a flood of logins does not slow other requests.

use support::stub::{Edge, HEAD, ROUTES, tokens};
use support::wire::Reply;

fn limited(limits: &str) -> Edge {
    let config = format!("{HEAD}{ROUTES}\n[limits]\n{limits}")
        .replace("drain_timeout", "trusted_proxies = [\"127.0.0.1\"]\ndrain_timeout");
    Edge::with(&config, |_| {}, |_| {})
}

fn is_limited(reply: &Reply) {
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.header("retry-after").parse::<u32>().unwrap() >= 1, "{reply:?}");
    assert_eq!(reply.header("cache-control"), "no-store");
}

#[test]
fn a1_an_address_is_limited_and_the_one_beside_it_is_not() {
    let edge = limited("login_per_address = \"3/1h\"");
    let from = |address: &str| format!("X-Forwarded-For: {address}");
    for _ in 0..3 {
        assert_eq!(edge.try_login(&[&from("203.0.113.1")], "nobody", "x").status, 400);
    }
    is_limited(&edge.try_login(&[&from("203.0.113.1")], "nobody", "x"));
    // The limit answers in the same way for right and wrong passwords, and for known and unknown users.
    is_limited(&edge.try_login(&[&from("203.0.113.1")], "demo", &edge.gate.password));
    // The client can forge the entries before the last proxy's entry.
    is_limited(&edge.try_login(&[&from("198.51.100.7, 203.0.113.1")], "demo", &edge.gate.password));
    assert_eq!(edge.try_login(&[&from("203.0.113.2")], "demo", &edge.gate.password).status, 200);
    // IPv6 counts by /64.
    for host in 1..=3 {
        assert_eq!(edge.try_login(&[&from(&format!("2001:db8::{host}"))], "nobody", "x").status, 400);
    }
    is_limited(&edge.try_login(&[&from("2001:db8::ffff:1")], "nobody", "x"));
    assert_eq!(edge.try_login(&[&from("2001:db8:0:1::1")], "nobody", "x").status, 400);
    // Data routes know no such limit.
    assert_eq!(edge.ask("GET /public/x", &[&from("203.0.113.1")]).status, 200);
}

#[test]
fn a1_who_is_no_trusted_proxy_cannot_choose_its_address() {
    let edge = Edge::with(&format!("{HEAD}{ROUTES}\n[limits]\nlogin_per_address = \"3/1h\""), |_| {}, |_| {});
    let replies: Vec<Reply> =
        (0..5).map(|i| edge.try_login(&[&format!("X-Forwarded-For: 203.0.113.{i}")], "nobody", "x")).collect();
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [400, 400, 400, 429, 429]);
}

#[test]
fn a1_strangers_do_not_lock_a_user_out() {
    let edge = limited("login_per_account = \"3/1h\"");
    let home = "X-Forwarded-For: 203.0.113.1";
    assert_eq!(edge.try_login(&[home], "demo", &edge.gate.password).status, 200);
    let statuses: Vec<u16> = (0..6)
        .map(|i| edge.try_login(&[&format!("X-Forwarded-For: 198.51.100.{i}")], "demo", "guess").status)
        .collect();
    assert_eq!(statuses, [400, 400, 429, 429, 429, 429], "the login counted, and so did two guesses");
    is_limited(&edge.try_login(&["X-Forwarded-For: 198.51.100.9"], "demo", &edge.gate.password));
    for _ in 0..3 {
        assert_eq!(edge.try_login(&[home], "demo", &edge.gate.password).status, 200, "known from here");
    }
    // An unknown user has the same limit (A2).
    let statuses: Vec<u16> = (0..5)
        .map(|i| edge.try_login(&[&format!("X-Forwarded-For: 198.51.100.{i}")], "nobody", "guess").status)
        .collect();
    assert_eq!(statuses, [400, 400, 400, 429, 429]);
}

#[test]
fn a1_rotations_of_a_session_are_limited_and_replays_are_not() {
    let edge = limited("refresh_per_session = \"2/1h\"");
    let first = edge.login();
    let second = tokens(&edge.refresh(&[], &first.refresh));
    for _ in 0..5 {
        assert_eq!(tokens(&edge.refresh(&[], &first.refresh)), second, "a replay");
    }
    let third = tokens(&edge.refresh(&[], &second.refresh));
    is_limited(&edge.refresh(&[], &third.refresh));
    // The refused refresh consumed no token, and another session has a separate count.
    assert_eq!(edge.ask_as(&third.access, "GET /private", &[]).status, 200);
    let other = edge.login();
    assert_eq!(edge.refresh(&[], &other.refresh).status, 200);
}

#[test]
fn a1_refreshes_from_one_address_are_limited() {
    let edge = limited("refresh_per_address = \"2/1h\"");
    let from = |last: u8| format!("X-Forwarded-For: 203.0.113.{last}");
    for _ in 0..2 {
        assert_eq!(edge.refresh(&[&from(1)], "rg1_nonsense").status, 400);
    }
    is_limited(&edge.refresh(&[&from(1)], "rg1_nonsense"));
    assert_eq!(edge.refresh(&[&from(2)], &edge.login().refresh).status, 200);
}

/// The token with a different signature at each call.
fn forged(token: &str, number: usize) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = signature.as_bytes().to_vec();
    signature[number] = if signature[number] == b'A' { b'B' } else { b'A' };
    format!("{message}.{}", String::from_utf8(signature).unwrap())
}

#[test]
fn a1_forged_tokens_from_everywhere_hold_up_strangers_first_tokens_and_nothing_else() {
    let edge = limited("for_tests.forged_overall = \"20/1h\"");
    let from = |last: usize| format!("X-Forwarded-For: 203.0.113.{last}");
    let (seen, new) = (edge.login(), edge.login());
    let ask = |token: &str, last: usize| edge.ask_as(token, "GET /private", &[&from(last)]);
    assert_eq!(ask(&seen.access, 1).status, 200);
    for number in 0..21 {
        assert_eq!(ask(&forged(&new.access, number), 100 + number).status, 401);
    }
    is_limited(&ask(&forged(&new.access, 21), 99));
    is_limited(&ask(&new.access, 2));
    assert_eq!(ask(&seen.access, 2).status, 200, "what was verified before passes, from anywhere");
    assert_eq!(ask(&new.access, 1).status, 200, "and what is new, from where good ones came");
}

#[test]
fn a1_who_shows_forged_tokens_waits_with_whatever_is_new_and_nobody_else_does() {
    let edge = limited("for_tests.forged_per_address = \"3/1h\"");
    let from = |last: u8| format!("X-Forwarded-For: 203.0.113.{last}");
    let (seen, new) = (edge.login(), edge.login());
    let ask = |token: &str, last: u8| edge.ask_as(token, "GET /private", &[&from(last)]);
    assert_eq!(ask(&seen.access, 1).status, 200);
    for number in 0..4 {
        assert_eq!(ask(&forged(&new.access, number), 1).status, 401);
    }
    is_limited(&ask(&forged(&new.access, 4), 1));
    is_limited(&ask(&new.access, 1));
    assert_eq!(ask(&seen.access, 1).status, 200, "what was verified before passes");
    // A token that needs no check of a signature costs nothing, so the answer is 401 and not 429.
    assert_eq!(ask("nonsense", 2).status, 401);
    assert_eq!(ask(&new.access, 2).status, 200, "from elsewhere");
}

#[test]
fn a13_whoever_guesses_with_a_client_locks_nobody_else_out() {
    let edge = limited("for_tests.login_per_client = \"3/1h\"");
    let from = |last: usize| format!("X-Forwarded-For: 203.0.113.{last}");
    let demo = |last: usize| edge.try_login(&[&from(last)], "demo", &edge.gate.password);
    assert_eq!(demo(1).status, 200);
    for stranger in [101, 102] {
        let tries: Vec<_> =
            (0..6).map(|n| edge.try_login(&[&from(stranger)], &format!("user{stranger}{n}"), "x").status).collect();
        assert_eq!(tries, [400, 400, 400, 400, 429, 429], "who failed himself waits");
    }
    for _ in 0..3 {
        assert_eq!(demo(1).status, 200, "from where the user is known");
    }
    assert_eq!(demo(50).status, 200, "from where nobody ever was");
    is_limited(&demo(101));
    // Logins that succeed are not counted against the client.
    for last in 51..=54 {
        assert_eq!(demo(last).status, 200);
    }
}

/// A gate with a confidential client, and the client's secret.
fn with_secret(limits: &str) -> (Edge, String) {
    let secret = uuid::Uuid::new_v4().to_string();
    support::keep_secret(&secret);
    let made = support::Place::new(support::CONFIG);
    let made = made.run(&["client", "secret", "--stdin", "--json"], &secret).stdout;
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let client = format!(
        "[[clients]]\nid = \"api\"\ngrants = [\"client_credentials\"]\nsecret_hash = {}\n{ROUTES}",
        made["secret_hash"]
    );
    let config = format!("{HEAD}{client}\n[limits]\n{limits}")
        .replace("drain_timeout", "trusted_proxies = [\"127.0.0.1\"]\ndrain_timeout");
    (Edge::with(&config, |_| {}, |_| {}), secret)
}

#[test]
fn a13_a_correct_secret_passes_while_strangers_fail_right_after_a_start() {
    let (edge, secret) = with_secret("for_tests.login_per_client = \"3/1h\"");
    let token = |last: usize, secret: &str| {
        let fields = [("client_id", "api"), ("client_secret", secret), ("grant_type", "client_credentials")];
        edge.form("/connect/token", &[&format!("X-Forwarded-For: 203.0.113.{last}")], &fields).status
    };
    for stranger in [101, 102] {
        let tries: Vec<_> = (0..6).map(|_| token(stranger, "wrong")).collect();
        assert_eq!(tries, [400, 400, 400, 400, 429, 429]);
    }
    assert_eq!(token(1, &secret), 200, "its own first, since the start");
    // From now on the gate knows the client from any address, despite many failures.
    assert_eq!(token(101, &secret), 200);
    assert_eq!(token(101, "wrong"), 429);
    let statuses: Vec<_> = (0..2).map(|_| token(2, &secret)).collect();
    assert_eq!(statuses, [200, 429], "its own tokens have a rate of their own");
}

#[test]
fn a13_forged_tokens_count_wherever_they_are_shown_and_hold_up_no_introspection() {
    let (edge, secret) = with_secret("for_tests.forged_per_address = \"3/1h\"");
    let from = |last: u8| format!("X-Forwarded-For: 203.0.113.{last}");
    let [seen, new] = [edge.login(), edge.login()];
    let revoke = |token: &str, last: u8| {
        edge.form("/connect/revocation", &[&from(last)], &[("client_id", "web"), ("token", token)])
    };
    let introspect = |token: &str, last: u8| {
        let fields = [("client_id", "api"), ("client_secret", secret.as_str()), ("token", token)];
        edge.form("/connect/introspect", &[&from(last)], &fields)
    };
    for number in 0..4 {
        assert_eq!(revoke(&forged(&new.access, number), 1).status, 200, "what nobody knows needs no revoking");
    }
    is_limited(&revoke(&forged(&new.access, 4), 1));
    is_limited(&revoke(&new.access, 1));
    is_limited(&edge.ask_as(&new.access, "GET /private", &[&from(1)]));
    // An authenticated client that introspects others' tokens is not limited by the forged ones from its address.
    for number in 5..12 {
        assert_eq!(introspect(&forged(&new.access, number), 1).json()["active"], false);
    }
    assert_eq!(introspect(&seen.access, 1).json()["active"], true);
    assert_eq!(edge.ask_as(&new.access, "GET /private", &[&from(2)]).status, 200);
}

#[test]
fn a13_a_client_that_goes_on_with_a_dead_token_holds_nobody_up() {
    let edge = limited("for_tests.forged_per_address = \"3/1h\"\nfor_tests.refused_per_address = \"3/1h\"");
    let [dead, other] = [edge.login(), edge.login()];
    let revoked = edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &dead.refresh)]);
    assert_eq!(revoked.status, 200);
    for _ in 0..30 {
        assert_eq!(edge.ask_as(&dead.access, "GET /private", &[]).status, 401);
    }
    assert_eq!(edge.ask_as(&other.access, "GET /private", &[]).status, 200, "behind the same address");
    // Each of them counts, because each costs a check of a signature.
    let statuses: Vec<_> = (0..5)
        .map(|_| {
            let dead = edge.login();
            edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &dead.refresh)]);
            edge.ask_as(&dead.access, "GET /private", &[]).status
        })
        .collect();
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    assert_eq!(edge.ask_as(&other.access, "GET /private", &[]).status, 200);
}

#[test]
fn a14_a_56_and_a_48_are_limited_as_a_whole() {
    let edge = limited("refresh_per_address = \"2/1h\"");
    let refresh = |address: &str| edge.refresh(&[&format!("X-Forwarded-For: {address}")], "rg1_nonsense").status;
    let passed =
        |addresses: &mut dyn Iterator<Item = String>| addresses.filter(|address| refresh(address) == 400).count();
    assert_eq!(passed(&mut (0..4).map(|_| "2001:db8::1".to_owned())), 2, "a /64");
    assert_eq!(passed(&mut (0..10).map(|n| format!("2001:db8:0:{n:x}::1"))), 6, "a /56, of which two are gone");
    assert_eq!(passed(&mut (1..70).map(|n| format!("2001:db8:0:{n:x}00::1"))), 56, "a /48, of which eight are gone");
    assert_eq!(passed(&mut (0..4).map(|_| "2001:db8:1::1".to_owned())), 2, "the next one");
}

#[test]
fn a3_a_flood_of_logins_is_503_beyond_the_queue_while_data_routes_answer() {
    // The most expensive accepted hash: each check lasts much longer than the sending of the next login.
    let users = r#"
[[users]]
subject = "slow"
username = "slow"
password = "$argon2id$v=19$m=65536,t=10,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObGRdescudvJCs"
"#;
    let config = format!("{HEAD}{ROUTES}\n[limits]\nmax_password_checks = 1\nfor_tests.password_queue = 1\n");
    let put = |place: &support::Place| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir(place.path("data")).unwrap();
        std::fs::set_permissions(place.path("data"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(place.path("data/users.toml"), users).unwrap();
        std::fs::set_permissions(place.path("data/users.toml"), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let edge = Edge::with(&config, put, |_| {});
    let body = "client_id=web&grant_type=password&username=slow&password=x";
    let length = format!("Content-Length: {}", body.len());
    let mut flood: Vec<_> = (0..8)
        .map(|_| {
            let mut wire = edge.wire();
            wire.head(
                "POST /connect/token",
                &["Host: gate.test", "Content-Type: application/x-www-form-urlencoded", &length],
            );
            wire.send(body);
            wire
        })
        .collect();
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
    let replies: Vec<Reply> = flood.iter_mut().map(support::wire::Wire::reply).collect();
    let busy: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert!(!busy.is_empty(), "{replies:?}");
    for reply in &busy {
        assert_eq!(reply.error(), "temporarily_unavailable");
        assert!(reply.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
    // Checks that ran or waited were decided.
    assert!(replies.iter().filter(|reply| reply.status != 503).all(|reply| reply.error() == "invalid_grant"));
    assert!(busy.len() < replies.len());
    assert_eq!(edge.try_login(&[], "slow", "x").status, 400, "the queue is free again");
}
