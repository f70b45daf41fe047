use std::time::Duration;

use standfast_model::EdgeLimits;

/// What the gateway is told at its start. What may change while it runs is in the [`crate::Snapshot`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Worker threads, each with its own sockets, connections and scores; at least 1.
    pub workers: usize,
    /// Limits of each worker.
    pub limits: Limits,
    /// A bug to carry, so that the proof can show that it would find it.
    #[cfg(feature = "planted-bugs")]
    pub plant: Option<Plant>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
            #[cfg(feature = "planted-bugs")]
            plant: None,
        }
    }
}

impl Config {
    /// For so many workers in a process that may have so many files open: three in four are for clients, the others for replicas,
    /// who need as many as requests run at a time.
    pub fn of(workers: usize, open_files: Option<u64>) -> Self {
        let mut config = Self { workers: workers.max(1), ..Self::default() };
        let open_files = open_files.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let each = (open_files.saturating_sub(OTHER_FILES) / 4 * 3 / config.workers).max(1);
        config.limits.connections_max = config.limits.connections_max.min(each);
        config
    }

    /// Whether to behave as [`Plant::KeepDeadReplica`] says.
    #[cfg(feature = "planted-bugs")]
    pub(crate) const fn keeps_dead_replicas(&self) -> bool {
        matches!(self.plant, Some(Plant::KeepDeadReplica))
    }

    /// Whether to behave as a planted bug says: never, without the feature.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "the same call as with the feature")]
    pub(crate) const fn keeps_dead_replicas(&self) -> bool {
        false
    }
}

/// A bug on purpose.
#[cfg(feature = "planted-bugs")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Whatever was ready once is chosen for ever, and neither repeats nor ejections make good for it.
    KeepDeadReplica,
}

/// Limits of one worker.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Client connections at a time. When there is one more, those that have lain idle for longest are closed; if none is idle, it
    /// waits in the kernel's queue.
    pub connections_max: usize,
    /// The bytes of a request's head; a longer one is answered with 431.
    pub header_bytes_max: usize,
    /// The header fields of a request; more are answered with 431. Up to 100 cost nothing, more an allocation per request.
    pub header_count_max: usize,
    /// The bytes of a request's body; a longer one is answered with 413.
    pub body_bytes_max: u64,
    /// Connections of one client address at a time; further ones are closed.
    pub connections_per_client_max: usize,
    /// Streams of one HTTP/2 connection at a time.
    pub streams_max: u32,
    /// From the first byte of a request to the end of its head; then the connection is closed. Seen to within
    /// [`SWEEP_PERIOD`].
    pub header_read_max: Duration,
    /// How long a client's connection may lie idle; then it is closed.
    pub client_idle_max: Duration,
    /// How long a body may make no progress in either direction; then its connections are closed.
    pub body_stall_max: Duration,
    /// The longest request body that is kept to be sent again; a longer one is sent once only.
    pub replay_bytes_max: usize,
    /// How long an unused connection to a replica is kept. Many servers close theirs after 5 s, so less than that.
    pub upstream_idle_max: Duration,
    /// How long a replica's HTTP/2 connection on which requests run may say nothing; then it is asked by PING, and closed when it is
    /// silent for as long again.
    pub upstream_silence_max: Duration,
    /// Unused connections kept to one replica; further ones are closed.
    pub upstream_idle_connections_max: usize,
    /// How long opening a connection to a replica may take.
    pub connect_max: Duration,
    /// Requests at a time that wait for a replica, or for another one with the same `Idempotency-Key`; further ones are answered with
    /// 503, or 409, at once.
    pub held_max: usize,
}

/// Files that a gateway's process has open besides connections, about.
const OTHER_FILES: usize = 128;

/// How often a worker looks for connections that are over a time limit.
pub const SWEEP_PERIOD: Duration = Duration::from_millis(500);

impl Limits {
    /// These limits, with what a stack says of clients in place of the usual.
    pub(crate) const fn with_edge(self, edge: EdgeLimits) -> Self {
        Self {
            header_bytes_max: edge.header_bytes_max,
            header_count_max: edge.header_count_max,
            body_bytes_max: edge.body_bytes_max,
            connections_per_client_max: edge.connections_per_client_max,
            streams_max: edge.streams_max,
            header_read_max: edge.header_timeout,
            client_idle_max: edge.idle_timeout,
            body_stall_max: edge.stall_timeout,
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 65_536,
            header_bytes_max: 64 << 10,
            header_count_max: 100,
            body_bytes_max: 1 << 30,
            connections_per_client_max: 16_384,
            streams_max: 256,
            header_read_max: Duration::from_secs(10),
            client_idle_max: Duration::from_secs(75),
            body_stall_max: Duration::from_secs(60),
            replay_bytes_max: 64 << 10,
            upstream_idle_max: Duration::from_secs(4),
            upstream_silence_max: Duration::from_secs(10),
            upstream_idle_connections_max: 256,
            connect_max: Duration::from_secs(1),
            held_max: 1_024,
        }
    }
}
