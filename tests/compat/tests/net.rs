//! Crates that speak over sockets: HTTP, WebSocket, TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use compat::{answer, at_once, http_server, ms, patched};
use greenthread::spawn;

#[test]
fn ureq_http() {
    patched(|| {
        let address = http_server(ms(100));
        let bodies = at_once(ms(100), move |n| {
            let mut response = ureq::get(format!("http://{address}/page/{n}")).call().unwrap();
            response.body_mut().read_to_string().unwrap()
        });
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(*body, format!("/page/{n}"));
        }
    });
}

#[test]
fn reqwest_blocking() {
    patched(|| {
        let address = http_server(ms(100));
        let client = reqwest::blocking::Client::new();
        let bodies = at_once(ms(100), move |n| {
            client
                .get(format!("http://{address}/{n}"))
                .send()
                .unwrap()
                .text()
                .unwrap()
        });
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(*body, format!("/{n}"));
        }
    });
}

#[test]
fn curl_a_c_library() {
    patched(|| {
        let address = http_server(ms(100));
        let bodies = at_once(ms(100), move |n| {
            let mut easy = curl::easy::Easy::new();
            easy.url(&format!("http://{address}/{n}")).unwrap();
            let mut body = Vec::new();
            {
                let mut transfer = easy.transfer();
                transfer
                    .write_function(|data| {
                        body.extend_from_slice(data);
                        Ok(data.len())
                    })
                    .unwrap();
                transfer.perform().unwrap();
            }
            String::from_utf8(body).unwrap()
        });
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(*body, format!("/{n}"));
        }
    });
}

#[test]
fn tungstenite() {
    patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                spawn(move || {
                    let mut socket = tungstenite::accept(stream).unwrap();
                    while let Ok(message) = socket.read() {
                        if message.is_text() {
                            std::thread::sleep(ms(50));
                            socket.send(message).unwrap();
                        }
                    }
                });
            }
        });
        let answers = at_once(ms(50), move |n| {
            let (mut socket, _) = tungstenite::connect(format!("ws://{address}/")).unwrap();
            socket.send(format!("hello {n}").into()).unwrap();
            let answer = socket.read().unwrap().into_text().unwrap();
            socket.close(None).unwrap();
            answer.to_string()
        });
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(*answer, format!("hello {n}"));
        }
    });
}

/// A self-signed certificate for localhost, and its key.
fn certificate() -> (
    rcgen::CertifiedKey<rcgen::KeyPair>,
    rustls::pki_types::CertificateDer<'static>,
) {
    let made = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    let der = made.cert.der().clone();
    (made, der)
}

/// A TLS server by rustls, thread per connection, that answers each line with itself after 50 ms.
fn tls_server() -> (std::net::SocketAddr, rustls::pki_types::CertificateDer<'static>) {
    let (made, der) = certificate();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            let (config, stream) = (config.clone(), stream.unwrap());
            spawn(move || {
                let session = rustls::ServerConnection::new(config).unwrap();
                let mut lines = BufReader::new(rustls::StreamOwned::new(session, stream));
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    std::thread::sleep(ms(50));
                    lines.get_mut().write_all(line.as_bytes()).unwrap();
                    line.clear();
                }
            });
        }
    });
    (address, der)
}

#[test]
fn rustls_both_ends() {
    patched(|| {
        let (address, der) = tls_server();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        let answers = at_once(ms(50), move |n| {
            let name = "localhost".try_into().unwrap();
            let session = rustls::ClientConnection::new(config.clone(), name).unwrap();
            let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(address).unwrap());
            writeln!(stream, "hello {n}").unwrap();
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        });
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(*answer, format!("hello {n}\n"));
        }
    });
}

#[test]
fn native_tls() {
    patched(|| {
        let (address, der) = tls_server();
        let root = native_tls::Certificate::from_der(&der).unwrap();
        let connector = native_tls::TlsConnector::builder()
            .add_root_certificate(root)
            .build()
            .unwrap();
        let connector = Arc::new(connector);
        let answers = at_once(ms(50), move |n| {
            let stream = TcpStream::connect(address).unwrap();
            let mut stream = connector.connect("localhost", stream).unwrap();
            writeln!(stream, "hello {n}").unwrap();
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        });
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(*answer, format!("hello {n}\n"));
        }
    });
}

#[test]
fn ureq_https() {
    patched(|| {
        let (made, der) = certificate();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        spawn(move || {
            for stream in listener.incoming() {
                let (config, stream) = (config.clone(), stream.unwrap());
                spawn(move || {
                    let session = rustls::ServerConnection::new(config).unwrap();
                    let mut stream = BufReader::new(rustls::StreamOwned::new(session, stream));
                    let mut line = String::new();
                    while stream.read_line(&mut line).unwrap() > 2 {
                        line.clear();
                    }
                    std::thread::sleep(ms(50));
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nsafe";
                    stream.get_mut().write_all(answer).unwrap();
                });
            }
        });
        let root = ureq::tls::Certificate::from_der(&der).to_owned();
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::new_with_certs(&[root]))
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
        at_once(ms(50), move |_| {
            let mut response = agent.get(format!("https://localhost:{port}/")).call().unwrap();
            assert_eq!(response.body_mut().read_to_string().unwrap(), "safe");
        });
    });
}

#[test]
fn socket2() {
    use socket2::{Domain, Socket, Type};
    patched(|| {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(128).unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || {
            loop {
                let (stream, _) = listener.accept().unwrap();
                spawn(move || answer(&stream.into(), ms(50)));
            }
        });
        at_once(ms(50), move |n| {
            let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.connect_timeout(&address, ms(1000)).unwrap();
            write!(socket, "GET /{n} HTTP/1.1\r\n\r\n").unwrap();
            let mut buffer = [0; 200];
            let read = socket.read(&mut buffer).unwrap();
            assert!(buffer[..read].ends_with(format!("/{n}").as_bytes()));
        });
    });
}
