//! One program for every container of this example: the standard library alone, so that `rustc` builds it and an image needs nothing else.
//!
//! `service` serves on port 8080 until it is told to end. `service check` is the containers' health check. `service load URL` asks a
//! URL again and again, as people would. `service stand-in` only accepts connections: it is there where an example needs infrastructure.
//!
//! SERVICE: which of the services it is. VERSION: that of the image. BREAKS=`l09-api-gateway:30`: the mistake of a release, here that
//! one service answers 30 of 100 requests with 500. DATA_LAYER=host:port: what it asks for each request of its own.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(1);
/// Of the histogram, in seconds.
const BOUNDS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.0, 5.0];
static COUNTED: Mutex<Counted> = Mutex::new(Counted { by_status: [0; 3], at_most: [0; 7], seconds: 0.0 });

struct Counted {
    /// 200, 500 and 502.
    by_status: [u64; 3],
    at_most: [u64; 7],
    seconds: f64,
}

const STATUS: [&str; 3] = ["200", "500", "502"];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The status and the body of an answer, within a time.
fn get(host: &str, path: &str) -> Result<(String, String)> {
    let mut last = Error::other("it has no address");
    for address in host.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(10 * PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        return Ok((status, body));
    }
    Err(last)
}

/// How many of 100 requests this release answers with 500.
fn broken_share() -> u64 {
    let breaks = variable("BREAKS");
    let (service, share) = breaks.split_once(':').unwrap_or_default();
    if service == variable("SERVICE") { share.parse().unwrap_or(0) } else { 0 }
}

/// What users ask for: the number of the status that it is answered with.
fn work(number: u64) -> usize {
    let share = broken_share();
    if number * share % 100 < share {
        eprintln!("level=error service={} cannot route the request", variable("SERVICE"));
        return 1;
    }
    let data_layer = variable("DATA_LAYER");
    if data_layer.is_empty() {
        return 0;
    }
    // What it asks may just be replaced: the first answer within this time counts.
    let until = Instant::now() + 3 * PATIENCE;
    loop {
        let why = match get(&data_layer, "/version") {
            Ok((status, _)) if status == "200" => return 0,
            Ok((status, _)) => format!("it answers {status}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            eprintln!("level=error service={} cannot ask {data_layer}: {why}", variable("SERVICE"));
            return 2;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn metrics() -> String {
    let counted = COUNTED.lock().unwrap();
    let mut text = String::from("# TYPE http_requests_total counter\n");
    for (status, count) in STATUS.iter().zip(counted.by_status) {
        text.push_str(&format!("http_requests_total{{status=\"{status}\"}} {count}\n"));
    }
    text.push_str("# TYPE http_request_duration_seconds histogram\n");
    for (bound, count) in BOUNDS.iter().zip(counted.at_most) {
        text.push_str(&format!("http_request_duration_seconds_bucket{{le=\"{bound}\"}} {count}\n"));
    }
    let all: u64 = counted.by_status.iter().sum();
    text.push_str(&format!("http_request_duration_seconds_bucket{{le=\"+Inf\"}} {all}\n"));
    text.push_str(&format!("http_request_duration_seconds_sum {}\n", counted.seconds));
    text.push_str(&format!("http_request_duration_seconds_count {all}\n"));
    text
}

fn worked() -> usize {
    let began = Instant::now();
    let number: u64 = COUNTED.lock().unwrap().by_status.iter().sum();
    let status = work(number);
    let seconds = began.elapsed().as_secs_f64();
    let mut counted = COUNTED.lock().unwrap();
    counted.by_status[status] += 1;
    counted.seconds += seconds;
    for (count, _) in counted.at_most.iter_mut().zip(BOUNDS).filter(|(_, bound)| seconds <= *bound) {
        *count += 1;
    }
    status
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut header = String::new();
    // What is left unread when a connection is closed would reset it.
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (status, body) = match line.split(' ').nth(1).unwrap_or_default() {
        "/health/live" | "/health/ready" => ("200", "{\"status\":\"ok\"}\n".to_owned()),
        "/metrics" => ("200", metrics()),
        "/version" => {
            let (service, version) = (variable("SERVICE"), variable("VERSION"));
            ("200", format!("{{\"service\":\"{service}\",\"version\":\"{version}\"}}\n"))
        }
        "/" => {
            let status = STATUS[worked()];
            (status, format!("{}\n", if status == "200" { "done" } else { "failed" }))
        }
        _ => ("404", String::new()),
    };
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain; version=0.0.4" };
    let length = body.len();
    write!(stream, "HTTP/1.0 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn serve() -> Result<()> {
    println!("level=info service={} version={} begins", variable("SERVICE"), variable("VERSION"));
    for stream in TcpListener::bind("0.0.0.0:8080")?.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

/// 24 people, each of whom asks, looks at the answer, and asks again.
fn load(host: &str) -> Result<()> {
    std::thread::scope(|scope| {
        for person in 0..24 {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(person * 25));
                loop {
                    // Nobody answers for a moment while it is replaced: people try again.
                    let _ = get(host, "/");
                    std::thread::sleep(Duration::from_millis(600));
                }
            });
        }
    });
    Ok(())
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => serve(),
        ["check"] => match get("127.0.0.1:8080", "/health/ready")? {
            (status, _) if status == "200" => Ok(()),
            (status, _) => Err(Error::other(format!("it answers {status}"))),
        },
        ["load", host] => load(host),
        ["stand-in"] => TcpListener::bind("0.0.0.0:8080")?.incoming().try_for_each(|stream| stream.map(drop)),
        _ => Err(Error::other("use: service [check | load HOST:PORT | stand-in]")),
    }
}
