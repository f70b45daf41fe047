//! `fault`: what goes wrong in the gateway on purpose.

use std::path::PathBuf;

use standfast_node::{AdminError, FaultState, FaultStatus, GatewayFault, read_fault_key};
use standfast_runtime::Clock;

use super::Call;
use super::running::admin_failure;
use crate::args::{
    FaultAddArgs, FaultArgs, FaultCommand, FaultRemoveArgs, FaultSpec, FaultTokenArgs, StackArgs,
};
use crate::exit;
use crate::failure::Failure;
use crate::output::{Paint, for_people, table};

/// One of the commands about faults.
pub(crate) fn fault(args: &FaultArgs, call: &Call) -> Result<u8, Failure> {
    match &args.command {
        FaultCommand::Add(args) => add(args, call),
        FaultCommand::List(args) => {
            let place = call.place(&args.stack.as_positional())?;
            let answer = call.block_on(async {
                let (running, _) = place.running().await?;
                running.node.faults().await.map_err(|error| admin_failure("the node does not answer", &error))
            })?;
            if args.json {
                return shown(call, &answer);
            }
            if answer.faults.is_empty() {
                call.output.note("no fault is in force, and none has ended lately");
            } else {
                call.output.data(&listed(&answer.faults, call))?;
            }
            Ok(exit::DONE)
        }
        FaultCommand::Remove(args) => remove(args, call),
        FaultCommand::Token(args) => token(args, call),
    }
}

fn add(args: &FaultAddArgs, call: &Call) -> Result<u8, Failure> {
    let fault = read(&args.fault)?;
    let place = call.place(&args.stack.as_positional())?;
    let added = call.block_on(async {
        let (running, _) = place.running().await?;
        let added = running.node.add_fault(args.id.as_deref(), &fault).await;
        added.map_err(|error| admin_failure("the node does not answer", &error))
    })?;
    if args.json {
        return shown(call, &added);
    }
    call.output.data(&format!("{}\n", added.id))?;
    call.output.note(format!(
        "{} — it ends by itself in {}; before that: standfast fault remove {}",
        added.fault,
        for_people(fault.lasts()),
        added.id
    ));
    Ok(exit::DONE)
}

fn remove(args: &FaultRemoveArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place(&args.stack.as_positional())?;
    let removed = call.block_on(async {
        let (running, _) = place.running().await?;
        running.node.remove_fault(&args.id).await.map_err(|error| match &error {
            AdminError::Refused(answer) if answer.code == "unknown_fault" => {
                Failure::new(1, answer.message.clone()).hint("standfast fault list shows those that are")
            }
            _ => admin_failure("the node does not answer", &error),
        })
    })?;
    if args.json {
        return shown(call, &removed);
    }
    let FaultStatus { id, seen, applied, .. } = removed;
    call.output.note(format!("fault `{id}` is over: it has hit {applied} of the {seen} that it fitted"));
    Ok(exit::DONE)
}

fn token(args: &FaultTokenArgs, call: &Call) -> Result<u8, Failure> {
    let fault = read(&args.fault)?;
    let file: PathBuf = match &args.key_file {
        Some(file) => file.clone(),
        None => {
            let stack = call.load(&args.stack)?;
            stack.edge.fault_key_file.ok_or_else(|| {
                Failure::input(format!("stack `{}` names no key for faults", stack.name)).hint(
                    "openssl rand -hex 32 > faults.key, and in the stack: gateway: {fault_key_file: faults.key}; or name a file with --key-file",
                )
            })?
        }
    };
    let key = read_fault_key(&file)
        .map_err(|error| Failure::input("cannot use the key of faults").because(&error))?;
    let token = key.token(&fault, Clock::system().now());
    if args.json {
        return shown(
            call,
            &serde_json::json!({"header": "Standfast-Fault", "token": token, "fault": fault}),
        );
    }
    call.output.data(&format!("{token}\n"))?;
    call.output.note(format!("good for {}: send it as Standfast-Fault", for_people(fault.lasts())));
    Ok(exit::DONE)
}

fn read(spec: &FaultSpec) -> Result<GatewayFault, Failure> {
    spec.text().parse().map_err(|error: standfast_node::BadFault| {
        Failure::input(error.to_string())
            .hint("for example: standfast fault add --service orders --delay 300ms --share 0.5 --for 1m")
    })
}

fn shown(call: &Call, value: &impl serde::Serialize) -> Result<u8, Failure> {
    call.output.json(value)?;
    Ok(exit::DONE)
}

fn listed(faults: &[FaultStatus], call: &Call) -> String {
    let head = ["NAME", "STATE", "SEEN", "HIT", "NOW", "FAULT"].map(str::to_owned).to_vec();
    let row = |one: &FaultStatus| {
        let state = match one.state {
            FaultState::Active => {
                let left = for_people(std::time::Duration::from_millis(one.left_ms));
                call.output.paint_data(Paint::Warn, &format!("{left} left"))
            }
            FaultState::Expired => call.output.paint_data(Paint::Dim, "over"),
            FaultState::Removed => call.output.paint_data(Paint::Dim, "removed"),
        };
        vec![
            one.id.clone(),
            state,
            one.seen.to_string(),
            one.applied.to_string(),
            one.acting.to_string(),
            one.fault.to_string(),
        ]
    };
    table(&std::iter::once(head).chain(faults.iter().map(row)).collect::<Vec<_>>())
}

impl crate::args::NamedStack {
    fn as_positional(&self) -> StackArgs {
        StackArgs { stack: self.stack.clone(), state: self.state.clone() }
    }
}
