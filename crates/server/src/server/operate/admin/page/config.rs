//! The view of the configuration: its settings by section, and a filter.

use crate::server::operate::admin::configuration::{ConfigInfo, ConfigValue, ValueSource};

const VIEW: &str = "/ui/config";

/// The settings that the view shows.
pub(super) struct ListedSettings {
    /// The words that the operator searches for.
    pub(super) filter: String,
    /// Whether settings with their default are shown as well.
    pub(super) has_defaults: bool,
    pub(super) sections: Vec<Section>,
    /// The number of settings that are shown.
    pub(super) number: usize,
}

/// The settings whose keys begin with the same name.
pub(super) struct Section {
    pub(super) name: String,
    pub(super) settings: Vec<ListedSetting>,
    /// The number of settings that are shown.
    pub(super) number: usize,
}

pub(super) struct ListedSetting {
    /// The section's part of the key.
    pub(super) prefix: String,
    /// The rest of the key.
    pub(super) name: String,
    pub(super) value: String,
    pub(super) source: String,
    pub(super) is_default: bool,
    pub(super) is_shown: bool,
}

impl ListedSettings {
    /// If `show` is empty, the settings of the file and of environment variables are shown. A search also finds
    /// defaults.
    pub(super) fn new(config: &ConfigInfo, filter: &str, show: &str) -> Self {
        let filter = filter.to_owned();
        let has_defaults = match show {
            "" => !filter.is_empty(),
            show => show == "all",
        };
        let words: Vec<_> = filter.to_lowercase().split_whitespace().map(str::to_owned).collect();
        let mut sections: Vec<Section> = Vec::new();
        for value in &config.values {
            let setting = ListedSetting::new(value, &words, has_defaults);
            let name = section_of(&value.key);
            let (last, number) = (sections.last_mut(), usize::from(setting.is_shown));
            match last.filter(|section| section.name == name) {
                Some(section) => {
                    section.number += number;
                    section.settings.push(setting);
                }
                None => sections.push(Section { name: name.to_owned(), settings: vec![setting], number }),
            }
        }
        let number = sections.iter().map(|section| section.number).sum();
        Self { filter, has_defaults, sections, number }
    }

    /// The buttons: their paths, their labels, and whether they are in effect.
    pub(super) fn buttons(&self) -> [(String, &'static str, bool); 2] {
        let path = |show| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            if !self.filter.is_empty() {
                query.append_pair("q", &self.filter);
            }
            format!("{VIEW}?{}", query.append_pair("show", show).finish())
        };
        [(path("set"), "Set", !self.has_defaults), (path("all"), "All", self.has_defaults)]
    }

    pub(super) fn count(&self) -> String {
        in_words(self.number)
    }
}

impl Section {
    pub(super) fn count(&self) -> String {
        in_words(self.number)
    }
}

impl ListedSetting {
    fn new(
        ConfigValue { key, value, source, line, variable }: &ConfigValue,
        words: &[String],
        has_defaults: bool,
    ) -> Self {
        // The dot belongs to the section's part, and the brackets of a list to the rest.
        let end = key.find(['.', '[']).map_or(0, |end| end + usize::from(key.as_bytes().get(end) == Some(&b'.')));
        let (prefix, name) = key.split_at(end);
        let source = match (line, variable) {
            (Some(line), _) => format!("line {line}"),
            (None, Some(variable)) => variable.clone(),
            (None, None) => source.word().to_owned(),
        };
        let is_default = source == ValueSource::Default.word();
        let value = value.to_string();
        let text = format!("{key} {value} {source}").to_lowercase();
        let is_shown = words.iter().all(|word| text.contains(word)) && (has_defaults || !is_default);
        Self { prefix: prefix.to_owned(), name: name.to_owned(), value, source, is_default, is_shown }
    }
}

/// Returns the name of the table or the list to which a key belongs.
fn section_of(key: &str) -> &str {
    key.split(['.', '[']).next().unwrap_or(key)
}

fn in_words(number: usize) -> String {
    format!("{number} setting{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(filter: &str, show: &str) -> ListedSettings {
        let value = |key: &str, line: Option<usize>, variable: Option<&str>| ConfigValue {
            key: key.to_owned(),
            value: 4.into(),
            source: if line.is_none() && variable.is_none() { ValueSource::Default } else { ValueSource::File },
            line,
            variable: variable.map(str::to_owned),
        };
        let values = vec![
            value("server.workers", None, None),
            value("server.public_url", Some(3), None),
            value("routes[0].path", Some(12), None),
            value("store", None, Some("ROTOGATE_STORE")),
        ];
        let config = ConfigInfo { file: "gateway.toml".to_owned(), toml: String::new(), values };
        ListedSettings::new(&config, filter, show)
    }

    fn names(settings: &[ListedSetting]) -> Vec<&str> {
        settings.iter().filter(|it| it.is_shown).map(|it| it.name.as_str()).collect()
    }

    fn shown(settings: &ListedSettings) -> Vec<(&str, Vec<&str>)> {
        let sections = settings.sections.iter().inspect(|it| assert_eq!(it.number, names(&it.settings).len()));
        sections.map(|it| (it.name.as_str(), names(&it.settings))).collect()
    }

    #[test]
    fn p56_the_settings_are_in_sections_and_a_filter_finds_defaults_as_well() {
        let set = settings("", "");
        assert_eq!(
            shown(&set),
            [("server", vec!["public_url"]), ("routes", vec!["[0].path"]), ("store", vec!["store"])]
        );
        assert_eq!(
            (set.number, set.count(), set.sections[1].count()),
            (3, "3 settings".to_owned(), "1 setting".to_owned())
        );
        assert_eq!(set.sections[0].settings[0].prefix, "server.");
        let sources: Vec<_> = set.sections.iter().flat_map(|it| &it.settings).map(|it| it.source.as_str()).collect();
        assert_eq!(sources, ["default", "line 3", "line 12", "ROTOGATE_STORE"]);
        assert_eq!(settings("", "all").number, 4);
        assert_eq!(shown(&settings("SERVER work", ""))[0], ("server", vec!["workers"]));
        assert_eq!(settings("server", "set").number, 1);
        assert_eq!(settings("rotogate_store", "").number, 1);
        assert_eq!(settings("nothing", "").number, 0);
    }

    #[test]
    fn the_buttons_of_a_search_keep_its_words() {
        let [set, all] = settings("a b", "").buttons();
        assert_eq!((&*set.0, set.2), ("/ui/config?q=a+b&show=set", false));
        assert_eq!((&*all.0, all.2), ("/ui/config?q=a+b&show=all", true));
        let [set, all] = settings("", "").buttons();
        assert_eq!((&*set.0, set.2, &*all.0), ("/ui/config?show=set", true, "/ui/config?show=all"));
    }
}
