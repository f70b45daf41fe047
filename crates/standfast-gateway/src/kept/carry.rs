//! Has the first request with a key answered, and lets the others wait for that.

use std::pin::Pin;
use std::rc::Rc;

use http::Method;
use tokio::sync::watch;

use crate::attempt::{self, Answer, Call, Failure, Outgoing};
use crate::error::Refusal;
use crate::kept::key::{Fingerprint, Key};
use crate::kept::store::{Flight, Turn};
use crate::kept::tee;
use crate::story::Notes;
use crate::trace::RequestId;
use crate::worker::Worker;

/// Whether a request may be sent again although it may have been carried out, as far as kept answers are concerned: a service that
/// has its answers kept is one that a repeat does harm to, unless the method itself says otherwise.
pub(crate) fn may_repeat(call: &Call, method: &Method) -> bool {
    call.kept.is_none() || method.is_idempotent()
}

/// Answers a request with a key: by what is kept, by what the first with this key is being answered, or by the service.
///
/// # Errors
/// Why there is no answer; [`Refusal::KeyReused`] and [`Refusal::KeyInUse`] among them.
///
/// # Cancellation
/// A request that was sent goes on, so that its answer is there for those who send it again.
pub(crate) async fn carry(
    call: &Call,
    outgoing: &Outgoing,
    notes: &Notes,
    key: &Key,
) -> Result<Answer, Failure> {
    let (service, clock) = (&call.service, call.worker.clock);
    let counters = &service.counters;
    let fingerprint = Fingerprint::of(&outgoing.source);
    let mut has_waited = false;
    loop {
        match key.store.begin(key.scope, fingerprint, clock.now(), counters) {
            Turn::First(flight) => {
                return Going::start(call, outgoing, notes, flight, key.id).ended().await;
            }
            Turn::Wait(over) => {
                if !std::mem::replace(&mut has_waited, true) {
                    counters.kept.waited.add(1);
                }
                wait(call, notes, over).await?;
            }
            Turn::Again(answer) => {
                counters.kept.replayed.add(1);
                notes.replay_of.set(Some(answer.first));
                return Ok(answer.again());
            }
            Turn::Reused => {
                counters.kept.reused.add(1);
                return Err(Refusal::KeyReused(service.name.clone()).into());
            }
            Turn::NoRoom => return Box::pin(attempt::carry(call, outgoing, notes)).await,
        }
    }
}

/// Waits until the one that is under way is over.
async fn wait(call: &Call, notes: &Notes, mut over: watch::Receiver<()>) -> Result<(), Failure> {
    let worker = &call.worker;
    let began = worker.clock.now();
    let is_over = match worker.hold() {
        // The sender says nothing; it ends.
        Some(_held) => worker.clock.timeout(call.deadline.since(began), over.changed()).await.is_ok(),
        None => false,
    };
    notes.waited.set(notes.waited.get() + worker.clock.now().since(began));
    if is_over {
        return Ok(());
    }
    call.service.counters.kept.in_use.add(1);
    Err(Refusal::KeyInUse(call.service.name.clone()).into())
}

type Work = Pin<Box<dyn Future<Output = Result<Answer, Failure>>>>;

/// A request on its way to the service, which does not end with its client.
struct Going<'a> {
    work: Work,
    /// Until there is an answer, or none.
    flight: Option<Flight>,
    id: RequestId,
    worker: Rc<Worker>,
    /// All of it is here: it needs its client no more.
    is_here: bool,
    /// What the work writes down, and where it is to be told.
    own: Rc<Notes>,
    notes: &'a Notes,
}

impl<'a> Going<'a> {
    fn start(call: &Call, outgoing: &Outgoing, notes: &'a Notes, flight: Flight, id: RequestId) -> Self {
        let own = Rc::<Notes>::default();
        let call = Call {
            worker: Rc::clone(&call.worker),
            service: Rc::clone(&call.service),
            zone: call.zone.clone(),
            deadline: call.deadline,
            key_hash: call.key_hash,
            priority: call.priority,
            kept: None,
            injected: call.injected.clone(),
        };
        let is_here = outgoing.source.can_be_sent_again();
        let outgoing = Outgoing {
            head: outgoing.head.clone(),
            source: outgoing.source.clone(),
            is_repeatable: outgoing.is_repeatable,
        };
        let worker = Rc::clone(&call.worker);
        let written = Rc::clone(&own);
        let work = Box::pin(async move { attempt::carry(&call, &outgoing, &written).await });
        Self { work, flight: Some(flight), id, worker, is_here, own, notes }
    }

    async fn ended(mut self) -> Result<Answer, Failure> {
        let ended = self.work.as_mut().await;
        let flight = self.flight.take();
        // Without an answer the key is free again.
        let answer = ended?;
        Ok(match flight {
            Some(flight) => tee::record(&self.worker, flight, self.id, answer),
            None => answer,
        })
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let is_sent = !self.own.attempts.borrow().is_empty();
        self.notes.take_over(&self.own);
        let Some(flight) = self.flight.take().filter(|_| is_sent && self.is_here) else { return };
        let Some(goes_on) = flight.go_on() else { return };
        self.notes.goes_on.set(true);
        let work = std::mem::replace(&mut self.work, Box::pin(std::future::pending()));
        let (worker, id) = (Rc::clone(&self.worker), self.id);
        self.worker.spawn(async move {
            if let Ok(answer) = work.await {
                tee::record_alone(&worker, flight, id, answer).await;
            }
            drop(goes_on);
        });
    }
}
