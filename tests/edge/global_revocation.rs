//! Global token revocation, and security events that refresh, against the real binary: the next request with an ended token
//! is refused, and changed data are read again.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::assertion_grants::{Scene, TRANSMITTER, access, merged, scene_by};
use super::issuer::{URL, claims};
use support::documents::Documents;
use support::stub::tokens;
use support::wire::Reply;
use support::{in_shell, keep_secret};

const GATE: &str = "http://gate.test";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type";

const KEYS: &str = r#"
[[endpoints]]
dialect = "my-keys"
path = "/account/keys"
[[routes]]
path = "/machines/{*rest}"
upstream = "app"
credentials = ["key"]
[api_keys]
prefix = "acme"
"#;

/// An issuer that revokes and reports events, whose users the directory knows; with a store on disk.
fn scene(hook: &Documents, (limits, rules): (&str, &str), change: impl FnOnce(&mut Command)) -> Scene {
    keep_secret(TRANSMITTER);
    let told = r#"global_revocation = { path = "/revoke/okta", client_id = "0oa1" }
events = { path = "/events/okta", audience = ["our-client"], token_file = "events.token" }
user_names = ["email"]
backchannel_logout"#;
    let directory = format!("[directory]\nkind = \"http\"\nurl = \"{}\"\n", hook.at("/hook"));
    let configure = |config: String| {
        let config = config.replace("subject_prefix = \"okta|\"", &format!("subject_prefix = \"okta|\"\n{rules}"));
        let config = config.replacen("backchannel_logout", told, 1).replace("[store]\nkind = \"memory\"\n", "");
        let config = config.replace("[\"wiki\", \"bound\"] }", "[\"wiki\", \"bound\"], subject = \"directory\" }");
        let route = "[[routes]]\npath = \"/okta/{*rest}\"\nissuers = [\"okta\"]\nupstream = \"app\"\n[[routes]]";
        format!("{}{KEYS}{directory}{limits}", config.replacen("[[routes]]", route, 1))
    };
    scene_by(configure, change)
}

fn now() -> u64 {
    claims(&json!({}))["iat"].as_u64().unwrap()
}

fn user() -> Value {
    json!({ "format": "iss_sub", "iss": URL, "sub": "u-1" })
}

impl Scene {
    fn jwt(&self, changes: &Value) -> String {
        let said = json!({
            "aud": format!("{GATE}/revoke/okta"), "sub": "0oa1", "jti": uuid::Uuid::new_v4(), "exp": now() + 300,
            "client_id": null, "scope": null,
        });
        let header = json!({ "alg": "EdDSA", "kid": "k1", "typ": "global-token-revocation+jwt" });
        self.idp.sign(&header, &claims(&merged(said, changes)))
    }

    fn post(&self, path: &str, kind: &str, bearer: &str, body: &str) -> Reply {
        let (authorization, kind) = (format!("Authorization: Bearer {bearer}"), format!("Content-Type: {kind}"));
        let length = format!("Content-Length: {}", body.len());
        let mut wire = self.edge.wire();
        wire.head(&format!("POST {path}"), &["Host: gate.test", &length, &kind, &authorization]);
        wire.send(body);
        wire.reply()
    }

    fn revoke(&self, jwt: &str, sub_id: &Value) -> Reply {
        self.post("/revoke/okta", "application/json", jwt, &json!({ "sub_id": sub_id }).to_string())
    }

    fn tell(&self, kind: &str, sub_id: &Value, event: &Value) -> u16 {
        self.tell_of(&format!("{CAEP}/{kind}"), sub_id, event)
    }

    fn tell_of(&self, uri: &str, sub_id: &Value, event: &Value) -> u16 {
        let said = json!({
            "aud": "our-client", "jti": uuid::Uuid::new_v4(), "sub": null, "exp": null, "sub_id": sub_id,
            "events": { uri: event },
        });
        let set = self.idp.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "secevent+jwt" }), &claims(&said));
        self.post("/events/okta", "application/secevent+jwt", TRANSMITTER, &set).status
    }

    /// A token of the issuer for `sub`, of an earlier second.
    fn foreign(&self, sub: &str) -> String {
        let jti = uuid::Uuid::new_v4();
        self.idp.token(&json!({ "sub": sub, "jti": jti, "iat": now() - 5, "tenant": "acme", "scope": "read" }))
    }

    /// A token of the gate for its user, of a session that the issuer vouched for.
    fn own(&self) -> String {
        self.own_since(now() - 5)
    }

    fn own_since(&self, iat: u64) -> String {
        access(&self.present(&self.signed(&json!({ "iat": iat, "sid": "s-1" }))))
    }
}

