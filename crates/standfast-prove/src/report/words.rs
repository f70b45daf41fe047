//! The sentences and cells that all reports share.

use std::time::Duration;

use crate::judge::{FaultFacts, Judgement, percent_down};
use crate::oracle::{Finding, bound_sentence, thousands};
use crate::record::{FaultRecord, Record};
use crate::starts::WorkflowFacts;
use crate::verdict::{Verdict, Weight};

/// One fault as a row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultRow {
    pub(crate) number: u32,
    pub(crate) experiment: String,
    pub(crate) fault: String,
    pub(crate) target: String,
    pub(crate) verified: String,
    pub(crate) bit: bool,
    pub(crate) failed: String,
    pub(crate) failures: String,
    pub(crate) worst: String,
    pub(crate) healed: String,
    pub(crate) is_good: bool,
}

/// The rows of all faults.
pub(crate) fn fault_rows(record: &Record, judgement: &Judgement) -> Vec<FaultRow> {
    record
        .faults
        .iter()
        .zip(&judgement.faults)
        .map(|(fault, facts)| fault_row(fault, facts, judgement))
        .collect()
}

fn fault_row(fault: &FaultRecord, facts: &FaultFacts, judgement: &Judgement) -> FaultRow {
    let number = fault.step.number;
    let failures: Vec<String> =
        facts.failures.iter().map(|(how, count)| format!("{} × {how}", thousands(*count))).collect();
    FaultRow {
        number,
        experiment: fault.step.experiment.clone(),
        fault: fault.verb().to_owned(),
        target: fault.object(),
        verified: fault.bite.evidence.clone(),
        bit: fault.bite.bit,
        failed: format!("{} of {}", thousands(facts.failed), thousands(facts.requests)),
        failures: failures.join(", "),
        worst: if facts.worst_us == 0 { "–".to_owned() } else { micros(facts.worst_us) },
        healed: match (fault.bite.bit, fault.time_to_heal()) {
            (false, _) => "–".to_owned(),
            (true, Some(after)) => time(after),
            (true, None) => "never".to_owned(),
        },
        is_good: !judgement.reasons.iter().any(|reason| reason.fault == Some(number)),
    }
}

/// One sentence for the whole run.
pub(crate) fn headline(record: &Record, judgement: &Judgement) -> String {
    let requests = thousands(judgement.requests);
    let faults = match record.faults.iter().filter(|fault| fault.bite.bit).count() {
        0 => "no fault".to_owned(),
        1 => "1 verified fault".to_owned(),
        many => format!("{many} verified faults"),
    };
    match judgement.verdict {
        Verdict::Held => format!("{} held through {faults} and {requests} requests.", record.stack),
        Verdict::Broke => format!("{} broke under {faults} and {requests} requests.", record.stack),
        Verdict::NotRun => format!("This run says nothing about {}.", record.stack),
        Verdict::FaultDidNotBite => {
            format!("{} was not tested in full: a fault was not there.", record.stack)
        }
        Verdict::NotRestored => {
            format!("{} may still be broken: a fault could not be seen to be undone.", record.stack)
        }
    }
}

/// What one invariant's finding says, each with whether it is good.
pub(crate) fn claims(finding: &Finding) -> Vec<(bool, String)> {
    if !finding.is_judged {
        return vec![(false, "the effects could not be read".to_owned())];
    }
    let mut claims = vec![
        (finding.lost.count == 0, finding.lost_sentence()),
        (finding.doubled.count == 0, finding.doubled_sentence()),
        (
            finding.without_cause.count == 0,
            format!(
                "{} of {} effects without a request",
                thousands(finding.without_cause.count),
                thousands(finding.effects)
            ),
        ),
    ];
    let refused = (thousands(finding.refused_and_done.count), thousands(finding.refused));
    if finding.refused > 0 {
        let text = format!("{} of {} refused and done all the same", refused.0, refused.1);
        claims.push((finding.refused_and_done.count == 0, text));
    }
    if finding.malformed.count > 0 {
        claims.push((false, format!("{} effects without a legible id", thousands(finding.malformed.count))));
    }
    if finding.unknown > 0 {
        let (unknown, done) = (thousands(finding.unknown), thousands(finding.unknown_done));
        claims.push((true, format!("{unknown} outcomes unknown to the client, {done} of them done")));
    }
    claims
}

