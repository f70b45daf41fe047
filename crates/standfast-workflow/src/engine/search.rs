//! Runs that are looked for: by how they stand, what they are of, when they were started, what they were given and why they failed.

use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;

use super::{Engine, Refused, Summary};
use crate::run::{Problem, RunId};

/// Runs that are looked at for one page; where to go on is told.
const LOOKED_AT_MAX: usize = 5_000;
/// Runs that are read at once.
const READ_MAX: usize = 1_000;
/// A run's id is made before the run is written as started, at most so long.
const ID_IS_OLDER_MAX: Duration = Duration::from_secs(600);

/// Digits that say which document is meant, at least.
const DIGITS_MIN: usize = 8;

/// Which runs are meant: those that fit all that is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// How they stand, in the words of [`Summary::word`]; any when empty.
    pub statuses: Vec<String>,
    /// Of which workflow: `NAME` or `NAMESPACE/NAME`, with `:VERSION` or without.
    pub workflow: Option<String>,
    /// Started then or later.
    pub started_from: Option<Stamp>,
    /// Started before.
    pub started_before: Option<Stamp>,
    /// What top-level fields of the input are: texts as they are, other values as JSON.
    pub input: Vec<(String, String)>,
    /// By what they failed: the kind's whole name or its last part, or the status.
    pub error: Option<String>,
    /// By which document they go on: its version, or its digest or the first digits of it.
    pub definition: Option<String>,
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The latest first.
    pub runs: Vec<Summary>,
    /// After which run to go on; `None` when there are no more. With few that fit a page may be empty and not the last.
    pub next: Option<RunId>,
}

impl Filter {
    /// Whether nothing is said: all runs fit.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a run fits.
    pub fn fits(&self, summary: &Summary) -> bool {
        (self.statuses.is_empty() || self.statuses.iter().any(|status| status == summary.word()))
            && self.workflow.as_deref().is_none_or(|name| is_named(summary, name))
            && self.definition.as_deref().is_none_or(|wanted| is_by(summary, wanted))
            && self.started_from.is_none_or(|from| summary.started_at >= from)
            && self.started_before.is_none_or(|before| summary.started_at < before)
            && self.input.iter().all(|(name, value)| has(&summary.input, name, value))
            && self
                .error
                .as_deref()
                .is_none_or(|error| summary.problem.as_ref().is_some_and(|problem| is_called(problem, error)))
    }
}

fn is_named(summary: &Summary, name: &str) -> bool {
    let (name, version) = name.split_once(':').map_or((name, None), |(name, version)| (name, Some(version)));
    let (namespace, name) =
        name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
    summary.workflow.name == name
        && namespace.is_none_or(|namespace| summary.workflow.namespace == namespace)
        && version.is_none_or(|version| summary.workflow.version == version)
}

fn is_by(summary: &Summary, wanted: &str) -> bool {
    summary.workflow.version == wanted
        || wanted.len() >= DIGITS_MIN && summary.definition.as_str().starts_with(wanted)
}

fn has(input: &Value, name: &str, value: &str) -> bool {
    match input.get(name) {
        Some(Value::String(text)) => text == value,
        Some(found) => serde_json::from_str(value).is_ok_and(|value: Value| value == *found),
        None => false,
    }
}

fn is_called(problem: &Problem, error: &str) -> bool {
    problem.kind == error
        || problem.kind.rsplit('/').next() == Some(error)
        || problem.status.to_string() == error
}

