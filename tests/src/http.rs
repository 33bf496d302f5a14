//! A request of HTTP, without a client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

/// Asks `place` (`host:port`) for `path`; returns the status and the body.
pub fn get(place: &str, path: &str) -> Result<(u16, String)> {
    ask(place, &format!("GET {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n"))
}

/// Sends JSON to `path` of `place`; returns the status and the body.
pub fn post(place: &str, path: &str, body: &str) -> Result<(u16, String)> {
    send("POST", place, path, body)
}

/// Puts JSON at `path` of `place`; returns the status and the body.
pub fn put(place: &str, path: &str, body: &str) -> Result<(u16, String)> {
    send("PUT", place, path, body)
}

fn send(method: &str, place: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    ask(place, &(head + body))
}

fn ask(place: &str, request: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(place)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok((status.context("no status")?, body.to_string()))
}
