//! Settings of oauth2-proxy from files, flags, variables and the alpha configuration.

use std::collections::BTreeMap;
use std::path::Path;

use saphyr::{LoadableYamlNode, YamlOwned};

use super::fates::{self, Fate};
use rotogate::program::OWN_PARAMETERS;

pub(super) struct Setting {
    pub(super) values: Vec<String>,
    /// The name of the setting and its source, without its value.
    pub(super) place: String,
    /// Whether the value is a list, whose elements may contain commas.
    is_array: bool,
}

#[derive(Default)]
pub(super) struct SentTo {
    pub(super) place: String,
    pub(super) path: Option<String>,
    pub(super) uri: String,
    /// The position of an unsupported setting, or `None` if all settings are supported.
    pub(super) odd: Option<String>,
    /// The upstream's settings `passHostHeader`, `proxyWebSockets` and `timeout`.
    pub(super) preserves_host: Option<bool>,
    pub(super) upgrades: Option<bool>,
    pub(super) timeout: Option<String>,
}

/// Settings from all sources. The first source takes precedence.
#[derive(Default)]
pub(super) struct Settings {
    all: BTreeMap<String, Setting>,
    pub(super) upstreams: Vec<SentTo>,
    /// Authorization request parameters that a login URL cannot override.
    pub(super) parameters: Vec<(String, String)>,
    /// Whether the access token is sent in `Authorization`.
    pub(super) sends_token: bool,
}

pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    pub(super) fn put(&mut self, name: &str, values: Vec<String>, place: String) {
        self.add(name, Setting { values, place, is_array: false });
    }

    fn add(&mut self, name: &str, setting: Setting) {
        // In flags, the name of a list setting is singular.
        let mut name = name.to_ascii_lowercase().replace('-', "_");
        if fates::of_setting(&name) == Fate::Unknown && fates::of_setting(&format!("{name}s")) != Fate::Unknown {
            name.push('s');
        }
        self.all.entry(name).or_insert(setting);
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.all.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name)?.values.first().map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let Some(setting) = self.all.get(name) else { return Vec::new() };
        let values = setting.values.iter().flat_map(|value| match setting.is_array {
            true => vec![value.as_str()],
            false => value.split(',').collect(),
        });
        values.map(str::trim).filter(|value| !value.is_empty()).collect()
    }

    pub(super) fn is_on(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, is_true)
    }

    pub(super) fn read_file(&mut self, path: &Path, text: &str, variables: Variables<'_>) -> Result<(), String> {
        let name = path.display().to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.next().unwrap_or_default();
        let is_yaml = path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml");
        if is_yaml && !first.starts_with('-') {
            return self.read_alpha(text, &name, variables);
        }
        if first.starts_with('-') {
            return self.read_flags(words(text), &name);
        }
        if first.trim_start_matches("export ").starts_with(PREFIX) {
            let pairs = text.lines().filter_map(|line| line.trim().trim_start_matches("export ").split_once('='));
            self.read_variables(pairs.map(|(name, value)| (name, unquoted(value))), &name);
            return Ok(());
        }
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // Only the message is shown, because the parser's excerpt of the file could contain a secret.
            format!("{name} is neither TOML nor a file of flags or variables: {}", error.message())
        })?;
        for (key, value) in table {
            let values = match &value {
                toml::Value::Array(values) => values.iter().map(scalar).collect(),
                value => vec![scalar(value)],
            };
            let place = format!("{key} in {name}");
            self.add(&key, Setting { values, place, is_array: value.is_array() });
        }
        Ok(())
    }

    pub(super) fn read_flags(&mut self, flags: impl IntoIterator<Item = String>, place: &str) -> Result<(), String> {
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        let mut waiting: Option<String> = None;
        let mut add = |name: String, value: String| match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => found.push((name, vec![value])),
        };
        for word in flags {
            match (word.strip_prefix("--"), waiting.take()) {
                (Some(flag), before) => {
                    // A flag is boolean if another flag follows directly.
                    before.into_iter().for_each(|switch| add(switch, "true".to_owned()));
                    match flag.split_once('=') {
                        Some((name, value)) => add(name.to_owned(), value.to_owned()),
                        None => waiting = Some(flag.to_owned()),
                    }
                }
                (None, Some(name)) => add(name, word),
                (None, None) if matches!(&*word, "-" | "oauth2-proxy" | "/bin/oauth2-proxy") => {}
                (None, None) => {
                    return Err(format!("{place} contains a word that is not a flag; expected --name=value"));
                }
            }
        }
        waiting.into_iter().for_each(|switch| add(switch, "true".to_owned()));
        for (name, values) in found {
            self.put(&name, values, format!("--{name} in {place}"));
        }
        Ok(())
    }

    /// Reads oauth2-proxy's variables and ignores others.
    pub(super) fn read_variables<'a>(&mut self, variables: impl Iterator<Item = (&'a str, String)>, place: &str) {
        for (name, value) in variables {
            if let Some(setting) = name.trim().strip_prefix(PREFIX) {
                self.put(setting, vec![value], format!("{} in {place}", name.trim()));
            }
        }
    }

    fn read_alpha(&mut self, text: &str, place: &str, variables: Variables<'_>) -> Result<(), String> {
        // The parser's message could quote a secret.
        let wrong = |line: usize| format!("{place} is not YAML: see line {line}");
        let documents = YamlOwned::load_from_str(text).map_err(|error| wrong(error.marker().line()))?;
        let root = documents.first().and_then(YamlOwned::as_mapping);
        let root =
            root.ok_or_else(|| format!("{place} is not an alpha configuration of oauth2-proxy; expected a mapping"))?;
        for (key, value) in root {
            match key.as_str().unwrap_or_default() {
                "providers" => match value.as_sequence().map(Vec::as_slice) {
                    Some([provider]) => self.put_all(provider, "", &format!("providers[0] in {place}"), variables),
                    _ => {
                        return Err(format!(
                            "providers in {place}: expected exactly one, because an endpoint has only one provider"
                        ));
                    }
                },
                "upstreamConfig" => self.read_upstream_config(value, place, variables),
                // Versions before 7.3 use this format.
                "upstreams" => self.read_upstreams(value, place, variables),
                "injectRequestHeaders" => self.read_headers(value, place, variables),
                "server" => self.put_all(value, "server_", &format!("server in {place}"), variables),
                other => self.put(&snake(other), Vec::new(), format!("{other} in {place}")),
            }
        }
        Ok(())
    }

    /// For example, `issuerURL` of `oidcConfig` becomes `oidc_issuer_url`.
    fn put_all(&mut self, value: &YamlOwned, before: &str, place: &str, variables: Variables<'_>) {
        for (key, value) in value.as_mapping().into_iter().flatten() {
            let key = key.as_str().unwrap_or_default();
            let name = format!("{before}{}", snake(key));
            if key == "loginURLParameters" {
                self.read_parameters(value, &format!("{key} of {place}"), variables);
                continue;
            }
            if value.as_mapping().is_some() {
                let inner = name.trim_end_matches("config").trim_end_matches('_');
                self.put_all(value, &format!("{inner}_"), &format!("{key} of {place}"), variables);
                continue;
            }
            let values: Vec<String> = match value.as_sequence() {
                Some(values) => values.iter().map(|value| plain(value, variables)).collect(),
                None => vec![plain(value, variables)],
            };
            let place = format!("{key} of {place}");
            let is_array = value.as_sequence().is_some();
            self.add(fates::alpha(&name), Setting { values, place, is_array });
        }
    }

    /// Reads the parameters that have a single default value and no `allow`.
    fn read_parameters(&mut self, value: &YamlOwned, place: &str, variables: Variables<'_>) {
        for parameter in value.as_sequence().into_iter().flatten() {
            let of = |key: &str| parameter.as_mapping_get(key);
            let name = of("name").map(|name| plain(name, variables)).unwrap_or_default();
            match (of("default").and_then(YamlOwned::as_sequence).map(Vec::as_slice), of("allow")) {
                (Some([value]), None) if !OWN_PARAMETERS.contains(&&*name) => {
                    self.parameters.push((name, plain(value, variables)));
                }
                _ => self.put("login_urlparameters", Vec::new(), place.to_owned()),
            }
        }
    }

    /// Converts headers. The gate only supports an `Authorization` header with the access token.
    fn read_headers(&mut self, value: &YamlOwned, place: &str, variables: Variables<'_>) {
        let mut others = Vec::new();
        for header in value.as_sequence().into_iter().flatten() {
            let text = |value: Option<&YamlOwned>| value.map(|value| plain(value, variables)).unwrap_or_default();
            let name = text(header.as_mapping_get("name"));
            let values = header.as_mapping_get("values").and_then(YamlOwned::as_sequence).map(Vec::as_slice);
            let is_token = matches!(values, Some([value]) if {
                let source = value.as_mapping_get("claimSource").unwrap_or(value);
                text(source.as_mapping_get("claim")) == "access_token" && text(source.as_mapping_get("prefix")) == "Bearer "
            });
            match is_token && name.eq_ignore_ascii_case("authorization") {
                true => self.sends_token = true,
                false => others.push(name),
            }
        }
        if !others.is_empty() {
            let place = format!("injectRequestHeaders ({}) in {place}", others.join(", "));
            self.put("inject_request_headers", Vec::new(), place);
        }
    }

    fn read_upstream_config(&mut self, value: &YamlOwned, place: &str, variables: Variables<'_>) {
        for (key, value) in value.as_mapping().into_iter().flatten() {
            match key.as_str().unwrap_or_default() {
                "upstreams" => self.read_upstreams(value, place, variables),
                other => self.put(&snake(other), Vec::new(), format!("{other} of upstreamConfig in {place}")),
            }
        }
    }

    fn read_upstreams(&mut self, value: &YamlOwned, place: &str, variables: Variables<'_>) {
        for (index, upstream) in value.as_sequence().into_iter().flatten().enumerate() {
            let mut sent = SentTo { place: format!("upstreams[{index}] in {place}"), ..SentTo::default() };
            let place = |key: &str| format!("{key} of upstreams[{index}] in {place}");
            for (key, value) in upstream.as_mapping().into_iter().flatten() {
                let text = plain(value, variables);
                match key.as_str().unwrap_or_default() {
                    "id" | "staticCode" => {}
                    "static" if !is_true(&text) => {}
                    "path" => sent.path = Some(text),
                    "uri" => sent.uri = text,
                    "static" => sent.uri = "static://200".to_owned(),
                    "rewriteTarget" => sent.odd = Some(place("rewriteTarget")),
                    "passHostHeader" => sent.preserves_host = Some(is_true(&text)),
                    "proxyWebSockets" => sent.upgrades = Some(is_true(&text)),
                    "timeout" => sent.timeout = Some(text),
                    other => self.put(&snake(other), vec![text], place(other)),
                }
            }
            self.upstreams.push(sent);
        }
    }
}

