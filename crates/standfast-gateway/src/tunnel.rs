//! After an answer that switches protocols (WebSocket): bytes in both directions until either side ends.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use crate::body::Upstream;
use crate::worker::Worker;

/// Starts a tunnel between a client that is about to get the answer and the replica that gave it.
pub(crate) fn start(worker: &Rc<Worker>, upgrade: OnUpgrade, upstream: Upstream) {
    let Upstream { connected, in_flight } = upstream;
    let counted = worker.count_tunnel();
    worker.spawn(async move {
        let _counted = (counted, in_flight);
        let Some((mut replica, early)) = connected.into_stream() else { return };
        let Ok(client) = upgrade.await else { return };
        let mut client = TokioIo::new(client);
        let copied = async {
            client.write_all(&early).await?;
            copy_bidirectional(&mut client, &mut replica).await
        };
        if let Err(error) = copied.await {
            tracing::debug!(%error, "a tunnel broke off");
        }
    });
}
