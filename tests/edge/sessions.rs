//! R5, R6, R9, R10: the owner of a refresh token, and the effects of the end of a session.

use support::stub::{Edge, HEAD, ROUTES, tokens};
use support::{CONFIG, Gate, Place, Tokens, keep_secret};

fn invalid_grant(reply: &support::wire::Reply, what: &str) {
    assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid_grant")), "{what}");
}

#[tokio::test]
async fn r5_the_keys_alone_make_no_token_and_go_on_with_none() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let held = gate.login().await;
    // A thief has the keys, and starts with a new store.
    let thief = Place::new(CONFIG);
    std::fs::create_dir_all(thief.path("data/keys")).unwrap();
    for file in std::fs::read_dir(place.path("data/keys")).unwrap() {
        let file = file.unwrap();
        // The mark beside the keys would only show that a store is missing.
        if file.file_name() != "store.mark" {
            std::fs::copy(file.path(), thief.path("data/keys").join(file.file_name())).unwrap();
        }
    }
    let other = thief.start();
    let answer = other.refresh(&held.refresh).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (400, "invalid_grant".to_owned()));
    assert_eq!(gate.refresh(&held.refresh).await.status.as_u16(), 200, "and the session goes on where it is");
}

const CLIENTS: &str = r#"
[[clients]]
id = "other"
[[clients]]
id = "narrow"
scopes = ["read"]
[[clients]]
id = "confidential"
secret_hash = "@hash@"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_refresh_token_is_its_clients_alone_and_its_scope_never_grows() {
    let place = Place::new("");
    let secret = uuid::Uuid::new_v4().to_string();
    keep_secret(&secret);
    place.write_config(CONFIG);
    let made = place.run(&["client", "secret", "--stdin", "--json"], &secret).stdout;
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let clients = CLIENTS.replace("@hash@", made["secret_hash"].as_str().unwrap());
    let edge = Edge::with(
        &format!("{HEAD}{clients}{ROUTES}"),
        |place| {
            let password = uuid::Uuid::new_v4().to_string();
            keep_secret(&password);
            assert_eq!(place.run(&["user", "add", "ada", "--scopes", "read write"], &password).code, Some(0));
            std::fs::write(place.path("password"), &password).unwrap();
        },
        |_| {},
    );
    let as_client = |client: &str, fields: &[(&str, &str)]| {
        edge.form("/connect/token", &[], &[&[("client_id", client)], fields].concat())
    };
    let password = edge.gate.password.clone();
    let login = |client: &str, more: &[(&str, &str)]| {
        let fields = [&[("grant_type", "password"), ("username", "ada"), ("password", &password)], more].concat();
        as_client(client, &fields)
    };
    let refresh = |client: &str, token: &str, more: &[(&str, &str)]| {
        as_client(client, &[&[("grant_type", "refresh_token"), ("refresh_token", token)], more].concat())
    };
    let held = tokens(&login("web", &[]));
    invalid_grant(&refresh("other", &held.refresh, &[]), "another client");
    invalid_grant(&refresh("narrow", &held.refresh, &[]), "another client");
    let next = tokens(&refresh("web", &held.refresh, &[]));

    // A narrower scope is granted, a wider one never. A narrower scope of one token does not narrow the session.
    let reply = refresh("web", &next.refresh, &[("scope", "read")]);
    assert_eq!(reply.json()["scope"], "read");
    let next = tokens(&reply);
    for more in ["read write admin", "admin"] {
        let reply = refresh("web", &next.refresh, &[("scope", more)]);
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid_scope")), "{more}");
    }
    assert_eq!(refresh("web", &next.refresh, &[("scope", "read write")]).json()["scope"], "read write");
    let narrow = login("narrow", &[]);
    assert_eq!(narrow.json()["scope"], "read", "as far as the client may go");
    let reply = refresh("narrow", &tokens(&narrow).refresh, &[("scope", "read write")]);
    assert_eq!(reply.json()["error"], "invalid_scope");

    // Another user's name in the body has no effect.
    let mine = tokens(&login("web", &[]));
    let posing =
        [("sub", "demo"), ("username", "demo"), ("sid", "0190a0a0-0000-7000-8000-000000000000"), ("account", "x")];
    let reply = refresh("web", &mine.refresh, &posing);
    assert_eq!(edge.ask_as(&tokens(&reply).access, "GET /private", &[]).status, 200);
    assert_ne!(edge.stub.one().all("x-auth-subject"), ["demo"]);

    // A confidential client must authenticate; otherwise it gets nothing, and the token that it sent stays unused.
    let with_secret = [("client_secret", secret.as_str())];
    let held = tokens(&login("confidential", &with_secret));
    for wrong in [&[][..], &[("client_secret", "")], &[("client_secret", "wrong")]] {
        let reply = refresh("confidential", &held.refresh, wrong);
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid_client")), "{wrong:?}");
    }
    tokens(&refresh("confidential", &held.refresh, &with_secret));
}