const PREFIX: &str = "OAUTH2_PROXY_";

fn scalar(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1" | "t" | "T" | "TRUE" | "True")
}

/// Returns a scalar as a string, with `${NAME}` and `${NAME:-default}` replaced.
fn plain(value: &YamlOwned, variables: Variables<'_>) -> String {
    let text = match (value.as_str(), value.as_integer(), value.as_bool()) {
        (Some(text), _, _) => text.to_owned(),
        (_, Some(number), _) => number.to_string(),
        (_, _, Some(switch)) => switch.to_string(),
        _ => String::new(),
    };
    let (mut replaced, mut rest) = (String::new(), text.as_str());
    while let Some((before, (named, behind))) =
        rest.split_once("${").and_then(|(before, after)| Some((before, after.split_once('}')?)))
    {
        let (name, default) = named.split_once(":-").map_or((named, None), |(name, default)| (name, Some(default)));
        let value = variables(name).or_else(|| default.map(str::to_owned));
        replaced += before;
        replaced += &value.unwrap_or_else(|| format!("${{{named}}}"));
        rest = behind;
    }
    replaced + rest
}

/// Converts `issuerURL` to `issuer_url`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    let mut was_upper = true;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !was_upper {
            snake.push('_');
        }
        was_upper = letter.is_ascii_uppercase();
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.unwrap_or(text).to_owned()
}

/// Accepts one flag per line, a YAML list, or shell words.
fn words(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim().trim_end_matches('\\').trim());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .flat_map(|line| line.strip_prefix("- ").map_or_else(|| shell_words(line), |item| vec![unquoted(item)]))
        .collect()
}

/// Splits at spaces outside of quotes.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for letter in line.chars() {
        match (letter, quote) {
            ('"' | '\'', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            (_, None) if letter.is_whitespace() => words.push(String::new()),
            _ => words.last_mut().into_iter().for_each(|word| word.push(letter)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
