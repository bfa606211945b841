//! What I/O says that did not come in time, or that must not wait.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use greenthread::net::{TcpListener, UnixStream};
use greenthread::{io, spawn_local};

use crate::support::fresh::{fresh, ms};

#[test]
fn a_time_out_says_which_and_how_long() {
    fresh(|| {
        let (mut a, _b) = UnixStream::pair().unwrap();
        let fd = a.as_raw_fd();
        a.set_read_timeout(Some(ms(5))).unwrap();
        let error = a.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let text = error.to_string();
        assert_eq!(
            text,
            format!("descriptor {fd} was not readable within the read time-out of 5ms")
        );

        a.set_write_timeout(Some(ms(7))).unwrap();
        let error = a.write_all(&vec![0; 1 << 24]).unwrap_err();
        let text = error.to_string();
        assert_eq!(
            text,
            format!("descriptor {fd} was not writable within the write time-out of 7ms")
        );

        let error = io::wait_readable(&a, Some(ms(3))).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("descriptor {fd} was not readable within 3ms")
        );

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_read_timeout(Some(ms(4))).unwrap();
        assert!(listener.accept().unwrap_err().to_string().ends_with("time-out of 4ms"));
    });
}

#[test]
fn what_would_wait_while_a_local_one_unwinds_fails_and_says_why() {
    struct Farewell(UnixStream, Arc<Mutex<Vec<String>>>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            // The kernel takes this at once.
            self.0.write_all(b"bye").unwrap();
            let error = self.0.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Other);
            self.1.lock().unwrap().push(error.to_string());
        }
    }
    fresh(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let farewell = Farewell(ours, said.clone());
        let unwinds = spawn_local(move || {
            let _farewell = farewell;
            panic!("unwind");
        });
        assert!(unwinds.join().unwrap_err().is_panic());
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        let said = said.lock().unwrap();
        assert!(
            said.len() == 1 && said[0].contains("the caller is unwinding"),
            "{said:?}"
        );
    });
}
