//! What this machine lets a stack do, asked before any agent runs.

use standfast_model::StackName;

use super::cgroup::ControlGroups;

/// Why resource limits would not be enforced here, in a sentence; `None` when they would be.
pub fn limits_limitation() -> Option<String> {
    let stack: StackName = "probe".parse().ok()?;
    let missing = ControlGroups::find(&stack, "limits").missing();
    (!missing.is_empty()).then(|| {
        format!(
            "{} limits are not enforced: no control group of theirs can be written to here",
            missing.join(" and ")
        )
    })
}
