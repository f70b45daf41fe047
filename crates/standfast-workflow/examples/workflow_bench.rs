//! Measures the engine alone, in one process, over a folder of the file system with fsync at every commit. One line of JSON for each
//! figure; `bench/workflow/README.md` says what was seen.
//!
//! - `workflow_bench steps FOLDER RUNS AT_A_TIME KIND`: runs of three tasks of a kind that ask nobody outside; with a
//!   key file behind KIND, what is kept is sealed.
//! - `workflow_bench long FOLDER STEPS`: one run of so many steps, one after the other, in a loop.
//! - `workflow_bench sleep FOLDER RUNS AFTER SECONDS`: starts runs that wait until they are due, spread over SECONDS from AFTER seconds
//!   from now on, and stops when all sleep.
//! - `workflow_bench wake FOLDER FOR`: takes them over; tells how long that took, how much memory they take, and for so many seconds
//!   how late each run was that was due in them.
//! - `workflow_bench events FOLDER RUNS BATCH AT_A_TIME`: runs that each wait for an event of their own, then these events.

#![expect(clippy::disallowed_methods, reason = "it measures by the clock of the machine")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use standfast_runtime::{Clock, Tasks};
use standfast_store::{EmbeddedOptions, EmbeddedStore};
use standfast_workflow::{
    Answer, Asked, Definition, Engine, EngineConfig, Evaluator, EvaluatorConfig, Invoke, Keys, Problem,
    RunId, Status, Told, WorkflowName, sealed,
};
use tokio::task::JoinSet;

type Anyhow<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Starts under way at a time, where nothing else is said.
const AT_A_TIME: usize = 256;

#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Invoke for Nobody {
    async fn invoke(&self, _: &Asked) -> Result<Answer, Problem> {
        std::future::pending().await
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Anyhow<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["steps", folder, runs, at_a_time, kind, ref keys @ ..] => {
            steps(folder, runs.parse()?, at_a_time.parse()?, kind, keys).await
        }
        ["long", folder, steps] => long(folder, steps.parse()?).await,
        ["sleep", folder, runs, after, seconds] => {
            sleep(folder, runs.parse()?, Duration::from_secs(after.parse()?), seconds.parse()?).await
        }
        ["wake", folder, patience] => wake(folder, Duration::from_secs(patience.parse()?)).await,
        ["events", folder, runs, batch, at_a_time] => {
            events(folder, runs.parse()?, batch.parse()?, at_a_time.parse()?).await
        }
        _ => Err("see the beginning of examples/workflow_bench.rs for what it is called with".into()),
    }
}

async fn open(folder: &str, sleep_after: Duration) -> Anyhow<Engine> {
    open_sealed(folder, sleep_after, &[]).await
}

async fn open_sealed(folder: &str, sleep_after: Duration, keys: &[&str]) -> Anyhow<Engine> {
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let store = EmbeddedStore::open(Path::new(folder), clock, EmbeddedOptions::default()).await?;
    // Only cheap expressions are measured here: no child is needed.
    let evaluator =
        Evaluator::new(EvaluatorConfig { program: "/nonexistent".into(), ..EvaluatorConfig::default() });
    let config = EngineConfig { sleep_after, ..EngineConfig::default() };
    let files: Vec<PathBuf> = keys.iter().map(PathBuf::from).collect();
    let store = sealed(Arc::new(store), Keys::read(&files)?).await?;
    Ok(Engine::open(store, clock, tasks, evaluator, Arc::new(Nobody), config).await?)
}

async fn define(engine: &Engine, rest: &str) -> Anyhow<WorkflowName> {
    let text = format!("document: {{dsl: '1.0.3', namespace: bench, name: bench, version: '1.0.0'}}\n{rest}");
    let definition = Definition::of_text("bench", &text)?;
    let name = definition.program.name().clone();
    engine.define(definition).await?;
    Ok(name)
}

