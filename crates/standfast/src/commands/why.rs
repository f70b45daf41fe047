//! `why-request`: why a request got its answer.

use standfast_node::{AdminError, GatewayClient, RequestFilter, RequestRecord};
use standfast_runtime::{Clock, Net};

use super::Call;
use super::running::{Place, admin_failure};
use crate::args::{StackArgs, WhyArgs};
use crate::exit;
use crate::failure::Failure;

/// Tells the story of one request, or of the newest ones.
pub(crate) fn why(args: &WhyArgs, call: &Call) -> Result<u8, Failure> {
    let source = Source::of(args, call)?;
    let records = call.block_on(async {
        let found = match &args.id {
            Some(id) => source.why(id).await?.map(|record| vec![record]),
            None => {
                let filter = RequestFilter {
                    service: args.service.clone(),
                    status: args.status,
                    is_marked: args.status.is_none(),
                    ..RequestFilter::default()
                };
                source.recent(args.limit, &filter).await?
            }
        };
        found.map_err(|error| match &error {
            AdminError::Refused(answer) if answer.code == "unknown_request" => {
                Failure::new(1, answer.message.clone()).hint(
                    "remembered are requests that failed, were repeated, hedged, shed or slow, and one in 1,024 of the rest, until newer ones take their place; the newest: standfast why-request",
                )
            }
            AdminError::NoGateway { .. } => admin_failure("the gateway does not answer", &error),
            _ => admin_failure("the node does not answer", &error),
        })
    })?;
    if args.json {
        match (&args.id, records.as_slice()) {
            (Some(_), [only]) => call.output.json(only)?,
            _ => call.output.json(&records)?,
        }
    } else if records.is_empty() {
        call.output.note("nothing has happened to any request so far");
    } else {
        let told: Vec<String> = records.iter().map(RequestRecord::sentence).collect();
        call.output.data(&format!("{}\n", told.join("\n\n")))?;
    }
    Ok(exit::DONE)
}

/// Who is asked.
enum Source {
    /// The node of a stack that runs.
    Node(Box<Place>),
    /// A gateway by itself.
    Gateway(GatewayClient),
}

impl Source {
    fn of(args: &WhyArgs, call: &Call) -> Result<Self, Failure> {
        let Some(address) = &args.gateway else {
            let place = call.place(&StackArgs { stack: args.stack.clone(), state: args.state.clone() })?;
            return Ok(Self::Node(Box::new(place)));
        };
        let client = GatewayClient::new(address, Net::real(), Clock::system());
        let failure = |why| {
            Failure::input(format!("`{address}` is no address of a gateway"))
                .hint(format!("{why}, as in --gateway http://127.0.0.1:9464"))
        };
        client.map(Self::Gateway).map_err(failure)
    }

    async fn why(&self, id: &str) -> Result<Result<RequestRecord, AdminError>, Failure> {
        Ok(match self {
            Self::Node(place) => place.running().await?.0.node.why(id).await,
            Self::Gateway(gateway) => gateway.why(id).await,
        })
    }

    async fn recent(
        &self,
        limit: usize,
        filter: &RequestFilter,
    ) -> Result<Result<Vec<RequestRecord>, AdminError>, Failure> {
        Ok(match self {
            Self::Node(place) => place.running().await?.0.node.recent(limit, filter).await,
            Self::Gateway(gateway) => gateway.recent(limit, filter).await,
        })
    }
}
