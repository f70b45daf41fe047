use serde_json::{Value, json};

use crate::otlp::{Otlp, OtlpEndpoint};
use crate::shape::{FromText, Object, or_variable};
use crate::units;
use crate::yaml::Kind;

/// The share of traces when the stack names none: all, as OpenTelemetry has it.
const SAMPLE: f64 = 1.0;

pub(crate) const OTLP: Object<Otlp> = Object {
    doc: "Where spans are sent, by OTLP over HTTP.",
    read: |f| {
        let endpoint = f.required(
            "endpoint",
            "The collector: `http://127.0.0.1:4318`. Spans are posted to `/v1/traces` there.",
            Endpoint,
        );
        let sample = f.or(
            "sample",
            "The share of traces that begin here and are sampled; others go by what their `traceparent` says.",
            Share,
            SAMPLE,
        );
        Some(Otlp { endpoint: endpoint?, sample })
    },
};

/// A collector's address.
struct Endpoint;

impl FromText for Endpoint {
    type Value = OtlpEndpoint;

    fn parse(&self, text: &str) -> Result<OtlpEndpoint, Option<String>> {
        OtlpEndpoint::of_collector(text).map_err(|bad| Some(bad.why.to_owned()))
    }

    fn expected(&self) -> String {
        "the address of a collector: `http://HOST:PORT`".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": or_variable("^http://[^/@?#]+(/[^?#]*)?$")})
    }
}

/// A share: `0.01`, `1%`.
struct Share;

impl FromText for Share {
    type Value = f64;

    fn parse(&self, text: &str) -> Result<f64, Option<String>> {
        let share =
            units::percent(text).map(|number| if text.ends_with('%') { number / 100.0 } else { number });
        share
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| Some("write `0.01` or `1%`".to_owned()))
    }

    fn expected(&self) -> String {
        "a share from 0 to 1".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "string", "pattern": or_variable(units::PERCENT_PATTERN)},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Float | Kind::Text)
    }

    fn shown(&self, value: &f64) -> Value {
        (*value).into()
    }
}
