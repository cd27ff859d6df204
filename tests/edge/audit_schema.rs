//! Each line of an audit log conforms to the schema.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Reads the lines of a file.
///
/// # Panics
/// A line is not as `packaging/schema/audit.schema.json` says.
pub(crate) fn lines(file: &Path) -> Vec<Value> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/schema/audit.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let faults: Vec<_> = validator.iter_errors(line).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?}: {line:#}");
    }
    if let Some(mut wrong) = lines.first().cloned() {
        wrong["event.code"] = "RG1009I".into();
        wrong["event.action"] = "session.start".into();
        assert!(!validator.is_valid(&wrong), "the schema refuses a code of another action");
    }
    lines
}