impl Engine {
    /// A page of the runs that fit, the latest first: at most `limit`, `after` one that was shown before. Page by page each is shown
    /// once, though runs end meanwhile.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn search(
        &self,
        filter: &Filter,
        after: Option<RunId>,
        limit: usize,
    ) -> Result<Found, Refused> {
        // Ids sort by time, in milliseconds, so what is younger is passed over without being read.
        let next = |stamp: Stamp| stamp.plus(Duration::from_millis(1));
        let newest = filter.started_before.map(|before| RunId::new(next(before), 0));
        let mut after = match (after, newest) {
            (Some(after), Some(newest)) => Some(after.min(newest)),
            (after, newest) => after.or(newest),
        };
        let oldest = filter.started_from.map(|from| RunId::new(from.minus(ID_IS_OLDER_MAX), 0));
        let (mut runs, mut looked_at) = (Vec::new(), 0);
        while looked_at < LOOKED_AT_MAX {
            let read = READ_MAX.min(if filter.is_empty() { limit } else { limit.saturating_mul(2) });
            let page = self.list(after, read).await?;
            if page.is_empty() {
                return Ok(Found { runs, next: None });
            }
            for summary in page {
                if oldest.is_some_and(|oldest| summary.id < oldest) {
                    return Ok(Found { runs, next: None });
                }
                looked_at += 1;
                after = Some(summary.id);
                if filter.fits(&summary) {
                    runs.push(summary);
                    if runs.len() >= limit {
                        return Ok(Found { runs, next: after });
                    }
                }
            }
        }
        Ok(Found { runs, next: after })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::program::WorkflowName;
    use crate::run::{Digest, Run, Standard, Status};

    fn summary() -> Summary {
        let mut run = Run::new(RunId::new(Stamp::EPOCH, 1));
        run.status = Status::Faulted;
        run.definition = Digest::of(b"a document");
        run.started_at = Stamp::from_micros(5_000);
        run.input = std::sync::Arc::new(json!({"order": "o-1", "quantity": 2, "gift": null}));
        run.problem = Some(Standard::Communication.problem("it was down").with_status(503));
        let name =
            WorkflowName { namespace: "shop".into(), name: "checkout".into(), version: "1.0.0".into() };
        Summary::of(&run, &name)
    }

    #[test]
    fn a_run_fits_when_all_that_is_said_is_so() {
        let all = Filter::default();
        let digest = summary().definition.as_str().to_owned();
        assert!(all.is_empty() && all.fits(&summary()));
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let input = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let stamp = |micros| Some(Stamp::from_micros(micros));
        let cases = [
            (Filter { statuses: texts(&["running", "faulted"]), ..all.clone() }, true),
            (Filter { statuses: texts(&["running"]), ..all.clone() }, false),
            (Filter { workflow: Some("checkout".into()), ..all.clone() }, true),
            (Filter { workflow: Some("shop/checkout:1.0.0".into()), ..all.clone() }, true),
            (Filter { workflow: Some("checkout:2.0.0".into()), ..all.clone() }, false),
            (Filter { workflow: Some("bank/checkout".into()), ..all.clone() }, false),
            (Filter { started_from: stamp(5_000), ..all.clone() }, true),
            (Filter { started_from: stamp(5_001), ..all.clone() }, false),
            (Filter { started_before: stamp(5_001), ..all.clone() }, true),
            (Filter { started_before: stamp(5_000), ..all.clone() }, false),
            (Filter { input: input("order", "o-1"), ..all.clone() }, true),
            (Filter { input: input("quantity", "2"), ..all.clone() }, true),
            (Filter { input: input("gift", "null"), ..all.clone() }, true),
            (Filter { input: input("order", "o-2"), ..all.clone() }, false),
            (Filter { input: input("missing", "null"), ..all.clone() }, false),
            (Filter { error: Some("communication".into()), ..all.clone() }, true),
            (Filter { error: Some("503".into()), ..all.clone() }, true),
            (Filter { error: Some("timeout".into()), ..all.clone() }, false),
            (Filter { definition: Some("1.0.0".into()), ..all.clone() }, true),
            (Filter { definition: Some("1.0.1".into()), ..all.clone() }, false),
            (Filter { definition: Some(digest[..8].into()), ..all.clone() }, true),
            (Filter { definition: Some(digest[..7].into()), ..all.clone() }, false),
        ];
        for (filter, fits) in cases {
            assert_eq!(filter.fits(&summary()), fits, "{filter:?}");
        }
    }
}
