//! `with_async` leaves whatever becomes of its body.

use std::cell::RefCell;
use std::rc::Rc;

use greenthread::aio::{self, AsyncContext};
use greenthread::time;

use crate::support::fresh::{secs, virtually};

#[derive(Clone, Default)]
struct Slow(Rc<RefCell<Vec<&'static str>>>);

impl AsyncContext for Slow {
    type Value = u32;

    async fn enter(&mut self) -> u32 {
        aio::sleep(secs(1)).await;
        self.0.borrow_mut().push("enter");
        666
    }

    async fn exit(&mut self) {
        aio::sleep(secs(1)).await;
        self.0.borrow_mut().push("exit");
    }
}

#[test]
fn it_leaves_after_a_value_and_after_a_panic() {
    virtually(|| {
        let start = time::now();
        let slow = Slow::default();
        let (theirs, again) = (slow.clone(), slow.clone());
        assert_eq!(
            aio::run(async { aio::with_async(theirs, async |value| value).await }).unwrap(),
            666
        );
        assert_eq!(time::now() - start, secs(2));
        let panicked = aio::run(async { aio::with_async(again, async |_| panic!("no")).await });
        assert_eq!(panicked.map(|()| 0).unwrap_err().to_string(), "panicked: no");
        assert_eq!(*slow.0.borrow(), ["enter", "exit", "enter", "exit"]);
    });
}

#[test]
fn dropped_in_its_body_it_leaves_by_itself_and_before_that_not_at_all() {
    virtually(|| {
        // Cut short while it enters, in the body, and while it leaves.
        for (after, seen) in [(0, &[][..]), (1, &["enter", "exit"]), (3, &["enter"])] {
            let slow = Slow::default();
            let theirs = slow.clone();
            aio::run(async move {
                let limit = aio::timeout(Some(secs(after) + secs(1) / 2));
                let body = aio::with_async(theirs, async |_| aio::sleep(secs(2)).await);
                assert!(limit.run_async(body).await.unwrap_err().is_timeout());
                aio::sleep(secs(5)).await;
            })
            .unwrap();
            assert_eq!(*slow.0.borrow(), seen);
        }
    });
}
