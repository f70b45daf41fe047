//! The timeline: three charts over one axis of time, with the faults as bands, as inline SVG.

use std::fmt::Write as _;

use super::html::escape;
use super::words;
use crate::judge::Judgement;
use crate::meter::Second;
use crate::oracle::thousands;
use crate::record::Record;

/// The drawing's width, and the place of the charts in it, in SVG units.
const WIDTH: f64 = 1_040.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 1_024.0;
const LABEL_ROW: f64 = 18.0;
const GAP: f64 = 44.0;
const HEIGHTS: [f64; 3] = [120.0, 170.0, 80.0];
/// About the width of one letter of a label.
const LETTER: f64 = 6.6;

/// Where one chart stands.
#[derive(Clone, Copy)]
struct Area {
    top: f64,
    height: f64,
}

impl Area {
    fn bottom(self) -> f64 {
        self.top + self.height
    }
}

/// The whole timeline.
pub(super) fn timeline(record: &Record, judgement: &Judgement) -> String {
    let all = record.load_until.since(record.load_from).as_secs_f64();
    let seconds = whole_seconds(&record.measured.seconds, all);
    let span = all.max(seconds.len() as f64).max(1.0);
    let drawing = Drawing { record, judgement, seconds, span };
    let (bands, rows) = drawing.bands();
    let first = 14.0 + LABEL_ROW * rows as f64 + 26.0;
    let tops = [first, first + HEIGHTS[0] + GAP, first + HEIGHTS[0] + HEIGHTS[1] + 2.0 * GAP];
    let areas = [0, 1, 2].map(|index| Area { top: tops[index], height: HEIGHTS[index] });
    let height = areas[2].bottom() + 40.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-labelledby=\"tl-title tl-desc\" xmlns=\"http://www.w3.org/2000/svg\"><title id=\"tl-title\">Requests, latency and errors over time</title><desc id=\"tl-desc\">{}</desc>",
        escape(&drawing.description())
    );
    for band in &bands {
        drawing.draw_band(&mut svg, band, areas[0].top, areas[2].bottom());
    }
    for band in &bands {
        drawing.draw_label(&mut svg, band);
    }
    drawing.rates(&mut svg, areas[0]);
    drawing.latencies(&mut svg, areas[1]);
    drawing.errors(&mut svg, areas[2]);
    drawing.time_axis(&mut svg, areas[2].bottom());
    drawing.hover(&mut svg, areas[0].top, areas[2].bottom());
    svg.push_str("</svg>");
    svg
}

/// The seconds without a last one that is mostly missing: it would look like a fall.
fn whole_seconds(seconds: &[Second], all: f64) -> &[Second] {
    let is_cut = (seconds.len() as f64) > all && all.fract() < 0.9;
    &seconds[..seconds.len().saturating_sub(usize::from(is_cut && seconds.len() > 1))]
}

struct Band {
    number: u32,
    from: f64,
    until: f64,
    label: String,
    title: String,
    row: usize,
}

impl Band {
    /// The base line of its label.
    fn y(&self) -> f64 {
        14.0 + LABEL_ROW * self.row as f64
    }
}

struct Drawing<'a> {
    record: &'a Record,
    judgement: &'a Judgement,
    seconds: &'a [Second],
    span: f64,
}

