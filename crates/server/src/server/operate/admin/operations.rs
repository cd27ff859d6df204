//! Every operation of the admin listener: method, path and required role.

use std::sync::LazyLock;

use http::Method;
use matchit::Router;

use rotogate_config::AdminRole;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Live,
    Ready,
    Metrics,
    OpenApi,
    Status,
    Sessions,
    Session,
    RevokeSession,
    Revocations,
    Revoke,
    Keys,
    RotateKeys,
    PromoteKey,
    RetireKey,
    Routes,
    Upstreams,
    Issuers,
    RefreshIssuer,
    DropIssuerKeys,
    Config,
    CheckConfig,
    ReloadConfig,
    Users,
    AddUser,
    SetPassword,
    EnableUser,
    ReloadUsers,
    DisableUser,
    Backup,
    Events,
    Refused,
    Explain,
    ApiKeys,
    CreateApiKey,
    RotateApiKey,
    RevokeApiKey,
    LeakedApiKeys,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Anyone,
    LocalOrViewer,
    Role(AdminRole),
}

#[derive(Debug)]
pub(super) struct OperationRow {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
}

const fn get(path: &'static str, operation: Operation, access: Access) -> OperationRow {
    OperationRow { operation, method: Method::GET, path, access }
}

const fn post(path: &'static str, operation: Operation, role: AdminRole) -> OperationRow {
    OperationRow { operation, method: Method::POST, path, access: Access::Role(role) }
}

const VIEWER: Access = Access::Role(AdminRole::Viewer);

pub(super) static TABLE: &[OperationRow] = &[
    get("/livez", Operation::Live, Access::Anyone),
    get("/readyz", Operation::Ready, Access::Anyone),
    get("/metrics", Operation::Metrics, Access::LocalOrViewer),
    get("/v1/openapi.json", Operation::OpenApi, Access::Anyone),
    get("/v1/status", Operation::Status, VIEWER),
    get("/v1/sessions", Operation::Sessions, VIEWER),
    get("/v1/sessions/{id}", Operation::Session, VIEWER),
    post("/v1/sessions/{id}/revoke", Operation::RevokeSession, AdminRole::Operator),
    get("/v1/revocations", Operation::Revocations, VIEWER),
    post("/v1/revocations", Operation::Revoke, AdminRole::Operator),
    get("/v1/api-keys", Operation::ApiKeys, VIEWER),
    post("/v1/api-keys", Operation::CreateApiKey, AdminRole::Admin),
    post("/v1/api-keys/{id}/rotate", Operation::RotateApiKey, AdminRole::Admin),
    post("/v1/api-keys/{id}/revoke", Operation::RevokeApiKey, AdminRole::Operator),
    post("/v1/api-keys/leaked", Operation::LeakedApiKeys, AdminRole::Operator),
    get("/v1/keys", Operation::Keys, VIEWER),
    post("/v1/keys/rotate", Operation::RotateKeys, AdminRole::Admin),
    post("/v1/keys/{kid}/promote", Operation::PromoteKey, AdminRole::Admin),
    post("/v1/keys/{kid}/retire", Operation::RetireKey, AdminRole::Admin),
    get("/v1/routes", Operation::Routes, VIEWER),
    get("/v1/upstreams", Operation::Upstreams, VIEWER),
    get("/v1/issuers", Operation::Issuers, VIEWER),
    post("/v1/issuers/{name}/refresh", Operation::RefreshIssuer, AdminRole::Operator),
    post("/v1/issuers/{name}/drop", Operation::DropIssuerKeys, AdminRole::Operator),
    get("/v1/config", Operation::Config, VIEWER),
    post("/v1/config/check", Operation::CheckConfig, AdminRole::Operator),
    post("/v1/config/reload", Operation::ReloadConfig, AdminRole::Operator),
    get("/v1/users", Operation::Users, VIEWER),
    post("/v1/users", Operation::AddUser, AdminRole::Admin),
    post("/v1/users/password", Operation::SetPassword, AdminRole::Admin),
    post("/v1/users/enable", Operation::EnableUser, AdminRole::Admin),
    post("/v1/users/reload", Operation::ReloadUsers, AdminRole::Operator),
    post("/v1/users/disable", Operation::DisableUser, AdminRole::Operator),
    post("/v1/store/backup", Operation::Backup, AdminRole::Admin),
    get("/v1/events", Operation::Events, VIEWER),
    get("/v1/refused", Operation::Refused, VIEWER),
    post("/v1/explain", Operation::Explain, AdminRole::Operator),
];

static PATHS: LazyLock<Router<Vec<&'static OperationRow>>> = LazyLock::new(|| {
    let mut paths: Router<Vec<&'static OperationRow>> = Router::new();
    for row in TABLE {
        match paths.at_mut(row.path) {
            Ok(found) => found.value.push(row),
            // The insert cannot fail, because a test proves that the router accepts every pattern.
            Err(_) => drop(paths.insert(row.path, vec![row])),
        }
    }
    paths
});

/// Returns the operations at a path, and the path's percent-encoded parameter.
pub(super) fn at(path: &str) -> Option<(&'static [&'static OperationRow], &str)> {
    let found = PATHS.at(path).ok()?;
    let parameter = found.params.iter().next().map_or("", |(_, value)| value);
    Some((found.value, parameter))
}

impl OperationRow {
    /// Returns whether the row serves a method. `GET` includes `HEAD`.
    pub(super) fn serves(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }
}

impl OperationRow {
    /// Returns whether the operation changes anything. A change is written to the audit log before the response is
    /// sent.
    pub(super) fn is_change(&self) -> bool {
        self.method != Method::GET
    }

    /// Returns whether the gate may refuse the operation while the audit log fails. Revocations are never refused.
    pub(super) fn needs_audit_log(&self) -> bool {
        let is_free = matches!(
            self.operation,
            Operation::Revoke | Operation::RevokeSession | Operation::CheckConfig | Operation::Explain
        );
        let is_free = is_free || matches!(self.operation, Operation::RevokeApiKey | Operation::LeakedApiKeys);
        self.is_change() && !is_free
    }
}

/// Returns the methods for the header `Allow`.
pub(super) fn methods(rows: &[&OperationRow]) -> Vec<Method> {
    let mut methods: Vec<_> = rows.iter().map(|row| row.method.clone()).collect();
    if methods.contains(&Method::GET) {
        methods.insert(1, Method::HEAD);
    }
    methods
}

impl Operation {
    pub(super) const fn is_probe(self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_found_at_its_path() {
        for row in TABLE {
            let path = row.path.replace("{id}", "x").replace("{name}", "x%2Fy").replace("{kid}", "k1");
            let (rows, parameter) = at(&path).unwrap();
            assert!(rows.iter().any(|found| found.operation == row.operation), "{path}");
            assert_eq!(parameter.is_empty(), !row.path.contains('{'), "{path}");
        }
        for other in ["/", "/v1", "/v1/", "/v1/sessions/", "/v1/sessions/x/", "/V1/status", "/v1/sessions/x/revoke/y"] {
            assert!(at(other).is_none(), "{other}");
        }
    }
}
