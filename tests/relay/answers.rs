//! Requests and answers that the endpoint forwards: I40.

use http::Method;

use super::provider::Provider;
use super::{pair, place, refresh, refresh_with};
use crate::edge::issuer::Issuer;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i40_only_listed_grants_forms_and_single_parameters_reach_the_provider() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    let good = "grant_type=refresh_token&refresh_token=abc";
    let json = ("content-type", "application/json");
    for (headers, path, body, error) in [
        (&[FORM][..], "/auth/token", "grant_type=authorization_code&code=x", "unsupported_grant_type"),
        (&[FORM], "/auth/token", "grant_type=password&username=a&password=b", "unsupported_grant_type"),
        (&[FORM], "/auth/token", "refresh_token=abc", "invalid_request"),
        (&[FORM], "/auth/token", "grant_type=refresh_token", "invalid_request"),
        (&[FORM], "/auth/token", "grant_type=refresh_token&refresh_token=", "invalid_request"),
        (&[FORM], "/auth/token", "grant_type=refresh_token&refresh_token=a&refresh_token=b", "invalid_request"),
        (&[FORM], "/auth/token", "grant_type=refresh_token&grant_type=password&refresh_token=a", "invalid_request"),
        (&[FORM], "/auth/token?refresh_token=abc", good, "invalid_request"),
        (&[json], "/auth/token", r#"{"grant_type":"refresh_token","refresh_token":"abc"}"#, "invalid_request"),
        (&[], "/auth/token", good, "invalid_request"),
        (&[FORM, ("authorization", "Basic x")], "/auth/token", good, "invalid_client"),
        (
            &[FORM, ("authorization", "Basic c3BhOng=")],
            "/auth/token",
            "grant_type=refresh_token&refresh_token=a&client_secret=y",
            "invalid_request",
        ),
        (
            &[FORM, ("authorization", "Basic c3BhOng=")],
            "/auth/token",
            "grant_type=refresh_token&refresh_token=a&client_id=other",
            "invalid_request",
        ),
        (
            &[FORM],
            "/auth/token",
            "grant_type=refresh_token&refresh_token=a&client_secret=x&client_assertion=y",
            "invalid_request",
        ),
        (&[FORM], "/auth/revoke", "token=", "invalid_request"),
    ] {
        let answer = gate.call(Method::POST, path, headers, body).await;
        assert_eq!((answer.status.is_client_error(), answer.error().as_str()), (true, error), "{path} {body}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{path} {body}");
    }
    assert_eq!(gate.call(Method::GET, "/auth/token", &[], "").await.status, 405);
    for near in ["/auth//token", "/auth/Token", "/auth/token/", "/auth/%74oken", "/auth/token;x", "/auth/./token"] {
        let answer = gate.call(Method::POST, near, &[FORM], good).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{near}: {}", answer.status);
    }
    assert_eq!(provider.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i40_what_is_sent_is_the_form_and_the_client_as_they_came() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    let token = provider.login();
    let body = format!(
        "grant_type=refresh_token&refresh_token={token}&scope=a+b&resource=urn%3Aa&resource=urn%3Ab&custom=%C3%A4%26"
    );
    let headers = [FORM, ("authorization", "Basic c3BhOng="), ("cookie", "a=b"), ("x-other", "1")];
    let answer = gate.call(Method::POST, "/auth/token", &headers, &body).await;
    pair(&answer);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["content-type"], "application/json");
    let asked = provider.last();
    let form: Vec<_> = asked.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token.as_str()),
        ("scope", "a b"),
        ("resource", "urn:a"),
        ("resource", "urn:b"),
        ("custom", "ä&"),
    ];
    assert_eq!(form, expected);
    assert_eq!(asked.headers["authorization"], "Basic c3BhOng=");
    assert!(!asked.headers.contains_key("cookie") && !asked.headers.contains_key("x-other"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i40_a_listed_grant_passes_through_each_time_and_errors_of_the_provider_are_passed_on() {
    let provider = Provider::start().await;
    let place = place(&provider, "grants = [\"refresh_token\", \"authorization_code\"]");
    let gate = place.start();
    let code = [("grant_type", "authorization_code"), ("code", "the-same"), ("client_id", "spa")];
    let first = pair(&gate.form("/auth/token", &code).await);
    assert_ne!(pair(&gate.form("/auth/token", &code).await), first, "nothing of it is kept");
    assert_eq!(provider.count(), 2);
    let refused = refresh(&gate, "never-issued-by-anyone").await;
    assert_eq!((refused.status.as_u16(), refused.error().as_str()), (400, "invalid_grant"));
    assert_eq!(refused.json()["error_description"], "said by the provider");
    assert!(gate.log().contains("rotogate.outcome=provider_refused"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i40_refreshes_and_bad_tokens_of_one_address_are_limited() {
    let provider = Provider::start().await;
    let limited = |key: &str| {
        let place = place(&provider, "");
        let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
        let key = format!("{key} = ");
        let line = config.lines().find(|line| line.starts_with(&key)).unwrap().to_owned();
        place.write_config(&config.replace(&line, &format!("{key}\"3/1h\"")));
        place
    };
    for key in ["refresh_per_address", "for_tests.forged_per_address"] {
        let place = limited(key);
        let gate = place.start();
        let before = provider.count();
        let mut asked = 0;
        let answer = loop {
            let answer = refresh(&gate, &format!("guessed-token-{asked}")).await;
            if answer.status != 400 {
                break answer;
            }
            asked += 1;
        };
        assert_eq!((answer.status.as_u16(), answer.error().as_str()), (429, "too_many_requests"), "{key}");
        assert!(answer.headers.contains_key("retry-after"));
        assert!((3..=4).contains(&asked), "{key}: {asked}");
        assert_eq!(provider.count(), before + asked, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d24_the_gate_proves_its_key_to_the_provider_at_each_refresh() {
    let provider = Provider::start().await;
    let client = "client = { id = \"web\", key_file = \"gate.pem\", assertion_audience = \"https://idp.test/\" }";
    let (key, place) = (Issuer::new(35), place(&provider, client));
    support::pki::write_private(&place.path("gate.pem"), &key.private_pem());
    let gate = place.start();
    let mut ids = std::collections::BTreeSet::new();
    let mut token = provider.login();
    for _ in 0..2 {
        token = pair(&refresh_with(&gate, &token, &[("client_id", "web")]).await).1;
        let asked = provider.last();
        assert!(asked.headers.get("authorization").is_none() && asked.field("client_secret").is_none());
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(asked.field("client_assertion_type"), Some(kind));
        let said = key.proved(asked.field("client_assertion").unwrap(), "web", "https://idp.test/");
        ids.insert(said["jti"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i38_the_gates_own_client_is_added_and_clients_send_no_secret() {
    for (secret_in, basic) in [("basic", Some("Basic d2ViOnMlM0FlY3JldA==")), ("form", None)] {
        let provider = Provider::start().await;
        let place = place(
            &provider,
            &format!("client = {{ id = \"web\", secret_file = \"web.secret\", secret_in = \"{secret_in}\" }}"),
        );
        support::pki::write_private(&place.path("web.secret"), "s:ecret\n");
        let gate = place.start();
        let token = provider.login();
        for bad in [&[("client_id", "other")][..], &[("client_secret", "x")], &[("client_assertion", "x")]] {
            assert_eq!(refresh_with(&gate, &token, bad).await.status, 400);
        }
        assert_eq!(provider.count(), 0);
        pair(&refresh_with(&gate, &token, &[("client_id", "web")]).await);
        let asked = provider.last();
        assert_eq!(asked.headers.get("authorization").map(|value| value.to_str().unwrap()), basic);
        let in_form = basic.is_none().then_some("s:ecret");
        assert_eq!(asked.field("client_secret"), in_form);
        assert_eq!(asked.field("client_id").is_some(), in_form.is_some());
        // A request for another client than the gate's own.
        support::pki::write_private(&place.path("web.secret"), "another\n");
        gate.signal("HUP");
        let asked = std::sync::atomic::AtomicUsize::new(0);
        support::until("the secret is read again", async || {
            let number = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            refresh_with(&gate, &format!("guessed-token-{number}"), &[]).await;
            let asked = provider.last();
            asked.field("client_secret") == Some("another")
                || asked.headers.get("authorization").is_some_and(|value| value == "Basic d2ViOmFub3RoZXI=")
        })
        .await;
    }
}
