//! Compose's keys (and some of Standfast's plans) that are not honoured yet. One whose absence changes what the service does,
//! or weakens a protection, is an error; one that changes nothing here is a warning.

type Keys = &'static [(&'static str, &'static str)];

const LATER: &str = "remove it: this release does not have it yet";
const CONTAINERS: &str = "this release runs processes, not containers";
const PROTECTION: &str = "it protects a container, and this release runs processes";
const LOOPBACK: &str = "services find each other through `<SERVICE>_URL`";

pub(crate) const STACK_REFUSED: Keys =
    &[("include", "put all services into this file"), ("assistants", LATER), ("models", LATER)];

pub(crate) const STACK_IGNORED: Keys = &[
    ("version", "Compose gave it up; remove it"),
    ("networks", LOOPBACK),
    ("volumes", "no service can use volumes yet"),
    ("configs", "no service can use configs yet"),
];

pub(crate) const SERVICE_REFUSED: Keys = &[
    ("image", "this release runs processes: give the program in `command`"),
    ("entrypoint", "put the program and its arguments into `command`"),
    ("volumes", "keep state behind the state API at `STANDFAST_STATE_URL`, or in a database"),
    ("volumes_from", CONTAINERS),
    ("tmpfs", CONTAINERS),
    ("secrets", "pass them through `environment` and the caller's environment: `${NAME}`"),
    ("configs", "files of the stack's folder can be read in place"),
    ("profiles", "remove the service, or set `deploy.replicas` to 0"),
    ("extends", "YAML anchors and `<<` share keys between services"),
    ("scale", "set `deploy.replicas`; scaling by load is not there yet"),
    ("objective", LATER),
    ("objectives", LATER),
    ("survive", LATER),
    ("resilience", "use `traffic`"),
    ("develop", LATER),
    ("provider", LATER),
    ("models", LATER),
    ("post_start", LATER),
    ("pre_stop", LATER),
    ("stop_signal", "replicas are sent SIGTERM"),
    ("user", "replicas run as the user who runs Standfast"),
    ("group_add", PROTECTION),
    ("cap_drop", PROTECTION),
    ("read_only", PROTECTION),
    ("security_opt", PROTECTION),
    ("userns_mode", PROTECTION),
    ("cpus", "use `deploy.resources.limits.cpus`"),
    ("mem_limit", "use `deploy.resources.limits.memory`"),
    ("pids_limit", "use `deploy.resources.limits.pids`"),
    ("cpuset", LATER),
    ("ulimits", LATER),
    ("sysctls", CONTAINERS),
    ("devices", CONTAINERS),
    ("gpus", LATER),
    ("network_mode", LOOPBACK),
    ("extra_hosts", LATER),
    ("dns", LATER),
    ("runtime", CONTAINERS),
];

pub(crate) const SERVICE_IGNORED: Keys = &[
    ("annotations", "nothing reads it"),
    ("attach", "all output is kept"),
    ("blkio_config", CONTAINERS),
    ("cap_add", CONTAINERS),
    ("cgroup", CONTAINERS),
    ("cgroup_parent", CONTAINERS),
    ("container_name", "replicas are named after their service"),
    ("cpu_count", "use `deploy.resources.limits.cpus`"),
    ("cpu_percent", "use `deploy.resources.limits.cpus`"),
    ("cpu_period", "use `deploy.resources.limits.cpus`"),
    ("cpu_quota", "use `deploy.resources.limits.cpus`"),
    ("cpu_rt_period", CONTAINERS),
    ("cpu_rt_runtime", CONTAINERS),
    ("cpu_shares", CONTAINERS),
    ("credential_spec", CONTAINERS),
    ("device_cgroup_rules", CONTAINERS),
    ("dns_opt", CONTAINERS),
    ("dns_search", CONTAINERS),
    ("domainname", CONTAINERS),
    ("expose", "services find each other through `<SERVICE>_URL`; `ports` offers one to this machine"),
    ("external_links", LOOPBACK),
    ("hostname", CONTAINERS),
    ("init", CONTAINERS),
    ("ipc", CONTAINERS),
    ("isolation", CONTAINERS),
    ("label_file", "nothing reads it"),
    ("labels", "nothing reads it"),
    ("links", LOOPBACK),
    ("logging", "all output is kept"),
    ("mac_address", CONTAINERS),
    ("mem_reservation", CONTAINERS),
    ("mem_swappiness", CONTAINERS),
    ("memswap_limit", CONTAINERS),
    ("networks", LOOPBACK),
    ("oom_kill_disable", CONTAINERS),
    ("oom_score_adj", CONTAINERS),
    ("pid", CONTAINERS),
    ("platform", CONTAINERS),
    ("privileged", CONTAINERS),
    ("pull_policy", CONTAINERS),
    ("shm_size", CONTAINERS),
    ("stdin_open", "replicas have no standard input"),
    ("storage_opt", CONTAINERS),
    ("tty", "replicas have no terminal"),
    ("use_api_socket", CONTAINERS),
    ("uts", CONTAINERS),
];

