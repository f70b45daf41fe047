//! The oracle: was anything acknowledged lost, done twice, or done without being asked for? Pure: a journal in, findings out.
//!
//! For an invariant "exactly n effects for each request of load L":
//! - an acknowledged request with fewer than n effects is **lost**;
//! - any request with more than n is **doubled**, whatever its answer was;
//! - an effect whose id nobody sent is **without cause**; a request of another load is a cause too, since loads may share a
//!   source;
//! - a refused request with an effect was **refused and done**: the caller was told the contrary of what happened;
//! - an effect whose value has no legible id is **malformed**;
//! - a request whose outcome is unknown may have any number of effects from 0 to n.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use standfast_model::Invariant;

use crate::journal::{Journal, Request};
use crate::outcome::Outcome;
use crate::target::Effect;

/// Ids or keys that are kept as examples of a finding.
const EXAMPLES_MAX: usize = 10;

/// What the oracle found for one invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The invariant's sentence.
    pub invariant: String,
    /// How many effects one request has.
    pub exactly: u32,
    /// Whether the effects could be read. When not, only the counts of requests mean anything.
    pub is_judged: bool,
    /// Requests of the load that were acknowledged.
    pub acknowledged: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests whose outcome is unknown.
    pub unknown: u64,
    /// Those of them that had effects.
    pub unknown_done: u64,
    /// All effects in the source.
    pub effects: u64,
    /// Acknowledged requests with too few effects.
    pub lost: Cases,
    /// Requests with too many effects.
    pub doubled: Cases,
    /// Effects whose id was never sent.
    pub without_cause: Cases,
    /// Refused requests with effects.
    pub refused_and_done: Cases,
    /// Effects without a legible id: their keys.
    pub malformed: Cases,
}

/// How often something was found, and the first examples.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cases {
    /// How often.
    pub count: u64,
    /// The first ids or keys, in order.
    pub examples: Vec<String>,
}

impl Cases {
    pub(crate) fn add(&mut self, example: &str) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example.to_owned());
        }
    }
}

impl Finding {
    /// Whether the invariant held, as far as was seen.
    pub const fn holds(&self) -> bool {
        self.is_judged
            && self.lost.count == 0
            && self.doubled.count == 0
            && self.without_cause.count == 0
            && self.refused_and_done.count == 0
            && self.malformed.count == 0
    }

    /// `0 of 9,214 acknowledged lost: under 0.033 % at 95 %`.
    pub fn lost_sentence(&self) -> String {
        bound_sentence(self.lost.count, self.acknowledged, "acknowledged lost")
    }

    /// `0 of 9,300 sent doubled: under 0.033 % at 95 %`.
    pub fn doubled_sentence(&self) -> String {
        let sent = self.acknowledged + self.refused + self.unknown;
        bound_sentence(self.doubled.count, sent, "sent done too often")
    }
}

/// Judges one invariant.
pub fn find(invariant: &Invariant, journal: &Journal) -> Finding {
    let source = journal.effects.get(&invariant.effects);
    let mut finding = Finding {
        invariant: invariant.name.clone(),
        exactly: invariant.exactly,
        is_judged: source.is_some(),
        acknowledged: 0,
        refused: 0,
        unknown: 0,
        unknown_done: 0,
        effects: source.map_or(0, |effects| effects.len() as u64),
        lost: Cases::default(),
        doubled: Cases::default(),
        without_cause: Cases::default(),
        refused_and_done: Cases::default(),
        malformed: Cases::default(),
    };
    let mut done: BTreeMap<String, u64> = BTreeMap::new();
    for effect in source.into_iter().flatten() {
        match id_of(effect, &invariant.per) {
            Some(id) => *done.entry(id).or_default() += 1,
            None => finding.malformed.add(&effect.key),
        }
    }
    let load = journal.begin.loads.iter().position(|load| *load == invariant.load);
    for request in &journal.requests {
        let effects = done.remove(&request.id).unwrap_or(0);
        if Some(request.load) == load {
            weigh(&mut finding, request, effects);
        }
    }
    // What is left was intended by no line of the journal.
    for (id, effects) in &done {
        // A writer that died may not have written the intent, but it had reserved the number.
        if journal.is_complete || !journal.may_have_caused(id) {
            finding.without_cause.add(id);
        } else if *effects > u64::from(invariant.exactly) {
            finding.doubled.add(id);
        }
    }
    finding
}

fn weigh(finding: &mut Finding, request: &Request, effects: u64) {
    let exactly = u64::from(finding.exactly);
    if effects > exactly {
        finding.doubled.add(&request.id);
    }
    match request.outcome.as_ref().map(|(_, outcome)| outcome) {
        Some(Outcome::Acknowledged { .. }) => {
            finding.acknowledged += 1;
            if effects < exactly && finding.is_judged {
                finding.lost.add(&request.id);
            }
        }
        Some(Outcome::Refused { .. }) => {
            finding.refused += 1;
            if effects > 0 {
                finding.refused_and_done.add(&request.id);
            }
        }
        Some(Outcome::Unknown { .. }) | None => {
            finding.unknown += 1;
            finding.unknown_done += u64::from(effects > 0);
        }
    }
}

/// The id in an effect's JSON value: text, or a whole number as text.
fn id_of(effect: &Effect, field: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(&effect.value).ok()?;
    match value.get(field)? {
        serde_json::Value::String(id) => Some(id.clone()),
        serde_json::Value::Number(id) if !id.is_f64() => Some(id.to_string()),
        _ => None,
    }
}

/// What `count` cases in `of` trials say. For none it is the "rule of three": with 95 % confidence the true share is under
/// 3/n (Hanley and Lippman-Hand, "If Nothing Goes Wrong, Is Everything All Right?", JAMA 249(13), 1983). Since
/// −ln 0.05 = 2.996, 3/n is on the safe side for every n; it is printed to two digits, rounded up. It counts each request
/// as a trial of its own, under the faults of this run.
pub fn bound_sentence(count: u64, of: u64, what: &str) -> String {
    let (shown, all) = (thousands(count), thousands(of));
    if of == 0 {
        return format!("nothing to judge: 0 of 0 {what}");
    }
    if count > 0 {
        return format!("{shown} of {all} {what} ({} %)", two_digits_up(100.0 * count as f64 / of as f64));
    }
    if of < 3 {
        return format!("0 of {all} {what}: too few to say more");
    }
    format!("0 of {all} {what}: under {} % at 95 %", two_digits_up(300.0 / of as f64))
}

/// Two significant digits, rounded up, so that "under" stays true.
fn two_digits_up(percent: f64) -> String {
    let magnitude = percent.log10().floor();
    let unit = 10_f64.powf(magnitude - 1.0);
    // The small step back keeps 0.3 from becoming 0.31 by the rounding of binary fractions.
    let up = (percent / unit - 1e-9).ceil() * unit;
    let decimals = (1.0 - up.log10().floor()).clamp(0.0, 12.0);
    let text = format!("{up:.*}", decimals as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `9214` as `9,214`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
