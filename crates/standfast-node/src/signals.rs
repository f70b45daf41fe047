//! Where a gateway's spans go: to the collector that the stack names, or else the environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use standfast_gateway::{SpanSender, Spans, export_spans};
use standfast_model::{Otlp, OtlpEndpoint, Stack};
use standfast_runtime::{Clock, Net, OnStop, Rng, Tasks};

/// What the environment says of spans, by the variables of OpenTelemetry: the endpoint, and the share that the sampler takes.
///
/// # Errors
/// A sentence when spans are to be sent in a way that is not spoken here.
pub fn otlp_of(variables: &BTreeMap<String, String>) -> Result<Option<Otlp>, String> {
    let of = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let endpoint = match (of("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), of("OTEL_EXPORTER_OTLP_ENDPOINT")) {
        (Some(whole), _) => whole.parse::<OtlpEndpoint>(),
        (None, Some(collector)) => OtlpEndpoint::of_collector(collector),
        (None, None) => return Ok(None),
    };
    let endpoint = endpoint.map_err(|bad| bad.to_string())?;
    let protocol = of("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| of("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if protocol == Some("grpc") {
        return Err(format!("spans are sent by http/json, and {endpoint} is said to speak grpc"));
    }
    let argument = || {
        let share = of("OTEL_TRACES_SAMPLER_ARG").map_or(Ok(1.0), str::parse::<f64>);
        share.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("OTEL_TRACES_SAMPLER_ARG is no share")
    };
    let sample = match of("OTEL_TRACES_SAMPLER").unwrap_or_default() {
        sampler if sampler.ends_with("always_off") => 0.0,
        sampler if sampler.ends_with("traceidratio") => argument()?,
        _ => 1.0,
    };
    Ok(Some(Otlp { endpoint, sample }))
}

/// The exporter that a stack asks for: one for as long as the settings stay.
pub(crate) struct SpanExports {
    /// Where the stack says nothing.
    default: Option<Otlp>,
    current: Option<(Otlp, Arc<Spans>)>,
    instance: String,
    tasks: Tasks,
    net: Net,
    clock: Clock,
}

impl SpanExports {
    /// None yet. They run among these tasks.
    pub(crate) fn new(default: Option<Otlp>, rng: &mut Rng, tasks: &Tasks, net: Net, clock: Clock) -> Self {
        let instance = format!("{:016x}", rng.bits());
        Self { default, current: None, instance, tasks: tasks.clone(), net, clock }
    }

    /// Where spans go for this stack.
    pub(crate) fn of(&mut self, stack: &Stack) -> Option<Arc<Spans>> {
        let wanted = stack.edge.otlp.as_ref().or(self.default.as_ref());
        if self.current.as_ref().map(|(otlp, _)| otlp) != wanted {
            // The last one's exporter ends when workers have let go of it, and what it has is sent.
            self.current = wanted.cloned().map(|otlp| {
                let spans = self.start(stack, &otlp);
                (otlp, Arc::new(spans))
            });
        }
        self.current.as_ref().map(|(_, spans)| Arc::clone(spans))
    }

    fn start(&self, stack: &Stack, otlp: &Otlp) -> Spans {
        let (spans, queue) = Spans::new(otlp.sample);
        let sender = SpanSender { stack: stack.name.to_string(), instance: self.instance.clone() };
        let exporting =
            export_spans(queue, otlp.endpoint.clone(), sender, self.net, self.clock, self.tasks.stop());
        self.tasks.spawn("spans", OnStop::Wait, exporting);
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<(String, f64)>, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let found = otlp_of(&variables.collect())?;
        Ok(found.map(|otlp| (otlp.endpoint.to_string(), otlp.sample)))
    }

    #[test]
    fn the_variables_of_opentelemetry_are_understood() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318");
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(of(&[collector]), Ok(Some(("http://otel:4318/v1/traces".to_owned(), 1.0))));
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://tempo:4318/own");
        let ratio = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.1")];
        let found = of(&[collector, whole, ratio[0], ratio[1]]);
        assert_eq!(found, Ok(Some(("http://tempo:4318/own".to_owned(), 0.1))));
        assert_eq!(of(&[collector, ("OTEL_TRACES_SAMPLER", "always_off")]).unwrap().unwrap().1, 0.0);
        for wrong in [
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel:4318")],
            vec![collector, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            vec![collector, ratio[0], ("OTEL_TRACES_SAMPLER_ARG", "ten")],
        ] {
            assert!(of(&wrong).is_err(), "{wrong:?}");
        }
    }
}
