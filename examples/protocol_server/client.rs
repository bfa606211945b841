//! The client: it says each command, and prints the answer. The first line comes unasked.

use std::io::{self, ErrorKind::UnexpectedEof};

use greenthread::net::TcpStream;

pub(crate) fn green(address: &str, commands: &[String]) -> io::Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let stream = TcpStream::connect(address)?;
    let mut answers = BufReader::new(&stream).lines();
    println!("{}", answers.next().ok_or(UnexpectedEof)??);
    for command in commands {
        (&stream).write_all(format!("{command}\n").as_bytes())?;
        println!("{}", answers.next().ok_or(UnexpectedEof)??);
    }
    Ok(())
}

pub(crate) async fn asynchronous(address: &str, commands: &[String]) -> io::Result<()> {
    use futures::{AsyncBufReadExt, AsyncWriteExt, StreamExt, io::BufReader};
    let stream = TcpStream::connect(address)?; // a task may block too
    let mut answers = BufReader::new(&stream).lines();
    println!("{}", answers.next().await.ok_or(UnexpectedEof)??);
    for command in commands {
        (&stream).write_all(format!("{command}\n").as_bytes()).await?;
        println!("{}", answers.next().await.ok_or(UnexpectedEof)??);
    }
    Ok(())
}