#[test]
fn r9_the_end_of_a_session_is_there_before_its_answer_and_for_its_owner_alone() {
    let edge = Edge::new(&format!("[[clients]]\nid = \"other\"\n{ROUTES}"));
    let revoke = |client: &str, token: &str| {
        edge.form("/connect/revocation", &[], &[("client_id", client), ("token", token)]).status
    };
    let dead = |held: &Tokens, what: &str| {
        assert_eq!(edge.ask_as(&held.access, "GET /private", &[]).status, 401, "{what}");
        invalid_grant(&edge.refresh(&[], &held.refresh), what);
    };
    let of = |what: &str| {
        let (first, other) = (edge.login(), edge.login());
        let second = tokens(&edge.refresh(&[], &first.refresh));
        for held in [&first, &second] {
            assert_eq!(edge.ask_as(&held.access, "GET /private", &[]).status, 200);
        }
        let token = match what {
            "the refresh token" => &second.refresh,
            "an older refresh token" => &first.refresh,
            "the access token" => &second.access,
            _ => &first.access,
        };
        assert_eq!(revoke("other", token), 400, "{what}: another client's");
        assert_eq!(edge.ask_as(&second.access, "GET /private", &[]).status, 200, "{what}: another client's");
        assert_eq!(revoke("web", token), 200, "{what}");
        dead(&first, what);
        dead(&second, what);
        assert_eq!(revoke("web", token), 200, "{what}, again");
        assert_eq!(edge.ask_as(&other.access, "GET /private", &[]).status, 200, "{what}: the other device");
    };
    for what in ["the refresh token", "an older refresh token", "the access token", "an older access token"] {
        of(what);
    }
    for unknown in ["x", "rg1_AAAA", "a.b.c"] {
        assert_eq!(revoke("web", unknown), 200, "{unknown}");
    }
}

#[tokio::test]
async fn r10_revocations_are_there_again_before_the_first_request_after_a_kill() {
    let place = Place::new(CONFIG);
    let mut gate = place.start();
    let mut over = Vec::new();
    for _ in 0..20 {
        let held = gate.login().await;
        assert_eq!(gate.get("/x", &held.access).await.status.as_u16(), 200);
        assert_eq!(gate.revoke(&held.refresh).await.status.as_u16(), 200);
        over.push(held);
    }
    let lives = gate.login().await;
    gate.kill();
    let gate: Gate = place.start();
    for held in &over {
        assert_eq!(gate.get("/x", &held.access).await.status.as_u16(), 401);
    }
    assert_eq!(gate.get("/x", &lives.access).await.status.as_u16(), 200);
}

#[tokio::test]
async fn r22_a_user_has_so_many_sessions_and_the_oldest_ends_first() {
    let place = Place::new(&format!("{CONFIG}[sessions]\nmax_sessions_per_subject = 2\n"));
    let gate = place.start();
    let status = async |gate: &Gate, held: &Tokens| gate.get("/hello", &held.access).await.status.as_u16();
    let first = gate.login().await;
    let second = gate.login().await;
    assert_eq!(status(&gate, &first).await, 200);
    let third = gate.login().await;
    assert_eq!(status(&gate, &first).await, 401, "at the next request");
    let late = gate.refresh(&first.refresh).await;
    assert_eq!((late.status.as_u16(), late.error()), (400, "invalid_grant".to_owned()));
    assert_eq!((status(&gate, &second).await, status(&gate, &third).await), (200, 200));
    support_until(&gate, "too-many").await;
    let password = gate.password.clone();
    assert_eq!(gate.stop(), Some(0));

    // The sessions still count after a restart.
    let mut gate = place.start();
    gate.password = password;
    assert_eq!(status(&gate, &first).await, 401);
    let fourth = gate.login().await;
    assert_eq!(status(&gate, &second).await, 401);
    assert_eq!((status(&gate, &third).await, status(&gate, &fourth).await), (200, 200));
    place.point_commands_at(&gate);
    let listed = place.run(&["session", "list", "--json"], "").stdout;
    assert_eq!(listed.matches("too-many").count(), 2, "{listed}");
}

async fn support_until(gate: &Gate, line: &str) {
    support::until(line, async || gate.log().contains(line)).await;
}

#[test]
fn r22_where_none_gives_way_each_dialect_refuses_the_login_in_its_words() {
    const ENDPOINTS: &str =
        "[[endpoints]]\ndialect = \"envelope\"\n[[endpoints]]\ndialect = \"kuzzle\"\npath = \"/k\"\n";
    let sessions = "[sessions]\nmax_sessions_per_subject = 1\nfor_tests.on_too_many = \"refuse\"\n";
    let edge = Edge::new(&format!("{ENDPOINTS}{sessions}{ROUTES}"));
    let held = edge.login();
    let refused = edge.try_login(&[], "demo", &edge.gate.password);
    assert_eq!((refused.status, refused.error()), (400, "access_denied".to_owned()));
    let body = serde_json::json!({ "username": "demo", "password": edge.gate.password }).to_string();
    let post = |path: &str| {
        let mut wire = edge.wire();
        let length = format!("Content-Length: {}", body.len());
        wire.head(&format!("POST {path}"), &["Host: gate.test", "Content-Type: application/json", &length]);
        wire.send(&body);
        wire.reply()
    };
    let kuzzle = post("/k/_login/local");
    assert_eq!((kuzzle.status, kuzzle.json()["error"]["id"].as_str()), (403, Some("security.rights.forbidden")));
    let envelope = post("/api/v2/auth/token");
    assert_eq!((envelope.status, envelope.json()["errorMessage"].as_str()), (401, Some("Too many sessions")));
    // The existing session continues, and its end makes room.
    let next = tokens(&edge.refresh(&[], &held.refresh));
    edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &next.refresh)]);
    edge.login();
}
