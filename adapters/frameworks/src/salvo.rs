//! A resource server on salvo: the gate is the first hoop of the service.
//!
//! ```sh
//! cargo run --bin on-salvo -- https://idp.example.com/realms/x
//! ```

use std::error::Error;

use http_body_util::BodyExt;
use rotogate::gate::Judgement;
use rotogate::{Gate, Identity, ResourceServer};
use rotogate_example_frameworks::{Guarded, append, apply, head};
use salvo::conn::TcpListener;
use salvo::http::{ResBody, StatusCode};
use salvo::prelude::{
    Depot, FlowCtrl, Handler, Listener, Request, Response, Router, Server, Service, async_trait, handler,
};

/// The gate in front of all routes: the first hoop of the service.
struct Gated(Gate);

#[async_trait]
impl Handler for Gated {
    async fn handle(&self, request: &mut Request, depot: &mut Depot, response: &mut Response, ctrl: &mut FlowCtrl) {
        let peer = request.remote_addr().ip();
        let head = head(request.method(), request.uri(), request.version(), request.headers(), peer);
        match self.0.judge(&head).await {
            Judgement::Permitted(permitted) => {
                apply(&permitted, request.headers_mut());
                request.set_uri(permitted.head().uri.clone());
                if let Some(caller) = permitted.identity() {
                    depot.insert_typed(caller);
                }
                ctrl.call_next(request, depot, response).await;
                append(permitted.reply_headers(), response.headers_mut());
                let body = response.take_body();
                response.replace_body(match body {
                    // salvo writes these itself.
                    ResBody::None | ResBody::Error(_) => body,
                    body => ResBody::Boxed(Box::pin(Guarded::new(body, permitted).map_err(Into::into))),
                });
            }
            Judgement::Refused(reply) => {
                response.merge_hyper(reply);
                ctrl.skip_rest();
            }
            // One of the gate's own endpoints, which reads the body.
            _ => {
                let reply = self.0.answer(http::Request::from_parts(head, request.take_body())).await;
                let (head, body) = reply.into_parts();
                match body.collect().await {
                    Ok(body) => response.merge_hyper(http::Response::from_parts(head, body.to_bytes())),
                    Err(_) => drop(response.status_code(StatusCode::INTERNAL_SERVER_ERROR)),
                }
                ctrl.skip_rest();
            }
        }
    }
}

#[handler]
async fn me(depot: &mut Depot) -> Result<String, StatusCode> {
    let caller = depot.get_typed::<Identity>().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(caller.subject().to_owned())
}

/// Returns the identity headers that a handler sees.
#[handler]
async fn seen(request: &mut Request) -> String {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    format!("{:?} {:?}", header("x-auth-subject"), header("authorization"))
}

/// Serves until the process ends.
pub async fn serve(gate: Gate, port: u16) -> Result<(), Box<dyn Error>> {
    let router = Router::new().push(Router::with_path("me").get(me)).push(Router::with_path("seen").get(seen));
    let service = Service::new(router).hoop(Gated(gate));
    Server::new(TcpListener::new(("127.0.0.1", port)).bind().await).serve(service).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: on-salvo ISSUER")?;
    let gate = ResourceServer::discover(&issuer).audience("api").build().await?;
    serve(gate, 3000).await
}