impl Drawing<'_> {
    fn x(&self, at_s: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (at_s / self.span).clamp(0.0, 1.0)
    }

    fn description(&self) -> String {
        let faults: Vec<String> = self
            .record
            .faults
            .iter()
            .map(|fault| {
                let at = fault.injected_at.since(self.record.load_from).as_secs_f64();
                format!("{} {} at {at:.1} s", fault.verb(), fault.object())
            })
            .collect();
        let faults = if faults.is_empty() { "no faults".to_owned() } else { faults.join("; ") };
        format!(
            "{:.0} seconds of load with these faults: {faults}. The numbers are in the table below.",
            self.span
        )
    }

    /// The faults with the row in which each label has room.
    fn bands(&self) -> (Vec<Band>, usize) {
        let mut ends: Vec<f64> = Vec::new();
        let mut bands = Vec::new();
        for (fault, row_words) in
            self.record.faults.iter().zip(words::fault_rows(self.record, self.judgement))
        {
            let since = |at: standfast_model::Stamp| at.since(self.record.load_from).as_secs_f64();
            let from = since(fault.injected_at);
            // Healed with its fault still there, as a stack is that goes on without a lost zone: the band ends with the fault.
            let healed_at = fault.healed_at.unwrap_or(fault.over_at);
            let until = since(fault.undone_at.unwrap_or(healed_at).max(healed_at)).max(from);
            let label = format!("{} {} {}", fault.step.number, fault.verb(), short(&fault.object()));
            let width = LETTER * label.chars().count() as f64;
            let left = self.x(from).min(RIGHT - width);
            let row = ends.iter().position(|end| *end < left).unwrap_or(ends.len());
            if row == ends.len() {
                ends.push(0.0);
            }
            ends[row] = left + width + 8.0;
            let title = format!(
                "fault {}: {} {}; failed {}; worst {}; healed in {}",
                fault.step.number,
                row_words.fault,
                row_words.target,
                row_words.failed,
                row_words.worst,
                row_words.healed
            );
            bands.push(Band { number: fault.step.number, from, until, label, title, row });
        }
        (bands, ends.len())
    }

    fn draw_band(&self, svg: &mut String, band: &Band, top: f64, bottom: f64) {
        let (x, right) = (self.x(band.from), self.x(band.until).max(self.x(band.from) + 3.0));
        put(
            svg,
            format_args!(
                "<g class=\"fault\" data-fault=\"{}\"><title>{}</title><rect class=\"band\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/><line class=\"edge\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/></g>",
                band.number,
                escape(&band.title),
                right - x,
                bottom - top,
                band.y() + 4.0
            ),
        );
    }

    /// After all bands, so that no band's edge crosses another's label.
    fn draw_label(&self, svg: &mut String, band: &Band) {
        let x = self.x(band.from).min(RIGHT - LETTER * band.label.chars().count() as f64);
        put(
            svg,
            format_args!(
                "<text class=\"b\" x=\"{:.1}\" y=\"{:.1}\">{}<title>{}</title></text>",
                x + 4.0,
                band.y(),
                escape(&band.label),
                escape(&band.title)
            ),
        );
    }

    fn rates(&self, svg: &mut String, area: Area) {
        let most = self.seconds.iter().map(|second| second.offered.max(second.ok)).max().unwrap_or(0);
        let top = nice_above(most as f64);
        let y = |value: f64| area.bottom() - area.height * value / top;
        heading(svg, area, "Requests a second", &[("offered", "offered"), ("okl", "acknowledged")]);
        for value in [0.0, top / 2.0, top] {
            grid(svg, y(value), &thousands(value.round() as u64));
        }
        let points = |value: fn(&Second) -> f64| {
            let point = |(index, second): (usize, &Second)| (self.x(index as f64 + 0.5), y(value(second)));
            self.seconds.iter().enumerate().map(point).collect::<Vec<_>>()
        };
        let ok = points(|second| second.ok as f64);
        if let (Some(first), Some(last)) = (ok.first(), ok.last()) {
            let (line, bottom) = (path(&ok), area.bottom());
            put(
                svg,
                format_args!(
                    "<path class=\"okf\" d=\"{line}L{:.1} {bottom:.1}L{:.1} {bottom:.1}Z\"/><path class=\"okl\" d=\"{line}\"/>",
                    last.0, first.0
                ),
            );
        }
        put(
            svg,
            format_args!("<path class=\"offered\" d=\"{}\"/>", path(&points(|second| second.offered as f64))),
        );
    }

    fn latencies(&self, svg: &mut String, area: Area) {
        let slow = self.judgement.slow_us.clamp(1, 3_600_000_000) as f64;
        let measured = self.seconds.iter().filter(|second| second.ok > 0);
        let low = measured.clone().map(|second| second.p50_us.max(1)).min().unwrap_or(1_000) as f64;
        let high = measured.map(|second| second.max_us).max().unwrap_or(1_000) as f64;
        let (low, high) = (low.log10().floor(), high.max(slow).log10().ceil());
        let decades = (high - low).max(1.0);
        let y =
            |us: f64| area.bottom() - area.height * (us.max(1.0).log10() - low).clamp(0.0, decades) / decades;
        let legend = [("p50", "median"), ("p99", "p99"), ("max", "longest"), ("slow", "slow above")];
        heading(svg, area, "Latency of acknowledged requests, from when they were due (log)", &legend);
        for decade in 0..=(decades as i32) {
            let us = 10_f64.powf(low + f64::from(decade));
            grid(svg, y(us), &decade_words(us));
        }
        put(
            svg,
            format_args!(
                "<line class=\"slow\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>",
                y(slow)
            ),
        );
        for class in ["p50", "p99", "max"] {
            let value = |second: &Second| match class {
                "p50" => second.p50_us,
                "p99" => second.p99_us,
                _ => second.max_us,
            };
            // A second without an answer is a gap, not a fall to zero.
            let mut piece = Vec::new();
            let mut pieces = String::new();
            for (index, second) in self.seconds.iter().enumerate() {
                if second.ok > 0 {
                    piece.push((self.x(index as f64 + 0.5), y(value(second) as f64)));
                } else {
                    pieces.push_str(&path(&std::mem::take(&mut piece)));
                }
            }
            pieces.push_str(&path(&piece));
            put(svg, format_args!("<path class=\"{class}\" d=\"{pieces}\"/>"));
        }
    }

    fn errors(&self, svg: &mut String, area: Area) {
        let most = self.seconds.iter().map(|second| second.failed + second.dropped).max().unwrap_or(0);
        let top = nice_above(most as f64);
        let y = |value: f64| area.height * value / top;
        heading(svg, area, "Not acknowledged", &[("fail", "failed"), ("drop", "dropped by the generator")]);
        for value in [0.0, top] {
            grid(svg, area.bottom() - y(value), &thousands(value.round() as u64));
        }
        if most == 0 {
            let (x, middle) = (f64::midpoint(LEFT, RIGHT), area.top + area.height / 2.0 + 4.0);
            put(svg, format_args!("<text x=\"{x:.0}\" y=\"{middle:.1}\" text-anchor=\"middle\">none</text>"));
        }
        let width = ((RIGHT - LEFT) / self.span * 0.8).max(1.0);
        for (index, second) in self.seconds.iter().enumerate() {
            let x = self.x(index as f64 + 0.5) - width / 2.0;
            let (failed, dropped) = (y(second.failed as f64), y(second.dropped as f64));
            for (class, height, below) in [("fail", failed, 0.0), ("drop", dropped, failed)] {
                if height > 0.0 {
                    let top = area.bottom() - below - height;
                    put(
                        svg,
                        format_args!(
                            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
                        ),
                    );
                }
            }
        }
    }

    fn time_axis(&self, svg: &mut String, bottom: f64) {
        let step = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0]
            .into_iter()
            .find(|step| self.span / step <= 16.0)
            .unwrap_or(1_200.0);
        for tick in 0..=((self.span / step) as u32) {
            let at = f64::from(tick) * step;
            put(
                svg,
                format_args!(
                    "<line class=\"axis\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{bottom:.1}\" y2=\"{1:.1}\"/><text x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\">{at:.0} s</text>",
                    self.x(at),
                    bottom + 5.0,
                    bottom + 20.0
                ),
            );
        }
    }

    /// One column for each second, whose title tells its numbers.
    fn hover(&self, svg: &mut String, top: f64, bottom: f64) {
        for (index, second) in self.seconds.iter().enumerate() {
            let (x, right) = (self.x(index as f64), self.x(index as f64 + 1.0));
            put(
                svg,
                format_args!(
                    "<rect class=\"hit\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{index} to {} s: {} offered, {} acknowledged, {} failed; median {}, p99 {}, longest {}</title></rect>",
                    right - x,
                    bottom - top,
                    index + 1,
                    second.offered,
                    second.ok,
                    second.failed,
                    words::micros(second.p50_us),
                    words::micros(second.p99_us),
                    words::micros(second.max_us)
                ),
            );
        }
    }
}

