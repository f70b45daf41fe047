use serde_json::{Value, json};

use crate::keys::STACK;
use crate::shape::Shape;

/// The JSON Schema (draft 7) of `standfast.yaml`, for editors. It comes from the very descriptions that decode the file.
///
/// It knows a value's form, not the names that must resolve nor what a text with `${…}` becomes.
pub fn schema() -> Value {
    let mut schema = STACK.schema();
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("standfast.yaml");
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;
    use crate::diagnostics::Reports;
    use crate::source::Source;
    use crate::yaml::{self, Kind, Node};

    /// The cases of a corpus folder: title and text.
    fn cases(folder: &str) -> Vec<(String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut cases = Vec::new();
        for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "yaml")) {
            let text = std::fs::read_to_string(file).unwrap();
            match text.strip_prefix("--- # ") {
                Some(text) => cases.extend(text.split("\n--- # ").map(|case| {
                    let (title, text) = case.split_once('\n').unwrap();
                    (title.to_owned(), format!("{text}\n"))
                })),
                None => cases.push((file.display().to_string(), text)),
            }
        }
        cases
    }

    /// A text as an editor sees it: aliases and merges resolved, variables as they are written.
    fn as_json(text: &str) -> Value {
        fn convert(node: &Node) -> Value {
            match &node.value {
                yaml::Value::List(items) => items.iter().map(convert).collect(),
                yaml::Value::Mapping(entries) => Value::Object(
                    entries.iter().map(|entry| (entry.key.text.to_string(), convert(&entry.value))).collect(),
                ),
                yaml::Value::Scalar(scalar) => match node.kind().unwrap() {
                    Kind::Null => Value::Null,
                    Kind::Bool => Value::Bool(scalar.text.eq_ignore_ascii_case("true")),
                    Kind::Integer | Kind::Float => serde_json::from_str(&scalar.text)
                        .unwrap_or_else(|_| Value::String(scalar.text.to_string())),
                    Kind::Text => Value::String(scalar.text.to_string()),
                },
            }
        }
        let mut reports = Reports::default();
        let source = reports.sources.add(Source::new("case".to_owned(), text.to_owned()));
        convert(
            &yaml::parse(source, &mut reports, "").unwrap_or_else(|| panic!("{text}: {}", reports.finish())),
        )
    }

    fn decodes(text: &str) -> Result<(), String> {
        let files = ["load/a.json", "tls/a.pem", "tls/a.key", "tls/b.pem", "tls/b.key", "tls/ca.pem"]
            .map(|path| (Path::new("/stack").join(path), "{}".to_owned()));
        let mut files = BTreeMap::from(files);
        files.insert(Path::new("/stack/faults.key").to_owned(), "0123456789abcdef".to_owned());
        let environment = BTreeMap::new();
        let result = crate::parse(text, Path::new("/stack"), &files, &environment);
        result.map(drop).map_err(|found| found.to_string())
    }

    fn validator() -> jsonschema::Validator {
        jsonschema::draft7::new(&schema()).unwrap()
    }

    fn complaints(validator: &jsonschema::Validator, value: &Value) -> String {
        validator.iter_errors(value).map(|error| format!("{}: {error}\n", error.instance_path())).collect()
    }

    #[test]
    fn the_schema_is_valid_draft_7() {
        assert!(jsonschema::draft7::meta::is_valid(&schema()));
    }

    #[test]
    fn schema_and_decoder_take_what_is_good() {
        let validator = validator();
        for (title, text) in cases("good") {
            assert_eq!(complaints(&validator, &as_json(&text)), "", "{title}");
            assert_eq!(decodes(&text), Ok(()), "{title}");
        }
    }

    #[test]
    fn schema_and_decoder_refuse_what_is_bad() {
        let validator = validator();
        for (title, text) in cases("bad") {
            assert!(!validator.is_valid(&as_json(&text)), "the schema takes: {title}");
            assert!(decodes(&text).is_err(), "the decoder takes: {title}");
        }
    }

    #[test]
    fn every_key_says_what_it_is() {
        fn walk(path: &str, value: &Value) {
            for (name, property) in value["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
                walk(&path, property);
            }
            for inner in ["anyOf", "oneOf"] {
                value[inner].as_array().into_iter().flatten().for_each(|value| walk(path, value));
            }
            for inner in ["items", "additionalProperties", "then", "else"] {
                if value[inner].is_object() {
                    walk(path, &value[inner]);
                }
            }
        }
        walk("", &schema());
    }

    /// How many values there are in a value.
    fn size(value: &Value) -> usize {
        let children: usize = match value {
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(entries) => entries.values().map(size).sum(),
            _ => 0,
        };
        1 + children
    }

    /// A value with one of its parts removed, replaced by something else, or renamed.
    fn mutated(value: &Value, at: &mut usize, with: &Value, how: u8) -> Value {
        if *at == 0 {
            *at = usize::MAX;
            return with.clone();
        }
        *at = at.saturating_sub(usize::from(*at != usize::MAX));
        match value {
            Value::Array(items) => items.iter().map(|item| mutated(item, at, with, how)).collect(),
            Value::Object(entries) => {
                let mut out = Map::new();
                for (key, value) in entries {
                    let hit = *at == 0;
                    let value = mutated(value, at, with, how);
                    match how {
                        0 if hit => {}
                        1 if hit => drop(out.insert(format!("{key}s"), value)),
                        _ => drop(out.insert(key.clone(), value)),
                    }
                }
                Value::Object(out)
            }
            other => other.clone(),
        }
    }

    const TEXTS: &[&str] = &[
        "",
        "a",
        "orders",
        "5",
        "-1",
        "1s",
        "256M",
        "/",
        "true",
        "${X:-1}",
        "no",
        "9000:80",
        "0.5",
        "GET",
        "standfast:node-kill",
        "on-failure:2",
        "load/a.json",
        "a b",
        "service_started",
        "http2",
        "tcp",
        "10.0.0.5:8080",
        "[::1]:80",
        "*.a.b",
        "adaptive",
        "path",
        "client",
        "x-a",
        "10%",
        "301",
        "5/s",
        "tls/a.pem",
    ];

    fn anything() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            Just(json!(true)),
            Just(json!([])),
            Just(json!({})),
            Just(json!(["orders"])),
            Just(json!({"orders": {"condition": "service_started"}})),
            Just(json!({"file": "load/a.json"})),
            Just(json!({"exact": "/x"})),
            Just(json!({"regex": "a|b"})),
            Just(json!({"present": true})),
            Just(json!({"header": "x-a"})),
            Just(json!({"hash": "path"})),
            Just(json!({"external": ["b:1"]})),
            Just(json!({"address": "b:1"})),
            Just(json!({"set": {"x-a": 1}})),
            Just(json!({"scheme": "https"})),
            Just(json!({"path_prefix": "/"})),
            Just(json!({"rate": 1})),
            (-2_i64..2_000).prop_map(|number| json!(number)),
            (0.0..3.0).prop_map(|number: f64| json!(number)),
            proptest::sample::select(TEXTS).prop_map(|text| json!(text)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// An editor never marks what the decoder takes.
        #[test]
        fn the_schema_takes_whatever_the_decoder_takes(
            places in prop::collection::vec((any::<usize>(), anything(), 0_u8..4), 1..3),
        ) {
            thread_local! {
                static BASES: (jsonschema::Validator, Vec<Value>) =
                    (validator(), cases("good").iter().map(|(_, text)| as_json(text)).collect());
            }
            BASES.with(|(validator, bases)| {
                for base in bases {
                    let mut value = base.clone();
                    for (at, with, how) in &places {
                        value = mutated(&value, &mut (at % size(&value)), with, *how);
                    }
                    // JSON is YAML, so the very value that the schema judges is what the decoder reads.
                    if let Err(_found) = decodes(&value.to_string()) {
                        continue;
                    }
                    prop_assert!(validator.is_valid(&value), "{value}: {}", complaints(validator, &value));
                }
                Ok(())
            })?;
        }
    }
}
