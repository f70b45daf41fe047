//! What can be asked: one table, from which requests are dispatched and the API's own description is made, so that they cannot differ.

use ::http::Method;

use super::bulk::Bulk;
use crate::engine::VALUES_LISTED_MAX;

/// What is done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Describe,
    Workflows,
    Start,
    StartVersion,
    Runs,
    Stuck,
    Sink,
    Schedules,
    Values,
    Value,
    Run,
    History,
    End,
    Cancel,
    Hold,
    Resume,
    Retry,
    Redo,
    Migrate,
    MigrateMany,
    Signal,
    Query,
    Tasks,
    Task,
    Answer,
    Bulk(Bulk),
    Publish,
    Beat,
}

/// One thing that can be asked.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// With its variables in braces.
    pub(super) path: &'static str,
    pub(super) operation: Operation,
    /// Its name for programs that are made of the description.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// What may stand in the query; nothing else may.
    pub(super) query: &'static [Parameter],
    /// Which header fields are looked at.
    pub(super) headers: &'static [Parameter],
    pub(super) body: Body,
    /// What is answered when it is done: statuses, and the schema of all of them.
    pub(super) done: &'static [u16],
    pub(super) answer: &'static str,
    /// With which statuses it is refused, besides those that any request may be.
    pub(super) refused: &'static [u16],
}

/// What a request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// Any JSON; none is null.
    Input,
    /// One of the schemas, or nothing.
    Of(&'static str),
    Events,
}

/// A variable of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) meaning: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// May be given more than once.
    Texts,
    Number {
        max: usize,
    },
    /// A point in time, RFC 3339.
    Time,
    /// `true` or `false`.
    Flag,
    /// A length of time: `30s`.
    Length,
    RunId,
}

const fn parameter(name: &'static str, kind: Kind, meaning: &'static str) -> Parameter {
    Parameter { name, kind, meaning }
}

/// Runs in one answer at most.
pub(super) const LIMIT_MAX: usize = 1_000;

const WAIT: Parameter = parameter("wait", Kind::Length, "wait for the end, at most so long: up to 60s");
const KEY: Parameter = parameter(
    "Idempotency-Key",
    Kind::Text,
    "names the start: the same key for the same workflow is the same run",
);
const SIGNAL_KEY: Parameter = parameter(
    "Idempotency-Key",
    Kind::Text,
    "names the signal: the same key for the same run and signal is told once",
);
const STATUS: Parameter = parameter(
    "status",
    Kind::Text,
    "how it stands: one of pending, running, waiting, suspended, parked, cancelled, faulted, completed, or several with commas between",
);
const WORKFLOW: Parameter =
    parameter("workflow", Kind::Text, "of which workflow: NAME or NAMESPACE/NAME, with :VERSION or without");
const STARTED_AFTER: Parameter = parameter("startedAfter", Kind::Time, "started then or later");
const STARTED_BEFORE: Parameter = parameter("startedBefore", Kind::Time, "started before");
const INPUT: Parameter =
    parameter("input", Kind::Texts, "NAME=VALUE: what a top-level field of its input is; all must fit");
const ERROR: Parameter = parameter(
    "error",
    Kind::Text,
    "by what it failed: the kind, its last part (`communication`) or the status (`503`)",
);
const LIMIT: Parameter =
    parameter("limit", Kind::Number { max: LIMIT_MAX }, "at most so many; 100 unless told");
const AFTER: Parameter = parameter("after", Kind::RunId, "where to go on: `next` of the page before");

const TASK_FOR: Parameter = parameter("for", Kind::Text, "for these people, or for nobody in particular");
const TASK_WORKFLOW: Parameter = parameter("workflow", Kind::Text, "of which workflow, by its name alone");
const TASK_AFTER: Parameter = parameter("after", Kind::Text, "where to go on: `next` of the page before");
const ANSWER_BY: Parameter =
    parameter("by", Kind::Text, "who answers: the attribute `by` of the event that the task reads");
const ANSWER_KEY: Parameter =
    parameter("Idempotency-Key", Kind::Text, "names the answer: the same once more changes nothing");
const PREFIX: Parameter = parameter("prefix", Kind::Text, "keys that begin so");
const VALUE_KEY: Parameter = parameter("key", Kind::Text, "which key");
const VALUES_LIMIT: Parameter =
    parameter("limit", Kind::Number { max: VALUES_LISTED_MAX }, "at most so many; 100 unless told");
const AFTER_KEY: Parameter = parameter("after", Kind::Text, "where to go on: `next` of the page before");

const ALL: Parameter = parameter("all", Kind::Flag, "all runs are meant, though nothing is said of them");
const DRY_RUN: Parameter =
    parameter("dryRun", Kind::Flag, "nothing is done, it is told to which runs it would be");
const BULK_LIMIT: Parameter =
    parameter("limit", Kind::Number { max: BULK_MAX }, "at most so many at a time; 100 unless told");

const TO: Parameter = parameter(
    "to",
    Kind::Text,
    "the version of its workflow that a run is to go over to, `latest` for the newest; must be there",
);
const FROM: Parameter = parameter(
    "from",
    Kind::Text,
    "by which document they go on: its version, or its digest or the first 8 digits of it",
);
const RUN: Parameter =
    parameter("run", Kind::Texts, "a run; up to 100 of them, in place of all that is said");