fn scene_and_hook(limits: &str) -> (Scene, Documents) {
    scene_started((limits, ""), |_| {})
}

fn scene_started(limits_and_rules: (&str, &str), change: impl FnOnce(&mut Command)) -> (Scene, Documents) {
    let hook = Documents::start();
    let user = json!({ "active": true, "subject": "u-17", "scopes": ["read"] });
    hook.document("/hook/lookup", &user);
    hook.document("/hook/authenticate", &user);
    let scene = scene(&hook, limits_and_rules, change);
    (scene, hook)
}

#[tokio::test]
async fn s13_an_address_that_sends_bad_jwts_waits_and_a_good_one_is_taken_later() {
    let (scene, _hook) = scene_and_hook("[limits]\nfor_tests.forged_per_address = \"3/1s\"\n");
    let bad = scene.jwt(&json!({ "sub": "another-app" }));
    let refused: Vec<_> = (0..8).map(|_| scene.revoke(&bad, &user())).collect();
    let limited = refused.iter().find(|reply| reply.status != 401).unwrap();
    assert_eq!((limited.status, limited.all("retry-after").len()), (429, 1));
    support::until("a good one is taken", async || scene.revoke(&scene.jwt(&json!({})), &user()).status == 204).await;
}

const ALARM: &str = "an issuer has revoked the tokens of 100 users within 10 minutes";

impl Scene {
    /// The number of alarms about the issuer.
    fn alarms(&self) -> usize {
        let log = self.edge.gate.log();
        let alarms = log.lines().filter(|line| line.contains(ALARM));
        alarms.inspect(|line| assert!(line.contains("okta") && line.contains("ERROR"), "{line}")).count()
    }

