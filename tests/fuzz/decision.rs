//! Answers of decision points.

use rotogate::decision::PolicyDecision;
use serde_json::Value;

use crate::input::target;
use crate::json::names_members_once;

target!(
    /// An answer permits only with the boolean `true`, named once; a wanted login can stand in a challenge (K27, K32).
    decision_answer,
    &[
        "\"decision\":true", "\"decision\":false", "\"decision\":\"true\"", "\"decisi\\u006fn\":true", "\"context\":{",
        "\"acr_values\":", "\"gold\"", "[\"a\",\"b\"]", "null", "1", "1e400", "[", "]", "{", "}", ",", ":", "\"", "\\\"", "\\u0000",
        "<html>", "\u{feff}", "\n",
    ],
    |input| {
        let Ok(decision) = PolicyDecision::read(input) else { return };
        assert!(names_members_once(input), "J11");
        let said: Value = serde_json::from_slice(input).unwrap();
        assert_eq!(said["decision"], Value::Bool(decision == PolicyDecision::Permit));
        if let PolicyDecision::StepUp(acr) = decision {
            let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
            assert!(!acr.trim().is_empty() && acr.len() <= 512 && acr.bytes().all(is_plain), "{acr}");
            let values = &said["context"]["acr_values"];
            let joined = values.as_array().map(|all| all.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join(" "));
            assert_eq!(joined.as_deref().or(values.as_str()), Some(&*acr));
        }
    }
);
