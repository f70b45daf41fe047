//! `workflow run`: a document here and now.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use standfast_runtime::{Clock, Tasks};
use standfast_store::{EmbeddedOptions, EmbeddedStore, MemoryStore, Store};
use standfast_workflow::{
    ContainerConfig, Direct, Engine, EngineConfig, Evaluator, EvaluatorConfig, Refused, RunId, Secrets,
    Shown, Status, Summary, sealed,
};

use super::Call;
use super::workflow_test::definition;
use super::workflow_text;
use crate::args::WorkflowRunArgs;
use crate::exit;
use crate::failure::Failure;

/// How often it is said what a run is doing.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// How long the engine may take to stop.
const STOP_MAX: Duration = Duration::from_secs(2);

/// What an input looks like.
const INPUT_EXAMPLE: &str = r#"{"order": "o-1"}"#;

/// Evaluates expressions, those that may take long in processes of this same program.
pub(super) fn evaluator(call: &Call) -> Evaluator {
    Evaluator::new(EvaluatorConfig {
        program: call.surroundings.executable.clone(),
        arguments: vec!["serve-expressions".into()],
        ..EvaluatorConfig::default()
    })
}

/// Runs a document and prints what it yields.
pub(super) fn run(args: &WorkflowRunArgs, call: &Call) -> Result<u8, Failure> {
    let main = definition(&args.file, call)?;
    let others = args.with.iter().map(|file| definition(file, call)).collect::<Result<Vec<_>, _>>()?;
    let input = read_input(args.input.as_ref(), args.input_file.as_ref())?;
    let secrets = read_secrets(args, call)?;
    call.refuse_missing_secrets(&args.file, &secrets)?;
    let secrets = Some(Secrets::from(secrets));
    let keys = super::workflow_secrets::read_keys(&args.workflow_key)?;
    call.block_on(async {
        let (clock, tasks) = (Clock::system(), Tasks::new());
        let store: Arc<dyn Store> = match &args.store {
            Some(folder) => Arc::new(open_store(folder, clock).await?),
            None => Arc::new(MemoryStore::new(clock)),
        };
        let store = sealed(store, keys).await.map_err(|why| Failure::input(why.to_string()))?;
        let config = EngineConfig { secrets, ..EngineConfig::default() };
        let folder = args.file.parent().map(|folder| call.surroundings.working_dir.join(folder));
        let containers = ContainerConfig::of(&call.surroundings.variables, folder);
        let invoke = Arc::new(Direct::new(clock).with_containers(containers));
        let engine = Engine::open(store, clock, tasks.clone(), evaluator(call), invoke, config)
            .await
            .map_err(|why| Failure::because_of("the engine cannot be opened", &why))?;
        let name = main.program.name().clone();
        for definition in others.into_iter().chain([main]) {
            engine.define(definition).await.map_err(refused)?;
        }
        let id = engine.start(&name, Arc::new(input), args.key.as_deref()).await.map_err(refused)?;
        let ended = watch(&engine, id, args, call).await;
        let shown = engine.show(id).await.map_err(refused);
        // Nobody comes back to a store in memory.
        engine.clear_up_now(args.store.is_none()).await;
        tasks.shutdown(&clock, STOP_MAX).await;
        let Some(summary) = ended? else { return interrupted(args, id, call) };
        report(&summary, &shown?, args, call)
    })
}

/// What `$secrets` is.
fn read_secrets(args: &WorkflowRunArgs, call: &Call) -> Result<Map<String, Value>, Failure> {
    let mut secrets = match args.secrets.as_ref().map(|file| read_json(file, "the secrets")).transpose()? {
        Some(Value::Object(secrets)) => secrets,
        Some(_) => {
            return Err(Failure::input("the secrets must be a JSON object: {\"name\": \"value\"}"));
        }
        None => Map::new(),
    };
    for given in &args.secret {
        let (name, value) = match given.split_once('=') {
            None => match call.surroundings.variables.get(given) {
                Some(value) => (given.as_str(), value.clone()),
                None => {
                    let hint = format!("set it, or name a file: --secret {given}=@FILE");
                    let why = format!("the environment has no variable `{given}` for --secret");
                    return Err(Failure::input(why).hint(hint));
                }
            },
            Some((name, rest)) => match rest.strip_prefix('@') {
                Some(file) => {
                    let text = std::fs::read_to_string(file).map_err(|why| {
                        Failure::input(format!("cannot read the secret `{name}` from {file}")).because(&why)
                    })?;
                    (name, text.trim_end_matches(['\n', '\r']).to_owned())
                }
                // It would be in the list of processes and in the shell's history.
                None => {
                    let hint = format!(
                        "put it into a file: --secret {name}=@FILE, or into the environment: --secret {name}"
                    );
                    let why = format!("the secret `{name}` cannot be given on the command line");
                    return Err(Failure::input(why).hint(hint));
                }
            },
        };
        if name.is_empty() {
            return Err(Failure::input("a secret without a name").hint("--secret NAME=@FILE"));
        }
        secrets.insert(name.to_owned(), Value::String(value));
    }
    Ok(secrets)
}

