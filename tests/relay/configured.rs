//! The keys of the endpoint: the reports of `check`, and the effects of a reload (I44, I45).

use super::provider::Provider;
use super::{config, pair, place, refresh};
use support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i45_check_says_what_is_wrong_with_a_relay() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    assert_eq!(place.run(&["check"], "").code, Some(0));
    for (lines, said) in [
        ("grace = \"61s\"", "grace: expected at most 1m"),
        ("timeout = \"10s\"", "timeout: was removed: "),
        ("grants = []", "grants: is empty"),
        ("after_unknown = \"retry\"", "after_unknown: expected \"try-once\" or \"refuse\""),
        ("issuer = \"idp\"", "issuer: there is no issuer \"idp\""),
        ("clients = [\"web\"]", "clients: unknown key"),
        ("access_ttl = \"5m\"", "access_ttl: unknown key"),
        ("client = { secret_file = \"x\" }", "client.id: missing"),
        ("client = { id = \"web\", secret = \"x\" }", "client.secret: must not be in this file"),
        ("client = { id = \"web\", secret_file = \"nowhere\" }", "client.secret_file:"),
    ] {
        place.write_config(&config(&provider, lines));
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{lines}");
        assert!(ran.stderr.contains(said), "{lines}: {}", ran.stderr);
    }
    let good = config(&provider, "");
    for (from, to, said) in [
        ("/token\"\nrevocation_url", "/token\"\nunknown_url", "unknown_url: unknown key"),
        ("token_url = \"http://127.0.0.1", "token_url = \"http://provider.test", "token_url: expected https"),
        ("token_url = \"http://127.0.0.1", "token_url = \"https://169.254.169.254", "token_url: the URL must not lead"),
        ("path = \"/auth/token\"", "path = \"/{account}/token\"", "path: expected a path without parameters"),
        (
            "revocation_path = \"/auth/revoke\"",
            "revocation_path = \"/auth/token\"",
            "revocation_path: is already the path",
        ),
        ("revocation_path = \"/auth/revoke\"\n", "", "revocation_url: needs `revocation_path`"),
        ("ca = \"ca.pem\"", "ca = \"gateway.toml\"", "ca:"),
    ] {
        assert!(good.contains(from), "{from}");
        place.write_config(&good.replacen(from, to, 1));
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{to}");
        assert!(ran.stderr.contains(said), "{to}: {}", ran.stderr);
    }
    let open = "client = { id = \"web\", secret_file = \"web.secret\" }";
    place.write_config(&config(&provider, open));
    support::pki::write_private(&place.path("web.secret"), "s3cret-of-web");
    assert_eq!(place.run(&["check"], "").code, Some(0));
    let printed = place.run(&["check", "--print"], "").stdout;
    assert!(printed.contains("dialect = \"relay\"") && printed.contains("after_unknown = \"try-once\""), "{printed}");
    std::fs::set_permissions(place.path("web.secret"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(place.run(&["check"], "").code, Some(2), "everyone may read the secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i57_the_gates_own_client_gets_tokens_for_users_alone() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    support::pki::write_private(&place.path("web.secret"), "s3cret-of-web");
    let client = "client = { id = \"web\", secret_file = \"web.secret\" }\n";
    let of_users =
        "\"refresh_token\", \"authorization_code\", \"password\", \"urn:ietf:params:oauth:grant-type:device_code\"";
    for other in [
        "client_credentials",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:saml2-bearer",
        "of-the-provider-itself",
    ] {
        let grants = format!("grants = [\"refresh_token\", \"{other}\"]\n");
        place.write_config(&config(&provider, &format!("{grants}{client}")));
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{other}");
        let said = format!("grants: \"{other}\" cannot be combined with `client`: ");
        assert!(ran.stderr.contains(&said) && ran.stderr.contains("Remove the grant"), "{other}: {}", ran.stderr);
        // Both remedies that the message names.
        place.write_config(&config(&provider, &grants));
        assert_eq!(place.run(&["check"], "").code, Some(0), "{other}: clients authenticate by themselves");
        place.write_config(&config(&provider, &format!("grants = [{of_users}]\n{client}")));
        assert_eq!(place.run(&["check"], "").code, Some(0), "without {other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i44_a_reload_takes_the_provider_and_the_rules_and_keeps_the_records() {
    let (one, two) = (Provider::start().await, Provider::start().await);
    let place = place(&one, "");
    let gate = place.start();
    let token = one.login();
    let first = pair(&refresh(&gate, &token).await);
    let taken = "configuration reloaded";
    place.write_config(&config(&one, "grace = \"45s\""));
    gate.signal("HUP");
    until("it is taken up", async || gate.log().contains(taken)).await;
    assert_eq!(pair(&refresh(&gate, &token).await), first, "the records stay");
    assert_eq!(one.count(), 1);

    place.write_config(&config(&two, "").replace("ca.pem", "nowhere.pem"));
    gate.signal("HUP");
    until("the mistake is in the log", async || gate.log().contains("nowhere.pem")).await;
    assert_eq!(pair(&refresh(&gate, &token).await), first, "what is wrong changes nothing");

    place.write_config(&config(&two, ""));
    gate.signal("HUP");
    until("it is taken up", async || gate.log().matches(taken).count() == 2).await;
    pair(&refresh(&gate, &two.login()).await);
    assert_eq!((one.count(), two.count()), (1, 1));
    assert!(!gate.log().contains("restart needed"));

    let elsewhere = config(&two, "").replace("/auth/token", "/elsewhere");
    place.write_config(&elsewhere);
    gate.signal("HUP");
    until("a restart is asked for", async || gate.log().contains("restart needed")).await;
}
