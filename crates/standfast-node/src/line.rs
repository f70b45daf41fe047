//! Who waits for a service: the most urgent first, among these each workflow in its turn, of a workflow the run that was started first.
//! So runs that are nearly done are brought to their end before others are begun.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use standfast_model::{Priority, Stamp};
use standfast_workflow::Asked;
use tokio::sync::oneshot;

/// Requests of workflows that are under way to one service, before anything is known of what it can take, and at most.
const PLACES_MAX: usize = 256;
/// Who waits for a service, and how many are let through at a time: one fewer at each refusal, one more after as many answers as there
/// are places (additive increase; Chiu and Jain 1989. One fewer for each of many refusals is as a factor). Whose turn it is follows
/// start-time fair queueing with equal weights (Goyal, Vin and Cheng 1996).
#[derive(Debug)]
pub(crate) struct Line(Mutex<Known>);

/// Whose share of a line it is: those with higher priority come first.
type ShareOf = (Reverse<Priority>, Arc<str>);
/// Where one stands among those of a share: when its run was started, and when it came.
type Turn = (Stamp, u64);

#[derive(Debug)]
struct Known {
    places: usize,
    used: usize,
    /// Since the last time a place was added.
    answers: usize,
    /// Of all that wait.
    shares: BTreeMap<ShareOf, Share>,
    waiting: usize,
    /// The turn of the share that was let through last.
    now: u64,
    arrived: u64,
}

#[derive(Debug)]
struct Share {
    /// When it is its turn: one more each time.
    turn: u64,
    waiting: BTreeMap<Turn, oneshot::Sender<Place>>,
}

/// A place in a service; dropping it lets the next one through.
#[derive(Debug)]
pub(crate) struct Place(Arc<Line>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.known().used -= 1;
        Line::let_through(&self.0);
    }
}

/// Somebody in a line, who may leave it.
struct Standing<'l> {
    line: &'l Arc<Line>,
    share: ShareOf,
    turn: Turn,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.line.known().take(&self.share, Some(self.turn));
    }
}

impl Default for Line {
    fn default() -> Self {
        Self(Mutex::new(Known {
            places: PLACES_MAX,
            used: 0,
            answers: 0,
            shares: BTreeMap::new(),
            waiting: 0,
            now: 0,
            arrived: 0,
        }))
    }
}