async fn open_store(folder: &Path, clock: Clock) -> Result<EmbeddedStore, Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|why| Failure::input(format!("cannot create {}", folder.display())).because(&why))?;
    EmbeddedStore::open(folder, clock, EmbeddedOptions::default())
        .await
        .map_err(|why| Failure::because_of("the store cannot be opened", &why))
}

/// Waits for its end, and says meanwhile what it is doing. `None` when the user has had enough.
async fn watch(
    engine: &Engine,
    id: RunId,
    args: &WorkflowRunArgs,
    call: &Call,
) -> Result<Option<Summary>, Failure> {
    let clock = Clock::system();
    let ends = engine.wait(id);
    tokio::pin!(ends);
    let mut progress = None;
    loop {
        tokio::select! {
            biased;
            ended = &mut ends => return ended.map(Some).map_err(refused),
            _ = tokio::signal::ctrl_c() => return Ok(None),
            () = clock.sleep(PROGRESS_PERIOD) => {}
        }
        if let Ok(shown) = engine.show(id).await
            && let Some(run) = &shown.run
        {
            let doing = workflow_text::doing(run, clock.now());
            let bar = progress
                .get_or_insert_with(|| call.output.progress(format!("running {}", args.file.display())));
            bar.set(doing, true);
        }
    }
}

fn interrupted(args: &WorkflowRunArgs, id: RunId, call: &Call) -> Result<u8, Failure> {
    let failure = Failure::new(exit::INTERRUPTED, format!("interrupted: the run {id} has not ended"));
    let program = call.surroundings.executable.file_name().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "standfast".to_owned());
    Err(match (&args.store, &args.key) {
        (Some(store), Some(key)) => failure.hint(format!(
            "it goes on with: {program} workflow run {} --store {} --key {key}",
            args.file.display(),
            store.display()
        )),
        (Some(_), None) => failure.hint("give it a --key to go on with it by the next call"),
        _ => failure.hint("nothing of it is kept; with --store DIR --key KEY it can go on"),
    })
}

fn report(summary: &Summary, shown: &Shown, args: &WorkflowRunArgs, call: &Call) -> Result<u8, Failure> {
    let code = if summary.status == Status::Completed { exit::DONE } else { exit::UNDER_TEST };
    if args.json {
        call.output.json(&json!({"version": 1, "run": summary, "records": shown.records}))?;
        return Ok(code);
    }
    if args.timeline {
        call.output.note(workflow_text::timeline(&shown.records, call.output).trim_end());
    }
    match (&summary.output, &summary.problem) {
        (Some(output), _) => {
            call.output.json(&**output)?;
            Ok(code)
        }
        (None, problem) => {
            let why = problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
            let failure =
                Failure::new(code, format!("the run {} is {}{why}", summary.id, summary.status.word()));
            Err(match args.timeline {
                true => failure,
                false => failure.hint("see what happened: add --timeline"),
            })
        }
    }
}

pub(super) fn read_input(text: Option<&String>, file: Option<&std::path::PathBuf>) -> Result<Value, Failure> {
    match (text, file) {
        (Some(text), _) => parse_json(text, "the input", INPUT_EXAMPLE),
        (None, Some(file)) => read_json(file, "the input"),
        (None, None) => Ok(json!({})),
    }
}

fn read_json(file: &Path, what: &str) -> Result<Value, Failure> {
    let unreadable = |why: std::io::Error| {
        Failure::input(format!("cannot read {what} from {}", file.display())).because(&why)
    };
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        text
    } else {
        std::fs::read_to_string(file).map_err(unreadable)?
    };
    parse_json(&text, what, INPUT_EXAMPLE)
}

pub(super) fn parse_json(text: &str, what: &str, example: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|why| {
        let hint = format!("write JSON: '{example}'");
        Failure::input(format!("{what} is not JSON")).because(&why).hint(hint)
    })
}

/// What the engine refuses, for people.
pub(super) fn refused(why: Refused) -> Failure {
    match why {
        Refused::Stopped(_) => Failure::because_of("the engine has stopped", &why),
        why => Failure::input(why.to_string()),
    }
}
