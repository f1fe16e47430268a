//! An application to be watched: a page of metrics, and a health endpoint that fails on demand. Connections are kept open, as
//! real servers do.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub struct Server {
    pub at: SocketAddr,
    pub failing: Arc<AtomicBool>,
}

impl Server {
    /// Serves until the program ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let failing = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let shared = Arc::clone(&failing);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let failing = Arc::clone(&shared);
                // A connection that breaks off is the other side's to open again.
                std::thread::spawn(move || serve(stream, &failing, began));
            }
        });
        Self { at, failing }
    }
}

fn serve(mut stream: TcpStream, failing: &AtomicBool, began: Instant) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while lines.read_line(&mut header)? > 2 {
            header.clear();
        }
        let (status, body) = match request.split(' ').nth(1) {
            Some("/metrics") => ("200 OK", metrics(began.elapsed().as_secs_f64())),
            _ if failing.load(Ordering::SeqCst) => ("503 Service Unavailable", "failing".to_owned()),
            _ => ("200 OK", "fine".to_owned()),
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes())?;
    }
}

/// What a small web application shows of itself: some 200 lines, in Prometheus' text format.
fn metrics(seconds: f64) -> String {
    let mut page = String::from("# TYPE http_requests_total counter\n");
    for route in 0..20 {
        for (status, rate) in [("200", 50.0), ("404", 1.0), ("500", 0.1)] {
            let count = (seconds * rate) as u64 + route;
            page += &format!("http_requests_total{{route=\"/r{route}\",status=\"{status}\"}} {count}\n");
        }
    }
    page += "# TYPE http_request_duration_seconds histogram\n";
    for route in 0..10 {
        let count = seconds * 50.0;
        for (bound, share) in [("0.05", 0.5), ("0.1", 0.8), ("0.25", 0.9), ("0.5", 0.95), ("1", 0.99), ("+Inf", 1.0)] {
            let below = (count * share) as u64;
            page += &format!("http_request_duration_seconds_bucket{{route=\"/r{route}\",le=\"{bound}\"}} {below}\n");
        }
        page += &format!("http_request_duration_seconds_sum{{route=\"/r{route}\"}} {}\n", count * 0.08);
        page += &format!("http_request_duration_seconds_count{{route=\"/r{route}\"}} {}\n", count as u64);
    }
    page += "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 52428800\n";
    page
}
