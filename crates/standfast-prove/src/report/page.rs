//! The parts of the page, in its order.

use super::chart;
use super::html::escape;
use super::words;
use crate::judge::Judgement;
use crate::meter::Summary;
use crate::oracle::thousands;
use crate::record::Record;
use crate::verdict::{Verdict, Weight};

pub(super) fn verdict(record: &Record, judgement: &Judgement) -> String {
    let class = match judgement.verdict {
        Verdict::Held => "held",
        Verdict::Broke => "broke",
        Verdict::NotRun | Verdict::FaultDidNotBite | Verdict::NotRestored => "unsure",
    };
    let mut claims = String::new();
    for finding in &judgement.findings {
        claims.push_str(&format!("<li class=\"head\">{}</li>", escape(&finding.invariant)));
        for (is_good, claim) in words::claims(finding) {
            claims.push_str(&item(is_good, &claim));
        }
    }
    for facts in &record.workflows {
        claims.push_str(&format!("<li class=\"head\">runs of {}</li>", escape(&facts.workflow)));
        for (is_good, claim) in words::run_claims(facts) {
            claims.push_str(&item(is_good, &claim));
        }
    }
    let (is_good, availability) = words::availability(record, judgement);
    claims.push_str("<li class=\"head\">requests are answered</li>");
    claims.push_str(&item(is_good, &availability));
    format!(
        "<header><h1>{}</h1><p>Proof of {} · run {}</p></header><section class=\"verdict {class}\" aria-label=\"Verdict\"><strong>{}</strong><p>{}</p><ul class=\"claims\">{claims}</ul></section>",
        escape(record.stack.as_str()),
        record.started_at,
        escape(&record.run),
        capitalised(judgement.verdict.word()),
        escape(&words::headline(record, judgement)),
    )
}

fn item(is_good: bool, text: &str) -> String {
    let (class, mark, word) = if is_good { ("y", "✓", "good: ") } else { ("n", "✗", "bad: ") };
    format!(
        "<li><span class=\"m {class}\" role=\"img\" aria-label=\"{word}\">{mark}</span>{}</li>",
        prose(text)
    )
}

pub(super) fn reasons(judgement: &Judgement) -> String {
    if judgement.reasons.is_empty() {
        return String::new();
    }
    let items: String = judgement
        .reasons
        .iter()
        .map(|reason| {
            let class =
                if matches!(reason.weight, Weight::Unsafe | Weight::Broke) { "tag" } else { "tag warn" };
            let fault = reason.fault.map_or(String::new(), |number| format!("Fault {number}: "));
            format!(
                "<li><span class=\"{class}\">{}</span>{fault}{}</li>",
                words::weight(reason.weight),
                prose(&reason.text)
            )
        })
        .collect();
    format!("<section><h2>Why</h2><div class=\"card\"><ol class=\"reasons\">{items}</ol></div></section>")
}

pub(super) fn timeline(record: &Record, judgement: &Judgement) -> String {
    let rows: String = record
        .measured
        .seconds
        .iter()
        .enumerate()
        .map(|(index, second)| {
            let cells = [
                index.to_string(),
                thousands(second.offered),
                thousands(second.ok),
                thousands(second.failed),
                words::micros(second.p50_us),
                words::micros(second.p99_us),
                words::micros(second.max_us),
                words::micros(second.lag_p99_us),
            ];
            let cells: String = cells.iter().map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
            format!("<tr>{cells}</tr>")
        })
        .collect();
    let head =
        ["second", "offered", "acknowledged", "failed", "median", "p99", "longest", "generator lag p99"];
    let head: String = head.iter().map(|cell| format!("<th class=\"n\" scope=\"col\">{cell}</th>")).collect();
    format!(
        "<section><h2>Timeline</h2><div class=\"card chart scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Timeline, scrolls sideways\">{}</div><details><summary>The numbers, second by second</summary><div class=\"card scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Numbers by second\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details></section>",
        chart::timeline(record, judgement)
    )
}

