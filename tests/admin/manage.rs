//! Users, keys and the configuration are managed on the admin page, by plain forms (requirements P75, P76).

use std::fs;

use http::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Gate, Place, keep_secret, until, with};

use super::page::{Browser, OPERATOR, VIEWER, csrf, place, text};
use super::{Ask, admin_token, code, events};

/// The secret on the page.
fn secret_in(answer: &Answer) -> String {
    assert_eq!((answer.status, &answer.headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
    assert!(!answer.headers.contains_key("location"));
    let text = text(answer);
    let secret = text.split("<code class=\"long\">").nth(1).and_then(|rest| rest.split('<').next());
    let secret = secret.unwrap_or_else(|| panic!("no secret: {text}")).to_owned();
    keep_secret(&secret);
    secret
}

async fn lives(gate: &Gate, access: &str) -> bool {
    gate.get("/x", access).await.status == StatusCode::OK
}

/// Sends the changes as the page of another origin, with a wrong form, and by weaker roles.
async fn all_refused(gate: &Gate, token: &str, changes: &[(&str, &[(&str, &str)])]) {
    let mut admin = Browser::signed_in(gate, token).await;
    let mut other = Browser::signed_in(gate, token).await;
    let (own, foreign) = (csrf(&admin.get("/ui/").await), csrf(&other.get("/ui/").await));
    for (path, fields) in changes {
        for sent in ["", &*foreign] {
            let fields = [*fields, &[("csrf", sent)][..]].concat();
            assert_eq!(admin.post(path, &fields).await.status, StatusCode::FORBIDDEN, "{path}");
        }
        let fields_of_ours = [*fields, &[("csrf", &*own)][..]].concat();
        for header in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
            admin.headers = vec![header];
            assert_eq!(admin.post(path, &fields_of_ours).await.status, StatusCode::FORBIDDEN, "{path} {header:?}");
        }
        admin.headers = Vec::new();
        for weaker in [VIEWER, OPERATOR] {
            let mut browser = Browser::signed_in(gate, weaker).await;
            let own = csrf(&browser.get("/ui/").await);
            let fields = [*fields, &[("csrf", &*own)][..]].concat();
            assert_eq!(browser.post(path, &fields).await.status, StatusCode::FORBIDDEN, "{path} {weaker}");
        }
    }
}

#[tokio::test]
async fn p75_the_page_adds_a_user_and_shows_each_password_once() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let mut browser = Browser::signed_in(&gate, &token).await;
    let view = browser.get("/ui/users").await;
    assert!(text(&view).contains(">demo</a>") && text(&view).contains("1 user</p>"), "{}", text(&view));
    let own = csrf(&view);
    let form = [("csrf", &*own), ("user", " ada "), ("account", ""), ("scopes", "read  write")];
    let first = secret_in(&browser.post("/ui/users", &form).await);
    assert_eq!(first.len(), 20);
    let held = gate.log_in("ada", &first).await.tokens();
    let again = browser.post("/ui/users", &form).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    assert!(text(&again).contains("the user exists already"), "{}", text(&again));

    // A question changes nothing. The change ends the sessions.
    let ada = "user=ada&account=&back=/ui/users?q%3Dada";
    let asked = text(&browser.get(&format!("/ui/users/password?{ada}")).await);
    assert!(asked.contains("Set a new password for ada?") && asked.contains("sessions of the user end"), "{asked}");
    assert!(lives(&gate, &held.access).await);
    let named = [("csrf", &*own), ("user", "ada"), ("account", ""), ("back", "/ui/users?q=ada")];
    let second = secret_in(&browser.post("/ui/users/password", &named).await);
    assert_ne!(first, second);
    assert!(!lives(&gate, &held.access).await);
    assert_eq!(gate.log_in("ada", &first).await.status, StatusCode::BAD_REQUEST);
    let held = gate.log_in("ada", &second).await.tokens();

    let asked = text(&browser.get(&format!("/ui/users/disable?{ada}")).await);
    assert!(asked.contains("Disable ada?"), "{asked}");
    assert!(lives(&gate, &held.access).await, "only asked");
    let done = browser.post("/ui/users/disable", &named).await;
    assert_eq!((done.status, &done.headers["location"]), (StatusCode::SEE_OTHER, &"/ui/users?q=ada".parse().unwrap()));
    assert!(!lives(&gate, &held.access).await);
    assert_eq!(gate.log_in("ada", &second).await.status, StatusCode::BAD_REQUEST);
    let shown = text(&browser.get("/ui/users?q=ADA").await);
    for part in
        ["ada is disabled", ">disabled<", "aria-label=\"Enable ada\"", "1 user, whose name contains ADA", "read write"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains(">demo</a>"), "{shown}");
    let done = browser.post("/ui/users/enable", &named).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    assert!(!lives(&gate, &held.access).await, "an ended session stays ended");
    assert_eq!(gate.log_in("ada", &second).await.status, StatusCode::OK);

    // A name is text. The passwords are in no other view and in no log.
    let markup = "<img src=x>";
    let third = secret_in(&browser.post("/ui/users", &[("csrf", &*own), ("user", markup)]).await);
    for view in ["/ui/users", "/ui/events", "/ui/", "/ui/sessions"] {
        let shown = text(&browser.get(view).await);
        assert!(!shown.contains(markup), "{view}: {shown}");
        assert!([&first, &second, &third].iter().all(|secret| !shown.contains(&***secret)), "{view}");
    }
    let log = gate.log();
    assert!([first, second, third].iter().all(|secret| !log.contains(secret)));
    let nobody = [("csrf", &*own), ("user", "nobody"), ("back", "/ui/users")];
    for path in ["/ui/users/password", "/ui/users/disable", "/ui/users/enable"] {
        let answer = browser.post(path, &nobody).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(text(&answer).contains("the user does not exist"), "{path}");
    }
    // The audit log names the operator, as for the commands it names the user of the shell.
    for (action, number) in [("user.add", 2), ("user.change", 1), ("user.disable", 1), ("user.enable", 1)] {
        let lines = events(&gate, &token, &format!("action={action}")).await;
        let by_page = lines.iter().filter(|line| {
            line["rotogate.actor"] == "default" && line["rotogate.actor.via"] == "page" && line["user.name"] != "demo"
        });
        assert_eq!(by_page.count(), number, "{action}: {lines:#?}");
    }
}

