//! Room in a channel that is set aside, in which order it is granted, and the wait for the end of the receivers.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use greenthread::sync::channel::{
    self, SendError, SendPermit, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded,
};
use greenthread::{select, sleep, spawn, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, raised, secs, virtually};

#[test]
fn a_permit_is_room_for_one_message_until_it_is_used_or_dropped() {
    fresh(|| {
        let (sender, receiver) = bounded(2);
        let (first, second) = (sender.reserve().unwrap(), sender.try_reserve().unwrap());
        assert_eq!((sender.capacity(), sender.len(), sender.is_full()), (Some(2), 0, true));
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        assert_eq!(sender.try_reserve().unwrap_err(), TrySendError::Full(()));
        assert_eq!(
            sender.reserve_timeout(ms(1)).unwrap_err(),
            SendTimeoutError::Timeout(())
        );
        first.send(2).unwrap();
        assert!(sender.try_send(3).is_err(), "one place is taken, the other reserved");
        drop(second);
        sender.try_send(4).unwrap();
        assert!(sender.try_reserve().is_err());
        assert_eq!([receiver.recv(), receiver.recv()], [Ok(2), Ok(4)]);
        let both = [sender.reserve().unwrap(), sender.reserve().unwrap()];
        both.into_iter().for_each(|permit| permit.send(5).unwrap());
        assert_eq!(receiver.try_iter().count(), 2);

        let (sender, receiver) = channel::unbounded();
        let permits: Vec<_> = (0..1000).map(|_| sender.reserve().unwrap()).collect();
        assert_eq!(sender.capacity(), None);
        permits.into_iter().for_each(|permit| permit.send(()).unwrap());
        assert_eq!(receiver.try_iter().count(), 1000);
        let rendezvous = bounded::<()>(0);
        assert!(raised(|| rendezvous.0.reserve().is_ok()).contains("capacity 0"));
        assert!(raised(|| rendezvous.0.try_reserve().is_ok()).contains("capacity 0"));
    });
}

#[test]
fn a_message_of_a_permit_wakes_a_receiver_and_a_dropped_one_lets_a_sender_in() {
    virtually(|| {
        let (sender, receiver) = bounded(1);
        let waits = spawn(move || (receiver.recv(), receiver.recv(), receiver));
        let permit = sender.reserve().unwrap();
        yield_now();
        permit.send(1).unwrap();
        sender.send(2).unwrap();
        let (first, second, receiver) = waits.join().unwrap();
        assert_eq!((first, second), (Ok(1), Ok(2)));

        let permit = sender.reserve().unwrap();
        let theirs = sender.clone();
        let sends = spawn(move || theirs.send(3));
        yield_now();
        // What a receiver comes for needs no room.
        assert_eq!(receiver.try_recv(), Ok(3));
        sends.join().unwrap().unwrap();
        let theirs = sender.clone();
        let sends = spawn(move || theirs.send(4));
        yield_now();
        assert!(!sends.is_finished());
        drop(permit);
        sends.join().unwrap().unwrap();
        assert_eq!((receiver.len(), receiver.recv()), (1, Ok(4)));
        // A receiver that waits is handed a message, although all room is reserved.
        let permit = sender.reserve().unwrap();
        let waits = spawn(move || (receiver.recv(), receiver.recv()));
        yield_now();
        sender.try_send(5).unwrap();
        permit.send(6).unwrap();
        assert_eq!(waits.join().unwrap(), (Ok(5), Ok(6)));
    });
}

