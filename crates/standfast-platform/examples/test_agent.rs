//! What the `standfast` binary does with the platform, for its tests: `agent --state DIR` and a `node --state DIR` that
//! only answers on its sockets.
#![expect(clippy::disallowed_methods, reason = "a program of its own: it stands where `main` stands")]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use standfast_platform::local::{Agent, AgentClient, AgentConfig, TakenSockets, respawn_agent};
use standfast_runtime::{Clock, Net, OnStop, RealDisk, Tasks};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, _, state_dir] = arguments.as_slice() else {
        panic!("usage: test_agent agent|node --state DIR")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = match role.as_str() {
        "agent" => runtime.block_on(agent(state_dir.into())),
        _ => runtime.block_on(node(state_dir.into())),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

async fn agent(state_dir: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let config = AgentConfig::read(&RealDisk, &state_dir)?;
    Ok(Agent::run(config, Clock::system(), Net::real(), Arc::new(RealDisk)).await?)
}

async fn node(state_dir: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let client = AgentClient::new(state_dir, Net::real(), clock);
    client.wait_until_up(Duration::from_secs(10)).await?;
    let sockets = loop {
        match client.take_sockets(&["gateway"]).await {
            Ok(sockets) => break sockets,
            Err(_) => clock.sleep(Duration::from_millis(5)).await, // the test has not asked for them yet
        }
    };
    println!("node {} has its sockets", std::process::id());
    let listener = sockets[0].2[0].try_clone()?;
    let work = keep_agent_alive(client, sockets, clock);
    tasks.spawn("agent", OnStop::Abort, work);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let mut stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.write_all(format!("node {}\n", std::process::id()).as_bytes())?;
    }
}

/// Whenever the agent dies, starts the next one and gives it the sockets.
async fn keep_agent_alive(client: AgentClient, sockets: TakenSockets, clock: Clock) {
    loop {
        client.gone().await;
        let started = respawn_agent(client.state_dir(), &RealDisk);
        let is_up = client.wait_until_up(Duration::from_secs(10)).await.is_ok();
        if started.is_err() || !is_up || client.return_sockets(&sockets).await.is_err() {
            clock.sleep(Duration::from_millis(20)).await;
        }
    }
}