#[tokio::test]
async fn p75_only_an_admin_changes_users_and_only_by_the_form_of_its_own_sign_in() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let held = gate.login().await;
    let before = fs::read(place.path("data/users.toml")).unwrap();
    let demo: &[(&str, &str)] = &[("user", "demo"), ("back", "/ui/users")];
    let changes: &[(&str, &[(&str, &str)])] = &[
        ("/ui/users", &[("user", "eve"), ("scopes", "read")]),
        ("/ui/users/password", demo),
        ("/ui/users/disable", demo),
        ("/ui/users/enable", demo),
    ];
    all_refused(&gate, &token, changes).await;
    assert_eq!(fs::read(place.path("data/users.toml")).unwrap(), before);
    assert!(lives(&gate, &held.access).await);
    for weaker in [VIEWER, OPERATOR] {
        let mut browser = Browser::signed_in(&gate, weaker).await;
        let shown = text(&browser.get("/ui/users").await);
        assert!(shown.contains(">demo</a>") && shown.contains("href=\"/ui/users\" aria-current=\"page\""), "{shown}");
        for button in ["New password", "Disable", "Add user"] {
            assert!(!shown.contains(button), "{button}: {shown}");
        }
        for question in ["/ui/users/password?user=demo", "/ui/users/disable?user=demo"] {
            assert_eq!(browser.get(question).await.status, StatusCode::FORBIDDEN, "{question}");
        }
    }
    let mut nobody = Browser::signed_in(&gate, &token).await;
    assert_eq!(nobody.get("/ui/users/enable?user=demo").await.status, StatusCode::NOT_FOUND, "no change by GET");
}