/// Does a job for each number, so many at a time; how long each took, in milliseconds, in order of size.
async fn side_by_side<F>(
    count: u64,
    at_a_time: usize,
    job: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Anyhow<Vec<f64>>
where
    F: Future<Output = Anyhow<()>> + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..at_a_time {
        let (next, job) = (Arc::clone(&next), job.clone());
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(took);
                }
                let from = Instant::now();
                job(number).await?;
                took.push(from.elapsed().as_secs_f64() * 1_000.0);
            }
        });
    }
    let mut took = Vec::new();
    while let Some(worked) = workers.join_next().await {
        took.extend(worked??);
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

async fn completed(engine: &Engine, id: RunId) -> Anyhow<()> {
    let summary = engine.wait(id).await?;
    match summary.status {
        Status::Completed => Ok(()),
        other => Err(format!("a run is {}: {:?}", other.word(), summary.problem).into()),
    }
}

/// Three tasks of a kind.
fn three(kind: &str) -> Anyhow<String> {
    let task = match kind {
        "set" => "set: { a: 1 }",
        "expression" => "set: { a: '${ .number }' }",
        "switch" => "switch: [ { one: { when: '${ .number < 0 }', then: end } } ]",
        "do" => "do: [ { in: { set: { a: 1 } } } ]",
        "for" => "for: { each: item, in: '${ [1, 2, 3] }' }\n    do: [ { in: { set: { a: 1 } } } ]",
        "fork" => "fork: { branches: [ { x: { set: { a: 1 } } }, { y: { set: { a: 2 } } } ] }",
        "try" => {
            "try: [ { in: { raise: { error: { type: https://a.example/e, status: 500 } } } } ]\n    catch: { do: [ { back: { set: { a: 1 } } } ] }"
        }
        "emit" => "emit: { event: { with: { source: https://a.example, type: a.example.done } } }",
        "wait" => "wait: PT0.001S",
        other => return Err(format!("there is no kind {other}").into()),
    };
    let tasks = ["a", "b", "c"].map(|name| format!("- {name}:\n    {task}\n"));
    Ok(format!("do:\n{}", tasks.concat()))
}

async fn steps(folder: &str, runs: u64, at_a_time: usize, kind: &str, keys: &[&str]) -> Anyhow<()> {
    let engine = open_sealed(folder, Duration::from_secs(2), keys).await?;
    let name = define(&engine, &three(kind)?).await?;
    let (from, cpu) = (Instant::now(), cpu_seconds()?);
    let took = side_by_side(runs, at_a_time, move |number| {
        let (engine, name) = (engine.clone(), name.clone());
        async move {
            let id = engine.start(&name, Arc::new(json!({"number": number})), None).await?;
            completed(&engine, id).await
        }
    })
    .await?;
    tell("steps", runs, from, cpu, &json!({"kind": kind, "atATime": at_a_time, "ms": quantiles(&took)}))
}

async fn long(folder: &str, steps: u64) -> Anyhow<()> {
    let engine = open(folder, Duration::from_secs(2)).await?;
    let rest = "do: [ { add: { set: { n: '${ .n + 2 }', of: '${ .of }' } } }, \
                { again: { switch: [ { more: { when: '.n < .of', then: add } } ] } } ]";
    let name = define(&engine, rest).await?;
    let (from, cpu) = (Instant::now(), cpu_seconds()?);
    let id = engine.start(&name, Arc::new(json!({"n": 0, "of": steps})), None).await?;
    completed(&engine, id).await?;
    tell("long", steps, from, cpu, &Value::Null)
}

async fn sleep(folder: &str, runs: u64, after: Duration, seconds: u64) -> Anyhow<()> {
    let engine = open(folder, Duration::ZERO).await?;
    let name = define(&engine, "do: [ { rest: { wait: '${ .for }' } } ]").await?;
    let (from, cpu) = (Instant::now(), cpu_seconds()?);
    let begun = Instant::now() + after;
    let starting = engine.clone();
    side_by_side(runs, AT_A_TIME, move |number| {
        let (engine, name) = (starting.clone(), name.clone());
        async move {
            let due = begun + Duration::from_secs_f64(seconds as f64 * number as f64 / runs as f64);
            let wait = due.saturating_duration_since(Instant::now()).as_millis() as u64;
            let input =
                json!({"for": format!("PT{}.{:03}S", wait / 1_000, wait % 1_000), "milliseconds": wait});
            engine.start(&name, Arc::new(input), None).await?;
            Ok(())
        }
    })
    .await?;
    while engine.counts().0 > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_, asleep) = engine.counts();
    tell("sleep", runs, from, cpu, &json!({"asleep": asleep}))
}

