//! The positions of a configuration's keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rotogate_kit::config::{ConfigError, Node, Problems, Value, ValueOrigin};

/// The file of a configuration, and the positions of its keys.
#[derive(Clone, Default)]
pub struct Source {
    file: PathBuf,
    text: String,
    places: BTreeMap<String, ValuePlace>,
    passed_over: Vec<String>,
}

/// Where a value comes from.
pub enum KeyOrigin {
    /// The default of the program.
    Default,
    /// The configuration file, and the line of the key.
    File(Option<usize>),
    /// The environment variable with this name.
    Environment(String),
}

#[derive(Clone, Debug)]
struct ValuePlace {
    source: String,
    position: Option<(usize, usize)>,
}

rotogate_core::debug_with!(Source { file });

impl Source {
    pub(super) fn new(file: &Path, root: &Node, passed_over: Vec<String>, problems: &Problems<'_>) -> Self {
        let mut places = BTreeMap::new();
        note(root, String::new(), problems, &mut places);
        Self { file: file.to_owned(), text: problems.text().to_owned(), places, passed_over }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The text of the file. After a partial reload, this is the earlier text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Restores the earlier text. Call this if only a restart can apply all keys of the new file.
    pub fn keep_text(&mut self, before: &Self) {
        self.text.clone_from(&before.text);
    }

    /// The ignored environment variables, which an orchestrator created.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Whether the key's value comes from the file.
    pub fn is_in_file(&self, key: &str) -> bool {
        self.places.get(key).is_some_and(|place| place.position.is_some())
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> KeyOrigin {
        match self.places.get(key) {
            None => KeyOrigin::Default,
            Some(place) => match place.source.strip_prefix("environment ") {
                Some(variable) => KeyOrigin::Environment(variable.to_owned()),
                None => KeyOrigin::File(place.position.map(|(line, _)| line)),
            },
        }
    }

    /// Creates an error about a key's value, with the position of the key or of its table.
    pub fn blame(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let (source, position) = self.found(key);
        ConfigError { source, position, key: key.to_owned(), message: message.into(), unchecked: false }
    }

    /// Where a key is set: the file and the line, or the environment variable.
    pub fn place(&self, key: &str) -> (String, Option<usize>) {
        let (source, position) = self.found(key);
        (source, position.map(|(line, _)| line))
    }

    fn found(&self, key: &str) -> (String, Option<(usize, usize)>) {
        let mut at = key;
        let place = loop {
            if let Some(place) = self.places.get(at) {
                break Some(place);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = at.get(..end).unwrap_or_default(),
                None => break None,
            }
        };
        let source = place.map_or_else(|| self.file.display().to_string(), |place| place.source.clone());
        (source, place.and_then(|place| place.position).filter(|_| !key.is_empty()))
    }
}

fn note(node: &Node, path: String, problems: &Problems<'_>, places: &mut BTreeMap<String, ValuePlace>) {
    match &node.value {
        Value::Table(table) => {
            for (key, node) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                note(node, path, problems, places);
            }
        }
        Value::List(list) => {
            for (index, node) in list.iter().enumerate() {
                note(node, format!("{path}[{index}]"), problems, places);
            }
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::OtherNumber(_)
        | Value::Bool(_)
        | Value::Datetime(_)
        | Value::Env(_) => {}
    }
    let origin: &ValueOrigin = match &node.value {
        Value::Table(_) => &node.key,
        _ => &node.origin,
    };
    let (source, position) = problems.place(Some(origin));
    places.insert(path, ValuePlace { source, position });
}
