//! The HTTP requests that are equivalent to a call in an envelope (requirement T22). The rules for their paths also
//! apply to calls in `POST /_query` and in WebSockets.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::super::EnclosedCall;
use super::words::Problem;

type Actions = HashMap<&'static str, Vec<(Method, &'static str)>>;

static ACTIONS: LazyLock<Actions> = LazyLock::new(|| {
    let mut actions = Actions::new();
    for line in include_str!("actions.tsv").lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split('\t');
        if let (Some(action), Some(method), Some(path)) = (columns.next(), columns.next(), columns.next())
            && let Ok(method) = Method::from_bytes(method.as_bytes())
        {
            actions.entry(action).or_default().push((method, path));
        }
    }
    actions
});

/// Returns whether Kuzzle's own API has this controller.
pub fn is_controller(name: &str) -> bool {
    let name = if name == "memoryStorage" { "ms" } else { name };
    ACTIONS.keys().any(|action| action.split_once(':').is_some_and(|(controller, _)| controller == name))
}

/// The characters that a canonical path segment escapes.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');
/// The path segment for a missing argument.
const ABSENT: &str = "_";

/// Returns the call that an envelope contains. `prefix` is the first part of the endpoint's paths. `args` are the
/// envelope's members.
pub(super) fn called(
    controller: &str,
    action: &str,
    prefix: &str,
    args: &Map<String, Value>,
) -> Result<EnclosedCall, Problem> {
    // Kuzzle has two names for this controller.
    let controller = if controller == "memoryStorage" { "ms" } else { controller };
    let name = format!("{controller}:{action}");
    let prefix = prefix.trim_end_matches('/');
    let mut requests = Vec::new();
    for (method, template) in ACTIONS.get(name.as_str()).into_iter().flatten() {
        let mut path = prefix.to_owned();
        for segment in template.split('/').skip(1) {
            path.push('/');
            match segment.strip_prefix(':') {
                Some(parameter) => path.push_str(&argument(args, parameter)?),
                None => path.push_str(segment),
            }
        }
        requests.push((method.clone(), path));
    }
    Ok(EnclosedCall { name, requests })
}

/// Returns an argument as a path segment. Kuzzle's treatment of other types than strings is unknown, so other types are
/// rejected.
fn argument(args: &Map<String, Value>, parameter: &str) -> Result<String, Problem> {
    match args.get(parameter) {
        None | Some(Value::Null) => Ok(ABSENT.to_owned()),
        Some(Value::String(text)) if text.is_empty() => Ok(ABSENT.to_owned()),
        Some(Value::String(text)) => Ok(utf8_percent_encode(text, ESCAPED).to_string()),
        Some(Value::Number(number)) if number.is_u64() || number.is_i64() => Ok(number.to_string()),
        Some(Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Problem::invalid_type(parameter, "string"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requests(name: &str, prefix: &str, args: &Value) -> Vec<String> {
        let (controller, action) = name.split_once(':').unwrap();
        let called = called(controller, action, prefix, args.as_object().unwrap()).ok().unwrap();
        called.requests.iter().map(|(method, path)| format!("{method} {path}")).collect()
    }

    #[test]
    fn t22_an_action_has_the_paths_that_kuzzle_gives_it() {
        assert!(ACTIONS.len() > 250, "{}", ACTIONS.len());
        let nothing = json!({});
        assert_eq!(requests("admin:resetDatabase", "/", &nothing), ["POST /admin/_resetDatabase"]);
        assert_eq!(requests("server:now", "/kuzzle/", &nothing), ["GET /kuzzle/_now"]);
        let user = json!({ "_id": "ada", "index": "i", "collection": "c" });
        assert_eq!(requests("security:createUser", "/", &user), ["POST /users/_create", "POST /users/ada/_create"]);
        assert_eq!(requests("document:get", "", &user), ["GET /i/c/ada"]);
        assert_eq!(requests("document:get", "", &json!({ "_id": null, "index": 7 })), ["GET /7/_/_"]);
        assert_eq!(requests("memoryStorage:get", "/", &user), ["GET /ms/ada"], "its other name");
        assert_eq!(requests("document:update", "/", &user), ["PATCH /i/c/ada/_update"], "not the deprecated one");
        assert_eq!(requests("some-plugin:action", "/", &nothing), Vec::<String>::new());
        assert_eq!(requests("Security:createUser", "/", &nothing), Vec::<String>::new(), "names are exact");
    }

    #[test]
    fn t22_an_argument_is_one_segment_whatever_it_holds() {
        let hidden = json!({ "index": "../admin", "collection": "a/b?c#d;e", "_id": "é%2f" });
        assert_eq!(requests("document:get", "/", &hidden), ["GET /..%2Fadmin/a%2Fb%3Fc%23d%3Be/%C3%A9%252f"]);
        for other in [json!(["users"]), json!({ "a": 1 }), json!(true), json!(1.5)] {
            let args = json!({ "index": other, "collection": "c", "_id": "1" });
            assert!(called("document", "get", "/", args.as_object().unwrap()).is_err(), "{args}");
        }
    }
}
