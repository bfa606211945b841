//! Blocking database drivers against real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use compat::{at_once, ms, patched};
use greenthread::spawn;

#[test]
fn redis_commands_blpop_and_pub_sub() {
    let server = compat::redis();
    let url = format!("redis://127.0.0.1:{}/", server.port);
    patched(move || {
        let client = Arc::new(redis::Client::open(url).unwrap());
        let theirs = client.clone();
        at_once(ms(300), move |n| {
            let mut connection = theirs.get_connection().unwrap();
            let key = format!("key:{n}");
            let () = redis::cmd("SET").arg(&key).arg(n).query(&mut connection).unwrap();
            let got: usize = redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
            assert_eq!(got, n);
            let nothing: Option<(String, String)> = redis::cmd("BLPOP")
                .arg(format!("empty:{n}"))
                .arg("0.3")
                .query(&mut connection)
                .unwrap();
            assert_eq!(nothing, None);
        });
        let theirs = client.clone();
        let publisher = spawn(move || {
            let mut connection = theirs.get_connection().unwrap();
            let heard = || -> usize {
                redis::cmd("PUBLISH")
                    .arg("news")
                    .arg("it works")
                    .query(&mut connection)
                    .unwrap()
            };
            let mut heard = heard;
            std::thread::sleep(ms(100));
            while heard() < 20 {
                std::thread::sleep(ms(20));
            }
        });
        at_once(ms(90), move |_| {
            let mut connection = client.get_connection().unwrap();
            let mut subscriber = connection.as_pubsub();
            subscriber.subscribe("news").unwrap();
            let message = subscriber.get_message().unwrap();
            assert_eq!(message.get_payload::<String>().unwrap(), "it works");
            // Stay, until all have heard it.
            std::thread::sleep(ms(100));
        });
        publisher.join().unwrap();
    });
    drop(server);
}

#[test]
fn postgres_which_hides_a_tokio_runtime() {
    let server = compat::postgres();
    let url = format!("host=127.0.0.1 port={} user=postgres", server.port);
    patched(move || {
        at_once(ms(500), move |n| {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            let row = client
                .query_one("SELECT $1::int4 + 1, pg_sleep(0.5)::text", &[&(n as i32)])
                .unwrap();
            assert_eq!(row.get::<_, i32>(0), n as i32 + 1);
        });
    });
    drop(server);
}

#[test]
fn mysql_with_its_pool() {
    use mysql::prelude::Queryable;
    let server = compat::mariadb();
    let url = format!("mysql://root@127.0.0.1:{}/?prefer_socket=false", server.port);
    patched(move || {
        let pool = mysql::Pool::new(url.as_str()).unwrap();
        at_once(ms(500), move |n| {
            let mut connection = pool.get_conn().unwrap();
            let row: Option<(u32, u32)> = connection.query_first(format!("SELECT {n} + 1, SLEEP(0.5)")).unwrap();
            assert_eq!(row, Some((n as u32 + 1, 0)));
        });
    });
    drop(server);
}

/// A manager of connections that take a while to make.
struct Slow;

impl r2d2::ManageConnection for Slow {
    type Connection = u32;
    type Error = std::io::Error;

    fn connect(&self) -> Result<u32, std::io::Error> {
        std::thread::sleep(ms(20));
        Ok(7)
    }

    fn is_valid(&self, _: &mut u32) -> Result<(), std::io::Error> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u32) -> bool {
        false
    }
}

#[test]
fn r2d2_whose_waiters_use_parking_lot() {
    patched(|| {
        let pool = r2d2::Pool::builder().max_size(5).build(Slow).unwrap();
        // Twenty share five, 25 ms each: four rounds.
        at_once(ms(100), move |_| {
            let connection = pool.get().unwrap();
            std::thread::sleep(ms(25));
            assert_eq!(*connection, 7);
        });
    });
}

/// Twenty write to one file, each in a transaction that lasts: who finds it locked sleeps and tries again, in C.
#[test]
fn sqlite_whose_busy_time_out_sleeps() {
    let file = std::env::temp_dir().join(format!("greenthread-sqlite-{}", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let theirs = file.clone();
    patched(move || {
        let open = move || {
            let connection = rusqlite::Connection::open(&theirs).unwrap();
            connection.busy_timeout(ms(60_000)).unwrap();
            connection
        };
        let connection = open();
        connection
            .execute_batch("PRAGMA synchronous = OFF; CREATE TABLE numbers (number INTEGER)")
            .unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let other = spawn(move || {
            let mut ticks = 0;
            while !seen.load(Ordering::Relaxed) {
                std::thread::sleep(ms(1));
                ticks += 1;
            }
            ticks
        });
        let open = Arc::new(open);
        let writers: Vec<_> = (0..20_i64)
            .map(|n| {
                let open = open.clone();
                spawn(move || {
                    let mut connection = open();
                    let transaction = connection
                        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
                        .unwrap();
                    transaction.execute("INSERT INTO numbers VALUES (?1)", [n]).unwrap();
                    std::thread::sleep(ms(5));
                    transaction.commit().unwrap();
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let sum: i64 = connection
            .query_row("SELECT sum(number) FROM numbers", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sum, (0..20).sum::<i64>());
        done.store(true, Ordering::Relaxed);
        let ticks: u32 = other.join().unwrap();
        assert!(ticks > 50, "others run while it waits: {ticks}");
    });
    std::fs::remove_file(file).unwrap();
}
