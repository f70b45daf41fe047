//! What tasks ask is done here: requests by HTTP and by what stands above it, processes.

mod agent;
mod caller;
mod digest;
mod grpc;
mod http;
mod jwt;
mod mcp;
mod messages;
mod mqtt;
mod oauth;
mod process;
mod resource;
mod rpc;

use async_trait::async_trait;
use standfast_runtime::Clock;

pub use http::{HttpError, HttpSender};
pub use resource::{BadResource, FolderAndNetwork, RESOURCE_BYTES_MAX, ReadResource};

use self::caller::Caller;
use self::grpc::GrpcSender;
use crate::ask::{Answer, Asked, Request};
use crate::engine::Invoke;
use crate::run::{Problem, Standard};

/// Carries requests straight to where they go, and runs processes on this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Direct {
    clock: Clock,
    caller: Caller,
    grpc: GrpcSender,
}

impl Direct {
    /// Over the machine's network, with the certificates that the machine trusts.
    pub fn new(clock: Clock) -> Self {
        Self { clock, caller: Caller::new(clock), grpc: GrpcSender::new() }
    }
}

#[async_trait]
impl Invoke for Direct {
    async fn invoke(&self, asked: &Asked) -> Result<Answer, Problem> {
        match &asked.request {
            Request::Http(request) => self.caller.send(request, asked.deadline).await.map(Answer::Http),
            Request::Agent(request) => agent::ask(&self.caller, request, asked.deadline).await,
            Request::Mcp(request) => mcp::ask(&self.caller, request, asked.deadline).await,
            Request::Grpc(request) => {
                grpc::ask(&self.grpc, &self.caller, request, asked.deadline).await.map(Answer::Grpc)
            }
            Request::Mqtt(request) => mqtt::ask(&self.clock, request, asked.deadline).await,
            Request::Process(request) => {
                let beat = || asked.heartbeat.iter().for_each(|heartbeat| heartbeat.beat(self.clock.now()));
                process::run(request, &beat).await
            }
            Request::Run(_) | Request::BuiltIn(_) => {
                Err(Standard::Runtime.problem("the engine does this itself"))
            }
        }
    }
}