impl Line {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.known().waiting
    }

    /// Waits for a place. Cancel safe: who leaves loses its turn.
    pub(crate) async fn place(self: &Arc<Self>, asked: &Asked) -> Place {
        let share: ShareOf = (Reverse(asked.priority), Arc::clone(&asked.share));
        let (turn, granted) = self.known().joins(&share, asked.since);
        let _standing = Standing { line: self, share, turn };
        Self::let_through(self);
        match granted.await {
            Ok(place) => place,
            // Only who stands here removes itself.
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets through as many as there are places for.
    fn let_through(line: &Arc<Self>) {
        loop {
            let granted = {
                let mut known = line.known();
                if known.used >= known.places {
                    return;
                }
                let Some(grant) = known.next() else { return };
                known.used += 1;
                grant
            };
            // Who has left gives the place back by that.
            let _left = granted.send(Place(Arc::clone(line)));
        }
    }

    /// A request was answered.
    pub(crate) fn took_one(self: &Arc<Self>) {
        let mut known = self.known();
        known.answers += 1;
        if known.answers >= known.places {
            known.answers = 0;
            known.places = (known.places + 1).min(PLACES_MAX);
        }
        drop(known);
        Self::let_through(self);
    }

    /// A request was refused since there is too much to do; one place always stays.
    pub(crate) fn was_refused(&self) {
        let mut known = self.known();
        known.places = (known.places - 1).max(1);
    }
}

impl Known {
    fn joins(&mut self, share: &ShareOf, since: Stamp) -> (Turn, oneshot::Receiver<Place>) {
        let (grant, granted) = oneshot::channel();
        self.arrived += 1;
        let turn = (since, self.arrived);
        let new = Share { turn: self.now + 1, waiting: BTreeMap::new() };
        self.shares.entry(share.clone()).or_insert(new).waiting.insert(turn, grant);
        self.waiting += 1;
        (turn, granted)
    }

    /// Whose turn it is.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let highest = self.shares.first_key_value()?.0.0;
        let of_highest = self.shares.iter().take_while(|((priority, _), _)| *priority == highest);
        let share = of_highest.min_by_key(|(_, share)| share.turn)?.0.clone();
        self.take(&share, None)
    }

    /// Takes one out of a share: the first, or the one that stands there.
    fn take(&mut self, of: &ShareOf, turn: Option<Turn>) -> Option<oneshot::Sender<Place>> {
        let share = self.shares.get_mut(of)?;
        let taken = match turn {
            Some(turn) => share.waiting.remove(&turn)?,
            None => {
                self.now = share.turn;
                share.turn += 1;
                share.waiting.pop_first()?.1
            }
        };
        self.waiting -= 1;
        if share.waiting.is_empty() {
            self.shares.remove(of);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use standfast_workflow::{HttpRequest, Request};
    use tokio::task::JoinSet;

    use super::*;

    /// A request of a workflow's run that was started then.
    fn asked(share: &str, priority: Priority, since: u64) -> Asked {
        let request = HttpRequest {
            method: http::Method::GET,
            uri: http::Uri::from_static("http://steps/"),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            credential: None,
        };
        let (deadline, since) = (Stamp::from_micros(u64::MAX), Stamp::from_micros(since));
        Asked {
            key: "k".into(),
            deadline,
            priority,
            share: share.into(),
            since,
            heartbeat: None,
            request: Request::Http(request),
        }
    }

    /// A line with one place, which is taken.
    async fn busy() -> (Arc<Line>, Place) {
        let line = Arc::new(Line::default());
        (0..PLACES_MAX * 2).for_each(|_| line.was_refused());
        let place = line.place(&asked("first", Priority::Normal, 0)).await;
        (line, place)
    }

    /// The order in which those are let through that came in this order.
    async fn order(came: &[(&'static str, Priority)]) -> Vec<&'static str> {
        let (line, place) = busy().await;
        let (through, mut order) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for (at, (share, priority)) in came.iter().copied().enumerate() {
            let (waits, through) = (Arc::clone(&line), Arc::clone(&through));
            order.spawn(async move {
                let place = waits.place(&asked(share, priority, 0)).await;
                through.lock().unwrap().push(share);
                drop(place);
            });
            while line.waiting() <= at {
                tokio::task::yield_now().await;
            }
        }
        drop(place);
        order.join_all().await;
        assert_eq!(line.waiting(), 0);
        Arc::into_inner(through).unwrap().into_inner().unwrap()
    }

    #[tokio::test]
    async fn the_urgent_come_first_and_workflows_take_turns() {
        use Priority::{High, Low, Normal};
        let came = [
            ("a", Normal),
            ("a", Normal),
            ("a", Normal),
            ("b", Normal),
            ("c", Low),
            ("d", High),
            ("b", Normal),
        ];
        assert_eq!(order(&came).await, ["d", "a", "b", "a", "b", "a", "c"]);
    }

    #[tokio::test]
    async fn of_a_workflow_the_oldest_run_comes_first() {
        let (line, place) = busy().await;
        let (young, old) = (asked("a", Priority::Normal, 2), asked("a", Priority::Normal, 1));
        let mut of_young = Box::pin(line.place(&young));
        let mut of_old = Box::pin(line.place(&old));
        assert!(waits(of_young.as_mut()).await && waits(of_old.as_mut()).await);
        drop(place);
        assert!(waits(of_young.as_mut()).await);
        drop(of_old.await);
        drop(of_young.await);
    }

    #[tokio::test]
    async fn who_leaves_holds_nobody_up() {
        let (line, place) = busy().await;
        let (urgent, other) = (asked("a", Priority::High, 0), asked("b", Priority::Low, 0));
        let mut leaves = Box::pin(line.place(&urgent));
        assert!(waits(leaves.as_mut()).await);
        let mut stays = Box::pin(line.place(&other));
        assert!(waits(stays.as_mut()).await);
        drop(leaves);
        drop(place);
        drop(stays.await);
        assert_eq!((line.waiting(), line.known().used), (0, 0));
    }

    /// Polls once: whether it is not ready.
    async fn waits(mut future: Pin<&mut impl Future<Output = Place>>) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn a_line_shrinks_to_one_and_grows_again() {
        let (line, place) = busy().await;
        assert_eq!(line.known().places, 1);
        drop(place);
        line.took_one();
        assert_eq!(line.known().places, 2);
        line.took_one();
        line.took_one();
        assert_eq!(line.known().places, 3);
    }
}