pub(super) fn faults(record: &Record, judgement: &Judgement) -> String {
    let rows: String = words::fault_rows(record, judgement)
        .iter()
        .map(|row| {
            let (class, mark, word) =
                if row.is_good { ("y", "✓", "good") } else { ("n", "✗", "bad") };
            let bit = if row.bit { "" } else { "<strong>no:</strong> " };
            let failures = if row.failures.is_empty() {
                String::new()
            } else {
                format!("<small>{}</small>", escape(&row.failures))
            };
            format!(
                "<tr><td class=\"f\" data-label=\"\"><span><span class=\"m {class}\" role=\"img\" aria-label=\"{word}\">{mark}</span> {}</span></td><td data-label=\"Fault\"><span>{}<small>{}</small></span></td><td data-label=\"Target\">{}</td><td data-label=\"Verified\"><span>{bit}{}</span></td><td class=\"n\" data-label=\"Requests failed\"><span>{}{failures}</span></td><td class=\"n\" data-label=\"Worst latency\">{}</td><td class=\"n\" data-label=\"Healed in\">{}</td></tr>",
                row.number,
                escape(&row.fault),
                escape(&row.experiment),
                escape(&row.target),
                escape(&row.verified),
                escape(&row.failed),
                escape(&row.worst),
                escape(&row.healed)
            )
        })
        .collect();
    let body = if rows.is_empty() {
        "<p>Nothing was broken.</p>".to_owned()
    } else {
        format!(
            "<div class=\"card\"><table class=\"stack\"><thead><tr><th scope=\"col\">#</th><th scope=\"col\">Fault</th><th scope=\"col\">Target</th><th scope=\"col\">Verified</th><th class=\"n\" scope=\"col\">Requests failed</th><th class=\"n\" scope=\"col\">Worst latency</th><th class=\"n\" scope=\"col\">Healed in</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    };
    format!("<section><h2>Faults</h2>{body}</section>")
}

pub(super) fn invariants(judgement: &Judgement) -> String {
    let bad: String = judgement
        .findings
        .iter()
        .flat_map(|finding| {
            let kinds = [
                ("lost", &finding.lost),
                ("doubled", &finding.doubled),
                ("without cause", &finding.without_cause),
                ("refused and done", &finding.refused_and_done),
                ("malformed", &finding.malformed),
            ];
            kinds.into_iter().filter(|(_, cases)| cases.count > 0).map(|(kind, cases)| {
                format!(
                    "<tr><td data-label=\"Invariant\">{}</td><td data-label=\"Found\">{kind}</td><td class=\"n\" data-label=\"Cases\">{}</td><td data-label=\"For example\"><code>{}</code></td></tr>",
                    escape(&finding.invariant),
                    thousands(cases.count),
                    escape(&cases.examples.join(", "))
                )
            })
        })
        .collect();
    if bad.is_empty() {
        return String::new();
    }
    format!(
        "<section><h2>What did not hold</h2><div class=\"card\"><table class=\"stack\"><thead><tr><th scope=\"col\">Invariant</th><th scope=\"col\">Found</th><th class=\"n\" scope=\"col\">Cases</th><th scope=\"col\">For example</th></tr></thead><tbody>{bad}</tbody></table></div></section>"
    )
}

pub(super) fn requests(record: &Record) -> String {
    let row = |name: &str, summary: &Summary| {
        let cell = |label: &str, us: u64| {
            let shown = if summary.count == 0 { "–".to_owned() } else { words::micros(us) };
            format!("<td class=\"n\" data-label=\"{label}\">{shown}</td>")
        };
        format!(
            "<tr><td data-label=\"\">{name}</td><td class=\"n\" data-label=\"Requests\">{}</td>{}{}{}{}</tr>",
            thousands(summary.count),
            cell("Median", summary.p50_us),
            cell("p99", summary.p99_us),
            cell("p99.9", summary.p999_us),
            cell("Longest", summary.max_us)
        )
    };
    let loads: String = record
        .loads
        .iter()
        .map(|load| format!("{} at {} a second", load.name, load.rate_per_second))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "<section><h2>Requests</h2><div class=\"card\"><table class=\"stack\"><thead><tr><th scope=\"col\"></th><th class=\"n\" scope=\"col\">Requests</th><th class=\"n\" scope=\"col\">Median</th><th class=\"n\" scope=\"col\">p99</th><th class=\"n\" scope=\"col\">p99.9</th><th class=\"n\" scope=\"col\">Longest</th></tr></thead><tbody>{}{}{}</tbody></table></div><ul class=\"plain\" style=\"margin-top:10px\"><li>Open model, {}: {}; nothing is tried again by the client.</li><li>{}.</li></ul></section>",
        row("Acknowledged", &record.measured.ok),
        row("Failed", &record.measured.failed),
        row("Generator’s own lag", &record.measured.lag),
        match record.options.arrival {
            crate::config::Arrival::Poisson => "Poisson arrivals",
            crate::config::Arrival::Uniform => "even arrivals",
        },
        escape(&loads),
        escape(&capitalised(&words::generator(record)))
    )
}

pub(super) fn rules(record: &Record, judgement: &Judgement) -> String {
    let items = |texts: &[String]| -> String {
        texts.iter().map(|text| format!("<li>{}.</li>", escape(&capitalised(text)))).collect()
    };
    let notes = if judgement.notes.is_empty() {
        String::new()
    } else {
        format!("<h2>Notes</h2><ul class=\"plain\">{}</ul>", items(&judgement.notes))
    };
    format!(
        "<section>{notes}<h2>Judged by</h2><ul class=\"plain\">{}</ul></section>",
        items(&words::rules(record, judgement))
    )
}

pub(super) fn footer(record: &Record) -> String {
    let repeat = if record.options.repeat.is_empty() {
        String::new()
    } else {
        format!("<pre tabindex=\"0\"><code>{}</code></pre>", escape(&record.options.repeat))
    };
    let took = record.ended_at.since(record.started_at).as_secs_f64();
    format!(
        "<footer>Seed {} repeats the targets and the arrivals.{repeat}<p>standfast {} · {took:.0} s · journal {}</p><p>Bounds: with none in n trials, the share is under 3/n with 95 % confidence (rule of three; Hanley and Lippman-Hand, JAMA 1983), counting each request as a trial under the faults of this run.</p></footer>",
        record.options.seed,
        escape(&record.program),
        escape(&record.options.journal.display().to_string())
    )
}

/// Text in which a number and its unit stay on one line.
fn prose(text: &str) -> String {
    let mut text = escape(text);
    for unit in [" %", " s)", " s,", " s ", " ms"] {
        text = text.replace(unit, &format!("\u{a0}{}", &unit[1..]));
    }
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if text.chars().any(char::is_lowercase) => first.to_uppercase().chain(letters).collect(),
        // `NOT RUN` reads better as `Not run` on a page.
        Some(first) => std::iter::once(first).chain(letters.flat_map(char::to_lowercase)).collect(),
        None => String::new(),
    }
}
