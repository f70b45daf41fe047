use std::time::Duration;

use standfast_model::Stamp;
use standfast_platform::local::{LogQuery, LogSource};

use crate::harness::{World, service, until};

#[tokio::test]
async fn no_line_is_lost_or_doubled_over_an_agents_death_and_rotation() {
    const LINES: usize = 20_000;
    let mut world =
        World::with(|config| (config.logs.file_bytes_max, config.logs.files_max) = (64 << 10, 1_000)).await;
    let lines = LINES.to_string();
    let instance = world.add("orders", 0, "a", &[("TEST_LINES", &lines), ("TEST_LINES_PAUSE_MS", "10")]);
    world.apply().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.kill_agent().await;
        world.spawn_agent().await;
    }
    world.serving(&instance).await;
    let mut query = LogQuery {
        source: LogSource::Service(service("orders")),
        since: Some(Stamp::EPOCH),
        after: None,
        limit: 3_000,
    };
    let mut seen = Vec::new();
    let all = async {
        loop {
            let page = world.client.logs(&query).await.unwrap();
            query.after = Some(page.next);
            seen.extend(
                page.lines.iter().filter_map(|line| line.text.strip_prefix("line ")?.parse::<usize>().ok()),
            );
            if seen.len() >= LINES {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::harness::LONG, all).await.unwrap();
    assert!(seen.iter().copied().eq(0..LINES), "{} lines", seen.len());
    let files = std::fs::read_dir(world.config.state_dir.join("logs/services")).unwrap().count();
    assert!(files > 5, "{files} files");
}

#[tokio::test]
async fn the_nodes_output_is_a_log_too() {
    let world = World::with(|config| {
        config.node_command =
            Some(["sh", "-c", "echo hello from the node; exec sleep 100000"].map(str::to_owned).to_vec());
    })
    .await;
    let query = LogQuery { source: LogSource::Node, since: None, after: None, limit: 10 };
    let page = until("the node's line is there", || async {
        world.client.logs(&query).await.ok().filter(|page| !page.lines.is_empty())
    })
    .await;
    assert_eq!(
        (page.lines[0].text.as_str(), page.lines[0].writer.as_str()),
        ("hello from the node", "_node.1")
    );
    assert!(world.config.state_dir.join("logs/node.log").exists());
}
