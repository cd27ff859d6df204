//! The `oauth2` crate, configured with the issuer only. [`super::oauth2`] runs it as a program of its own.

use std::env::var;
use std::io::{Error, Read, Write};
use std::net::TcpStream;

use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicTokenResponse};
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RefreshToken, RequestTokenError,
    ResourceOwnerPassword, ResourceOwnerUsername, RevocationUrl, Scope, StandardRevocableToken, TokenResponse,
    TokenUrl,
};

/// The crate brings no HTTP client along unless asked to; this one speaks as little of it as is needed here.
fn send(request: HttpRequest) -> Result<HttpResponse, Error> {
    let (parts, body) = request.into_parts();
    let authority = parts.uri.authority().expect("an absolute URL").as_str();
    let mut text =
        format!("{} {} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n", parts.method, parts.uri.path());
    for (name, value) in &parts.headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().expect("text")));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut stream = TcpStream::connect(authority)?;
    stream.write_all(&[text.as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| Error::other("no answer"))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let mut response = http::Response::builder().status(status);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        response = response.header(name, value);
    }
    Ok(response.body(answer[end + 4..].to_vec()).expect("a response"))
}

fn ask(method: &str, url: &str, token: Option<&BasicTokenResponse>) -> HttpResponse {
    let mut request = http::Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {}", token.access_token().secret()));
    }
    send(request.body(Vec::new()).expect("a request")).expect("an answer")
}

/// The name of the test that is the program.
pub(super) const PROGRAM: &str = "interop::oauth2_crate::program";

#[test]
fn program() {
    let Ok(issuer) = var("ISSUER") else { return };
    let answer = ask("GET", &format!("{issuer}/.well-known/oauth-authorization-server"), None);
    let metadata: serde_json::Value = serde_json::from_slice(answer.body()).expect("metadata");
    assert_eq!(metadata["issuer"], issuer.as_str());
    let url = |name: &str| metadata[name].as_str().expect("an endpoint").to_owned();
    // The crate revokes over https alone; what is sent and where is the same.
    let revocation = url("revocation_endpoint").replacen("http://", "https://", 1);
    let secret = var("CLIENT_SECRET").ok().filter(|secret| !secret.is_empty());
    let mut client = BasicClient::new(ClientId::new(var("CLIENT_ID").expect("CLIENT_ID")));
    client = match &secret {
        Some(secret) => client.set_client_secret(ClientSecret::new(secret.clone())),
        None => client.set_auth_type(AuthType::RequestBody),
    };
    let client = client
        .set_token_uri(TokenUrl::new(url("token_endpoint")).expect("a URL"))
        .set_revocation_url(RevocationUrl::new(revocation).expect("a URL"));
    let (user, password) = (var("USER_NAME").expect("USER_NAME"), var("PASSWORD").expect("PASSWORD"));
    let (user, password) = (ResourceOwnerUsername::new(user), ResourceOwnerPassword::new(password));

    let login = || {
        let asked = client.exchange_password(&user, &password).add_scope(Scope::new("read write".to_owned()));
        asked.request(&send).expect("a login")
    };
    let held = |tokens: &BasicTokenResponse| -> RefreshToken { tokens.refresh_token().expect("one").clone() };
    let refresh = |tokens: &BasicTokenResponse| client.exchange_refresh_token(&held(tokens)).request(&send);
    let call = |tokens: &BasicTokenResponse| ask("GET", &format!("{issuer}/data"), Some(tokens)).status().as_u16();
    let refused = |tokens: &BasicTokenResponse| match refresh(tokens) {
        Err(RequestTokenError::ServerResponse(said)) => {
            assert_eq!(said.error(), &BasicErrorResponseType::InvalidGrant);
        }
        Ok(_) => panic!("not refused"),
        Err(_) => panic!("not refused in the words of RFC 6749"),
    };

    if secret.is_some() {
        let impostor = client.clone().set_client_secret(ClientSecret::new("not the secret".to_owned()));
        match impostor.exchange_password(&user, &password).request(&send) {
            Err(RequestTokenError::ServerResponse(said)) => {
                assert_eq!(said.error(), &BasicErrorResponseType::InvalidClient);
            }
            _ => panic!("an impostor is not refused"),
        }
    }
    let first = login();
    assert_eq!(first.expires_in().expect("expires_in").as_secs(), 600);
    assert_eq!(first.token_type().as_ref().to_ascii_lowercase(), "bearer");
    assert_eq!(call(&first), 200);

    let second = std::thread::scope(|scope| {
        let others: Vec<_> = (0..10).map(|_| scope.spawn(|| call(&first))).collect();
        let second = refresh(&first).expect("a refresh");
        assert!(others.into_iter().all(|other| other.join().expect("a call") == 200));
        second
    });
    assert_ne!(held(&second).secret(), held(&first).secret());
    assert_eq!(call(&second), 200);

    ask("POST", &format!("{issuer}/test/lose-the-next-reply"), None);
    assert!(matches!(refresh(&second), Err(RequestTokenError::Request(_))), "the reply was not lost");
    let third = refresh(&second).expect("the same again");
    assert_ne!(third.access_token().secret(), second.access_token().secret());
    assert_eq!(call(&third), 200);
    let fourth = refresh(&third).expect("a refresh");
    assert_eq!(call(&fourth), 200);

    refused(&second);
    assert_eq!(call(&fourth), 401);

    let again = refresh(&login()).expect("a refresh");
    let token = StandardRevocableToken::RefreshToken(held(&again));
    client.revoke_token(token).expect("https").request(&send).expect("a revocation");
    refused(&again);
    assert_eq!(call(&again), 401);
}
