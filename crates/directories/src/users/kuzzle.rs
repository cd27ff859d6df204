//! Users of Kuzzle's strategy `local`, exported from Elasticsearch.

use serde::Deserialize;
use serde_json::Value;

use super::edit::EditError;
use super::import::{ImportPlace, Placed, Record};
use rotogate_core::password::KuzzlePassword;

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    username: String,
    #[serde(rename = "_source")]
    user: KuzzleUser,
}

#[derive(Deserialize)]
struct KuzzleUser {
    kuid: String,
    #[serde(flatten)]
    password: KuzzlePassword,
}

pub(super) fn records(mut found: Value) -> Result<Placed, EditError> {
    let Some(Value::Array(hits)) = found.get_mut("hits").map(Value::take) else {
        return Err(EditError::File("hits: expected the result of a search in Elasticsearch".to_owned()));
    };
    let total = found.pointer("/total/value").and_then(Value::as_u64);
    if total.is_some_and(|total| usize::try_from(total).is_ok_and(|total| total > hits.len())) {
        return Err(EditError::File(format!(
            "the search result has only {} of {} users: add ?size=10000 to the URL, or write each document on a line",
            hits.len(),
            total.unwrap_or_default()
        )));
    }
    let placed = hits.into_iter().enumerate().map(|(index, hit)| (ImportPlace::Hit(index), record(hit)));
    Ok(placed.collect())
}

pub(super) fn record(hit: Value) -> Result<Record, String> {
    // The parser's message may quote a secret.
    let hit: Hit = serde_json::from_value(hit).map_err(
        |_| "expected a document of a Kuzzle user: `_id`, and `kuid`, `userPassword` and `userSalt` in `_source`",
    )?;
    let hash = hit.user.password.stored_hash()?;
    let members = [("username", hit.username), ("subject", hit.user.kuid), ("password_hash", hash)];
    Ok(members.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
}