#[test]
fn room_goes_to_senders_and_reservers_in_order_of_arrival() {
    virtually(|| {
        let (sender, receiver) = bounded(1);
        sender.send(0).unwrap();
        let (order, ends) = channel::unbounded();
        for n in 1..=6 {
            let (sender, order) = (sender.clone(), order.clone());
            spawn(move || {
                if n % 2 == 0 {
                    let permit = sender.reserve().unwrap();
                    order.send(n).unwrap();
                    sleep(secs(1));
                    permit.send(n).unwrap();
                } else {
                    sender.send(n).unwrap();
                    order.send(n).unwrap();
                }
            });
            yield_now();
        }
        let got: Vec<_> = (0..7)
            .map(|_| {
                // Only room is handed out in order: a receiver that waits here would take what is not let in yet.
                sleep(secs(2));
                receiver.try_recv().unwrap()
            })
            .collect();
        assert_eq!(got, [0, 1, 2, 3, 4, 5, 6]);
        sleep(secs(2));
        assert_eq!(ends.try_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn a_reserver_that_leaves_passes_its_room_on() {
    fresh(|| {
        let mut context = Context::from_waker(Waker::noop());
        let (sender, receiver) = bounded(1);
        for granted in [false, true] {
            sender.send(1).unwrap();
            let mut reserves = Box::pin(sender.reserve_async());
            assert!(reserves.as_mut().poll(&mut context).is_pending());
            let theirs = sender.clone();
            let sends = spawn(move || theirs.send(2));
            yield_now();
            if granted {
                assert_eq!(receiver.recv(), Ok(1));
                yield_now();
                assert!(!sends.is_finished(), "the reserver came first");
            }
            drop(reserves);
            if !granted {
                assert_eq!(receiver.recv(), Ok(1));
            }
            sends.join().unwrap().unwrap();
            assert_eq!(receiver.try_recv(), Ok(2));
        }
        sender.send(1).unwrap();
        assert!(timeout(ms(1), || drop(sender.reserve())).is_err());
        assert_eq!(receiver.recv(), Ok(1));
        drop(sender.try_reserve().unwrap());
    });
}

#[test]
fn a_select_sets_no_room_aside_for_a_branch_that_loses() {
    fresh(|| {
        let (sender, receiver) = bounded(1);
        let (other, ready) = bounded(1);
        for n in 0..50 {
            other.send(n).unwrap();
            select! {
                future(sender.reserve_async()) -> permit => { permit.unwrap().send(n).unwrap(); },
                recv(ready) -> _ => {},
            }
            // Both are left, or none: the other branch took its message.
            assert_eq!(receiver.try_iter().count(), ready.try_iter().count());
            drop(sender.try_reserve().expect("nothing is left reserved"));
        }
    });
}

#[test]
fn all_that_wait_learn_that_the_receivers_are_gone() {
    virtually(|| {
        let (sender, receiver) = bounded(2);
        assert_eq!((sender.sender_count(), sender.receiver_count()), (1, 1));
        let also = (sender.clone(), receiver.clone());
        assert_eq!((receiver.sender_count(), receiver.receiver_count()), (2, 2));
        let start = time::now();
        assert!(!sender.closed_timeout(secs(1)) && !sender.closed_deadline(start + secs(2)));
        assert_eq!(time::now() - start, secs(2));
        let permit = sender.reserve().unwrap();
        sender.send(1).unwrap();
        let (one, two) = (sender.clone(), sender.clone());
        let reserves = spawn(move || one.reserve().map(drop));
        let waits = spawn(move || two.closed());
        yield_now();
        drop(receiver);
        yield_now();
        assert!(!waits.is_finished() && !sender.is_closed());
        drop(also.1);
        waits.join().unwrap();
        assert_eq!(reserves.join().unwrap(), Err(SendError(())));
        assert_eq!(permit.send(2), Err(SendError(2)));
        assert!(sender.is_closed() && sender.closed_timeout(secs(1)));
        assert_eq!(sender.try_reserve().unwrap_err(), TrySendError::Disconnected(()));
        assert_eq!(
            sender.reserve_timeout(secs(1)).unwrap_err(),
            SendTimeoutError::Disconnected(())
        );
        select! { future(sender.closed_async()) => {}, after(secs(1)) => panic!("closed") }

        let (sender, receiver) = bounded(1);
        sender.send(1).unwrap();
        assert!(!receiver.is_closed());
        drop(sender);
        assert!(receiver.is_closed() && !receiver.is_empty());
        assert_eq!(
            (receiver.recv(), receiver.try_recv()),
            (Ok(1), Err(TryRecvError::Disconnected))
        );
    });
}

/// What a channel does, said in the plainest way.
struct Model {
    queue: VecDeque<u32>,
    room: usize,
    /// In order of arrival: senders, and reservers (`true`).
    line: Vec<(u32, bool)>,
    granted: BTreeSet<u32>,
}

impl Model {
    fn settle(&mut self) {
        while self.queue.len() < self.room && !self.line.is_empty() {
            let (id, reserves) = self.line.remove(0);
            self.granted.insert(id);
            if reserves {
                self.room -= 1;
            } else {
                self.queue.push_back(id);
            }
        }
    }

    fn receive(&mut self) -> Option<u32> {
        let got = self.queue.pop_front().or_else(|| {
            let at = self.line.iter().position(|(_, reserves)| !reserves)?;
            let (id, _) = self.line.remove(at);
            self.granted.insert(id);
            Some(id)
        });
        self.settle();
        got
    }

    fn leave(&mut self, id: u32, reserves: bool) {
        self.line.retain(|(other, _)| *other != id);
        if self.granted.remove(&id) && reserves {
            self.room += 1;
        }
        self.settle();
    }
}

type Waits<'a> = Pin<Box<dyn Future<Output = Option<SendPermit<'a, u32>>> + 'a>>;

fn start(sender: &Sender<u32>, id: u32, reserves: bool) -> Waits<'_> {
    if reserves {
        return Box::pin(async move { Some(sender.reserve_async().await.unwrap()) });
    }
    Box::pin(async move {
        sender.send_async(id).await.unwrap();
        None
    })
}

#[test]
fn it_does_what_the_model_does() {
    let mut seed = 11_u64;
    let mut dice = move |most: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % most
    };
    let mut context = Context::from_waker(Waker::noop());
    for round in 0..300 {
        let capacity = 1 + dice(3);
        let (sender, receiver) = bounded(capacity);
        let (queue, granted) = (VecDeque::new(), BTreeSet::new());
        let mut model = Model {
            queue,
            room: capacity,
            line: Vec::new(),
            granted,
        };
        let mut under_way: Vec<(u32, bool, Waits<'_>)> = Vec::new();
        let mut permits: Vec<SendPermit<'_, u32>> = Vec::new();
        for id in 0..60 {
            match dice(7) {
                0..3 => {
                    let reserves = dice(2) == 0;
                    under_way.push((id, reserves, start(&sender, id, reserves)));
                    model.line.push((id, reserves));
                    model.settle();
                }
                3 | 4 => assert_eq!(receiver.try_recv().ok(), model.receive(), "{round} {id}"),
                5 if !under_way.is_empty() => {
                    let (id, reserves, waits) = under_way.remove(dice(under_way.len()));
                    drop(waits);
                    model.leave(id, reserves);
                }
                _ if !permits.is_empty() => {
                    let permit = permits.remove(dice(permits.len()));
                    model.room += 1;
                    if dice(2) == 0 {
                        permit.send(id).unwrap();
                        model.queue.push_back(id);
                    }
                    model.settle();
                }
                _ => {}
            }
            // A first poll gets in line. Some of those that were granted stay as they are, to be dropped so.
            let first = under_way.last().map_or(0, |last| last.0);
            under_way.retain_mut(|(other, _, waits)| {
                if *other != first && dice(2) == 0 {
                    return true;
                }
                // The first poll may only give way.
                let polled = waits.as_mut().poll(&mut context);
                let polled = if polled.is_ready() {
                    polled
                } else {
                    waits.as_mut().poll(&mut context)
                };
                assert_eq!(polled.is_ready(), model.granted.contains(other), "{round} {other}");
                let Poll::Ready(permit) = polled else { return true };
                model.granted.remove(other);
                permits.extend(permit);
                false
            });
            assert_eq!(
                receiver.len(),
                model.queue.len() + model.line.iter().filter(|one| !one.1).count()
            );
        }
    }
}
