//! A tonic gRPC service behind the gate: each method has its scope, health and reflection are public. The code that
//! tonic-build generates from a `.proto` file is at the end.
//!
//! ```sh
//! cargo run --example tonic --features grpc
//! ```

use std::error::Error;

use rotogate::client::Client;
use rotogate::gate::NewSession;
use rotogate::route::{Route, RoutePolicy};
use rotogate::token::Keyring;
use rotogate::{Gate, Identity};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use self::greeter::{Greeter, GreeterServer, Hello};

struct Service;

#[async_trait::async_trait]
impl Greeter for Service {
    async fn greet(&self, request: Request<Hello>) -> Result<Response<Hello>, Status> {
        reply(&request, "!")
    }

    async fn dismiss(&self, request: Request<Hello>) -> Result<Response<Hello>, Status> {
        reply(&request, ", and goodbye.")
    }
}

fn reply(request: &Request<Hello>, end: &str) -> Result<Response<Hello>, Status> {
    let caller = Identity::from_extensions(request.extensions()).ok_or_else(|| Status::internal("no gate in front"))?;
    let text = format!("{}, {}{end}", request.get_ref().text, caller.subject());
    Ok(Response::new(Hello { text }))
}

/// A method is a path. What no route names is refused. Refusals are `UNAUTHENTICATED` and `PERMISSION_DENIED`.
pub async fn gate() -> Result<Gate, Box<dyn Error>> {
    Ok(Gate::builder()
        .issuer("http://localhost:3000")
        .keys(Keyring::ephemeral()?)
        .client(Client::public("cli"))
        .route(Route::new("/example.Greeter/Greet", RoutePolicy::default().scope("greet")?))
        .route(Route::new("/example.Greeter/Dismiss", RoutePolicy::default().scope("dismiss")?))
        .route(Route::new("/grpc.health.v1.Health/{method}", RoutePolicy::public()))
        // Shows the methods to every caller. Without this route to none.
        .route(Route::new("/grpc.reflection.v1.ServerReflection/{method}", RoutePolicy::public()))
        .build()
        .await?)
}

/// The services, without the gate.
pub async fn services() -> Result<Routes, Box<dyn Error>> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<GreeterServer>().await;
    // With tonic-build: `tonic::include_file_descriptor_set!` of what its `file_descriptor_set_path` has written.
    let described = protox::compile(["greeter.proto"], [concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tonic")])?;
    let reflection =
        tonic_reflection::server::Builder::configure().register_file_descriptor_set(described).build_v1()?;
    Ok(Routes::new(GreeterServer::new(Service)).add_service(health).add_service(reflection))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gate = gate().await?;
    let issued = gate.sessions().start(NewSession::new("ada", "cli").scope("greet")?).await?;
    let token = issued.access_token.expose();
    println!("grpcurl -plaintext localhost:3000 list");
    println!("grpcurl -plaintext -H 'authorization: Bearer {token}' \\");
    println!("    -d '{{\"text\":\"Hello\"}}' localhost:3000 example.Greeter/Greet");
    println!("Greeter/Dismiss is refused: the session lacks its scope.");
    let address = "127.0.0.1:3000".parse()?;
    tonic::transport::Server::builder().layer(gate.layer()).add_routes(services().await?).serve(address).await?;
    Ok(())
}

/// As tonic-build makes it of `tonic/greeter.proto`.
pub mod greeter {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use tonic::body::Body;
    use tonic::codegen::{BoxFuture, http};
    use tonic::server::{Grpc, NamedService};
    use tonic::{Request, Response, Status};
    use tonic_prost::ProstCodec;
    use tower::service_fn;

    /// A text.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Hello {
        /// The text.
        #[prost(string, tag = "1")]
        pub text: String,
    }

    /// What a server implements.
    #[async_trait::async_trait]
    pub trait Greeter: Send + Sync + 'static {
        /// Greets the caller.
        async fn greet(&self, request: Request<Hello>) -> Result<Response<Hello>, Status>;

        /// Takes leave of the caller.
        async fn dismiss(&self, request: Request<Hello>) -> Result<Response<Hello>, Status>;
    }

    /// The service that tonic serves.
    #[derive(Clone)]
    pub struct GreeterServer(Arc<dyn Greeter>);

    impl GreeterServer {
        /// Of this implementation.
        pub fn new(greeter: impl Greeter) -> Self {
            Self(Arc::new(greeter))
        }
    }

    impl tower::Service<http::Request<Body>> for GreeterServer {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<http::Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let greeter = Arc::clone(&self.0);
            Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::<Hello, Hello>::default());
                Ok(match request.uri().path() {
                    "/example.Greeter/Greet" => grpc.unary(service_fn(|hello| greeter.greet(hello)), request).await,
                    "/example.Greeter/Dismiss" => grpc.unary(service_fn(|hello| greeter.dismiss(hello)), request).await,
                    _ => Status::unimplemented("no such method").into_http(),
                })
            })
        }
    }

    impl NamedService for GreeterServer {
        const NAME: &'static str = "example.Greeter";
    }
}
