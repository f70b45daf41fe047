//! The report as JUnit XML, as CI systems read it: a test case for each planned fault, for each invariant, and for the run.

use std::fmt::Write as _;

use super::words;
use crate::judge::Judgement;
use crate::record::Record;
use crate::verdict::{Reason, Weight};

/// The report as JUnit XML.
pub fn junit(record: &Record, judgement: &Judgement) -> String {
    let mut cases = Vec::new();
    for step in &record.plan.steps {
        let fault = record.faults.iter().find(|fault| fault.step.number == step.number);
        let name = match fault {
            Some(fault) => {
                format!("{}. {}: {} {}", step.number, step.experiment, fault.verb(), fault.object())
            }
            None => format!("{}. {}", step.number, step.experiment),
        };
        let reasons: Vec<&Reason> =
            judgement.reasons.iter().filter(|reason| reason.fault == Some(step.number)).collect();
        let seconds = fault.map_or(0.0, |fault| fault.over_at.since(fault.injected_at).as_secs_f64());
        cases.push(Case { group: "faults", name, seconds, reasons, is_skipped: fault.is_none() });
    }
    for (index, finding) in judgement.findings.iter().enumerate() {
        let reasons: Vec<&Reason> =
            judgement.reasons.iter().filter(|reason| reason.invariant == Some(index)).collect();
        let name = finding.invariant.clone();
        cases.push(Case { group: "invariants", name, seconds: 0.0, reasons, is_skipped: !finding.is_judged });
    }
    let general: Vec<&Reason> = judgement
        .reasons
        .iter()
        .filter(|reason| reason.fault.is_none() && reason.invariant.is_none())
        .collect();
    let seconds = record.ended_at.since(record.started_at).as_secs_f64();
    cases.push(Case {
        group: "run",
        name: "the whole run".to_owned(),
        seconds,
        reasons: general,
        is_skipped: false,
    });
    write(record, &cases, seconds)
}

struct Case<'a> {
    group: &'static str,
    name: String,
    seconds: f64,
    reasons: Vec<&'a Reason>,
    is_skipped: bool,
}

impl Case<'_> {
    /// JUnit tells "the test failed" from "the test could not be done".
    fn is_error(&self) -> bool {
        self.reasons.first().is_some_and(|reason| matches!(reason.weight, Weight::Void | Weight::DidNotBite))
    }
}

fn write(record: &Record, cases: &[Case<'_>], seconds: f64) -> String {
    let stack = escape(record.stack.as_str());
    let count = |holds: fn(&Case<'_>) -> bool| cases.iter().filter(|case| holds(case)).count();
    let failures = count(|case| !case.reasons.is_empty() && !case.is_error());
    let errors = count(|case| case.is_error());
    let skipped = count(|case| case.reasons.is_empty() && case.is_skipped);
    let totals = format!(
        r#"tests="{}" failures="{failures}" errors="{errors}" skipped="{skipped}" time="{seconds:.3}""#,
        cases.len()
    );
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _never_fails = writeln!(xml, "<testsuites name=\"standfast prove\" {totals}>");
    let _never_fails = writeln!(
        xml,
        "  <testsuite name=\"{stack}\" {totals} timestamp=\"{}\">\n    <properties>\n      <property name=\"seed\" value=\"{}\"/>\n      <property name=\"repeat\" value=\"{}\"/>\n    </properties>",
        record.started_at,
        record.options.seed,
        escape(&record.options.repeat)
    );
    for case in cases {
        let head = format!(
            r#"    <testcase classname="{stack}.{}" name="{}" time="{:.3}""#,
            case.group,
            escape(&case.name),
            case.seconds
        );
        let Some(first) = case.reasons.first() else {
            let body = if case.is_skipped { "><skipped/></testcase>" } else { "/>" };
            let _never_fails = writeln!(xml, "{head}{body}");
            continue;
        };
        let element = if case.is_error() { "error" } else { "failure" };
        let all: Vec<String> = case.reasons.iter().map(|reason| escape(&reason.text)).collect();
        let _never_fails = writeln!(
            xml,
            "{head}>\n      <{element} type=\"{}\" message=\"{}\">{}</{element}>\n    </testcase>",
            words::weight(first.weight),
            escape(&first.text),
            all.join("\n")
        );
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Text as XML 1.0 takes it, in elements and in attributes; characters that it has no place for become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\t' | '\r' => {
                let _never_fails = write!(escaped, "&#{};", u32::from(c));
            }
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
