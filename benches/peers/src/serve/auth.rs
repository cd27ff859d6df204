//! The auth server for nginx `auth_request`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use dashmap::DashMap;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;

use super::proxy;
use super::verifier::{Verifier, bearer};

/// Answers 200 or 401. It can cache the expiry of each good token. The cache has no bound: a run has few tokens.
pub async fn serve(listener: TcpListener, verifier: Verifier, remember: bool) -> Result<()> {
    let state = Arc::new((verifier, DashMap::<String, u64>::new()));
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (verifier, known) = &*state;
            let allowed = bearer(&request).is_some_and(|token| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX).as_secs();
                if known.get(token).is_some_and(|expires| now < *expires) {
                    return true;
                }
                let claims = verifier.verify(token);
                if let (true, Some(claims)) = (remember, &claims) {
                    known.insert(token.to_owned(), claims.exp);
                }
                claims.is_some()
            });
            let mut answer = Response::new(Empty::<Bytes>::new());
            *answer.status_mut() = if allowed { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    proxy::serve(listener, service).await
}