/// What became of the runs of a workflow, each with whether it is good.
pub(crate) fn run_claims(facts: &WorkflowFacts) -> Vec<(bool, String)> {
    if !facts.is_judged {
        return vec![(false, "the runs could not be read".to_owned())];
    }
    let (started, ended) = (thousands(facts.started), thousands(facts.ended));
    let failed = match facts.failed.count {
        0 => String::new(),
        failed => format!(", {} of them by a fault", thousands(failed)),
    };
    vec![
        (
            facts.open.count == 0 && facts.failed.count == 0,
            format!("{ended} of {started} runs ended{failed}"),
        ),
        (
            facts.lost.count == 0,
            bound_sentence(facts.lost.count, facts.acknowledged, "acknowledged starts lost"),
        ),
        (facts.doubled.count == 0, bound_sentence(facts.doubled.count, facts.started, "runs doubled")),
        (
            true,
            format!(
                "from start to end: median {}, p99 {}, longest {}; longest standstill {}",
                micros(facts.p50_us),
                micros(facts.p99_us),
                micros(facts.max_us),
                micros(facts.standstill_us)
            ),
        ),
    ]
}

/// `99.87 % of 9,214 requests acknowledged (at least 99.00 %)`.
pub(crate) fn availability(record: &Record, judgement: &Judgement) -> (bool, String) {
    let least = record.options.thresholds.availability_min;
    let text = format!(
        "{:.2} % of {} requests acknowledged (at least {:.2} %)",
        percent_down(judgement.availability),
        thousands(judgement.requests + record.measured.dropped),
        100.0 * least
    );
    (judgement.availability >= least, text)
}

/// What shows that the generator was not the bottleneck.
pub(crate) fn generator(record: &Record) -> String {
    let measured = &record.measured;
    let cpu = record.generator.map_or("died".to_owned(), |generator| {
        let repeated = match generator.repeated {
            0 => String::new(),
            repeated => format!(", repeated {} acknowledged requests with their key", thousands(repeated)),
        };
        format!("used {:.0} % of a core{repeated}", 100.0 * generator.cpu_share)
    });
    format!(
        "the generator {cpu}; its own lag was {} at p99, {} at most; {} dropped; up to {} on their way at a time",
        micros(measured.lag.p99_us),
        micros(measured.lag.max_us),
        thousands(measured.dropped),
        thousands(measured.in_flight_peak)
    )
}

/// By which numbers it was judged.
pub(crate) fn rules(record: &Record, judgement: &Judgement) -> Vec<String> {
    let thresholds = &record.options.thresholds;
    let (failed, slow) = (100.0 * thresholds.failed_share_max, 100.0 * thresholds.slow_share_max);
    let normal = judgement.normal_p99_us.map_or("unknown".to_owned(), micros);
    vec![
        format!(
            "normal p99, from the warm-up: {normal}; a request is slow above {}",
            micros(judgement.slow_us)
        ),
        format!(
            "from {} after a fault ({} after the node's kill) at most {failed:.0} % of the requests of each {} may fail, or one of them, and more than {slow:.0} % may be slow in at most {} such slice",
            time(thresholds.grace),
            time(thresholds.grace_node),
            time(thresholds.slice),
            thresholds.slow_slices_max
        ),
        "the kill of one of several replicas may fail no request that a repeat can save".to_owned(),
        format!(
            "a frozen or dead replica may count as ready for its probe's interval, two timeouts and {}",
            time(thresholds.probe_slack)
        ),
        format!(
            "seconds in which the generator's own lag is above {} at p99 do not count for latency",
            time(thresholds.lag_noise)
        ),
    ]
}

/// What a weight is called.
pub(crate) const fn weight(weight: Weight) -> &'static str {
    match weight {
        Weight::Unsafe => "unsafe",
        Weight::Void => "not run",
        Weight::NotRestored => "not restored",
        Weight::Broke => "broke",
        Weight::DidNotBite => "not tested",
    }
}

/// `850 µs`, `3.2 ms`, `1.25 s`.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// The same of a duration, without needless digits: `2 s`, `450 ms`, `1.25 s`.
pub(crate) fn time(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis >= 1_000 && millis.is_multiple_of(1_000) {
        return format!("{} s", millis / 1_000);
    }
    micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
