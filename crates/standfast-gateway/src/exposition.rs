//! What happened, as Prometheus reads it: its text format 0.0.4, or OpenMetrics 1.0 with traces as exemplars. Pure.
//!
//! Names are `standfast_gateway_…`, units are seconds and bytes. Labels are what a stack names (services, replicas, zones) and words of
//! ours, never what clients send: their number is bounded.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use standfast_model::{Instance, ServiceName};

use crate::histogram::{Exemplar, Histogram};
use crate::stats::{Answered, EndpointStats, KeptStats, ServiceStats, Stats};

const PREFIX: &str = "standfast_gateway";

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposition {
    /// Prometheus' text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// What a scraper wants, by its `Accept`.
    pub fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type` of what [`Exposition::write`] gives.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes metrics.
    pub fn write(self, stats: &Stats) -> String {
        let mut page = Page { text: String::with_capacity(16 << 10), form: self };
        of_gateway(&mut page, stats);
        refusals(&mut page, stats);
        of_services(&mut page, stats);
        of_kept_answers(&mut page, stats);
        of_admission(&mut page, stats);
        of_replicas(&mut page, stats);
        if self == Self::OpenMetrics {
            page.text.push_str("# EOF\n");
        }
        page.text
    }
}

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// A metric's value.
type Of<T> = fn(&T) -> u64;

/// Label names with their values.
type Labels<'a> = &'a [(&'a str, &'a str)];

fn of_gateway(page: &mut Page, stats: &Stats) {
    page.family("build_info", Kind::Gauge, "Which version runs; always 1.");
    page.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family(
        "snapshot_version",
        Kind::Gauge,
        "The oldest view of the world that a worker works with; grows.",
    );
    page.sample("snapshot_version", &[], stats.snapshot_version);
    page.family(
        "worker_lag_max_seconds",
        Kind::Gauge,
        "The longest that a worker has stood still since the start.",
    );
    page.sample("worker_lag_max_seconds", &[], seconds(stats.lag_max));
    page.family("connections", Kind::Gauge, "Client connections that are open.");
    page.sample("connections", &[], stats.connections);
    page.counter("connections_accepted", "Client connections accepted.", &[], stats.accepted);
    page.family("body_bytes_total", Kind::Counter, "Bytes of bodies, counted when the answer has gone.");
    page.sample("body_bytes_total", &[("direction", "in")], stats.body_bytes_in);
    page.sample("body_bytes_total", &[("direction", "out")], stats.body_bytes_out);
    if let Some(lines) = stats.access_log {
        page.family(
            "access_log_lines_total",
            Kind::Counter,
            "Lines of the access log, by what became of them.",
        );
        for (outcome, count) in
            [("written", lines.written), ("dropped", lines.dropped), ("failed", lines.failed)]
        {
            page.sample("access_log_lines_total", &[("outcome", outcome)], count);
        }
    }
    if let Some(spans) = stats.spans {
        page.family("spans_total", Kind::Counter, "Spans, by what became of them.");
        for (outcome, count) in [("sent", spans.sent), ("dropped", spans.dropped), ("failed", spans.failed)] {
            page.sample("spans_total", &[("outcome", outcome)], count);
        }
    }
}

fn refusals(page: &mut Page, stats: &Stats) {
    page.family(
        "refused_total",
        Kind::Counter,
        "What the gateway itself answered or turned away, by reason; without a service, none was found or asked for.",
    );
    for (reason, count) in &stats.refused_by_reason {
        page.sample("refused_total", &[("reason", reason)], count);
    }
    for (name, service) in &stats.services {
        for (reason, count) in &service.refused_by_reason {
            page.sample("refused_total", &[("service", name.as_str()), ("reason", reason)], count);
        }
    }
}

fn of_services(page: &mut Page, stats: &Stats) {
    page.of_each_service(
        stats,
        "requests_started_total",
        Kind::Counter,
        "Requests that came for a service (for one that speaks TCP: connections).",
        |service| service.requests,
    );
    page.family(
        "requests_total",
        Kind::Counter,
        "Requests that ended, by the class of their status whoever answered; `none`: the client left before.",
    );
    for (name, service) in &stats.services {
        let service_label = ("service", name.as_str());
        for (class, count) in classes(&service.answered).into_iter().chain([("none", service.abandoned)]) {
            page.sample("requests_total", &[service_label, ("code_class", class)], count);
        }
    }
    page.of_each_service(
        stats,
        "requests_in_flight",
        Kind::Gauge,
        "Requests that have no answer's head yet, those that wait included.",
        |service| service.in_flight,
    );
    page.family(
        "request_duration_seconds",
        Kind::Histogram,
        "From a request's head to its answer's head, all attempts and waits included.",
    );
    for (name, service) in &stats.services {
        page.histogram("request_duration_seconds", &[("service", name.as_str())], &service.latency);
    }
    let counters: [(&str, &str, Of<ServiceStats>); 5] = [
        (
            "retries_total",
            "Attempts beyond a request's first that the retry budget paid for, hedges included.",
            |s| s.retries,
        ),
        ("hedges_total", "Attempts beside one that was still running.", |s| s.hedges),
        ("repeats_unsent_total", "Attempts repeated for nothing, since nothing had been sent.", |s| {
            s.repeats_unsent
        }),
        ("retry_budget_exhausted_total", "Attempts not made since the retry budget was empty.", |s| {
            s.budget_empty
        }),
        ("requests_held_total", "Requests that waited for a replica to be ready.", |s| s.held),
    ];
    for (metric, help, count) in counters {
        page.of_each_service(stats, metric, Kind::Counter, help, count);
    }
    page.of_each_service(
        stats,
        "retry_budget_tokens",
        Kind::Gauge,
        "Further attempts that the retry budget would pay for.",
        |service| service.budget_left_thousandths as f64 / 1e3,
    );
}

fn of_kept_answers(page: &mut Page, stats: &Stats) {
    page.family(
        "kept_answers_total",
        Kind::Counter,
        "Requests with a key where answers are kept, by what became of them or their answers.",
    );
    let keeping = stats.services.iter().filter(|(_, service)| service.kept != KeptStats::default());
    for (name, service) in keeping {
        let kept = &service.kept;
        for (outcome, count) in [
            ("kept", kept.kept),
            ("replayed", kept.replayed),
            ("waited", kept.waited),
            ("evicted", kept.evicted),
            ("no_room", kept.no_room),
            ("gone_on", kept.gone_on),
        ] {
            page.sample("kept_answers_total", &[("service", name.as_str()), ("outcome", outcome)], count);
        }
    }
}

fn of_admission(page: &mut Page, stats: &Stats) {
    page.family(
        "admission_limit",
        Kind::Gauge,
        "Requests that a service is given at a time; absent without a limit.",
    );
    for (name, service) in &stats.services {
        if let Some(limit) = service.limit {
            page.sample("admission_limit", &[("service", name.as_str())], limit);
        }
    }
    page.of_each_service(
        stats,
        "admission_in_flight",
        Kind::Gauge,
        "Requests that were let in and have no answer's head yet.",
        |service| service.admitted,
    );
    page.of_each_service(
        stats,
        "admission_waiting",
        Kind::Gauge,
        "Requests that wait to be let in.",
        |service| service.waiting,
    );
    page.of_each_service(
        stats,
        "admission_wait_mean_seconds",
        Kind::Gauge,
        "What requests waited on average of late, those that did not wait included.",
        |service| seconds(service.queue_wait),
    );
    page.family(
        "admission_waited_seconds",
        Kind::Summary,
        "The waits of requests that were let in after one.",
    );
    for (name, service) in &stats.services {
        let labels = [("service", name.as_str())];
        page.summary("admission_waited_seconds", &labels, service.queued_sum, service.queued);
    }
}

fn of_replicas(page: &mut Page, stats: &Stats) {
    page.family("replica_info", Kind::Gauge, "Where a replica is; always 1.");
    page.for_each_replica(stats, |page, labels, replica| {
        let address = replica.address.map(|address| address.to_string()).unwrap_or_default();
        let [service, name, zone] = *labels;
        page.sample("replica_info", &[service, name, zone, ("address", &address)], 1);
    });
    let gauges: [(&str, &str, Of<EndpointStats>); 3] = [
        ("replica_ready", "Whether requests may go to a replica: 1 or 0.", |r| r.is_ready.into()),
        ("replica_left_out", "How many workers leave a replica out, since it fails or is too slow.", |r| {
            r.left_out_by
        }),
        ("replica_requests_in_flight", "Requests that a replica works on, answers' bodies included.", |r| {
            r.in_flight
        }),
    ];
    for (metric, help, value) in gauges {
        page.of_each_replica(stats, metric, Kind::Gauge, help, value);
    }
    let counters: [(&str, &str, Of<EndpointStats>); 2] = [
        (
            "replica_attempts_total",
            "Attempts in which a replica was sent a request, or may have been.",
            |r| r.attempts,
        ),
        ("replica_ejections_total", "How often a replica was left out.", |r| r.ejections),
    ];
    for (metric, help, value) in counters {
        page.of_each_replica(stats, metric, Kind::Counter, help, value);
    }
    page.family("replica_answers_total", Kind::Counter, "A replica's answers, by the class of their status.");
    page.for_each_replica(stats, |page, [service, name, zone], replica| {
        for (class, count) in classes(&replica.answered) {
            page.sample("replica_answers_total", &[*service, *name, *zone, ("code_class", class)], count);
        }
    });
    page.family(
        "replica_errors_total",
        Kind::Counter,
        "Attempts without an answer: `refused` took no request, `broken` broke off, `timed-out` was too slow.",
    );
    page.for_each_replica(stats, |page, [service, name, zone], replica| {
        let kinds =
            [("refused", replica.refused), ("broken", replica.broken), ("timed-out", replica.timed_out)];
        for (kind, count) in kinds {
            page.sample("replica_errors_total", &[*service, *name, *zone, ("kind", kind)], count);
        }
    });
    page.family(
        "replica_latency_seconds",
        Kind::Summary,
        "From an attempt to the head of the replica's answer.",
    );
    page.for_each_replica(stats, |page, labels, replica| {
        let Answered { ok, redirect, client_error, server_error } = replica.answered;
        let count = ok + redirect + client_error + server_error;
        page.summary("replica_latency_seconds", labels, replica.latency_sum, count);
    });
}

fn classes(answered: &Answered) -> [(&'static str, u64); 4] {
    let Answered { ok, redirect, client_error, server_error } = *answered;
    [("2xx", ok), ("3xx", redirect), ("4xx", client_error), ("5xx", server_error)]
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Lines so far. Names are given without what all begin with.
struct Page {
    text: String,
    form: Exposition,
}

impl Page {
    /// Begins a metric: all its samples follow.
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        // OpenMetrics names a counter without what its sample ends with.
        let name = match self.form {
            Exposition::OpenMetrics if kind == Kind::Counter => name.trim_end_matches("_total"),
            _ => name,
        };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        let _is_infallible =
            writeln!(self.text, "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.start(name, labels, None);
        let _is_infallible = writeln!(self.text, " {value}");
    }

    /// A metric of one sample.
    fn counter(&mut self, name: &str, help: &str, labels: Labels<'_>, value: u64) {
        let name = format!("{name}_total");
        self.family(&name, Kind::Counter, help);
        self.sample(&name, labels, value);
    }

    fn summary(&mut self, name: &str, labels: Labels<'_>, sum: Duration, count: u64) {
        self.sample(&format!("{name}_sum"), labels, seconds(sum));
        self.sample(&format!("{name}_count"), labels, count);
    }

    fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let buckets = format!("{name}_bucket");
        let bounds = Histogram::bounds().map(|bound| seconds(bound).to_string()).chain(["+Inf".to_owned()]);
        let mut below = 0;
        for (index, bound) in bounds.enumerate() {
            below += histogram.counts.get(index).copied().unwrap_or_default();
            self.start(&buckets, labels, Some(&bound));
            let _is_infallible = write!(self.text, " {below}");
            let exemplar = histogram.exemplars.get(index).and_then(Option::as_ref);
            if let Some(Exemplar { trace_id, took, at }) =
                exemplar.filter(|_| self.form == Exposition::OpenMetrics)
            {
                let (took, at) = (seconds(*took), at.as_millis() as f64 / 1e3);
                let _is_infallible = write!(self.text, " # {{trace_id=\"{trace_id}\"}} {took} {at}");
            }
            self.text.push('\n');
        }
        self.summary(name, labels, histogram.sum, below);
    }

    /// A line's name and labels.
    fn start(&mut self, name: &str, labels: Labels<'_>, bound: Option<&str>) {
        let _is_infallible = write!(self.text, "{PREFIX}_{name}");
        let bound = bound.map(|bound| ("le", bound));
        let mut opening = '{';
        for (label, value) in labels.iter().copied().chain(bound) {
            self.text.push(std::mem::replace(&mut opening, ','));
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value);
            self.text.push('"');
        }
        if opening == ',' {
            self.text.push('}');
        }
    }

    fn of_each_service<V: Display>(
        &mut self,
        stats: &Stats,
        name: &str,
        kind: Kind,
        help: &str,
        value: impl Fn(&ServiceStats) -> V,
    ) {
        self.family(name, kind, help);
        for (service, of_service) in &stats.services {
            self.sample(name, &[("service", service.as_str())], value(of_service));
        }
    }

    fn of_each_replica(
        &mut self,
        stats: &Stats,
        metric: &str,
        kind: Kind,
        help: &str,
        value: Of<EndpointStats>,
    ) {
        self.family(metric, kind, help);
        self.for_each_replica(stats, |page, labels, replica| page.sample(metric, labels, value(replica)));
    }

    /// Each replica with its labels: service, replica and zone.
    fn for_each_replica(
        &mut self,
        stats: &Stats,
        mut each: impl FnMut(&mut Self, &[(&str, &str); 3], &EndpointStats),
    ) {
        let all = stats.services.iter().flat_map(|(name, service)| {
            service.endpoints.iter().map(move |(instance, replica)| (name, instance, replica))
        });
        for (name, instance, replica) in all {
            let (name, instance): (&ServiceName, &Instance) = (name, instance);
            let instance = instance.to_string();
            let zone = replica.zone.as_ref().map_or("", |zone| zone.as_str());
            each(self, &[("service", name.as_str()), ("replica", &instance), ("zone", zone)], replica);
        }
    }
}

/// A label's value: backslashes, quotes and line ends would end it.
fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let mut text = String::new();
        push_escaped(&mut text, "a\\b\"c\nd");
        assert_eq!(text, "a\\\\b\\\"c\\nd");
    }

    #[test]
    fn a_scraper_gets_the_form_that_it_asks_for() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Exposition::wanted(prometheus), Exposition::OpenMetrics);
        assert_eq!(Exposition::wanted("*/*"), Exposition::Text);
    }

    #[test]
    fn buckets_add_up_and_exemplars_are_for_openmetrics() {
        let mut counts = vec![0; Histogram::bounds().count() + 1];
        (counts[5], counts[37]) = (2, 1);
        let mut exemplars = vec![None; counts.len()];
        let at = standfast_model::Stamp::from_micros(1_700_000_000_500_000);
        exemplars[5] = Some(Exemplar { trace_id: "ab".into(), took: Duration::from_micros(900), at });
        let latency = Histogram { counts, sum: Duration::from_millis(40_002), exemplars };
        let service = ServiceStats { latency, ..ServiceStats::default() };
        let stats =
            Stats { services: BTreeMap::from([("up".parse().unwrap(), service)]), ..Stats::default() };
        let lines = |form: Exposition| -> Vec<String> {
            form.write(&stats).lines().filter(|l| l.contains("request_duration")).map(str::to_owned).collect()
        };
        let text = lines(Exposition::Text).join("\n");
        for line in [
            "_bucket{service=\"up\",le=\"0.0007\"} 0\n",
            "_bucket{service=\"up\",le=\"0.001\"} 2\n",
            "_bucket{service=\"up\",le=\"30\"} 2\n",
            "_bucket{service=\"up\",le=\"+Inf\"} 3\n",
            "_sum{service=\"up\"} 40.002\n",
            "_count{service=\"up\"} 3",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains('#') || !text.contains("trace_id"));
        let open = lines(Exposition::OpenMetrics).join("\n");
        assert!(open.contains("le=\"0.001\"} 2 # {trace_id=\"ab\"} 0.0009 1700000000.5\n"), "{open}");
    }
}
