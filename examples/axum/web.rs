//! An axum application whose `async` handlers all run on one OS thread, without tokio's runtime; and they may block.
//!
//! ```text
//! cargo run --release --manifest-path examples/axum/Cargo.toml --bin web -- \
//!     [--host 127.0.0.1] [--port 8000] [--redis redis://127.0.0.1/]
//! curl http://127.0.0.1:8000/items/5?q=abc
//! ```
//!
//! Expect `{"item_id":5,"q":"abc"}` from curl, and here a line for each request, in the common log format: `127.0.0.1 - -
//! [01/Dec/2026:08:20:27 +0000] "GET /items/5?q=abc HTTP/1.1" 200 23`. Two `/red` at once take 3.0 s, not 6: each sleeps, and talks to Redis if there is one, with blocking calls of ordinary
//! crates. Ctrl-C lets those who are served finish, for at most five seconds.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use greenthread::{http::HttpServer, monkey, net::TcpListener, signal, spawn};
use redis::{Commands, RedisResult};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Item {
    q: Option<String>,
}

async fn item(id: Result<Path<i64>, axum::extract::rejection::PathRejection>, Query(item): Query<Item>) -> Response {
    match id {
        Ok(Path(id)) => Json(json!({ "item_id": id, "q": item.q })).into_response(),
        // axum says 400; this is what the original says.
        Err(wrong) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            Json(json!({ "detail": wrong.body_text() })),
        )
            .into_response(),
    }
}

/// After half a second.
async fn page(title: String) -> Html<String> {
    std::thread::sleep(Duration::from_millis(500)); // patched: it parks
    Html(format!("<h1>{title}</h1>"))
}

/// Connections for the blocking client: one at least, ten at most.
type Pool = r2d2::Pool<redis::Client>;

fn pool(url: String) -> Result<Pool, Box<dyn Error>> {
    Ok(Pool::builder()
        .min_idle(Some(1))
        .max_size(10)
        .build(redis::Client::open(url)?)?)
}

/// Three seconds, and a hash through the blocking client.
async fn red(State(pool): State<Option<Pool>>) -> Result<Json<Value>, String> {
    println!("a request has come");
    std::thread::sleep(Duration::from_secs(3));
    let Some(pool) = pool else { return Ok(Json(json!({}))) };
    let mut connection = pool.get().map_err(|error| error.to_string())?; // waits for one of the ten
    let mut hash = || -> RedisResult<BTreeMap<String, u32>> {
        let () = connection.hset_multiple("greenthread:web", &[("key1", 1), ("key2", 2), ("key3", 3)])?;
        connection.hgetall("greenthread:web")
    };
    hash().map(|hash| Json(json!(hash))).map_err(|error| error.to_string())
}

fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn main() -> Result<(), Box<dyn Error>> {
    monkey::patch_all()?;
    let host = option("--host").unwrap_or_else(|| String::from("127.0.0.1"));
    let port: u16 = option("--port").map_or(Ok(8000), |port| port.parse())?;
    let router = Router::new()
        .route("/", get(|| async { Json(json!({ "Hello": "World" })) }))
        .route("/index", get(|| page(String::from("Index"))))
        .route(
            "/hello/{name}",
            get(|Path(name): Path<String>| page(format!("hello, {name}!"))),
        )
        .route("/items/{item_id}", get(item))
        .route("/red", get(red))
        .with_state(option("--redis").map(pool).transpose()?);
    let server =
        HttpServer::tower(TcpListener::bind((&*host, port))?, router).access_log(|access| println!("{access}"));
    println!("listening on http://{}", server.local_addr()?);
    let handle = server.handle();
    spawn(move || signal::ctrl_c().map(|()| handle.stop(Duration::from_secs(5))));
    server.serve_forever()?;
    println!("stopped");
    Ok(())
}
