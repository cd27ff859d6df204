//! A tonic gRPC service behind the gate. The code that tonic-build generates from a `.proto` file is at the end.
//!
//! ```sh
//! cargo run --example tonic --features grpc
//! ```

use std::error::Error;

use rotogate::client::Client;
use rotogate::gate::NewSession;
use rotogate::token::Keyring;
use rotogate::{Gate, Identity};
use tonic::{Request, Response, Status};

use self::greeter::{Greeter, GreeterServer, Hello};

struct Service;

#[async_trait::async_trait]
impl Greeter for Service {
    async fn greet(&self, request: Request<Hello>) -> Result<Response<Hello>, Status> {
        let caller =
            Identity::from_extensions(request.extensions()).ok_or_else(|| Status::internal("no gate in front"))?;
        let text = format!("{}, {}!", request.get_ref().text, caller.subject());
        Ok(Response::new(Hello { text }))
    }
}

/// Every call asks for a token of this gate: refusals are `UNAUTHENTICATED` and `PERMISSION_DENIED`.
pub async fn gate() -> Result<Gate, Box<dyn Error>> {
    Ok(Gate::builder()
        .issuer("http://localhost:3000")
        .keys(Keyring::ephemeral()?)
        .client(Client::public("cli"))
        .build()
        .await?)
}

/// The service, without the gate.
pub fn service() -> GreeterServer {
    GreeterServer::new(Service)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gate = gate().await?;
    let issued = gate.sessions().start(NewSession::new("ada", "cli")).await?;
    let token = issued.access_token.expose();
    println!("grpcurl -plaintext -proto hello.proto -H 'authorization: Bearer {token}' \\");
    println!("    -d '{{\"text\":\"Hello\"}}' localhost:3000 example.Greeter/Greet");
    let address = "127.0.0.1:3000".parse()?;
    tonic::transport::Server::builder().layer(gate.layer()).add_service(service()).serve(address).await?;
    Ok(())
}

/// As tonic-build makes it of:
///
/// ```proto
/// package example;
/// message Hello { string text = 1; }
/// service Greeter { rpc Greet(Hello) returns (Hello); }
/// ```
pub mod greeter {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use tonic::body::Body;
    use tonic::codegen::{BoxFuture, http};
    use tonic::server::{Grpc, NamedService, UnaryService};
    use tonic::{Request, Response, Status};
    use tonic_prost::ProstCodec;

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

    struct Greet(Arc<dyn Greeter>);

    impl UnaryService<Hello> for Greet {
        type Response = Hello;
        type Future = BoxFuture<Response<Hello>, Status>;

        fn call(&mut self, request: Request<Hello>) -> Self::Future {
            let greeter = Arc::clone(&self.0);
            Box::pin(async move { greeter.greet(request).await })
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
            let greet = Greet(Arc::clone(&self.0));
            Box::pin(async move {
                Ok(match request.uri().path() {
                    "/example.Greeter/Greet" => {
                        Grpc::new(ProstCodec::<Hello, Hello>::default()).unary(greet, request).await
                    }
                    _ => Status::unimplemented("no such method").into_http(),
                })
            })
        }
    }

    impl NamedService for GreeterServer {
        const NAME: &'static str = "example.Greeter";
    }
}
