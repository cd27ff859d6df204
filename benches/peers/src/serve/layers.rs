//! Auth layers from the package registry, set up as their documentation says, around the same proxy in an axum
//! `Router`. None of them sends the caller's name to the upstream.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request};
use axum_jwt_auth::{Decoder, LocalDecoder};
use hyper_util::service::TowerToHyperService;
use jsonwebtoken10::{DecodingKey, Validation};
use jwt_authorizer::{IntoLayer, JwtAuthorizer, RegisteredClaims};
use rotogate_core::token::algorithm::{Algorithm, Family};
use tower_oauth2_resource_server::claims::DefaultClaims;
use tower_oauth2_resource_server::server::OAuth2ResourceServer;
use tower_oauth2_resource_server::tenant::TenantConfiguration;
use tower_oauth2_resource_server::validation::ClaimsValidationSpec;

use super::proxy::{Upstream, forward};
use super::verifier::{Claims, LEEWAY};
use crate::keys;

type Keys<'a> = (Algorithm, &'a Path);

/// Forwards every request.
fn proxy(upstream: SocketAddr) -> Router {
    let upstream = Upstream::<Body>::new(upstream);
    Router::new().fallback(move |request: Request| forward(Arc::clone(&upstream), request, Body::new))
}

fn public(folder: &Path, algorithm: Algorithm) -> Result<String> {
    fs::read_to_string(keys::public_pem(folder, algorithm)).with_context(|| format!("the public key for {algorithm}"))
}

pub async fn jwt_authorizer(
    upstream: SocketAddr,
    (algorithm, folder): Keys<'_>,
) -> Result<TowerToHyperService<axum07::Router>> {
    let builder: JwtAuthorizer<RegisteredClaims> = match algorithm.family() {
        Family::Hmac => JwtAuthorizer::from_secret(keys::secret()),
        Family::Rsa => JwtAuthorizer::from_rsa_pem_text(&public(folder, algorithm)?),
        Family::Ecdsa => JwtAuthorizer::from_ec_pem_text(&public(folder, algorithm)?),
        Family::Edwards => JwtAuthorizer::from_ed_pem_text(&public(folder, algorithm)?),
    };
    let validation =
        jwt_authorizer::Validation::new().iss(&[keys::ISSUER]).aud(&[keys::AUDIENCE]).leeway(LEEWAY).exp(true);
    let authorizer = builder.validation(validation).build().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let upstream = Upstream::new(upstream);
    let handler =
        move |request: axum07::extract::Request| forward(Arc::clone(&upstream), request, axum07::body::Body::new);
    Ok(TowerToHyperService::new(axum07::Router::new().fallback(handler).layer(authorizer.into_layer())))
}

#[derive(Clone, FromRef)]
struct State {
    decoder: Decoder<Claims>,
    upstream: Arc<Upstream<Body>>,
}

pub fn axum_jwt_auth(upstream: SocketAddr, (algorithm, folder): Keys<'_>) -> Result<TowerToHyperService<Router>> {
    let key = match algorithm.family() {
        Family::Hmac => DecodingKey::from_secret(keys::secret().as_bytes()),
        Family::Rsa => DecodingKey::from_rsa_pem(public(folder, algorithm)?.as_bytes())?,
        Family::Ecdsa => DecodingKey::from_ec_pem(public(folder, algorithm)?.as_bytes())?,
        Family::Edwards => DecodingKey::from_ed_pem(public(folder, algorithm)?.as_bytes())?,
    };
    let mut validation = Validation::new(algorithm.name().parse()?);
    validation.set_issuer(&[keys::ISSUER]);
    validation.set_audience(&[keys::AUDIENCE]);
    validation.leeway = LEEWAY;
    let decoder = LocalDecoder::builder().keys(vec![key]).validation(validation).build()?;
    let state = State { decoder: Arc::new(decoder), upstream: Upstream::new(upstream) };
    let handler = |axum::extract::State(state): axum::extract::State<State>,
                   _: axum_jwt_auth::Claims<Claims>,
                   request: Request| forward(state.upstream, request, Body::new);
    Ok(TowerToHyperService::new(Router::new().fallback(handler).with_state(state)))
}

pub async fn resource_server(
    upstream: SocketAddr,
    (algorithm, folder): Keys<'_>,
) -> Result<TowerToHyperService<Router>> {
    let audience = vec![keys::AUDIENCE.to_owned()];
    let tenant = TenantConfiguration::static_builder(fs::read_to_string(keys::jwks(folder))?)
        // `recommended` asks for `nbf`, which our tokens do not have.
        .claims_validation(ClaimsValidationSpec::new().exp(true).iss(keys::ISSUER).aud(&audience))
        .allowed_algorithms(&[algorithm.name().parse()?])
        .build()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let server = OAuth2ResourceServer::<DefaultClaims>::builder().add_tenant(tenant).build().await;
    let server = server.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(TowerToHyperService::new(proxy(upstream).layer(server.into_layer::<Body>())))
}
