//! What is secret reaches who is asked, and no record.

use serde_json::json;
use standfast_model::workflow::{Prepared, TestAnswer, TestCase};
use standfast_workflow::rehearse;

use super::rig::{definition, evaluator};

#[test]
fn a_secret_that_is_sent_is_in_no_record() {
    let definition = definition(
        "secretive",
        r"
use: { secrets: [key], authentications: { mine: { bearer: { token: '${ $secrets.key }' } } } }
do:
  - ask:
      call: http
      with:
        method: post
        endpoint: { uri: https://a.example/, authentication: { use: mine } }
        headers: { x-key: '${ $secrets.key }' }
        body: { key: '${ $secrets.key }' }
  - go: { run: { shell: { command: 'echo', environment: { KEY: '${ $secrets.key }' }, stdin: '${ $secrets.key }' } } }
",
    );
    let answer = |task: &str, answer| TestAnswer { task: task.to_owned(), after: Default::default(), answer };
    let http = Prepared::Http { status: 200, headers: serde_json::Map::new(), body: json!({}) };
    let process = Prepared::Process { code: 0, stdout: "done".to_owned(), stderr: String::new() };
    let case = TestCase {
        secrets: [("key".to_owned(), json!("hunter2"))].into_iter().collect(),
        answers: vec![answer("ask", http), answer("go", process)],
        ..TestCase::default()
    };
    let rehearsed = rehearse(&definition.program, &case, &evaluator());
    assert_eq!(rehearsed.run.problem, None);
    let asked = serde_json::to_string(&rehearsed.asked).unwrap();
    assert_eq!(asked.matches("hunter2").count(), 5, "{asked}");
    let records = serde_json::to_string(&rehearsed.records).unwrap();
    assert!(!records.contains("hunter2"), "{records}");
}
