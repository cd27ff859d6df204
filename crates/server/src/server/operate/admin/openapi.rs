//! The OpenAPI 3.1 document of `/v1`, generated from the types.

use std::sync::LazyLock;

use http::Response;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, Response as Described};
use utoipa::{Modify, OpenApi};

use super::operations::{Access, TABLE};
use super::problem::Problem;
use super::{
    Body, JSON, configuration, events, explain, full, health, issuers, keys, refused, reply, revocations, sessions,
    status, store, traffic, users,
};

/// The API of a gate's admin listener. docs/admin.md has an example of each operation, and describes the codes of
/// problems.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "rotogate admin API",
        description = "The admin listener of a gate. docs/admin.md has an example of each operation, and describes each code of a problem.",
        version = "1", license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        health::live,
        health::ready,
        health::metrics,
        document,
        status::show,
        sessions::list,
        sessions::show,
        sessions::revoke,
        revocations::list,
        revocations::revoke,
        keys::list,
        keys::rotate,
        keys::promote,
        keys::retire,
        traffic::routes,
        traffic::upstreams,
        issuers::list,
        issuers::refresh,
        issuers::drop_keys,
        configuration::show,
        configuration::check,
        configuration::reload,
        users::list,
        users::add,
        users::set_password,
        users::enable,
        users::reload,
        users::disable,
        store::backup,
        events::list,
        refused::list,
        explain::answer,
    ),
    modifiers(&OfTable)
)]
struct Document;

/// The operations of API keys.
#[derive(OpenApi)]
#[openapi(
    paths(
        super::api_keys::list,
        super::api_keys::create,
        super::api_keys::rotate,
        super::api_keys::revoke,
        super::api_keys::leaked
    ),
    modifiers(&OfTable)
)]
struct KeyOperations;

fn whole() -> utoipa::openapi::OpenApi {
    Document::openapi().merge_from(KeyOperations::openapi())
}

/// Adds authentication, roles and common problems from the table of operations.
struct OfTable;

impl Modify for OfTable {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let described = "the token of `admin.token_file`, or one of `admin.tokens`. Its role is `viewer`, `operator` \
                         or `admin`; each role may also do everything that the roles before it may do";
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(described)).build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
        for row in TABLE {
            let Access::Role(role) = row.access else { continue };
            let operation = document.paths.paths.get_mut(row.path).and_then(|PathItem { get, post, .. }| {
                if row.method == http::Method::GET { get.as_mut() } else { post.as_mut() }
            });
            let Some(operation) = operation else { continue };
            operation.security = Some(vec![SecurityRequirement::new("token", [role.word()])]);
            for (statuses, what) in [("4XX", "refused"), ("5XX", "failed")] {
                let problem = Content::new(Some(Ref::from_schema_name("Problem")));
                let problem =
                    Described::builder().description(what).content("application/problem+json", problem).build();
                operation.responses.responses.insert(statuses.to_owned(), problem.into());
            }
        }
    }
}

/// The document as text, with a final line break.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let text = whole().to_pretty_json().unwrap_or_default();
    format!("{text}\n")
});

/// Returns this document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "openapi",
    tag = "status",
    responses(
        (status = 200, description = "an OpenAPI 3.1 document", body = Object),
        (status = "4XX", description = "`Host` is neither an IP address nor a name in `admin.hosts` (421)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) fn document() -> Response<Body> {
    reply(JSON, full(TEXT.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use support::generated;

    #[test]
    fn p49_the_document_is_generated() {
        generated::assert_current("docs/openapi.json", &TEXT);
    }

    #[test]
    fn p49_the_document_has_every_operation_with_its_role() {
        let document: serde_json::Value = serde_json::from_str(&TEXT).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let role = operation["security"][0]["token"][0].as_str().unwrap_or("none").to_owned();
                described.insert((method.to_uppercase(), path.clone(), role));
            }
        }
        let role = |access: Access| match access {
            Access::Anyone | Access::LocalOrViewer => "none".to_owned(),
            Access::Role(role) => role.word().to_owned(),
        };
        let served = TABLE.iter().map(|row| (row.method.to_string(), row.path.to_owned(), role(row.access)));
        assert_eq!(described, served.collect());
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
        let ids: BTreeSet<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), TABLE.len(), "each has a name of its own");
    }
}
