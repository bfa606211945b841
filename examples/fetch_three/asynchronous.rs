//! hyper's client on the hub, in tasks.

use greenthread::future;
use greenthread::http::Executor;
use greenthread::net::TcpStream;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::rt::Executor as _;
use hyper::{Request, Uri};

use super::{Outcome, Program, servers};

async fn get(url: &str) -> Outcome<Bytes> {
    let uri: Uri = url.parse()?;
    let host = uri.authority().ok_or("no host")?;
    let stream = TcpStream::connect((host.host(), host.port_u16().unwrap_or(80)))?; // a task may block too
    let (mut client, connection) = http1::handshake(stream).await?;
    Executor.execute(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header("host", host.as_str());
    let reply = client.send_request(request.body(Empty::<Bytes>::new())?).await?;
    Ok(reply.into_body().collect().await?.to_bytes())
}

pub(crate) fn main(args: Vec<String>) -> Outcome {
    let program = Program::new(args, servers::http_on_threads)?;
    program.run(|url, done| {
        future::spawn(async move {
            println!("request: {url}");
            let page = get(&url).await?;
            done(&url, &page)
        })
    })
}