/// Writing to a string does not fail.
fn put(svg: &mut String, what: std::fmt::Arguments<'_>) {
    let _never_fails = svg.write_fmt(what);
}

fn heading(svg: &mut String, area: Area, title: &str, legend: &[(&str, &str)]) {
    let y = area.top - 10.0;
    put(svg, format_args!("<text class=\"t\" x=\"{LEFT}\" y=\"{y:.1}\">{title}</text>"));
    let mut x = RIGHT;
    for (class, name) in legend.iter().rev() {
        x -= LETTER * name.chars().count() as f64;
        put(svg, format_args!("<text class=\"k\" x=\"{x:.1}\" y=\"{y:.1}\">{name}</text>"));
        x -= 28.0;
        if matches!(*class, "fail" | "drop") {
            put(
                svg,
                format_args!(
                    "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"10\"/>",
                    x + 10.0,
                    y - 9.0
                ),
            );
        } else {
            put(
                svg,
                format_args!(
                    "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>",
                    x + 22.0,
                    y - 4.0
                ),
            );
        }
        x -= 14.0;
    }
}

fn grid(svg: &mut String, y: f64, label: &str) {
    put(
        svg,
        format_args!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0
        ),
    );
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        put(&mut path, format_args!("{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' }));
    }
    if points.len() == 1 {
        path.push_str("h2");
    }
    path
}

/// The next of 1, 2, 4, 5, 6, 8 and 10 times a power of ten that is not below `value`.
fn nice_above(value: f64) -> f64 {
    let value = value.max(2.0);
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 6.0, 8.0]
        .into_iter()
        .map(|step| step * unit)
        .find(|nice| *nice >= value)
        .unwrap_or(10.0 * unit)
}

/// `100 µs`, `1 ms`, `10 s`.
fn decade_words(us: f64) -> String {
    match us {
        us if us < 999.0 => format!("{us:.0} µs"),
        us if us < 999_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

/// Long names would cover the neighbours' labels.
fn short(text: &str) -> String {
    const LETTERS_MAX: usize = 22;
    if text.chars().count() <= LETTERS_MAX {
        return text.to_owned();
    }
    text.chars().take(LETTERS_MAX - 1).chain(['…']).collect()
}
