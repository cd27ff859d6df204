//! The bodies of `oauth2` and `envelope`: what is read stands in the body once, and means the same when it is written
//! again.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use rotogate::client::PresentedClient;
use rotogate::denial::Denial;
use rotogate::dialect::envelope::Envelope;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::dialect::{Call, Command, Dialect, ExchangeRequest, RefreshCredential, ServedPath};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use crate::input::target;
use crate::json::names_members_once;

fn read(dialect: &dyn Dialect, served: &ServedPath, kind: &'static str, body: &[u8]) -> Result<Command, Denial> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    dialect.read(&Call {
        operation: served.operation,
        params: &[],
        method: &served.methods[0],
        headers: &headers,
        path: "/t",
        query: None,
        body: &Bytes::copy_from_slice(body),
        address: None,
        from_own_origin: true,
    })
}

fn client(client: Option<&PresentedClient>) -> String {
    client.map_or_else(String::new, |client| {
        format!("{:?} {:?}", client.id, client.secret.as_ref().map(|secret| secret.expose_secret().to_owned()))
    })
}

/// All that a command says, secrets too: they are the fuzzer's.
pub(crate) fn plain(command: &Command) -> String {
    match command {
        Command::Login { client: by, username, password, scope, access_ttl, resource } => {
            format!(
                "login {} {username:?} {:?} {scope:?} {access_ttl:?} {resource:?}",
                client(by.as_ref()),
                password.expose_secret()
            )
        }
        Command::ClientToken { client: by, scope, resource } => {
            format!("client {} {scope:?} {resource:?}", client(Some(by)))
        }
        Command::Refresh { client: by, credential, scope, access_ttl, resource } => {
            let credential = match credential {
                RefreshCredential::Refresh(token) => format!("refresh {:?}", token.expose_secret()),
                RefreshCredential::Access { access, may_have_expired } => {
                    format!("access {:?} {may_have_expired}", access.expose_secret())
                }
                RefreshCredential::Pair { access, refresh, expired_for_at_most } => {
                    format!("{:?} {:?} {expired_for_at_most:?}", access.expose_secret(), refresh.expose_secret())
                }
                _ => panic!("a credential that this test does not know"),
            };
            format!("refresh {} {credential} {scope:?} {access_ttl:?} {resource:?}", client(by.as_ref()))
        }
        Command::Revoke { client: by, token } => format!("revoke {} {:?}", client(by.as_ref()), token.expose_secret()),
        Command::Logout { access, everywhere } => format!("logout {:?} {everywhere}", access.expose_secret()),
        Command::Introspect { client: by, token } => {
            format!("introspect {} {:?}", client(Some(by)), token.expose_secret())
        }
        Command::Exchange(request) => {
            let ExchangeRequest { client: by, subject, actor, audience, scope } = &**request;
            let actor = actor.as_ref().map(|actor| actor.expose_secret().to_owned());
            let (by, subject) = (client(Some(by)), subject.expose_secret());
            format!("exchange {by} {subject:?} {actor:?} {audience:?} {scope:?}")
        }
        Command::Check { access, superseded } => format!("check {:?} {superseded:?}", access.expose_secret()),
        _ => panic!("a command that this test does not know"),
    }
}

target!(
    /// R11, D30: a form that is taken has no name twice, and its fields, encoded another way, are the same command.
    oauth2_form,
    &[
        "&", "=", "grant_type=refresh_token", "grant_type=password", "grant_type=client_credentials", "&refresh_token=r",
        "&client_id=web", "&client_secret=s", "&scope=a+b", "&username=u", "&password=p", "&token=t", "%", "%00", "%ff", "+",
        "&&", "&refresh%5ftoken=", ";", "&token_type_hint=x",
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange", "&subject_token=s", "&actor_token=a",
        "&subject_token_type=urn:ietf:params:oauth:token-type:access_token", "&audience=b", "&resource=r", "&audience=",
        "&actor_token_type=urn:ietf:params:oauth:token-type:jwt", "&requested_token_type=",
    ],
    |input| {
        const FORM: &str = "application/x-www-form-urlencoded";
        for served in OAuth2.serves("/t").iter().filter(|served| served.methods[0] == http::Method::POST) {
            let Ok(command) = read(&OAuth2, served, FORM, input) else { continue };
            let fields: Vec<_> = form_urlencoded::parse(input).collect();
            for (at, (name, _)) in fields.iter().enumerate() {
                assert!(fields[..at].iter().all(|(before, _)| before != name), "{name:?} stands twice");
            }
            let again = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields.iter().rev()).finish();
            let again = read(&OAuth2, served, FORM, again.as_bytes()).unwrap();
            assert_eq!(plain(&again), plain(&command));
        }
    }
);

target!(
    /// An envelope that is taken is an object whose credentials stand in it as texts, and is the same command when it is
    /// printed and read again.
    envelope_body,
    &[
        "{", "}", "\"token\":\"t\",", "\"refreshToken\":\"r\"", "\"username\":\"u\",", "\"password\":\"p\"", ",", ":", "\"",
        "null", "\\u0074oken", "[[[[[[[[[[[[[[[[[", "1e400", "\\ud800", "\u{feff}", " ", "\\u0000", "\"x\":{\"y\":1,\"y\":2},",
    ],
    |input| {
        let dialect = Envelope::default();
        for served in dialect.serves("/t") {
            for method in served.methods {
                let one = ServedPath { methods: std::slice::from_ref(method), ..served.clone() };
                let Ok(command) = read(&dialect, &one, "application/json", input) else { continue };
                assert!(names_members_once(input), "R11");
                let body: Map<String, Value> = serde_json::from_slice(input).expect("an object");
                let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty()).expect("a text");
                match &command {
                    Command::Refresh { credential: RefreshCredential::Pair { access, refresh, .. }, .. } => {
                        assert_eq!(access.expose_secret(), text("token"));
                        assert_eq!(refresh.expose_secret(), text("refreshToken"));
                    }
                    Command::Login { username, password, .. } => {
                        assert_eq!((username.as_str(), password.expose_secret()), (text("username"), text("password")));
                    }
                    other => panic!("an envelope asks for {}", plain(other)),
                }
                let again = read(&dialect, &one, "application/json", &serde_json::to_vec(&body).unwrap()).unwrap();
                assert_eq!(plain(&again), plain(&command));
            }
        }
    }
);
