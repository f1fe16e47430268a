//! A service for images without anything else in them: the standard library alone, built for the tests by `rustc`.
//!
//! `server` serves on port 8080, and says its version, its environment and that it is well. `server check` is its health check.
//! `FAIL`: it is not well. `HANG_HEALTH`: it does not answer whether it is. `EXIT=n`: it ends at once. `MEM=n`: it takes n MiB.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn check() -> i32 {
    let ask = || {
        let mut stream = TcpStream::connect("127.0.0.1:8080")?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.0 200") => 0,
        Ok(answer) => {
            println!("not well: {}", answer.lines().next().unwrap_or_default());
            1
        }
        Err(error) => {
            println!("no answer: {error}");
            1
        }
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path.strip_prefix("/env/") {
        Some(name) => ("200 OK", variable(name)),
        None => match path {
            "/version" => ("200 OK", variable("VERSION")),
            "/health" if !variable("HANG_HEALTH").is_empty() => {
                std::thread::sleep(Duration::from_secs(3600));
                ("200 OK", String::new())
            }
            "/health" if variable("FAIL").is_empty() => ("200 OK", "well".to_owned()),
            "/health" => ("503 Service Unavailable", "not well".to_owned()),
            _ => ("404 Not Found", String::new()),
        },
    };
    write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("check") {
        std::process::exit(check());
    }
    println!("level=info version {} begins", variable("VERSION"));
    if let Ok(code) = variable("EXIT").parse() {
        eprintln!("level=error cannot go on, secret {}", variable("DB_PASSWORD"));
        std::process::exit(code);
    }
    let listener = TcpListener::bind("0.0.0.0:8080").expect("the port");
    if let Ok(mib) = variable("MEM").parse::<usize>() {
        let taken = vec![1_u8; mib << 20].leak();
        println!("level=info took {} MiB", taken.iter().map(|byte| usize::from(*byte)).sum::<usize>() >> 20);
    }
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
}
