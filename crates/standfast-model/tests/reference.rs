use std::path::Path;

use serde_json::Value;

/// All keys that a schema knows, but those that are only known to be refused.
fn keys(schema: &Value, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let description = property["description"].as_str().unwrap_or_default();
        if property["not"].is_null() && !description.starts_with("Has no effect") {
            found.push(name.clone());
        }
        keys(property, found);
    }
    for inner in ["anyOf", "oneOf"] {
        schema[inner].as_array().into_iter().flatten().for_each(|schema| keys(schema, found));
    }
    for inner in ["items", "additionalProperties", "then", "else"] {
        if schema[inner].is_object() {
            keys(&schema[inner], found);
        }
    }
}

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/stack.md");
    std::fs::read_to_string(path).expect("docs/stack.md")
}

#[test]
fn the_reference_names_every_key() {
    let (text, mut found) = (reference(), Vec::new());
    keys(&standfast_model::schema(), &mut found);
    assert!(found.len() > 180, "{}: {found:?}", found.len());
    let missing: Vec<&String> = found.iter().filter(|key| !text.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/stack.md does not name {missing:?}");
}

#[test]
fn the_examples_of_the_reference_are_good() {
    let text = reference();
    let examples: Vec<&str> =
        text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!examples.is_empty());
    for example in examples.into_iter().filter(|example| example.contains("services:")) {
        let files = [
            ("load/order.json", "{\"id\": \"${id}\"}"),
            ("chaos/slow.yaml", "fault: replica-freeze"),
            (".env", "A=1"),
            ("tls/shop.pem", ""),
            ("tls/shop.key", ""),
            ("tls/clients.pem", ""),
            ("faults.key", "0123456789abcdef"),
        ];
        let loaded = crate::parse_with(example, &files, &[]).unwrap_or_else(|found| panic!("{found}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}
