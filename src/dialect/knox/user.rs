//! Converts users to the protocol's message. A profile field of the wrong type stays empty.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;

use super::proto::{Role, User};
use rotogate_core::directory;

pub(super) fn known(user: &directory::User) -> User {
    let field = |name: &str| user.profile.get(name);
    let text = |name: &str| field(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    User {
        uuid: user.subject.to_string(),
        first_name: text("first_name"),
        last_name: text("last_name"),
        email: text("email"),
        role: field("role").map_or(Role::Unspecified, role).into(),
        avatar: text("avatar"),
        phone: text("phone"),
        dids: field("dids").and_then(Json::as_array).map(|list| texts(list)).unwrap_or_default(),
        external_ids: field("external_ids").and_then(Json::as_object).map(pairs).unwrap_or_default(),
        metadata: field("metadata").and_then(Json::as_object).map(fields),
        account: user.account.as_deref().unwrap_or_default().to_owned(),
    }
}

/// Makes a message from a token's claims alone.
pub(super) fn unknown(subject: &str, account: Option<&str>) -> User {
    User { uuid: subject.to_owned(), account: account.unwrap_or_default().to_owned(), ..User::default() }
}

/// Reads a role: a name in any letter case, with or without the enumeration's prefix, or a number.
fn role(value: &Json) -> Role {
    match value {
        Json::Number(number) => {
            number.as_i64().and_then(|n| i32::try_from(n).ok()).and_then(|n| Role::try_from(n).ok()).unwrap_or_default()
        }
        Json::String(name) => {
            let name = name.to_ascii_uppercase();
            let full = if name.starts_with("ROLE_") { name } else { format!("ROLE_{name}") };
            Role::from_str_name(&full).unwrap_or_default()
        }
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => Role::Unspecified,
    }
}

fn texts(list: &[Json]) -> Vec<String> {
    list.iter().filter_map(Json::as_str).map(str::to_owned).collect()
}

fn pairs(object: &serde_json::Map<String, Json>) -> BTreeMap<String, String> {
    object.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn fields(object: &serde_json::Map<String, Json>) -> Struct {
    Struct { fields: object.iter().map(|(key, field)| (key.clone(), value(field))).collect() }
}

fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(prost_types::NullValue::NullValue.into()),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        // All numbers in a `Struct` are doubles.
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(value).collect() }),
        Json::Object(object) => Kind::StructValue(fields(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(profile: Json) -> User {
        let Json::Object(profile) = profile else { panic!("not an object") };
        let user = directory::User::new("u-1").account("acme");
        known(&profile.into_iter().fold(user, |user, (name, value)| user.field(name, value)))
    }

    #[test]
    fn every_field_of_the_profile_is_told() {
        let user = with(json!({
            "first_name": "Ada", "last_name": "L", "email": "ada@example.com", "role": "admin", "avatar": "https://a/b",
            "phone": "+1", "dids": ["did:a:1", "did:a:2"], "external_ids": {"crm": "7"},
            "metadata": {"n": 1.5, "list": [null, true], "deep": {"s": "x"}},
        }));
        assert_eq!((user.uuid.as_str(), user.account.as_str()), ("u-1", "acme"));
        assert_eq!((user.first_name.as_str(), user.last_name.as_str()), ("Ada", "L"));
        assert_eq!(
            (user.email.as_str(), user.avatar.as_str(), user.phone.as_str()),
            ("ada@example.com", "https://a/b", "+1")
        );
        assert_eq!(user.role(), Role::Admin);
        assert_eq!(user.dids, ["did:a:1", "did:a:2"]);
        assert_eq!(user.external_ids["crm"], "7");
        let metadata = user.metadata.unwrap().fields;
        assert_eq!(metadata["n"].kind, Some(Kind::NumberValue(1.5)));
        let Some(Kind::ListValue(list)) = &metadata["list"].kind else { panic!("no list") };
        assert_eq!(list.values[1].kind, Some(Kind::BoolValue(true)));
        let Some(Kind::StructValue(deep)) = &metadata["deep"].kind else { panic!("no struct") };
        assert_eq!(deep.fields["s"].kind, Some(Kind::StringValue("x".to_owned())));
    }

    #[test]
    fn a_field_of_another_type_is_empty() {
        let user =
            with(json!({"email": 7, "role": "king", "dids": "x", "external_ids": {"a": 1, "b": "2"}, "metadata": []}));
        assert_eq!(user.email, "");
        assert_eq!(user.role(), Role::Unspecified);
        assert!(user.dids.is_empty());
        assert_eq!(user.external_ids.len(), 1);
        assert_eq!(user.metadata, None);
        for (said, role) in [(json!(1), Role::User), (json!("ROLE_USER"), Role::User), (json!(9), Role::Unspecified)] {
            assert_eq!(with(json!({"role": said})).role(), role);
        }
    }
}
