//! Exchanging one store for another.

use std::sync::Arc;
use std::time::Duration;

use super::Switch;
use crate::store::contract::{
    CONCURRENT, Folder, IN_TOTAL, ask, at, booking, closed, entry, request_id, reserve,
};
use crate::store::embedded::Embedded;
use crate::store::{CounterAsk, GroupId, News, Store, StoreError, Verdict};

fn embedded(folder: &Folder) -> Box<dyn Store> {
    Box::new(Embedded::open(folder.path()).unwrap())
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn sums(store: &dyn Store, of: super::super::contract::Counter) -> (u64, u64) {
    let group = GroupId::from("k");
    let asks: [CounterAsk; 1] = [ask(of, 0)];
    let standing = store.standings(&group, &asks, at(0)).await.unwrap()[0];
    (standing.booked, standing.held)
}

async fn admit(store: &dyn Store, request: u64) {
    let asks = [ask(IN_TOTAL, 9), ask(CONCURRENT, 9)];
    let verdict = reserve(store, request, 0, &[("k", &asks)]).await.unwrap();
    assert!(matches!(verdict, Verdict::Admitted(_)));
}

#[test]
fn whoever_comes_while_it_is_exchanged_is_admitted_by_the_next() {
    run(async {
        let (folder, other) = (Folder::new(), Folder::new());
        let switch = Arc::new(Switch::new(embedded(&folder)));
        admit(&*switch, 1).await;
        let frozen = switch.freeze().await;
        let waiting = tokio::spawn({
            let switch = switch.clone();
            async move { admit(&*switch, 2).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(sums(&*switch, IN_TOTAL).await, (0, 1));
        frozen.exchange(embedded(&other)).unwrap();
        waiting.await.unwrap();
        assert_eq!(sums(&*switch, IN_TOTAL).await, (0, 1), "the first one's hold was not moved");
        // The old one let go of its files.
        drop(embedded(&folder));
    });
}

#[test]
fn what_ends_while_it_is_exchanged_ends_in_both() {
    run(async {
        let (folder, other) = (Folder::new(), Folder::new());
        let switch = Switch::new(embedded(&folder));
        for request in 1..=3 {
            admit(&switch, request).await;
        }
        let frozen = switch.freeze().await;
        let next = embedded(&other);
        next.hold_again(switch.holds(), at(0), at(100_000)).await.unwrap();
        switch.release(request_id(1), &"k".into());
        switch.give_back(request_id(2), &"k".into());
        assert_eq!((sums(&switch, IN_TOTAL).await, sums(&switch, CONCURRENT).await), ((0, 2), (0, 1)));
        assert_eq!((sums(&*next, IN_TOTAL).await, sums(&*next, CONCURRENT).await), ((0, 3), (0, 3)));
        frozen.exchange(next).unwrap();
        assert_eq!((sums(&switch, IN_TOTAL).await, sums(&switch, CONCURRENT).await), ((0, 2), (0, 1)));
        switch.release(request_id(3), &"k".into());
        assert_eq!(sums(&switch, CONCURRENT).await, (0, 0));
    });
}

#[test]
fn what_is_not_exchanged_goes_on_as_it_was() {
    run(async {
        let folder = Folder::new();
        let switch = Switch::new(embedded(&folder));
        drop(switch.freeze().await);
        admit(&switch, 1).await;
        let frozen = switch.freeze().await;
        let refused = reserve(&switch, 2, 0, &[("k", &[ask(IN_TOTAL, 9)])]).await;
        assert!(matches!(refused, Err(StoreError::Moving { retry_at }) if retry_at > at(0)), "{refused:?}");
        drop(frozen);
        admit(&switch, 2).await;
        assert_eq!(sums(&switch, IN_TOTAL).await, (0, 2));
    });
}

#[test]
fn what_is_applied_is_noted() {
    run(async {
        let folder = Folder::new();
        let switch = Switch::new(embedded(&folder));
        let asks = [ask(IN_TOTAL, 9)];
        let apply = async |number: u64| {
            let held = reserve(&switch, number, 0, &[("k", &asks)]).await.unwrap();
            let Verdict::Admitted(held) = held else { panic!() };
            let row = closed(request_id(number), held.iter().map(booking).collect());
            switch.apply(Arc::new([entry(0, number, row)])).await.unwrap();
        };
        apply(1).await;
        assert_eq!(switch.take_notes().len(), 0);
        switch.note();
        apply(2).await;
        apply(3).await;
        let touched = switch.take_notes();
        assert_eq!(touched.rows, [request_id(2), request_id(3)]);
        assert_eq!((touched.hours.len(), touched.groups.len()), (1, 1));
        apply(4).await;
        assert_eq!(switch.take_notes().rows, [request_id(4)]);
        switch.forget();
        apply(5).await;
        assert_eq!(switch.take_notes().len(), 0);
    });
}

#[test]
fn there_is_an_end_to_exchanges() {
    run(async {
        let folders: Vec<Folder> = (0..9).map(|_| Folder::new()).collect();
        let switch = Switch::new(embedded(&folders[0]));
        for folder in &folders[1..8] {
            switch.freeze().await.exchange(embedded(folder)).unwrap();
        }
        assert!(switch.freeze().await.exchange(embedded(&folders[8])).is_err());
        admit(&switch, 1).await;
        let nothing = tokio::time::timeout(Duration::from_millis(1), switch.news()).await;
        assert!(!matches!(nothing, Ok(News::Changed | News::Lost)));
    });
}
