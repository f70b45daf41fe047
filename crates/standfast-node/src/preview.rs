//! What `up` would do, told without a node.

use std::sync::Arc;

use standfast_control::{Blueprint, PlanId, Policy, plan};
use standfast_model::{Stack, Stamp};
use standfast_platform::Inventory;

use crate::admin::plan_answer;
use crate::answers::PlanAnswer;

/// The first start of a stack that does not run: the plan that a node would make of it when nothing was seen or decided yet.
pub fn first_start(stack: Stack, now: Stamp) -> PlanAnswer {
    let workflows = crate::workflows::changes(None, &stack);
    let (policy, seen, nothing) = (Policy::of(Arc::new(stack)), Inventory::default(), Blueprint::genesis());
    let report = plan(&policy, &seen, &nothing, now).report;
    let number = PlanId::of(&policy, &seen, &nothing);
    let mut answer = PlanAnswer { running: false, ..plan_answer(number.to_string(), &report) };
    answer.changes.extend(workflows);
    answer
}
