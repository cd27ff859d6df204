//! A small HTTP client over real sockets, and tokens to send with it.

use std::net::SocketAddr;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn challenge(&self) -> &str {
        self.headers["www-authenticate"].to_str().unwrap()
    }

    /// A member of a JSON object, as text.
    pub fn member(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.body)).to_owned()
    }
}

pub async fn send(request: Request<String>) -> Answer {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let (parts, body) = client.request(request.map(|body| Full::from(Bytes::from(body)))).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// A server, by its address.
#[derive(Clone, Copy)]
pub struct Server(pub SocketAddr);

impl Server {
    pub async fn axum(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
        });
        Self(address)
    }

    pub fn request(self, path: &str) -> http::request::Builder {
        Request::builder().uri(format!("http://{}{path}", self.0))
    }

    pub async fn get(self, path: &str) -> Answer {
        send(self.request(path).body(String::new()).unwrap()).await
    }

    pub async fn get_with(self, path: &str, token: &str) -> Answer {
        let request = self.request(path).header("authorization", format!("Bearer {token}"));
        send(request.body(String::new()).unwrap()).await
    }

    pub async fn post(self, path: &str, form: &[(&str, &str)]) -> Answer {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let request = self.request(path).method("POST").header("content-type", "application/x-www-form-urlencoded");
        send(request.body(body.finish()).unwrap()).await
    }

    pub async fn refresh(self, path: &str, token: &str) -> Answer {
        let form = [("grant_type", "refresh_token"), ("client_id", "web"), ("refresh_token", token)];
        self.post(path, &form).await
    }
}