/// Runs that one request changes at most: what has begun when its caller goes away is soon over.
pub(super) const BULK_MAX: usize = 100;

/// What is common to changes of many runs.
const BULK: Route = Route {
    method: Method::POST,
    query: &[STATUS, WORKFLOW, STARTED_AFTER, STARTED_BEFORE, INPUT, ERROR, ALL, DRY_RUN, BULK_LIMIT, AFTER],
    answer: "ChangedMany",
    ..BASE
};

const NONE: &[Parameter] = &[];

/// What is common to most routes.
const BASE: Route = Route {
    method: Method::GET,
    path: "",
    operation: Operation::Workflows,
    name: "",
    summary: "",
    query: NONE,
    headers: NONE,
    body: Body::None,
    done: &[200],
    answer: "",
    refused: &[],
};

/// All that can be asked.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/v1/openapi.json",
        operation: Operation::Describe,
        name: "describe",
        summary: "This description",
        answer: "Description",
        ..BASE
    },
    Route {
        path: "/v1/workflows",
        operation: Operation::Workflows,
        name: "listWorkflows",
        summary: "The workflows that can be started",
        answer: "Workflows",
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/workflows/{namespace}/{name}/runs",
        operation: Operation::Start,
        name: "startRun",
        summary: "Starts a run of the newest version; the body is its input",
        query: &[WAIT],
        headers: &[KEY],
        body: Body::Input,
        done: &[200, 202],
        answer: "Started",
        refused: &[404, 409, 413],
    },
    Route {
        method: Method::POST,
        path: "/v1/workflows/{namespace}/{name}/{version}/runs",
        operation: Operation::StartVersion,
        name: "startRunOfVersion",
        summary: "Starts a run of this version; the body is its input",
        query: &[WAIT],
        headers: &[KEY],
        body: Body::Input,
        done: &[200, 202],
        answer: "Started",
        refused: &[404, 409, 413],
    },
    Route {
        path: "/v1/runs",
        operation: Operation::Runs,
        name: "listRuns",
        summary: "Runs that fit all that is said, the latest first",
        query: &[STATUS, WORKFLOW, STARTED_AFTER, STARTED_BEFORE, INPUT, ERROR, LIMIT, AFTER],
        answer: "Runs",
        ..BASE
    },
    Route {
        path: "/v1/stuck",
        operation: Operation::Stuck,
        name: "listStuckRuns",
        summary: "Runs that do not go on, and why",
        answer: "StuckRuns",
        ..BASE
    },
    Route {
        path: "/v1/lifecycle",
        operation: Operation::Sink,
        name: "showLifecycle",
        summary: "How far the sink of lifecycle events is behind",
        answer: "Sink",
        ..BASE
    },
    Route {
        path: "/v1/schedules",
        operation: Operation::Schedules,
        name: "listSchedules",
        summary: "Schedules that are in force, and when the next run of each begins",
        answer: "Schedules",
        ..BASE
    },
    Route {
        path: "/v1/namespaces/{namespace}/values",
        operation: Operation::Values,
        name: "listValues",
        summary: "Values that workflows of a namespace keep by keys, in the order of the keys",
        query: &[PREFIX, VALUES_LIMIT, AFTER_KEY],
        answer: "Values",
        ..BASE
    },
    Route {
        path: "/v1/namespaces/{namespace}/value",
        operation: Operation::Value,
        name: "showValue",
        summary: "The value of one key",
        query: &[VALUE_KEY],
        answer: "Value",
        refused: &[404],
        ..BASE
    },
    Route {
        path: "/v1/runs/{id}",
        operation: Operation::Run,
        name: "showRun",
        summary: "Where a run stands",
        answer: "Run",
        refused: &[404],
        ..BASE
    },
    Route {
        path: "/v1/runs/{id}/history",
        operation: Operation::History,
        name: "showHistory",
        summary: "All that happened to a run",
        answer: "History",
        refused: &[404],
        ..BASE
    },
    Route {
        path: "/v1/runs/{id}/end",
        operation: Operation::End,
        name: "waitForEnd",
        summary: "Waits for the end of a run; 202 when it goes on",
        query: &[WAIT],
        done: &[200, 202],
        answer: "Ended",
        refused: &[404],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/runs/{id}/cancel",
        operation: Operation::Cancel,
        name: "cancelRun",
        summary: "Ends a run before its end",
        body: Body::Of("Reason"),
        answer: "Changed",
        refused: &[404, 409],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/runs/{id}/hold",
        operation: Operation::Hold,
        name: "holdRun",
        summary: "Holds a run: nothing new is begun",
        answer: "Changed",
        refused: &[404, 409],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/runs/{id}/resume",
        operation: Operation::Resume,
        name: "resumeRun",
        summary: "Lets a run go on that is held",
        answer: "Changed",
        refused: &[404, 409],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/runs/{id}/retry",
        operation: Operation::Retry,
        name: "retryRun",
        summary: "Goes on with a faulted run from the task that failed, as another run, by the same keys",
        query: &[WAIT],
        done: &[200, 202],
        answer: "WentOn",
        refused: &[404, 409],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/runs/{id}/redo",
        operation: Operation::Redo,
        name: "redoRun",
        summary: "Begins another run from a task of one that has ended, by new keys",
        query: &[WAIT],
        headers: &[KEY],
        body: Body::Of("From"),
        done: &[200, 202],
        answer: "WentOn",
        refused: &[404, 409, 413],
    },
    Route {
        method: Method::POST,
        path: "/v1/runs/{id}/migrate",
        operation: Operation::Migrate,
        name: "migrateRun",
        summary: "Has a run go on by another version of its document, if it can; else 409 tells why, task by task",
        query: &[TO, DRY_RUN],
        answer: "Migrated",
        refused: &[404, 409],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/runs/{id}/signals/{name}",
        operation: Operation::Signal,
        name: "signalRun",
        summary: "Tells a run something, which it keeps until a task of it listens for that; the body is the data",
        headers: &[SIGNAL_KEY],
        body: Body::Input,
        done: &[202],
        answer: "Changed",
        refused: &[404, 409, 413],
        ..BASE
    },
    Route {
        path: "/v1/runs/{id}/queries/{name}",
        operation: Operation::Query,
        name: "queryRun",
        summary: "What an expression of the document yields about the run as it is; nothing is written",
        answer: "Queried",
        refused: &[404, 409],
        ..BASE
    },
    Route {
        path: "/v1/bulk/cancel",
        operation: Operation::Bulk(Bulk::Cancel),
        name: "cancelRuns",
        summary: "Ends those runs that fit, a page at a time",
        body: Body::Of("Reason"),
        ..BULK
    },
    Route {
        path: "/v1/bulk/hold",
        operation: Operation::Bulk(Bulk::Hold),
        name: "holdRuns",
        summary: "Holds those runs that fit, a page at a time",
        ..BULK
    },
    Route {
        path: "/v1/bulk/resume",
        operation: Operation::Bulk(Bulk::Resume),
        name: "resumeRuns",
        summary: "Lets those runs that fit and are held go on, a page at a time",
        ..BULK
    },
    Route {
        path: "/v1/bulk/retry",
        operation: Operation::Bulk(Bulk::Retry),
        name: "retryRuns",
        summary: "Retries those faulted runs that fit and were not retried before, a page at a time",
        ..BULK
    },
    Route {
        path: "/v1/bulk/migrate",
        operation: Operation::MigrateMany,
        name: "migrateRuns",
        summary: "Has those runs go on by another version of their document that fit and can, a page at a time",
        query: &[
            TO,
            FROM,
            RUN,
            STATUS,
            WORKFLOW,
            STARTED_AFTER,
            STARTED_BEFORE,
            INPUT,
            ALL,
            DRY_RUN,
            BULK_LIMIT,
            AFTER,
        ],
        answer: "MigratedMany",
        ..BULK
    },
    Route {
        path: "/v1/tasks",
        operation: Operation::Tasks,
        name: "listTasks",
        summary: "Tasks that wait for a person, those of the oldest runs first",
        query: &[TASK_FOR, TASK_WORKFLOW, LIMIT, TASK_AFTER],
        answer: "Tasks",
        ..BASE
    },
    Route {
        path: "/v1/tasks/{task}",
        operation: Operation::Task,
        name: "getTask",
        summary: "A task that waits for a person, and what its answer must be",
        answer: "Task",
        refused: &[404],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/tasks/{task}/answer",
        operation: Operation::Answer,
        name: "answerTask",
        summary: "Answers a task that waits for a person; the body is the answer",
        query: &[ANSWER_BY],
        headers: &[ANSWER_KEY],
        body: Body::Input,
        done: &[202],
        answer: "Changed",
        refused: &[404, 413],
    },
    Route {
        method: Method::POST,
        path: "/v1/events",
        operation: Operation::Publish,
        name: "publishEvents",
        summary: "Gives events to the runs that wait, and keeps them for those that begin to",
        body: Body::Events,
        answer: "Published",
        refused: &[413],
        ..BASE
    },
    Route {
        method: Method::POST,
        path: "/v1/heartbeats",
        operation: Operation::Beat,
        name: "tellHeartbeat",
        summary: "Tells that what was asked with a key is still being done; 0 steps: nobody waits for it any more",
        query: &[parameter("key", Kind::Text, "the key, where it is in no header field")],
        headers: &[parameter("Idempotency-Key", Kind::Text, "the key with which it was asked")],
        answer: "Beaten",
        ..BASE
    },
];

impl Route {
    /// The variables of a path, if it is one of this route's.
    pub(super) fn variables<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let (mut wanted, mut found) = (self.path.split('/'), path.split('/'));
        let mut variables = Vec::new();
        loop {
            match (wanted.next(), found.next()) {
                (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => {
                    variables.push(found);
                }
                (Some(wanted), Some(found)) if wanted == found => {}
                (None, None) => return Some(variables),
                _ => return None,
            }
        }
    }

    /// Whether it answers such a request.
    pub(super) fn takes(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }
}
