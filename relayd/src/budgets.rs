//! Tells when a limit is used to the half, to four fifths, wholly: from what was booked, so that no step is told twice in
//! a window, whoever dies. A step is missed where more moves than is looked at, or the store fails while it books.

use std::sync::Arc;

use shared::admin::BudgetEvent;
use shared::domain::limit::Counted;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::events::Events;
use crate::limits::budget::step_reached;
use crate::store::Booked;

/// Batches of moved counters that may wait to be looked at; of more, the steps are not told.
pub(crate) const WAITING_MAX: usize = 256;

/// What the job works with.
pub(crate) struct Budgets {
    pub(crate) directory: Arc<Directory>,
    pub(crate) events: Arc<Events>,
    pub(crate) clock: Clock,
}

impl Budgets {
    /// Looks at what moves until told to end.
    pub(crate) async fn run(self, mut moved: mpsc::Receiver<Vec<Booked>>, end: CancellationToken) {
        loop {
            let batch = tokio::select! {
                () = end.cancelled() => return,
                batch = moved.recv() => batch,
            };
            let Some(batch) = batch else { return };
            for event in batch.iter().flat_map(|moved| self.events_of(moved)) {
                tracing::warn!(
                    holder = event.holder,
                    name = event.name,
                    limit = %event.limit,
                    percent = event.percent,
                    used = %Counted::of(event.limit.metric, event.used),
                    "budget"
                );
                self.events.add(event);
            }
        }
    }

    fn events_of(&self, moved: &Booked) -> Vec<BudgetEvent> {
        let (snapshot, now) = (self.directory.snapshot(), self.clock.now());
        let Some(holder) = snapshot.holder(&moved.group) else { return Vec::new() };
        let rules = holder.limits.rules.iter().filter(|rule| rule.counter == moved.counter);
        let events = rules.filter_map(|rule| {
            let percent = step_reached(moved.before, moved.after, rule.limit.amount)?;
            Some(BudgetEvent {
                at: now,
                holder: holder.limits.scope.name().to_owned(),
                id: holder.id.map(str::to_owned),
                name: holder.name.to_owned(),
                limit: rule.limit.clone(),
                percent,
                used: moved.after,
                resets_at: moved.span.end,
            })
        });
        events.collect()
    }
}
