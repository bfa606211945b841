//! Three pages at once, by hyper's client on the hub, without tokio's runtime.
//!
//! ```text
//! cargo run --release --manifest-path examples/axum/Cargo.toml --bin crawler -- http://127.0.0.1:8000/slow [URL...]
//! ```
//!
//! Expect `发送请求： URL` for each, then `得到结果： URL LENGTH` for each: in the time of the slowest.

use std::time::Instant;

use greenthread::{future::block_on, http::Executor, net::TcpStream, spawn_local};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Uri, client::conn::http1, rt::Executor as _};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn page(uri: &Uri) -> Outcome<Bytes> {
    let host = uri.authority().ok_or("no host")?;
    // It waits as a green thread does: the others go on.
    let stream = TcpStream::connect((host.host(), host.port_u16().unwrap_or(80)))?;
    let (mut client, connection) = http1::handshake(stream).await?;
    Executor.execute(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header("host", host.as_str())
        .body(Empty::<Bytes>::new())?;
    Ok(client
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes())
}

fn main() -> Outcome<()> {
    let uris: Vec<Uri> = std::env::args()
        .skip(1)
        .map(|uri| uri.parse())
        .collect::<Result<_, _>>()?;
    let start = Instant::now();
    let crawlers: Vec<_> = uris
        .into_iter()
        .map(|uri| {
            spawn_local(move || {
                println!("发送请求： {uri}");
                block_on(page(&uri)).map(|page| println!("得到结果： {uri} {}", page.len()))
            })
        })
        .collect();
    for crawler in crawlers {
        crawler.join().map_err(|_| "it panicked")??;
    }
    println!("all: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
