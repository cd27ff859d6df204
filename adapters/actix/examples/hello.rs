//! A resource server on actix-web: it accepts the tokens of another issuer.
//!
//! ```sh
//! cargo run --example hello -- https://idp.example.com/realms/x
//! ```

use std::error::Error;
use std::net::TcpListener;

use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};
use rotogate::token::Preset;
use rotogate::{Gate, ResourceServer};
use rotogate_actix::Caller;

async fn me(caller: Caller) -> String {
    caller.subject().to_owned()
}

/// Serves the application behind its gate.
pub fn serve(gate: Gate, listener: TcpListener) -> std::io::Result<Server> {
    let app = move || {
        App::new()
            .route("/me", web::get().to(me))
            .service(web::resource("/admin").wrap(rotogate_actix::require(gate.require().role("boss"))).to(me))
            .wrap(rotogate_actix::layer(&gate))
    };
    Ok(HttpServer::new(app).listen(listener)?.run())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: hello ISSUER")?;
    let gate = ResourceServer::discover(&issuer).audience("api").preset(Preset::Keycloak).build().await?;
    println!(
        "curl http://127.0.0.1:3000/me -H 'Authorization: Bearer …'   # a token of {issuer} for the audience `api`"
    );
    Ok(serve(gate, TcpListener::bind("127.0.0.1:3000")?)?.await?)
}
