//! `metadata.standfast.schedule` of a workflow: what the language's `schedule` leaves open.

use std::time::Duration;

use jiff::tz::TimeZoneDatabase;
use serde_json::{Value, json};

use super::document::Schedule;
use super::period::{Period, period};
use crate::shape::{Choice, Context, Fields, FromText, Kinds, Object, Shape};
use crate::source::Span;
use crate::suggest;

/// The least that may be said for `catchUp`: a run that begins so late was not missed.
pub const CATCH_UP_MIN: Duration = Duration::from_secs(10);
/// The most that may be said for `jitter`.
pub const JITTER_MAX: Duration = Duration::from_secs(86_400);

/// What the language's `schedule` leaves open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// In which time zone `cron` counts; UTC without one.
    pub time_zone: Option<TimeZoneName>,
    /// What is done when the run before goes on.
    pub overlap: Overlap,
    /// What becomes of times that were missed.
    pub catch_up: CatchUp,
    /// By how much each run begins later, at most.
    pub jitter: Duration,
    /// Where each key is.
    places: Vec<(&'static str, Span)>,
}

/// The name of a time zone, as the IANA has it; one that is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZoneName(Box<str>);

impl TimeZoneName {
    /// The name: `Europe/Berlin`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is done when a run is due and the one before goes on. The names are those of Temporal's schedules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Both go on.
    #[default]
    AllowAll,
    /// The new one is left out.
    Skip,
    /// The first that is due meanwhile begins when the one before has ended, others are left out.
    BufferOne,
    /// All that are due meanwhile begin, each when the one before has ended.
    BufferAll,
    /// The one before is cancelled, and the new one begins when it has ended.
    CancelOther,
}

impl Overlap {
    /// As a document says it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AllowAll => "allowAll",
            Self::Skip => "skip",
            Self::BufferOne => "bufferOne",
            Self::BufferAll => "bufferAll",
            Self::CancelOther => "cancelOther",
        }
    }
}

/// What becomes of times that were missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// The last one begins, those before are left out.
    #[default]
    Latest,
    /// All begin, one after the other.
    All,
    /// Those begin that are no older.
    Within(Period),
}

impl CatchUp {
    /// None of those that were missed begins.
    pub const NONE: Self = Self::Within(Period { months: 0, rest: CATCH_UP_MIN });
}

/// As a document says it.
impl std::fmt::Display for CatchUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::All => f.write_str("all"),
            Self::Within(_) if *self == Self::NONE => f.write_str("none"),
            Self::Within(period) => write!(f, "{period}"),
        }
    }
}

pub(super) const SCHEDULE: Object<ScheduleOptions> = Object {
    doc: "What the language's `schedule` leaves open.",
    read: |f: &mut Fields<'_, '_>| {
        const OVERLAP: Choice<Overlap> = Choice(&[
            ("allowAll", Overlap::AllowAll),
            ("skip", Overlap::Skip),
            ("bufferOne", Overlap::BufferOne),
            ("bufferAll", Overlap::BufferAll),
            ("cancelOther", Overlap::CancelOther),
        ]);
        let catch_up = Kinds::new("`latest`, `none`, `all` or a duration")
            .text(CatchUpText)
            .mapping(period().and_then(catch_up_within));
        let time_zone = f.optional("timeZone", "In which time zone `cron` counts.", ZoneName);
        let overlap = f.optional("overlap", "What is done when the run before goes on.", OVERLAP);
        let catch_up = f.optional("catchUp", "What becomes of times that were missed.", catch_up);
        let jitter =
            f.optional("jitter", "By how much each run begins later, at most.", period().and_then(jitter));
        let keys = ["timeZone", "overlap", "catchUp", "jitter"];
        let places = keys.into_iter().filter_map(|key| Some((key, f.place_of(key)?))).collect();
        Some(ScheduleOptions {
            time_zone,
            overlap: overlap.unwrap_or_default(),
            catch_up: catch_up.unwrap_or_default(),
            jitter: jitter.unwrap_or_default(),
            places,
        })
    },
};

impl ScheduleOptions {
    /// Reports keys that mean nothing for the schedule that the document has.
    pub(super) fn check(&self, schedule: Option<&Schedule>, cx: &mut Context<'_>) {
        for (key, place) in &self.places {
            let (whom, hint) = match (schedule, *key) {
                (Some(Schedule::Cron(_)), _) => continue,
                (Some(Schedule::Every(_)), "timeZone") => {
                    ("`every`: an interval is as long everywhere", "name times by `cron`, or leave it out")
                }
                (Some(Schedule::Every(_)), _) => continue,
                (Some(Schedule::After(_)), _) => {
                    ("`after`: its runs come one after the other", "leave it out, or use `every` or `cron`")
                }
                (Some(Schedule::On(_)), _) => {
                    ("`on`: each event is looked at when it comes", "leave it out, or use `every` or `cron`")
                }
                (None, _) => ("a workflow without a `schedule`", "add `schedule: {cron: '0 6 * * *'}`"),
            };
            cx.reports.error_hint(*place, format!("`{key}` has no meaning for {whom}"), hint);
        }
    }
}

/// A time zone that is in the database that comes with the program.
struct ZoneName;

impl FromText for ZoneName {
    type Value = TimeZoneName;

    fn parse(&self, text: &str) -> Result<TimeZoneName, Option<String>> {
        let database = TimeZoneDatabase::bundled();
        let names: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
        if names.iter().any(|name| name == text) {
            return Ok(TimeZoneName(text.into()));
        }
        Err(Some(match suggest::nearest(text, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "write a name of the IANA's database: `Europe/Berlin`, `America/New_York`, `UTC`".to_owned()
            }
        }))
    }

    fn expected(&self) -> String {
        "a time zone".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string"})
    }
}

struct CatchUpText;

impl Shape for CatchUpText {
    type Value = CatchUp;

    fn decode(&self, node: &crate::yaml::Node, cx: &mut Context<'_>) -> Option<CatchUp> {
        let (text, _) = cx.scalar(node)??;
        match &*text {
            "latest" => Some(CatchUp::Latest),
            "none" => Some(CatchUp::NONE),
            "all" => Some(CatchUp::All),
            other => match Period::parse(other) {
                Ok(period) => catch_up_within(period, node.span, cx),
                Err(hint) => {
                    cx.mismatch(node, "`latest`, `none`, `all` or a duration", Some(hint));
                    None
                }
            },
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "string"})
    }
}

fn catch_up_within(period: Period, place: Span, cx: &mut Context<'_>) -> Option<CatchUp> {
    if period.months == 0 && period.rest < CATCH_UP_MIN {
        let message = "`catchUp` of less than 10 s: a run that begins so late was not missed";
        cx.reports.error_hint(place, message, "write `none` if what was missed is to be left out");
        return None;
    }
    Some(CatchUp::Within(period))
}

fn jitter(period: Period, place: Span, cx: &mut Context<'_>) -> Option<Duration> {
    if period.months > 0 || period.rest > JITTER_MAX {
        cx.reports.error_hint(place, "`jitter` of more than a day", "a shorter time: `PT30S`");
        return None;
    }
    Some(period.rest)
}