async fn wake(folder: &str, patience: Duration) -> Anyhow<()> {
    let (from, cpu) = (Instant::now(), cpu_seconds()?);
    let engine = open(folder, Duration::from_secs(2)).await?;
    let (awake, asleep) = engine.counts();
    tell("open", (awake + asleep) as u64, from, cpu, &json!({"awake": awake, "asleep": asleep}))?;
    let (from, cpu) = (Instant::now(), cpu_seconds()?);
    let (ended, mut told) = (Arc::new(Mutex::new(Vec::new())), engine.lifecycle());
    let reading = Arc::clone(&ended);
    tokio::spawn(async move {
        while let Some(told) = told.next().await {
            let Told::Event(event) = told else { continue };
            let name = event["data"]["name"].as_str().and_then(|name| name.strip_prefix("bench-"));
            let id = name.and_then(|name| name.strip_suffix(".bench")?.parse::<RunId>().ok());
            if event["type"] == "io.serverlessworkflow.workflow.completed.v1"
                && let (Some(id), Ok(mut ended)) = (id, reading.lock())
            {
                ended.push(id);
            }
        }
    });
    tokio::time::sleep(patience).await;
    let (awake, asleep_now) = engine.counts();
    let mut late = Vec::new();
    let ended = std::mem::take(&mut *ended.lock().map_err(|_| "the reader broke")?);
    for id in ended {
        let run = engine.wait(id).await?;
        let wait = run.input["milliseconds"].as_f64().unwrap_or_default();
        late.push(run.changed_at.since(run.started_at).as_secs_f64() * 1_000.0 - wait);
    }
    late.sort_by(f64::total_cmp);
    let least = late.first().copied();
    let more = json!({"awake": awake, "asleep": asleep_now, "lateMs": quantiles(&late), "leastMs": least});
    tell("woken", late.len() as u64, from, cpu, &more)
}

async fn events(folder: &str, runs: u64, batch: u64, at_a_time: usize) -> Anyhow<()> {
    let engine = open(folder, Duration::from_secs(2)).await?;
    let await_own = "do: [ { await: { listen: { to: { one: { with: { type: paid }, \
                     correlate: { order: { from: '${ .data.order }', expect: '${ .number }' } } } } } } } ]";
    let name = define(&engine, await_own).await?;
    let (starting, ids) = (engine.clone(), Arc::new(Mutex::new(Vec::new())));
    let started = Arc::clone(&ids);
    side_by_side(runs, AT_A_TIME, move |number| {
        let (engine, name, ids) = (starting.clone(), name.clone(), Arc::clone(&started));
        async move {
            let id = engine.start(&name, Arc::new(json!({"number": number})), None).await?;
            ids.lock().map_err(|_| "a worker broke")?.push(id);
            Ok(())
        }
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(3)).await; // what is in memory and what sleeps is as it stays
    let (awake, asleep) = engine.counts();
    let (from, cpu) = (Instant::now(), cpu_seconds()?);
    let publishing = engine.clone();
    let took = side_by_side(runs / batch, at_a_time, move |number| {
        let engine = publishing.clone();
        let event = |order: u64| {
            Arc::new(
                json!({"id": order.to_string(), "source": "bench", "type": "paid", "data": {"order": order}}),
            )
        };
        let events: Vec<Arc<Value>> = (number * batch..(number + 1) * batch).map(event).collect();
        async move {
            let given = engine.publish_all(&events).await?;
            match given.iter().all(|runs| *runs == 1) {
                true => Ok(()),
                false => Err(format!("events were given to {given:?} runs").into()),
            }
        }
    })
    .await?;
    tell(
        "events",
        runs,
        from,
        cpu,
        &json!({"batch": batch, "atATime": at_a_time, "awake": awake, "asleep": asleep, "ms": quantiles(&took)}),
    )?;
    let ids = std::mem::take(&mut *ids.lock().map_err(|_| "a worker broke")?);
    for id in ids {
        completed(&engine, id).await?;
    }
    Ok(())
}

fn quantiles(took: &[f64]) -> Value {
    let at = |share: f64| {
        let place = (took.len().saturating_sub(1) as f64 * share) as usize;
        took.get(place).map(|ms| (ms * 100.0).round() / 100.0)
    };
    json!({"p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
}

fn tell(what: &str, count: u64, from: Instant, cpu: f64, more: &Value) -> Anyhow<()> {
    let (seconds, cpu) = (from.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let line = json!({
        "what": what, "count": count, "seconds": seconds, "perSecond": count as f64 / seconds,
        "cpuMicrosEach": cpu * 1e6 / count.max(1) as f64, "memoryMiB": memory_mib()?, "more": more,
    });
    println!("{line}");
    Ok(())
}

/// Of this process, in user and system mode.
fn cpu_seconds() -> Anyhow<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// What of this process is in memory, and the most that was.
fn memory_mib() -> Anyhow<Value> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1_024)
    };
    Ok(json!({"now": kib("VmRSS:"), "most": kib("VmHWM:")}))
}
