use super::filter::Placeholder;
use super::*;

/// A source whose server cannot be reached, so that each request is a fault.
fn unreachable() -> LdapSource {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = LdapSettings {
        urls: vec![format!("ldap://127.0.0.1:{port}")],
        starttls: false,
        dangerous_plaintext: true,
        ca: None,
        bind: None,
        base: "dc=example,dc=com".to_owned(),
        filter: Filter::parse("(uid={username})", Placeholder::Username, true).unwrap(),
        strip_domain: false,
        subject: "entryUUID".to_owned(),
        active: None,
        valid_from: None,
        account: None,
        scopes: Scope::default(),
        claims: BTreeMap::new(),
        profile: BTreeMap::new(),
        groups: None,
        pool: 1,
    };
    LdapSource::open(&settings, OPERATION_TIMEOUT).unwrap()
}

fn login(password: &str) -> LoginAttempt {
    LoginAttempt {
        account: None,
        username: "demo".to_owned(),
        password: SecretString::from(password.to_owned()),
        client: None,
        address: None,
        user_agent: None,
        scope: None,
    }
}

/// Dialects refuse an empty password themselves, but the source does not rely on this.
#[tokio::test]
async fn i26_a_password_that_a_server_may_accept_unchecked_is_refused_without_asking() {
    let source = unreachable();
    for password in ["", "\0", "correct\0", &"x".repeat(MAX_PASSWORD + 1)] {
        let refused = source.authenticate(&login(password)).await;
        assert!(matches!(refused, Ok(Login::Absent)), "{} bytes", password.len());
    }
    let asked = source.authenticate(&login("correct")).await;
    assert!(asked.is_err_and(|error| error.cause == Cause::Connect), "any other password is asked about");
}
