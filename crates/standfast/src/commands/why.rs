//! `why-request`: why a request got its answer.

use standfast_node::{AdminError, RequestFilter, RequestRecord};

use super::Call;
use super::running::admin_failure;
use crate::args::{StackArgs, WhyArgs};
use crate::exit;
use crate::failure::Failure;

/// Tells the story of one request, or of the newest ones.
pub(crate) fn why(args: &WhyArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place(&StackArgs { stack: args.stack.clone(), state: args.state.clone() })?;
    let records = call.block_on(async {
        let (running, _) = place.running().await?;
        let found = match &args.id {
            Some(id) => running.node.why(id).await.map(|record| vec![record]),
            None => {
                let filter = RequestFilter {
                    service: args.service.clone(),
                    status: args.status,
                    is_marked: args.status.is_none(),
                    ..RequestFilter::default()
                };
                running.node.recent(args.limit, &filter).await
            }
        };
        found.map_err(|error| match &error {
            AdminError::Refused(answer) if answer.code == "unknown_request" => {
                Failure::new(1, answer.message.clone()).hint(
                    "remembered are requests that failed, were repeated, hedged, shed or slow, and one in 1,024 of the rest, until newer ones take their place; the newest: standfast why-request",
                )
            }
            _ => admin_failure("the node does not answer", &error),
        })
    })?;
    if args.json {
        let shown = match (&args.id, records.as_slice()) {
            (Some(_), [only]) => call.output.json(only),
            _ => call.output.json(&records),
        };
        shown.map_err(|error| Failure::because_of("cannot write the answer", &error))?;
    } else if records.is_empty() {
        call.output.note("nothing has happened to any request so far");
    } else {
        let told: Vec<String> = records.iter().map(RequestRecord::sentence).collect();
        call.output.data(&format!("{}\n", told.join("\n\n")));
    }
    Ok(exit::DONE)
}
