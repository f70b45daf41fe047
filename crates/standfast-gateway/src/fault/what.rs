//! What a fault is, and what it fits.

use std::time::Duration;

use http::StatusCode;
use standfast_model::{Instance, ReplicaId, ServiceName, ZoneName};

use super::latency::Latency;
use crate::wire::Fields;

/// The longest that a fault may last: who asked for it may be gone for good.
pub const LASTS_MAX: Duration = Duration::from_secs(3_600);

/// Something that goes wrong on purpose. It is made from its text (`delay=300ms;service=orders;share=0.5;for=1m`), which says whether
/// it makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub(super) act: Act,
    pub(super) place: Place,
    pub(super) share: f64,
    pub(super) side: Side,
    pub(super) lasts: Duration,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// It takes longer.
    Delay(Latency, Moment),
    /// It is answered with this.
    Abort(Abort, Moment),
    /// The connection is reset; over HTTP/2 the stream.
    Reset(Moment),
    /// There is no answer until the request's time is over.
    Blackhole(Moment),
    /// The answer's body comes at so many bytes a second, at least 1.
    Throttle(u64),
    /// The answer's body breaks off after so many bytes.
    Truncate(u64),
    /// Of the answer's body this share of bytes is changed, above 0 to 1; its length stays.
    Corrupt(f64),
    /// Each byte of the answer's head takes so long.
    SlowHead(Duration),
}

/// When it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Moment {
    /// Before the request goes on: the service has not seen it.
    #[default]
    Request,
    /// When the answer is there: the service has done its work, and whoever asked does not learn of it.
    Answer,
}

/// An answer that nobody gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// This status; gRPC requests are given what it means there.
    Status(StatusCode),
    /// This status of gRPC, 1 to 16: for gRPC requests only.
    Grpc(u8),
}

/// Who is to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client, once for each request, whatever replicas do.
    Client,
    /// The gateway, in each attempt, as if it were the replica's behaviour or that of the network to it.
    Upstream,
}

/// Which requests it is for: those that all of this fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// By the route of this name.
    pub route: Option<String>,
    /// For this service.
    pub service: Option<ServiceName>,
    /// At this replica.
    pub replica: Option<ReplicaName>,
    /// From callers in this zone.
    pub from_zone: Option<ZoneName>,
    /// To replicas in this zone.
    pub to_zone: Option<ZoneName>,
    /// With this header field, and this value if one is given.
    pub header: Option<(String, Option<String>)>,
}

/// A replica, or one start of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaName {
    /// The replica.
    pub replica: ReplicaId,
    /// Which start; any when absent.
    pub attempt: Option<u64>,
}

/// What a request is held against.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) route: Option<&'a str>,
    pub(super) service: &'a ServiceName,
    pub(super) zone: Option<&'a ZoneName>,
    pub(super) fields: &'a Fields,
    pub(super) is_grpc: bool,
}

/// When in a request's way something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Request,
    /// The answer's head is there.
    Head,
    /// The answer is passed on.
    Body,
}

impl Fault {
    /// What is done.
    pub const fn act(&self) -> &Act {
        &self.act
    }

    /// Which requests it is for.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Of those, this share is hit, above 0 to 1.
    pub const fn share(&self) -> f64 {
        self.share
    }

    /// Who is to see it.
    pub const fn side(&self) -> Side {
        self.side
    }

    /// How long it lasts, up to [`LASTS_MAX`].
    pub const fn lasts(&self) -> Duration {
        self.lasts
    }

    pub(super) fn fits(&self, request: Request<'_>) -> bool {
        let Place { route, service, replica, from_zone, to_zone: _, header } = &self.place;
        let is_for_replica = |name: &ReplicaName| name.replica.service == *request.service;
        route.as_deref().is_none_or(|route| request.route == Some(route))
            && service.as_ref().is_none_or(|service| service == request.service)
            && replica.as_ref().is_none_or(is_for_replica)
            && from_zone.as_ref().is_none_or(|zone| request.zone == Some(zone))
            && header.as_ref().is_none_or(|(name, value)| {
                let found = request.fields.named(name);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| found == value.as_bytes()))
            })
            && (request.is_grpc || !matches!(self.act, Act::Abort(Abort::Grpc(_), _)))
    }

    pub(super) fn fits_replica(&self, instance: &Instance, zone: &ZoneName) -> bool {
        let is_it = |name: &ReplicaName| {
            name.replica == instance.replica && name.attempt.is_none_or(|attempt| attempt == instance.attempt)
        };
        self.place.replica.as_ref().is_none_or(is_it)
            && self.place.to_zone.as_ref().is_none_or(|to_zone| to_zone == zone)
    }

    pub(super) const fn stage(&self) -> Stage {
        match &self.act {
            Act::Delay(_, moment) | Act::Abort(_, moment) | Act::Reset(moment) | Act::Blackhole(moment) => {
                match moment {
                    Moment::Request => Stage::Request,
                    Moment::Answer => Stage::Head,
                }
            }
            // The gateway takes heads as a whole: towards replicas, a slow one is a late one.
            Act::SlowHead(_) if matches!(self.side, Side::Upstream) => Stage::Head,
            Act::SlowHead(_) | Act::Throttle(_) | Act::Truncate(_) | Act::Corrupt(_) => Stage::Body,
        }
    }
}
