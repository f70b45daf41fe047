//! Bodies on their way through.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::client::{Activity, Busy};
use crate::pool::InFlight;
use crate::upstream::Connected;

/// What goes to a replica.
pub(crate) enum RequestBody {
    Empty,
    /// Held whole, to be sent again.
    Kept {
        data: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    /// On its way from the client: what was read already, and the rest. It can be sent once.
    Streamed {
        first: VecDeque<Bytes>,
        rest: Incoming,
        activity: Arc<Activity>,
    },
}

impl RequestBody {
    /// A body as it comes from the client.
    pub(crate) fn streamed(body: Incoming, activity: &Arc<Activity>) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Streamed { first: VecDeque::new(), rest: body, activity: Arc::clone(activity) }
    }

    /// Reads a body whole so that it can be sent again; one of more than `bytes_max` stays a stream.
    ///
    /// # Errors
    /// The client broke off.
    pub(crate) async fn kept(
        body: Incoming,
        activity: &Arc<Activity>,
        bytes_max: usize,
    ) -> hyper::Result<Self> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if body.is_end_stream() || announced > bytes_max {
            return Ok(Self::streamed(body, activity));
        }
        let (mut first, mut length, mut trailers, mut rest) = (VecDeque::new(), 0, None, body);
        while let Some(frame) = next_frame(&mut rest, activity).await {
            match frame?.into_data() {
                Ok(data) => {
                    length += data.len();
                    first.push_back(data);
                    if length > bytes_max {
                        return Ok(Self::Streamed { first, rest, activity: Arc::clone(activity) });
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Self::Kept { data: joined(first, length), trailers })
    }

    /// The same body once more, when it can be sent again.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Kept { data, trailers } => {
                Some(Self::Kept { data: data.clone(), trailers: trailers.clone() })
            }
            Self::Streamed { .. } => None,
        }
    }
}

fn joined(mut chunks: VecDeque<Bytes>, length: usize) -> Option<Bytes> {
    match chunks.len() {
        0 | 1 => chunks.pop_front(),
        _ => {
            let mut whole = Vec::with_capacity(length);
            chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
            Some(whole.into())
        }
    }
}

async fn next_frame(body: &mut Incoming, activity: &Activity) -> Option<hyper::Result<Frame<Bytes>>> {
    std::future::poll_fn(|cx| {
        let polled = Pin::new(&mut *body).poll_frame(cx);
        activity.waits_for_body(polled.is_pending());
        polled
    })
    .await
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Kept { data, trailers } => Poll::Ready(
                data.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers)).map(Ok),
            ),
            Self::Streamed { first, rest, activity } => match first.pop_front() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                None => {
                    let polled = Pin::new(rest).poll_frame(cx);
                    activity.waits_for_body(polled.is_pending());
                    polled
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Kept { data, trailers } => data.is_none() && trailers.is_none(),
            Self::Streamed { first, rest, .. } => first.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let exact = |length: usize| SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX));
        match self {
            Self::Empty => exact(0),
            // With trailers the length must not be announced: they need the chunked coding.
            Self::Kept { trailers: Some(_), .. } => SizeHint::default(),
            Self::Kept { data, .. } => exact(data.as_ref().map_or(0, Bytes::len)),
            Self::Streamed { first, rest, .. } => {
                let read = u64::try_from(first.iter().map(Bytes::len).sum::<usize>()).unwrap_or(u64::MAX);
                rest.size_hint()
                    .exact()
                    .map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + read))
            }
        }
    }
}

/// What goes to the client.
pub(crate) struct ResponseBody {
    kind: Kind,
    /// Says that the client's connection is free again once the body has gone.
    _busy: Busy,
}

enum Kind {
    Whole(Option<Bytes>),
    Streamed(Box<Streamed>),
}

/// An answer on its way: the connection that it comes over is driven from here.
struct Streamed {
    first: Option<Frame<Bytes>>,
    incoming: Incoming,
    upstream: Option<Upstream>,
    activity: Arc<Activity>,
}

/// The connection that an answer's body comes over, and its entry among the requests in flight.
pub(crate) struct Upstream {
    pub(crate) connected: Box<Connected>,
    pub(crate) in_flight: InFlight,
}

impl Upstream {
    /// The answer is complete: the connection can serve the next request.
    fn finish(self) {
        self.in_flight.endpoint().keep(self.connected);
    }

    /// Drops a body that nobody reads; the connection is kept when the body has arrived whole, else it goes with it.
    pub(crate) fn finish_with(self, mut incoming: Incoming) {
        if self.connected.poll_slot(&mut incoming).is_ready() && incoming.is_end_stream() {
            self.finish();
        }
    }
}

impl ResponseBody {
    /// A body that the gateway made.
    pub(crate) fn whole(data: impl Into<Bytes>, busy: Busy) -> Self {
        Self { kind: Kind::Whole(Some(data.into()).filter(|data| !data.is_empty())), _busy: busy }
    }

    /// A replica's answer. One that has arrived together with its head frees the replica's connection at once.
    pub(crate) fn upstream(mut incoming: Incoming, upstream: Upstream, busy: Busy) -> Self {
        let first = match upstream.connected.poll_slot(&mut incoming) {
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            Poll::Ready(None) => None,
            // An error is seen again, since the driver has ended: the first poll of the body reports it.
            Poll::Ready(Some(Err(_))) | Poll::Pending => {
                return Self::streamed(None, incoming, upstream, busy);
            }
        };
        if !incoming.is_end_stream() && first.is_some() || first.as_ref().is_some_and(Frame::is_trailers) {
            return Self::streamed(first, incoming, upstream, busy);
        }
        upstream.finish();
        Self { kind: Kind::Whole(first.and_then(|frame| frame.into_data().ok())), _busy: busy }
    }

    fn streamed(first: Option<Frame<Bytes>>, incoming: Incoming, upstream: Upstream, busy: Busy) -> Self {
        let activity = Arc::clone(busy.activity());
        let streamed = Streamed { first, incoming, upstream: Some(upstream), activity };
        Self { kind: Kind::Streamed(Box::new(streamed)), _busy: busy }
    }
}

impl Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(upstream) = &mut self.upstream else { return Poll::Ready(None) };
        let mut polled = upstream.connected.poll_slot(&mut self.incoming);
        if polled.is_pending() {
            upstream.connected.drive(cx);
            polled = upstream.connected.poll_slot(&mut self.incoming);
        }
        self.activity.waits_for_body(polled.is_pending());
        let frame = ready!(polled);
        let is_over = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers() || self.incoming.is_end_stream(),
            Some(Err(_)) => false,
        };
        if is_over && let Some(upstream) = self.upstream.take() {
            upstream.finish();
        }
        Poll::Ready(frame)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().kind {
            Kind::Whole(data) => Poll::Ready(data.take().map(Frame::data).map(Ok)),
            Kind::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(data) => data.is_none(),
            Kind::Streamed(streamed) => streamed.first.is_none() && streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = |data: &Bytes| u64::try_from(data.len()).unwrap_or(u64::MAX);
        match &self.kind {
            Kind::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, length)),
            Kind::Streamed(streamed) => {
                let read = streamed.first.as_ref().and_then(Frame::data_ref).map_or(0, length);
                let left = streamed.incoming.size_hint().exact();
                left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + read))
            }
        }
    }
}