    fn log_out_at_issuer(&self, user: &str, session: Option<&str>) {
        let said = json!({
            "aud": "our-client", "sub": user, "sid": session, "jti": uuid::Uuid::new_v4(), "client_id": null,
            "scope": null, "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let told = self.idp.sign(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "logout+jwt" }), &claims(&said));
        assert_eq!(self.edge.form("/logout/idp", &[], &[("logout_token", &told)]).status, 200);
    }

    fn ends(&self, kind: &str, sub_id: &Value) {
        assert_eq!(self.tell(kind, sub_id, &json!({ "change_type": "revoke", "credential_type": "password" })), 202);
    }
}

fn many(n: usize) -> Value {
    json!({ "format": "iss_sub", "iss": URL, "sub": format!("many-{n}") })
}

#[test]
fn s15_an_issuer_that_ends_very_many_users_is_an_alarm_whichever_way_it_takes() {
    let (scene, _hook) = scene_and_hook("");
    let known = |user: &str, session: &str| {
        let token =
            json!({ "sub": user, "sid": session, "jti": uuid::Uuid::new_v4(), "tenant": "acme", "scope": "read" });
        assert_eq!(scene.status(&scene.idp.token(&token), "/okta/x"), 200);
    };
    known("eve", "of-eve");
    // 99 users, some of them several times: `sub` alone, a made-up session, and the session of another user.
    (0..30).for_each(|n| scene.log_out_at_issuer(&format!("many-{n}"), None));
    (20..50).for_each(|n| scene.log_out_at_issuer(&format!("many-{n}"), Some("made-up")));
    (50..70).for_each(|n| scene.log_out_at_issuer(&format!("many-{n}"), Some("of-eve")));
    (60..98).for_each(|n| scene.ends("session-revoked", &many(n)));
    scene.ends("credential-change", &many(7));
    assert_eq!(scene.revoke(&scene.jwt(&json!({})), &many(98)).status, 204);
    assert_eq!(scene.alarms(), 0);
    scene.ends("credential-change", &many(99));
    assert_eq!(scene.alarms(), 1);
    (100..110).for_each(|n| scene.log_out_at_issuer(&format!("many-{n}"), None));
    assert_eq!(scene.alarms(), 1, "once in a period");
}

#[test]
fn s15_many_users_who_log_out_of_one_session_each_are_no_alarm() {
    let (scene, _hook) = scene_and_hook("");
    for n in 0..120 {
        let (user, session) = (format!("many-{n}"), format!("s-{n}"));
        let token = json!({ "sub": user, "sid": session, "jti": uuid::Uuid::new_v4(), "iat": now() - 5, "tenant": "acme",
                            "scope": "read" });
        let token = scene.idp.token(&token);
        assert_eq!(scene.status(&token, "/okta/x"), 200);
        let id = json!({ "format": "opaque", "id": session });
        match n % 3 {
            0 => scene.log_out_at_issuer(&user, Some(&session)),
            1 => scene.ends("session-revoked", &json!({ "format": "complex", "session": id, "user": many(n) })),
            _ => scene.ends("session-revoked", &id),
        }
        assert_eq!(scene.status(&token, "/okta/x"), 401);
    }
    assert_eq!(scene.alarms(), 0);
}

#[test]
fn s15_many_known_users_who_log_out_at_an_issuer_that_names_no_sessions_are_no_alarm() {
    let (scene, _hook) = scene_and_hook("");
    let token_of = |user: &str| {
        let token = scene.foreign(user);
        assert_eq!(scene.status(&token, "/okta/x"), 200);
        token
    };
    for n in 0..120 {
        let user = format!("known-{n}");
        let token = token_of(&user);
        scene.log_out_at_issuer(&user, None);
        assert_eq!(scene.status(&token, "/okta/x"), 401);
    }
    assert_eq!(scene.alarms(), 0);
    // Users whom the gate does not know, and known ones after a notice that named a session.
    (0..50).for_each(|n| scene.log_out_at_issuer(&format!("many-{n}"), None));
    scene.log_out_at_issuer("known-0", Some("made-up"));
    (50..98).for_each(|n| drop(token_of(&format!("many-{n}"))));
    (50..98).for_each(|n| scene.log_out_at_issuer(&format!("many-{n}"), None));
    assert_eq!(scene.alarms(), 0, "99 users");
    scene.log_out_at_issuer("known-1", None);
    assert_eq!(scene.alarms(), 1);
}

#[test]
fn s13_s14_s15_another_issuer_ends_everything_of_its_user_and_of_nobody_else() {
    let (mut scene, hook) = scene_and_hook("");
    let (theirs, others, ours) = (scene.foreign("u-1"), scene.foreign("u-2"), scene.own());
    let status = |scene: &Scene, wanted: [u16; 3]| {
        let found = [scene.status(&theirs, "/okta/x"), scene.status(&others, "/okta/x"), scene.status(&ours, "/x")];
        assert_eq!(found, wanted);
    };
    status(&scene, [200; 3]);
    let metadata = scene.edge.ask("GET /.well-known/oauth-authorization-server", &[]).json();
    assert_eq!(metadata["global_token_revocation_endpoint"], format!("{GATE}/revoke/okta"));
    // S13: the whole table of refusals. None of them ends anything.
    let good = || scene.jwt(&json!({}));
    let another = json!({ "format": "iss_sub", "iss": "https://off.test/", "sub": "u-1" });
    let email = json!({ "format": "email", "email": "ada@example.com" });
    for (jwt, sub_id, wanted) in [
        ("no token".to_owned(), user(), 401),
        (scene.jwt(&json!({ "aud": format!("{GATE}/revoke/other") })), user(), 401),
        (scene.jwt(&json!({ "sub": "another-app" })), user(), 401),
        (scene.jwt(&json!({ "exp": now() + 700 })), user(), 401),
        (theirs.clone(), user(), 401),
        (good(), json!("u-1"), 400),
        (good(), json!({ "format": "opaque", "id": "u-17" }), 400),
        (good(), another, 403),
    ] {
        let reply = scene.revoke(&jwt, &sub_id);
        assert_eq!((reply.status, reply.header("cache-control")), (wanted, "no-store"), "{sub_id}");
        assert_eq!(reply.all("www-authenticate").len(), usize::from(wanted == 401));
    }
    assert_eq!(scene.edge.ask("GET /revoke/okta", &[]).status, 405);
    assert_eq!(scene.post("/revoke/okta", "application/json", &good(), &" ".repeat(4097)).status, 413);
    assert_eq!(scene.post("/revoke/okta", "text/plain", &good(), "{}").status, 400);
    for (answer, wanted) in [
        (json!({ "active": false }), 404),
        (json!({ "active": false, "several": true }), 422),
        (json!({ "active": "perhaps" }), 503),
    ] {
        hook.document("/hook/lookup", &answer);
        assert_eq!(scene.revoke(&good(), &email).status, wanted, "{answer}");
    }
    hook.document("/hook/lookup", &json!({ "active": true, "subject": "u-17", "scopes": ["read"] }));
    status(&scene, [200; 3]);
    // S15: refused at the next request, and after kill -9. S14: a second use of the JWT is refused.
    let once = good();
    assert_eq!(scene.revoke(&once, &user()).status, 204);
    status(&scene, [401, 200, 401]);
    assert_eq!(scene.revoke(&once, &user()).status, 401);
    assert_eq!(scene.revoke(&good(), &json!({ "format": "iss_sub", "iss": URL, "sub": "never-seen" })).status, 204);
    let log = scene.edge.gate.log();
    assert!(log.contains("issuer.event") && log.contains("global-token-revocation"), "{log}");
    assert!(log.contains("it was used before"), "a refused request is on record");
    let metrics = scene.edge.metrics();
    let series = r#"rotogate_events_total{issuer="okta",type="global-token-revocation",effect="end"} 2"#;
    assert!(metrics.contains(series), "the directory knows both: {metrics}");
    scene.edge.gate.kill();
    scene.edge.gate = scene.edge.place.start();
    status(&scene, [401, 200, 401]);
    assert_eq!(scene.revoke(&once, &user()).status, 401, "its use outlives the process");
}

#[test]
fn s13_s15_a_user_whom_the_directory_names_loses_the_sessions_that_no_issuer_vouched_for() {
    let (scene, hook) = scene_and_hook("");
    let known = json!({ "active": true, "subject": "u-17", "scopes": ["read"] });
    let unknown = json!({ "active": false });
    let login = || tokens(&scene.edge.try_login(&[], "ada", "a-password")).access;
    let theirs = scene.foreign("u-1");
    let email = json!({ "format": "email", "email": "ada@example.com" });
    // By the subject at the issuer: without the directory, the gate does not know whose sessions these are.
    let first = login();
    hook.document("/hook/lookup", &unknown);
    assert_eq!(scene.revoke(&scene.jwt(&json!({})), &user()).status, 204);
    assert_eq!((scene.status(&first, "/x"), scene.status(&theirs, "/okta/x")), (200, 401));
    hook.document("/hook/lookup", &known);
    assert_eq!(scene.revoke(&scene.jwt(&json!({})), &user()).status, 204);
    assert_eq!(scene.status(&first, "/x"), 401);
    // By the user's address.
    let (second, others) = (login(), scene.foreign("u-2"));
    assert_eq!(scene.status(&second, "/x"), 200);
    assert_eq!(scene.revoke(&scene.jwt(&json!({})), &email).status, 204);
    assert_eq!((scene.status(&second, "/x"), scene.status(&others, "/okta/x")), (401, 200));
}

#[test]
fn s31_a_notice_about_nobody_whom_the_gate_has_seen_is_in_force_and_counted_apart() {
    let (scene, hook) = scene_and_hook("");
    hook.document("/hook/lookup", &json!({ "active": false }));
    let of = |user: &str| json!({ "format": "iss_sub", "iss": URL, "sub": user });
    let status = |user: &str| scene.status(&scene.foreign(user), "/okta/x");
    let tell = |way: &str, user: &str| match way {
        "logout" => scene.log_out_at_issuer(user, None),
        "end" => scene.ends("session-revoked", &of(user)),
        "refresh" => scene.ends("credential-change", &of(user)),
        _ => assert_eq!(scene.revoke(&scene.jwt(&json!({})), &of(user)).status, 204),
    };
    for way in ["logout", "end", "refresh", "global"] {
        let (seen, unseen) = (format!("seen-{way}"), format!("unseen-{way}"));
        assert_eq!(status(&seen), 200);
        tell(way, &seen);
        tell(way, &unseen);
        assert_eq!((status(&seen), status(&unseen)), (401, 401), "{way}");
    }
    // Sessions alone: one of a token, one of a session of this gate, and one that nobody named.
    let with_session = json!({ "sub": "ada", "sid": "a", "jti": "t", "tenant": "acme", "scope": "read" });
    assert_eq!(scene.status(&scene.idp.token(&with_session), "/okta/x"), 200);
    hook.document("/hook/lookup", &json!({ "active": true, "subject": "u-17", "scopes": ["read"] }));
    scene.own();
    ["a", "s-1", "unseen"]
        .iter()
        .for_each(|id| scene.ends("session-revoked", &json!({ "format": "opaque", "id": id })));
    let metrics = scene.edge.metrics();
    let counted = |series: &str| assert!(metrics.contains(&format!("rotogate_{series}")), "{series}: {metrics}");
    for (protocol, applied, unseen) in [("logout", 1, 1), ("events", 4, 3), ("global-revocation", 1, 1)] {
        for (result, number) in [("applied", applied), ("unseen", unseen)] {
            counted(&format!(
                "issuer_notices_total{{issuer=\"okta\",protocol=\"{protocol}\",result=\"{result}\"}} {number}"
            ));
        }
    }
    counted(r#"events_total{issuer="okta",type="credential-change",effect="refresh"} 1"#);
    counted(r#"events_total{issuer="okta",type="credential-change",effect="unseen"} 1"#);
}

#[test]
fn s31_a_global_revocation_asks_the_directory_for_the_subject_with_which_the_user_logs_in() {
    let (scene, hook) = scene_started(("", "claims = { subject = \"oid\" }"), |_| {});
    let login = || tokens(&scene.edge.try_login(&[], "ada", "a-password")).access;
    let of = |user: &str| json!({ "format": "iss_sub", "iss": URL, "sub": user });
    let revoke = |user: &str| scene.revoke(&scene.jwt(&json!({})), &of(user)).status;
    let own = login();
    // The gate knows no name by which to ask. What it knows ends all the same.
    let asked = hook.times("/hook/lookup");
    let theirs = json!({ "sub": "u-2", "oid": "o-2", "jti": "t", "iat": now() - 5, "tenant": "acme", "scope": "read" });
    let theirs = scene.idp.token(&theirs);
    assert_eq!((revoke("u-2"), hook.times("/hook/lookup")), (404, asked));
    assert_eq!((scene.status(&theirs, "/okta/x"), scene.status(&own, "/x")), (401, 200));
    // By the subject of the assertion with which the user came.
    access(&scene.present(&scene.signed(&json!({ "iat": now() - 5, "oid": "o-1" }))));
    assert_eq!(revoke("u-1"), 204);
    let question: Value = serde_json::from_str(&hook.body("/hook/lookup")).unwrap();
    assert_eq!((&question["issuer"], &question["subject"]), (&json!(URL), &json!("o-1")));
    assert_eq!(scene.status(&own, "/x"), 401);
}

/// Ignores the signal by which a write past the limit would end the process.
const TRAP: &str = r#"trap '' XFSZ; exec "$@""#;

#[test]
fn s13_a_request_that_the_store_cannot_record_is_503_and_ends_nothing_until_it_is_repeated() {
    let in_shell = |command: &mut Command| {
        in_shell(TRAP)(command);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
    };
    let (scene, _hook) = scene_started(("", ""), in_shell);
    let (theirs, jwt) = (scene.foreign("u-1"), scene.jwt(&json!({})));
    let limit = |bytes: &str| {
        let process = format!("--pid={}", scene.edge.gate.child.id());
        let set = Command::new("prlimit").args([process, format!("--fsize={bytes}:")]).status();
        assert!(set.unwrap().success());
    };
    assert_eq!(scene.status(&theirs, "/okta/x"), 200);
    limit("4096");
    let refused = scene.revoke(&jwt, &user());
    assert_eq!((refused.status, refused.all("retry-after").len()), (503, 1), "{refused:?}");
    assert_eq!(scene.status(&theirs, "/okta/x"), 200);
    limit("unlimited");
    let mut status = 503;
    while status == 503 {
        status = scene.revoke(&jwt, &user()).status;
    }
    assert_eq!((status, scene.status(&theirs, "/okta/x")), (204, 401), "the request was not used up");
}

#[test]
fn s15_k4_the_keys_of_a_user_end_with_the_account_and_by_global_revocation() {
    let (mut scene, hook) = scene_and_hook("");
    let made = |scene: &Scene, iat: u64| {
        let (bearer, body) = (format!("Authorization: Bearer {}", scene.own_since(iat)), "{\"name\": \"nightly\"}");
        let length = format!("Content-Length: {}", body.len());
        let mut wire = scene.edge.wire();
        let headers = ["Host: gate.test", &length, "Content-Type: application/json", &bearer];
        wire.head("POST /account/keys", &headers);
        wire.send(body);
        let reply = wire.reply();
        assert_eq!(reply.status, 201, "{}", reply.text());
        let key = reply.json()["key"].as_str().unwrap().to_owned();
        keep_secret(&key);
        key
    };
    let status = |scene: &Scene, key: &str| scene.edge.ask("GET /machines/x", &[&format!("X-API-Key: {key}")]).status;
    // The directory names the user.
    let disabled = made(&scene, now() - 5);
    assert_eq!(status(&scene, &disabled), 200);
    let email = json!({ "format": "email", "email": "ada@example.com" });
    assert_eq!(scene.tell_of(&format!("{RISC}/account-disabled"), &email, &json!({})), 202);
    assert_eq!(status(&scene, &disabled), 401);
    // The directory does not know which user the issuer's subject is.
    let revoked = made(&scene, now() + 2);
    assert_eq!(status(&scene, &revoked), 200);
    hook.document("/hook/lookup", &json!({ "active": false }));
    assert_eq!(scene.revoke(&scene.jwt(&json!({ "iat": now() + 10 })), &user()).status, 204);
    assert_eq!(status(&scene, &revoked), 401);
    hook.document("/hook/lookup", &json!({ "active": true, "subject": "u-17", "scopes": ["read"] }));
    scene.edge.gate.kill();
    scene.edge.gate = scene.edge.place.start();
    assert_eq!((status(&scene, &disabled), status(&scene, &revoked)), (401, 401));
}

#[test]
fn s19_s20_s22_s23_an_event_refreshes_or_ends_and_later_logins_live() {
    let (scene, hook) = scene_and_hook("");
    let (theirs, ours) = (scene.foreign("u-1"), scene.own());
    assert_eq!((scene.status(&theirs, "/okta/x"), scene.status(&ours, "/x")), (200, 200));
    // An event that is only logged, or that concerns no user, changes nothing.
    assert_eq!(scene.tell("device-compliance-change", &user(), &json!({ "current_status": "not-compliant" })), 202);
    assert_eq!(scene.tell("credential-change", &user(), &json!({ "change_type": "create" })), 202);
    let tenant = json!({ "format": "complex", "tenant": { "format": "opaque", "id": "t-1" } });
    assert_eq!(scene.tell("session-revoked", &tenant, &json!({})), 202);
    assert_eq!((scene.status(&theirs, "/okta/x"), scene.status(&ours, "/x")), (200, 200));
    // After a refresh: the earlier access tokens are refused, and the session stays, because the directory has its user.
    let earlier = json!({ "change_type": "update", "event_timestamp": now() });
    for _ in 0..2 {
        assert_eq!(scene.tell("credential-change", &user(), &earlier), 202);
        assert_eq!((scene.status(&theirs, "/okta/x"), scene.status(&ours, "/x")), (401, 401));
    }
    let next_second = now() + 1;
    while now() < next_second {
        std::thread::yield_now();
    }
    let asked = hook.times("/hook/lookup");
    let again = access(&scene.present(&scene.signed(&json!({ "iat": now() - 5, "sid": "s-1" }))));
    assert_eq!(scene.status(&again, "/x"), 200);
    assert!(hook.times("/hook/lookup") > asked);
    // By e-mail address: the sessions of the user that the directory names end.
    let email = json!({ "format": "email", "email": "ada@example.com" });
    assert_eq!(scene.tell("session-revoked", &email, &json!({})), 202);
    assert_eq!(scene.status(&again, "/x"), 401);
    let metrics = scene.edge.metrics();
    for (kind, effect, number) in [
        ("device-compliance-change", "log", 1),
        ("credential-change", "log", 1),
        ("credential-change", "refresh", 2),
        ("session-revoked", "unmatched", 1),
        ("session-revoked", "end", 1),
    ] {
        let series = format!(r#"rotogate_events_total{{issuer="okta",type="{kind}",effect="{effect}"}} {number}"#);
        assert!(metrics.contains(&series), "{series}: {metrics}");
    }
}
