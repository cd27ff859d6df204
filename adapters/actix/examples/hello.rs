//! A resource server on actix-web: it accepts the tokens of another issuer.
//!
//! ```sh
//! cargo run --example hello -- https://idp.example.com/realms/x
//! ```

use std::error::Error;

use actix_web::{App, HttpServer, web};
use rotogate::ResourceServer;
use rotogate::token::Preset;
use rotogate_actix::Caller;

async fn me(caller: Caller) -> String {
    caller.subject().to_owned()
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: hello ISSUER")?;
    let gate = ResourceServer::discover(&issuer).audience("api").preset(Preset::Keycloak).build().await?;
    println!(
        "curl http://127.0.0.1:3000/me -H 'Authorization: Bearer …'   # a token of {issuer} for the audience `api`"
    );
    let app = move || {
        App::new()
            .route("/me", web::get().to(me))
            .service(web::resource("/admin").wrap(rotogate_actix::require(gate.require().role("boss"))).to(me))
            .wrap(rotogate_actix::layer(&gate))
    };
    HttpServer::new(app).bind("127.0.0.1:3000")?.run().await?;
    Ok(())
}