/// Keys that say how a service is started: all that are honoured for one, but those that an external service has too.
pub(crate) const SERVICE_STARTED: &[&str] = &[
    "command",
    "build",
    "working_dir",
    "environment",
    "env_file",
    "depends_on",
    "deploy",
    "restart",
    "stop_grace_period",
];

pub(crate) const BUILD_REFUSED: Keys = &[
    ("context", "give the command that builds the program in `command`, and `working_dir`"),
    ("dockerfile", CONTAINERS),
    ("dockerfile_inline", CONTAINERS),
    ("args", "put them into `command`"),
    ("target", CONTAINERS),
    ("additional_contexts", CONTAINERS),
    ("secrets", LATER),
    ("ssh", LATER),
];

pub(crate) const BUILD_IGNORED: Keys = &[
    ("cache_from", CONTAINERS),
    ("cache_to", CONTAINERS),
    ("entitlements", CONTAINERS),
    ("extra_hosts", CONTAINERS),
    ("isolation", CONTAINERS),
    ("labels", "nothing reads it"),
    ("network", CONTAINERS),
    ("no_cache", CONTAINERS),
    ("platforms", CONTAINERS),
    ("privileged", CONTAINERS),
    ("provenance", CONTAINERS),
    ("pull", CONTAINERS),
    ("sbom", CONTAINERS),
    ("shm_size", CONTAINERS),
    ("tags", CONTAINERS),
    ("ulimits", CONTAINERS),
];

pub(crate) const DEPLOY_IGNORED: Keys = &[
    ("endpoint_mode", "the gateway balances every service"),
    ("labels", "nothing reads it"),
    ("placement", "replicas are spread over the zones"),
    ("rollback_config", "a rollback is an update to the version before, with `update_config`"),
];

pub(crate) const RESOURCES_IGNORED: Keys = &[("reservations", "only `limits` are honoured")];

pub(crate) const LIMITS_REFUSED: Keys = &[("devices", CONTAINERS)];

pub(crate) const UPDATE_IGNORED: Keys = &[
    ("delay", "the next replica follows as soon as the last one is ready"),
    ("failure_action", "an update whose replicas do not become ready stops"),
    ("max_failure_ratio", "an update whose replicas do not become ready stops"),
    ("monitor", "an update whose replicas do not become ready stops"),
];

pub(crate) const RESTART_IGNORED: Keys = &[
    ("delay", "the wait before a restart grows by itself"),
    ("window", "a replica that was ready counts as started"),
];

pub(crate) const HEALTH_IGNORED: Keys =
    &[("start_interval", "during the start, probes follow each other faster by themselves")];

pub(crate) const DEPENDENCY_IGNORED: Keys = &[
    ("restart", "a service is not restarted when one that it depends on is"),
    ("required", "every dependency is required"),
];

pub(crate) const PORT_IGNORED: Keys = &[
    ("app_protocol", "the gateway speaks HTTP"),
    ("mode", "the gateway balances every port"),
    ("name", "nothing reads it"),
];

pub(crate) const ENV_FILE_REFUSED: Keys = &[("format", LATER)];
