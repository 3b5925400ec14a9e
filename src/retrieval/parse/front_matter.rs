//! What does a page say about itself before its text?

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

use crate::domain::Groups;

/// Longest front matter that is read; real ones have a few hundred bytes, and YAML is parsed in memory.
const MAX_BYTES: usize = 64 * 1024;

/// Keys that others name groups by. A page that means to be restricted must not be public for a word.
const NEARLY_GROUPS: [&str; 3] = ["group", "access", "acl"];

/// What the lines between the two `---` say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrontMatter {
    pub title: Option<String>,
    pub groups: Option<Groups>,
    /// Every other key with a single value.
    pub metadata: BTreeMap<String, String>,
}

/// Separates front matter from the text below it.
///
/// # Errors
/// When there is front matter that is no YAML mapping but could name groups, or `groups` is no list of names. The text
/// names the key.
pub(super) fn split(text: &str) -> Result<(FrontMatter, &str), String> {
    let start = text.trim_start_matches(['\n', '\r', ' ', '\t']);
    let Some(rest) = opening(start) else {
        return if is_toml(start) {
            Err("front matter between lines of +++ is not read: write it as `key: value` between lines of ---".into())
        } else {
            Ok((FrontMatter::default(), text))
        };
    };
    let mut length = 0;
    for line in rest.split_inclusive('\n') {
        if matches!(line.trim_end(), "---" | "...") {
            let (yaml, body) = (&rest[..length], &rest[length + line.len()..]);
            return Ok(read(yaml)?.map_or((FrontMatter::default(), text), |front| (front, body)));
        }
        length += line.len();
    }
    if rest.lines().take_while(|line| !line.trim().is_empty()).any(names_groups) {
        return Err("front matter: the closing line --- is missing".into());
    }
    Ok((FrontMatter::default(), text))
}

/// The names in a comma-separated text.
///
/// # Errors
/// When there is none, or one is empty or too long.
pub(in crate::retrieval) fn group_names(text: &str) -> Result<Groups, String> {
    text.split(',').map(group_name).collect()
}

fn opening(text: &str) -> Option<&str> {
    let (first, rest) = text.split_once('\n')?;
    (first.trim_end() == "---").then_some(rest)
}

/// Whether a text begins with front matter in TOML.
fn is_toml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_end);
    lines.next() == Some("+++") && lines.any(|line| line == "+++")
}

fn names_groups(line: &str) -> bool {
    line.split_once(':').is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case("groups"))
}

/// `None` when the lines are text between two thematic breaks.
fn read(yaml: &str) -> Result<Option<FrontMatter>, String> {
    if yaml.len() > MAX_BYTES {
        return Err(format!("front matter is larger than {MAX_BYTES} bytes"));
    }
    let value: Value = serde_yaml_ng::from_str(yaml).map_err(|error| format!("front matter: {error}"))?;
    let mapping = match value {
        Value::Mapping(mapping) => mapping,
        Value::Null => return Ok(Some(FrontMatter::default())),
        Value::String(_) if !yaml.lines().any(names_groups) => return Ok(None),
        _ => return Err("front matter is no list of `key: value`".into()),
    };
    let mut front = FrontMatter::default();
    for (key, value) in mapping {
        let Value::String(key) = key else { continue };
        let key = key.trim();
        if key.eq_ignore_ascii_case("groups") {
            if front.groups.replace(groups(&value)?).is_some() {
                return Err("front matter: groups is given twice".into());
            }
        } else if NEARLY_GROUPS.iter().any(|near| key.eq_ignore_ascii_case(near)) {
            return Err(format!("front matter: {key} is no key here; `groups` says who may see the page"));
        } else if key.eq_ignore_ascii_case("title") {
            front.title = scalar(&value);
        } else if let Some(value) = scalar(&value) {
            front.metadata.insert(key.to_owned(), value);
        }
    }
    Ok(Some(front))
}

fn groups(value: &Value) -> Result<Groups, String> {
    match value {
        Value::String(names) => group_names(names),
        Value::Sequence(names) if !names.is_empty() => names
            .iter()
            .map(|name| match name {
                Value::String(name) => group_name(name),
                _ => Err("front matter: groups must be a list of names".into()),
            })
            .collect(),
        _ => Err("front matter: groups must be a name or a list of names".into()),
    }
}

fn group_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    // As long as a group name of a directory service may be.
    if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
        return Err("groups: a name must have 1 to 256 bytes and no control characters".into());
    }
    Ok(name.to_owned())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_restricted_is_refused() {
        for (text, word) in [
            ("---\ngroup: hr\n---\nx", "group"),
            ("---\nAccess: [hr]\n---\nx", "Access"),
            ("+++\ngroups = [\"hr\"]\n+++\nx", "+++"),
        ] {
            assert!(split(text).unwrap_err().contains(word), "{text}");
        }
        assert_eq!(split("+++ more of it\nx").unwrap().1, "+++ more of it\nx");
    }
}
