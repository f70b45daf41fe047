use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use standfast_platform::local::{AgentError, ListenerSpec, ProcessId};
use standfast_runtime::Net;
use tokio::io::AsyncReadExt;

use crate::harness::{LONG, World, example, kill, until};

fn gateway(port: Option<u16>) -> ListenerSpec {
    ListenerSpec { name: "gateway".into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST), port, sockets: 1 }
}

async fn with_node() -> World {
    World::with(|config| {
        let words = [example("test_agent").to_string_lossy().into_owned(), "node".into(), "--state".into()];
        let mut command = words.to_vec();
        command.push(config.state_dir.to_string_lossy().into_owned());
        config.node_command = Some(command);
    })
    .await
}

/// What a node says to a new connection.
async fn ask(address: SocketAddr) -> String {
    let work = async {
        let mut stream = Net::real().connect_tcp(address).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    tokio::time::timeout(LONG, work).await.unwrap()
}

async fn node_of(world: &World) -> ProcessId {
    until("there is a node", || async { Some(world.client.info().await.ok()?.node?.process) }).await
}

#[tokio::test]
async fn a_connection_waits_in_its_queue_while_the_node_is_replaced() {
    let world = with_node().await;
    let address = world.client.listen(&[gateway(None)]).await.unwrap()[0].address;
    let node = node_of(&world).await;
    assert_eq!(ask(address).await, format!("node {}\n", node.pid));
    kill(node.pid);
    // Connected at once, though nobody accepts now.
    let answer = ask(address).await;
    let next =
        until("there is another node", || async { Some(node_of(&world).await).filter(|next| *next != node) })
            .await;
    assert_eq!(answer, format!("node {}\n", next.pid));
    assert_eq!(world.client.info().await.unwrap().node.unwrap().restarts, 1);
}

#[tokio::test]
async fn the_sockets_and_the_node_outlive_the_agent() {
    let world = with_node().await;
    let address = world.client.listen(&[gateway(None)]).await.unwrap()[0].address;
    let node = node_of(&world).await;
    assert_eq!(ask(address).await, format!("node {}\n", node.pid));
    for _ in 0..3 {
        let agent = world.client.info().await.unwrap().process;
        kill(agent.pid);
        assert_eq!(ask(address).await, format!("node {}\n", node.pid), "nothing is refused meanwhile");
        let next = until("there is another agent", || async {
            Some(world.client.info().await.ok()?.process).filter(|next| *next != agent)
        });
        next.await;
    }
    assert_eq!(node_of(&world).await, node);
    // The new agent has the very sockets: with the node gone, connections still wait in them.
    assert_eq!(world.client.take_sockets(&["gateway"]).await.unwrap()[0].1, address);
    kill(node.pid);
    assert_ne!(ask(address).await, format!("node {}\n", node.pid));
    assert_eq!(world.client.listen(&[gateway(None)]).await.unwrap()[0].address, address);
    world.client.down().await.unwrap();
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_holder() {
    let world = World::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = world.client.listen(&[gateway(Some(port))]).await.unwrap_err();
    assert!(matches!(error, AgentError::PortInUse(_)));
    let own = std::process::id().to_string();
    assert!(error.to_string().contains(&port.to_string()) && error.to_string().contains(&own), "{error}");
}

#[tokio::test]
async fn listeners_stay_as_they_are_and_those_not_listed_close() {
    let world = World::new().await;
    let several = ListenerSpec { sockets: 4, ..gateway(None) };
    let console = ListenerSpec { name: "console".into(), ..gateway(None) };
    let bound = world.client.listen(&[several.clone(), console]).await.unwrap();
    assert_eq!(bound.len(), 2);
    let taken = world.client.take_sockets(&["gateway", "console"]).await.unwrap();
    assert_eq!((taken[0].2.len(), taken[1].2.len()), (4, 1));
    assert_eq!(taken[0].2[3].local_addr().unwrap(), taken[0].1);
    let again = world.client.listen(&[several]).await.unwrap();
    assert_eq!(again, bound[1..], "the same address, and only that");
    assert!(matches!(world.client.take_sockets(&["console"]).await, Err(AgentError::Refused(_))));
}
