//! The language's conformance kit: its eleven features and 21 scenarios, told in our own words (`tests/scenarios/conformance`).

use super::scenarios::{folder, play};

/// The scenarios of each feature, by the name of our file.
const SCENARIOS: [(&str, &[&str]); 11] = [
    ("branch", &["branch-competing"]),
    (
        "call",
        &[
            "call-http-content",
            "call-http-response",
            "call-http-basic",
            "call-openapi-content",
            "call-openapi-response",
        ],
    ),
    ("data-flow", &["data-input", "data-output", "data-not-an-object"]),
    ("do", &["do-in-order"]),
    ("emit", &["emit"]),
    ("flow", &["flow-implicit", "flow-explicit"]),
    ("for", &["for-each"]),
    ("raise", &["raise"]),
    ("set", &["set"]),
    ("switch", &["switch-case", "switch-no-case", "switch-default"]),
    ("try", &["try-caught", "try-uncaught"]),
];

#[test]
fn the_scenarios_of_the_conformance_kit_come_out_as_they_must() {
    let scenarios = SCENARIOS.iter().flat_map(|(_, files)| *files);
    assert_eq!(scenarios.clone().count(), 21);
    let mut failures = Vec::new();
    for name in scenarios {
        failures.extend(play(&folder().join("conformance").join(format!("{name}.test.yaml"))).failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