#[tokio::test]
async fn p75_a_page_of_users_has_a_part_of_them_and_all_pages_have_each_once() {
    let place = place();
    place.start().stop();
    let file = place.path("data/users.toml");
    let demo = fs::read_to_string(&file).unwrap();
    let (head, table) = demo.split_once("[[users]]").unwrap();
    let hash = table.lines().find(|line| line.starts_with("password")).unwrap();
    let user = |number: u32| format!("[[users]]\nsubject = \"s-{number}\"\nusername = \"User-{number}\"\n{hash}\n");
    let users: String = (0..120).map(user).collect();
    support::pki::write_private(&file, &format!("{head}{users}"));
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, VIEWER).await;
    let (mut found, mut path) = (Vec::new(), "/ui/users?q=user".to_owned());
    for rows in [50, 50, 20] {
        let shown = text(&browser.get(&path).await);
        assert!(shown.contains("120 users, whose names contain user"), "{shown}");
        let names: Vec<_> = shown.split("status=any\">").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
        assert_eq!(names.len(), rows, "{shown}");
        assert_eq!(shown.matches("not recorded").count(), rows);
        found.extend(names.into_iter().map(str::to_owned));
        let next = shown.split("class=\"button\" rel=\"next\"").next().filter(|rest| rest.len() < shown.len());
        path = next.map_or_else(String::new, |rest| {
            rest.rsplit("href=\"").next().unwrap().split('"').next().unwrap().replace("&#38;", "&")
        });
    }
    assert!(path.is_empty(), "{path}");
    assert_eq!(found, (0..120).map(|number| format!("User-{number}")).collect::<Vec<_>>());
    let ask = Ask::with(&gate, VIEWER);
    let some = ask.get("/v1/users?name=USER-11&limit=5").await.json();
    assert_eq!((&some["total"], some["users"].as_array().unwrap().len()), (&11.into(), 5), "{some}");
    assert!(!some.to_string().contains("argon2"), "{some}");
    for wrong in ["limit=0", "cursor=nobody", "nam=x"] {
        assert_eq!(ask.get(&format!("/v1/users?{wrong}")).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

/// The file is a link, as in a mounted ConfigMap or Secret.
#[tokio::test]
async fn p75_the_view_says_where_users_are_changed_that_the_gate_cannot_change() {
    let place = place();
    place.start().stop();
    let (file, target) = (place.path("data/users.toml"), place.path("data/mounted.toml"));
    fs::rename(&file, &target).unwrap();
    std::os::unix::fs::symlink(&target, &file).unwrap();
    let before = fs::read(&target).unwrap();
    let gate = place.start();
    let token = admin_token(&place);
    let mut browser = Browser::signed_in(&gate, &token).await;
    let view = browser.get("/ui/users").await;
    let own = csrf(&view);
    let attempt = browser.post("/ui/users", &[("csrf", &*own), ("user", "ada")]).await;
    assert_eq!(attempt.status, StatusCode::CONFLICT, "{}", text(&attempt));
    for (answer, why) in [(&view, "only its target can be changed"), (&attempt, "cannot be written")] {
        let shown = text(answer);
        for part in ["The gate cannot change the users file", "rotogate user add NAME", ">demo</a>", why] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("Add user") && !shown.contains(">Disable</button>"), "{shown}");
    }
    let answer = Ask::with(&gate, &token).post("/v1/users/password", "{\"user\":\"demo\"}").await;
    assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::CONFLICT, "read_only_users"));
    assert_eq!(fs::read(&target).unwrap(), before);
    gate.stop();

    // Users who are not in a file.
    let config = fs::read_to_string(place.path("gateway.toml")).unwrap();
    support::pki::write_private(&place.path("hook.secret"), "0123456789abcdef0123456789abcdef\n");
    let hook = "kind = \"http\"\nname = \"crm\"\nurl = \"http://127.0.0.1:1/hook\"\nsecret_file = \"hook.secret\"\n";
    place.write_config(&with(&config, "directory", hook));
    let gate = place.start();
    let mut browser = Browser::signed_in(&gate, &token).await;
    let view = browser.get("/ui/users").await;
    let shown = text(&view);
    for part in ["The users are in the service of the login hook <code>crm</code>", "<code>directory</code>"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("Add user") && !shown.contains("type=\"search\""), "{shown}");
    let answer = browser.post("/ui/users", &[("csrf", &csrf(&view)), ("user", "ada")]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(code(&Ask::with(&gate, &token).get("/v1/users").await), "not_configured");
}

