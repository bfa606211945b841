//! Async clients that need tokio, in green threads: *beside* it, each of their futures under `async-compat`, and
//! *inside* of it, a runtime in each. Twenty at once, on one OS thread.

use std::sync::Arc;
use std::time::Instant;

use async_compat::Compat;
use compat::{at_once, http_server, ms, patched};
use greenthread::future::block_on;
use greenthread::{JoinHandle, run, sleep, spawn};
use sqlx::Row;

/// Runs `f` as a green thread of an OS thread of its own; nothing is patched for it.
fn green<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(|| run(f)).join().unwrap()
}

/// A green thread that ticks while others wait; how often it has.
fn ticking() -> JoinHandle<u32> {
    spawn(|| {
        let start = Instant::now();
        let mut ticks = 0;
        while start.elapsed() < ms(100) {
            sleep(ms(5));
            ticks += 1;
        }
        ticks
    })
}

/// As a user would write it: a helper of one line.
fn wait<F: Future>(future: F) -> F::Output {
    block_on(Compat::new(future))
}

#[test]
fn compat_beside_reqwest() {
    let address = http_server(ms(100));
    green(move || {
        let client = reqwest::Client::new();
        let ticks = ticking();
        let bodies = at_once(ms(100), move |n| {
            let answer = wait(client.get(format!("http://{address}/{n}")).send()).unwrap();
            wait(answer.text()).unwrap()
        });
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(*body, format!("/{n}"));
        }
        assert!(ticks.join().unwrap() > 1);
        assert!(
            tokio::runtime::Handle::try_current().is_err(),
            "entered for the polls only"
        );
    });
}

#[test]
fn compat_beside_one_that_is_killed_or_timed_out_leaves_the_client_good() {
    let address = http_server(ms(50));
    green(move || {
        let client = reqwest::Client::new();
        let endless = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = endless.local_addr().unwrap();
        let theirs = client.clone();
        let victim = spawn(move || wait(theirs.get(format!("http://{nobody}/")).send()).is_ok());
        sleep(ms(20));
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
        let late = || wait(client.get(format!("http://{nobody}/")).send()).is_ok();
        assert!(greenthread::timeout(ms(20), late).is_err());
        let answer = wait(client.get(format!("http://{address}/good")).send()).unwrap();
        assert_eq!(wait(answer.text()).unwrap(), "/good");
    });
}

#[test]
fn compat_beside_redis() {
    let server = compat::redis();
    let url = format!("redis://127.0.0.1:{}/", server.port);
    green(move || {
        let client = redis::Client::open(url).unwrap();
        at_once(ms(300), move |n| {
            wait(async {
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                let key = format!("key:{n}");
                let () = redis::cmd("SET")
                    .arg(&key)
                    .arg(n)
                    .query_async(&mut connection)
                    .await
                    .unwrap();
                let got: usize = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                assert_eq!(got, n);
                let mut wait = redis::cmd("BLPOP");
                let wait = wait.arg(format!("empty:{n}")).arg("0.3");
                let nothing: Option<(String, String)> = wait.query_async(&mut connection).await.unwrap();
                assert_eq!(nothing, None);
            });
        });
    });
    drop(server);
}

#[test]
fn compat_beside_mysql_async_with_its_pool() {
    use mysql_async::prelude::Queryable;
    let server = compat::mariadb();
    let url = format!("mysql://root@127.0.0.1:{}/?prefer_socket=false", server.port);
    green(move || {
        let pool = Arc::new(mysql_async::Pool::new(url.as_str()));
        let theirs = pool.clone();
        at_once(ms(500), move |n| {
            wait(async {
                let mut connection = theirs.get_conn().await.unwrap();
                let query = format!("SELECT {n} + 1, SLEEP(0.5)");
                let row: Option<(u32, u32)> = connection.query_first(query).await.unwrap();
                assert_eq!(row, Some((n as u32 + 1, 0)));
            });
        });
        wait(Arc::into_inner(pool).unwrap().disconnect()).unwrap();
    });
    drop(server);
}

#[test]
fn compat_beside_sqlx_with_its_pool() {
    let server = compat::postgres();
    let url = format!("postgres://postgres@127.0.0.1:{}/", server.port);
    green(move || {
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(20);
        let pool = wait(options.connect(&url)).unwrap();
        let theirs = pool.clone();
        at_once(ms(500), move |n| {
            let query = sqlx::query("SELECT $1::int4 + 1, pg_sleep(0.5)::text").bind(n as i32);
            let row = wait(query.fetch_one(&theirs)).unwrap();
            assert_eq!(row.get::<i32, _>(0), n as i32 + 1);
        });
        wait(pool.close());
    });
    drop(server);
}

#[test]
fn compat_inside_reqwest_in_a_runtime_of_each_green_thread() {
    patched(|| {
        let address = http_server(ms(100));
        let ticks = ticking();
        let bodies = at_once(ms(100), move |n| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let request = reqwest::get(format!("http://{address}/{n}"));
                let (answer, ()) = tokio::join!(request, tokio::time::sleep(ms(100)));
                answer.unwrap().text().await.unwrap()
            })
        });
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(*body, format!("/{n}"));
        }
        assert!(ticks.join().unwrap() > 1);
    });
}
