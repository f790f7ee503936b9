//! Several clients that call without a pause, each call with a model of its own, until they are told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shared::domain::Protocol;
use tokio::task::JoinSet;

use super::client::{Call, Client};
use super::daemon::until;

const CLIENTS: usize = 6;

/// The clients. None of their calls may fail.
pub struct Load {
    clients: JoinSet<()>,
    done: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
}

impl Load {
    /// Begins; models are numbered behind the name.
    pub fn on(client: &Client, name: &'static str) -> Self {
        let (done, has_ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let mut clients = JoinSet::new();
        for first in 0..CLIENTS {
            clients.spawn(run(client.clone(), name, first, done.clone(), has_ended.clone()));
        }
        Self { clients, done, has_ended }
    }

    /// Waits for so many more to be done.
    pub async fn more(&self, calls: usize) {
        let enough = self.done.load(Ordering::SeqCst) + calls;
        until("calls are done", async || (self.done.load(Ordering::SeqCst) >= enough).then_some(())).await;
    }

    /// Waits for the last calls to end.
    pub async fn end(mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}

async fn run(
    client: Client,
    name: &'static str,
    first: usize,
    done: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
) {
    for number in (first..).step_by(CLIENTS) {
        if has_ended.load(Ordering::SeqCst) {
            return;
        }
        let call = Call::new(Protocol::ALL[number % 4], format!("{name}-{number}"));
        client.call(&call).await.expect(200);
        done.fetch_add(1, Ordering::SeqCst);
    }
}