async fn keys(gate: &Gate, token: &str) -> Value {
    Ask::with(gate, token).get("/v1/keys").await.json()
}

#[tokio::test]
async fn p76_the_page_rotates_keys_and_says_what_changes_and_what_refuses_a_change() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let held = gate.login().await;
    let first = keys(&gate, &token).await["keys"][0]["kid"].as_str().unwrap().to_owned();
    let changes: &[(&str, &[(&str, &str)])] = &[
        ("/ui/keys/rotate", &[]),
        ("/ui/keys/rotate", &[("refresh", "on")]),
        (&format!("/ui/keys/{first}/promote"), &[]),
        (&format!("/ui/keys/{first}/retire"), &[]),
    ];
    all_refused(&gate, &token, changes).await;
    for weaker in [VIEWER, OPERATOR] {
        let mut browser = Browser::signed_in(&gate, weaker).await;
        let shown = text(&browser.get("/ui/keys").await);
        assert!(shown.contains(&first) && !shown.contains("<button>Rotate"), "{shown}");
        assert_eq!(browser.get("/ui/keys/rotate").await.status, StatusCode::FORBIDDEN);
    }
    let mut browser = Browser::signed_in(&gate, &token).await;
    let shown = text(&browser.get("/ui/keys").await);
    assert!(shown.contains("Rotate signing key") && shown.contains("Rotate refresh secret"), "{shown}");

    // The secret for refresh tokens.
    let asked = browser.get("/ui/keys/rotate?refresh=on").await;
    assert!(text(&asked).contains("Refresh tokens of refresh-1 stay valid"), "{}", text(&asked));
    let own = csrf(&asked);
    let done = browser.post("/ui/keys/rotate", &[("csrf", &*own), ("refresh", "on")]).await;
    assert_eq!((done.status, &done.headers["location"]), (StatusCode::SEE_OTHER, &"/ui/keys".parse().unwrap()));
    until("the new secret is in use", async || {
        let all = keys(&gate, &token).await;
        let refresh = all["refresh"].as_array().unwrap();
        refresh.iter().any(|key| key["kid"] == "refresh-2" && key["state"] == "signing")
    })
    .await;
    let answer = browser.post("/ui/keys/refresh-1/retire", &[("csrf", &own)]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(text(&answer).contains("the key refresh-1 is still needed"), "{}", text(&answer));

    // The signing key: the question has the key in use, the time, and the end of its tokens.
    let asked = text(&browser.get("/ui/keys/rotate").await);
    for part in ["publishes a new", "signs with it after 5m", &format!("Tokens of {first} stay valid"), "expires by 20"]
    {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    assert_eq!(keys(&gate, &token).await["keys"].as_array().unwrap().len(), 1, "only asked");
    let mut done = browser.post("/ui/keys/rotate", &[("csrf", &own)]).await;
    // The task that made the secret current may still end.
    until("no other rotation runs", async || {
        if done.status == StatusCode::CONFLICT {
            done = browser.post("/ui/keys/rotate", &[("csrf", &own)]).await;
        }
        done.status == StatusCode::SEE_OTHER
    })
    .await;
    let shown = text(&browser.get("/ui/keys").await);
    assert!(shown.contains("signs after 300 seconds") && shown.contains("A rotation is running"), "{shown}");
    assert!(!shown.contains("Rotate signing key"), "{shown}");
    let mut second = String::new();
    until("the key is published", async || {
        let all = keys(&gate, &token).await;
        let new = all["keys"].as_array().unwrap().iter().find(|key| key["kid"] != first.as_str()).cloned();
        second = new.map(|key| key["kid"].as_str().unwrap().to_owned()).unwrap_or_default();
        !second.is_empty()
    })
    .await;
    let shown = text(&browser.get("/ui/keys").await);
    assert!(shown.contains(&format!("aria-label=\"Promote {second}\"")), "{shown}");
    assert!(!shown.contains(&format!("aria-label=\"Retire {first}\"")), "a key in use has no button: {shown}");
    for (path, why) in [
        ("/ui/keys/rotate".to_owned(), "a key rotation is already running"),
        (format!("/ui/keys/{second}/promote"), "other verifiers may use cached keys"),
        (format!("/ui/keys/{first}/retire"), "is in use here"),
    ] {
        let answer = browser.post(&path, &[("csrf", &own)]).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{path}");
        assert!(text(&answer).contains("role=\"alert\"") && text(&answer).contains(why), "{path}: {}", text(&answer));
    }
    assert_eq!(browser.post("/ui/keys/other/retire", &[("csrf", &own)]).await.status, StatusCode::NOT_FOUND);
    for (what, kid) in [("promote", &second), ("retire", &second)] {
        let asked = text(&browser.get(&format!("/ui/keys/{kid}/{what}")).await);
        assert!(asked.contains(&format!("action=\"/ui/keys/{kid}/{what}\"")), "{asked}");
    }
    let early = browser.post(&format!("/ui/keys/{second}/retire"), &[("csrf", &own)]).await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    assert!(text(&early).contains("may be in use for another"), "{}", text(&early));
    assert!(lives(&gate, &held.access).await);
    let lines = events(&gate, &token, "action=key.add").await;
    let by_page =
        lines.iter().filter(|line| line["rotogate.actor.via"] == "page" && line["rotogate.actor"] == "default");
    assert_eq!(by_page.count(), 2, "{lines:#?}");
}

#[tokio::test]
async fn p76_a_reload_takes_only_the_file_whose_changes_were_shown() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let config = fs::read_to_string(place.path("gateway.toml")).unwrap();
    let changed = |connections: u32| with(&config, "server", &format!("max_connections = {connections}\nworkers = 3"));
    place.write_config(&changed(77));
    let in_use = async || {
        let values = Ask::with(&gate, &token).get("/v1/config").await.json();
        let value = values["values"].as_array().unwrap().iter().find(|one| one["key"] == "server.max_connections");
        value.unwrap()["value"].as_u64().unwrap()
    };
    let old = in_use().await;
    let mut browser = Browser::signed_in(&gate, &token).await;
    let own = csrf(&browser.get("/ui/config").await);
    let digest_in = |answer: &Answer| {
        let shown = text(answer);
        shown.split("name=\"digest\" value=\"").nth(1).map(|rest| rest.split('"').next().unwrap().to_owned())
    };
    let checked = browser.post("/ui/config/check", &[("csrf", &*own)]).await;
    let shown = text(&checked);
    let row =
        |key: &str| shown.split(&format!("id\">{key}</th>")).nth(1).unwrap().split("</tr>").next().unwrap().to_owned();
    let connections = row("server.max_connections");
    assert!(connections.contains(&format!("<code>{old}</code>")) && connections.contains("<code>77</code>"), "{shown}");
    assert!(connections.contains("at a reload") && row("server.workers").contains("after a restart"), "{shown}");
    assert!(shown.contains("A reload would change 1 setting; 1 change needs a restart"), "{shown}");
    assert_eq!(in_use().await, old, "only checked");
    let digest = digest_in(&checked).unwrap();
    let asked = text(&browser.get(&format!("/ui/config/reload?digest={digest}")).await);
    assert!(asked.contains("The gate applies 1 setting: server.max_connections."), "{asked}");

    // Attackers, and a file that changed after the check.
    all_refused(&gate, &token, &[("/ui/config/reload", &[("digest", &digest)])]).await;
    place.write_config(&changed(78));
    let question = browser.get(&format!("/ui/config/reload?digest={digest}")).await;
    let stale = browser.post("/ui/config/reload", &[("csrf", &*own), ("digest", &digest)]).await;
    let unseen = browser.post("/ui/config/reload", &[("csrf", &own)]).await;
    for answer in [&question, &stale, &unseen] {
        assert_eq!(answer.status, StatusCode::CONFLICT);
        let shown = text(answer);
        assert!(shown.contains("the file changed since it was checked: check again"), "{shown}");
        assert!(shown.contains("the old configuration stays in use"), "{shown}");
    }
    let ask = Ask::with(&gate, &token);
    let stale = ask.post(&format!("/v1/config/reload?digest={digest}"), "").await;
    assert_eq!((stale.status, code(&stale).as_str()), (StatusCode::CONFLICT, "stale_check"));
    assert_eq!(in_use().await, old);
    let digest = digest_in(&browser.post("/ui/config/check", &[("csrf", &*own)]).await).unwrap();
    let done = browser.post("/ui/config/reload", &[("csrf", &*own), ("digest", &digest)]).await;
    assert_eq!((done.status, &done.headers["location"]), (StatusCode::SEE_OTHER, &"/ui/config".parse().unwrap()));
    let shown = text(&browser.get("/ui/config").await);
    assert!(shown.contains("reloaded: server.max_connections") && shown.contains("rotogate upgrade"), "{shown}");
    assert_eq!(in_use().await, 78);
    let lines = events(&gate, &token, "action=config.reload").await;
    assert_eq!((lines.len(), &lines[0]["rotogate.actor.via"]), (1, &"page".into()), "{lines:?}");
    let only_restart = browser.post("/ui/config/check", &[("csrf", &*own)]).await;
    assert_eq!(digest_in(&only_restart), None, "{}", text(&only_restart));

    // An invalid file.
    place.write_config(&changed(79).replace("workers", "workres"));
    let checked = browser.post("/ui/config/check", &[("csrf", &*own)]).await;
    let refused = browser.post("/ui/config/reload", &[("csrf", &*own), ("digest", &digest)]).await;
    assert_eq!((checked.status, refused.status), (StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY));
    for answer in [&checked, &refused] {
        let shown = text(answer);
        for part in ["the old configuration stays in use", "did you mean workers?", "server.workres"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(digest_in(answer), None);
    }
    let refused = ask.post("/v1/config/reload", "").await.json();
    assert!(refused["detail"].as_str().unwrap().contains("the old configuration stays in use"), "{refused}");
    assert_eq!(in_use().await, 78);
}

#[tokio::test]
async fn p76_a_check_masks_secrets_and_a_weaker_role_may_not_reload() {
    let secret = |place: &Place| {
        let made = place.json(&["client", "secret"], "");
        keep_secret(made["client_secret"].as_str().unwrap());
        made["secret_hash"].as_str().unwrap().to_owned()
    };
    let place = place();
    let (first, second) = (secret(&place), secret(&place));
    let config = fs::read_to_string(place.path("gateway.toml")).unwrap();
    let with_hash = |hash: &str| format!("{config}[[clients]]\nid = \"service\"\nsecret_hash = \"{hash}\"\n");
    place.write_config(&with_hash(&first));
    let gate = place.start();
    place.write_config(&with_hash(&second));
    let mut viewer = Browser::signed_in(&gate, VIEWER).await;
    let shown = viewer.get("/ui/config").await;
    assert!(!text(&shown).contains("Check the file") && text(&shown).contains("<code>rotogate reload</code>"));
    let own = csrf(&shown);
    assert_eq!(viewer.post("/ui/config/check", &[("csrf", &own)]).await.status, StatusCode::FORBIDDEN);
    let mut operator = Browser::signed_in(&gate, OPERATOR).await;
    let own = csrf(&operator.get("/ui/config").await);
    let shown = text(&operator.post("/ui/config/check", &[("csrf", &own)]).await);
    let row = shown.split("id\">clients[1].secret_hash</th>").nth(1).unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(row.split("</tr>").next().unwrap().matches("(masked)").count(), 2, "{shown}");
    assert!(!shown.contains(&first) && !shown.contains(&second));
    assert!(!shown.contains("name=\"digest\"") && shown.contains("<code>rotogate reload</code>"), "{shown}");
    assert_eq!(operator.get("/ui/config/reload?digest=x").await.status, StatusCode::FORBIDDEN);
    let checked = Ask::with(&gate, OPERATOR).post("/v1/config/check", "").await.json();
    assert_eq!(checked["changed"], json!(["clients[1].secret_hash"]), "{checked}");
}
