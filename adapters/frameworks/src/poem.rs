//! A resource server on poem: the gate is a middleware around all routes.
//!
//! ```sh
//! cargo run --bin on-poem -- https://idp.example.com/realms/x
//! ```

use std::error::Error;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use poem::http::StatusCode;
use poem::listener::TcpListener;
use poem::web::Data;
use poem::{Endpoint, EndpointExt, Middleware, Request, Response, Route, Server, get, handler};
use rotogate::gate::Judgement;
use rotogate::{Gate, Identity, ResourceServer};
use rotogate_example_frameworks::{Guarded, append, apply, head};

/// The gate around all routes: it must be the outermost middleware.
struct Gated(Gate);

struct GatedEndpoint<E> {
    gate: Gate,
    inner: E,
}

impl<E: Endpoint> Middleware<E> for Gated {
    type Output = GatedEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        GatedEndpoint { gate: self.0.clone(), inner }
    }
}

impl<E: Endpoint> Endpoint for GatedEndpoint<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let peer = request.remote_addr().as_socket_addr().map(|address| address.ip());
        let head = head(request.method(), request.original_uri(), request.version(), request.headers(), peer);
        match self.gate.judge(&head).await {
            Judgement::Permitted(permitted) => {
                apply(&permitted, request.headers_mut());
                *request.uri_mut() = permitted.head().uri.clone();
                if let Some(caller) = permitted.identity() {
                    request.set_data(caller);
                }
                let mut response = self.inner.get_response(request).await;
                append(permitted.reply_headers(), response.headers_mut());
                let body = BoxBody::from(response.take_body());
                response.set_body(poem::Body::from(BoxBody::new(Guarded::new(body, permitted))));
                Ok(response)
            }
            Judgement::Refused(reply) => Ok(response(reply)),
            // One of the gate's own endpoints, which reads the body.
            _ => {
                let body = BoxBody::from(request.take_body());
                let (head, body) = self.gate.answer(http::Request::from_parts(head, body)).await.into_parts();
                let body = body.collect().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.to_bytes();
                Ok(response(http::Response::from_parts(head, body)))
            }
        }
    }
}

fn response(reply: http::Response<Bytes>) -> Response {
    let (head, body) = reply.into_parts();
    let mut response = Response::builder().status(head.status).body(body);
    *response.headers_mut() = head.headers;
    response
}

#[handler]
fn me(Data(caller): Data<&Identity>) -> String {
    caller.subject().to_owned()
}

/// Returns the identity headers that a handler sees.
#[handler]
fn seen(request: &Request) -> String {
    format!("{:?} {:?}", request.header("x-auth-subject"), request.header("authorization"))
}

/// Serves until the process ends.
pub async fn serve(gate: Gate, port: u16) -> Result<(), Box<dyn Error>> {
    let app = Route::new().at("/me", get(me)).at("/seen", get(seen)).with(Gated(gate));
    Ok(Server::new(TcpListener::bind(("127.0.0.1", port))).run(app).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: on-poem ISSUER")?;
    let gate = ResourceServer::discover(&issuer).audience("api").build().await?;
    serve(gate, 3000).await
}
