//! A reader of Prometheus' text format that takes nothing but what the format allows.

use std::collections::{BTreeMap, BTreeSet};

/// Labels, sorted.
type Labels = BTreeMap<String, String>;

/// What was exposed.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    samples: BTreeMap<(String, Labels), f64>,
    /// Trace ids of exemplars, by the metric they are of.
    pub(crate) exemplars: BTreeMap<String, Vec<String>>,
}

impl Scrape {
    /// Reads a page; OpenMetrics when it ends as such pages do.
    pub(crate) fn of(page: &str) -> Self {
        let is_open = page.ends_with("# EOF\n");
        let mut scrape = Self::default();
        let (mut families, mut family) = (BTreeSet::new(), None::<(String, String)>);
        let mut lines = page.trim_end_matches("# EOF\n").lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a help has a text");
                assert!(!text.is_empty() && families.insert(name.to_owned()), "{name} is there twice");
                let (of, kind) =
                    lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
                assert_eq!(of, name);
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{kind}");
                assert_eq!(kind == "counter" && !is_open, name.ends_with("_total"), "{name} {kind}");
                family = Some((name.to_owned(), kind.to_owned()));
                continue;
            }
            let (name, kind) = family.as_ref().expect("samples come after what they are");
            scrape.sample(line, name, kind, is_open);
        }
        scrape.check_histograms();
        scrape
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str, is_open: bool) {
        let (line, exemplar) = match line.split_once(" # ") {
            Some((line, exemplar)) if is_open => (line, Some(exemplar)),
            _ => (line, None),
        };
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let (name, labels) = match series.split_once('{') {
            None => (series, Labels::new()),
            Some((name, rest)) => (name, labels(rest)),
        };
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        let suffixes: &[&str] = match kind {
            "counter" if is_open => &["_total"],
            "counter" | "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &["_sum", "_count"],
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{name} under {family}");
        assert_eq!(name.ends_with("_bucket"), labels.contains_key("le"), "{line}");
        if let Some(exemplar) = exemplar {
            let (trace, rest) = exemplar.strip_prefix("{trace_id=\"").unwrap().split_once("\"} ").unwrap();
            let numbers: Vec<f64> = rest.split(' ').map(|number| number.parse().unwrap()).collect();
            let bound: f64 = labels["le"].replace("+Inf", "inf").parse().unwrap();
            assert!(name.ends_with("_bucket") && numbers.len() == 2 && numbers[0] <= bound, "{line}");
            self.exemplars.entry(family.to_owned()).or_default().push(trace.to_owned());
        }
        let was_there = self.samples.insert((name.to_owned(), labels), value);
        assert_eq!(was_there, None, "{series} is there twice");
    }

    /// Buckets grow, and the last one holds all.
    fn check_histograms(&self) {
        let mut last: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.samples {
            let Some(name) = name.strip_suffix("_bucket") else { continue };
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
            last.entry((name.to_owned(), labels)).or_default().push((bound, *value));
        }
        for ((name, labels), mut buckets) in last {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} {buckets:?}");
            let (bound, all) = *buckets.last().unwrap();
            assert_eq!(
                (bound, Some(&all)),
                (f64::INFINITY, self.samples.get(&(format!("{name}_count"), labels)))
            );
        }
    }

    /// The sum of all series of this name (without what all begin with) that have these labels.
    pub(crate) fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        let has =
            |labels: &Labels| wanted.iter().all(|(k, v)| labels.get(*k).is_some_and(|found| found == v));
        let name = format!("standfast_gateway_{name}");
        let of = self.samples.iter().filter(|((found, labels), _)| *found == name && has(labels));
        let mut values = of.map(|(_, value)| *value).peekable();
        assert!(values.peek().is_some(), "there is no {name} with {wanted:?}");
        values.sum()
    }

    /// The values of a label of a metric.
    pub(crate) fn values(&self, name: &str, label: &str) -> Vec<String> {
        let name = format!("standfast_gateway_{name}");
        let of = self.samples.keys().filter(|(found, _)| *found == name);
        let values: BTreeSet<String> = of.filter_map(|(_, labels)| labels.get(label).cloned()).collect();
        values.into_iter().collect()
    }
}

/// `a="b",c="d"}`.
fn labels(text: &str) -> Labels {
    let (mut labels, mut rest) = (Labels::new(), text);
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c} is no escape: {text}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert_eq!(labels.insert(name.to_owned(), value), None, "{text}");
        rest = &after[end + 1..];
        match rest {
            "}" => return labels,
            _ => rest = rest.strip_prefix(',').unwrap(),
        }
    }
}
