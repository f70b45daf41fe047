//! Who waits for a service: the most urgent first, among these each workflow in its turn, among its calls first come, first served.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use standfast_model::Priority;
use tokio::sync::oneshot;

/// Requests of workflows that are under way to one service, before anything is known of what it can take, and at most.
const PLACES_MAX: usize = 256;
/// Workflows of which it is remembered whose turn it was.
const SHARES_MAX: usize = 1_024;

/// Who waits for a service, and how many are let through at a time: one fewer at each refusal, one more after as many answers as there
/// are places (additive increase; Chiu and Jain 1989. One fewer for each of many refusals is as a factor). Whose turn it is follows
/// start-time fair queueing with equal weights (Goyal, Vin and Cheng 1996).
#[derive(Debug)]
pub(crate) struct Line(Mutex<Known>);

/// Where one stands in a line: those with higher priority come first, then those with earlier turns.
type Turn = (Reverse<Priority>, u64, u64);

#[derive(Debug)]
struct Known {
    places: usize,
    used: usize,
    /// Since the last time a place was added.
    answers: usize,
    waiting: BTreeMap<Turn, oneshot::Sender<Place>>,
    /// The turn of the one that was let through last, for each priority, and the last that each workflow has.
    now: BTreeMap<Priority, u64>,
    last: BTreeMap<(Priority, Arc<str>), u64>,
    arrived: u64,
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
    turn: Turn,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.line.known().waiting.remove(&self.turn);
    }
}

impl Default for Line {
    fn default() -> Self {
        Self(Mutex::new(Known {
            places: PLACES_MAX,
            used: 0,
            answers: 0,
            waiting: BTreeMap::new(),
            now: BTreeMap::new(),
            last: BTreeMap::new(),
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
        self.known().waiting.len()
    }

    /// Waits for a place. Cancel safe: who leaves loses its turn.
    pub(crate) async fn place(self: &Arc<Self>, priority: Priority, share: &Arc<str>) -> Place {
        let (turn, granted) = {
            let mut known = self.known();
            let turn = known.turn(priority, share);
            let (grant, granted) = oneshot::channel();
            known.waiting.insert(turn, grant);
            (turn, granted)
        };
        let _standing = Standing { line: self, turn };
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
                let Some(((priority, turn, _), grant)) = known.waiting.pop_first() else { return };
                known.used += 1;
                known.now.insert(priority.0, turn);
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
    fn turn(&mut self, priority: Priority, share: &Arc<str>) -> Turn {
        let now = self.now.get(&priority).copied().unwrap_or(0);
        if self.last.len() >= SHARES_MAX {
            let passed = &self.now;
            self.last.retain(|(priority, _), last| *last > passed.get(priority).copied().unwrap_or(0));
        }
        let last = self.last.entry((priority, Arc::clone(share))).or_insert(now);
        *last = (*last).max(now) + 1;
        let turn = *last;
        self.arrived += 1;
        (Reverse(priority), turn, self.arrived)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use tokio::task::JoinSet;

    use super::*;

    /// A line with one place, which is taken.
    async fn busy() -> (Arc<Line>, Place) {
        let line = Arc::new(Line::default());
        (0..PLACES_MAX * 2).for_each(|_| line.was_refused());
        let place = line.place(Priority::Normal, &"first".into()).await;
        (line, place)
    }

    /// The order in which those are let through that came in this order.
    async fn order(came: &[(&'static str, Priority)]) -> Vec<&'static str> {
        let (line, place) = busy().await;
        let (through, mut order) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for (at, (share, priority)) in came.iter().copied().enumerate() {
            let (waits, through) = (Arc::clone(&line), Arc::clone(&through));
            order.spawn(async move {
                let place = waits.place(priority, &share.into()).await;
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
    async fn who_leaves_holds_nobody_up() {
        let (line, place) = busy().await;
        let share: Arc<str> = "a".into();
        let mut leaves = Box::pin(line.place(Priority::High, &share));
        assert!(waits(leaves.as_mut()).await);
        let mut stays = Box::pin(line.place(Priority::Low, &share));
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
