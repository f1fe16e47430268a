//! Whether ports that a start needs are free, and who has them.
//!
//! Asked of the kernel's lists and not by binding: a look must not be in the way of what it looks for. They tell of this machine, or
//! of the container Ripcord runs in. Who has a port is found where this user may see it: its own processes, or all as root.
//! Source: proc(5), `/proc/net/tcp`: the state `0A` listens, addresses are four-byte words in the order of this machine's bytes.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripcord_core::Failure;

/// A port that somebody listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    port: u16,
    by: Option<String>,
}

impl Taken {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Some(by) => write!(f, "port {} is in use by {by}", self.port),
            None => write!(f, "port {} is in use by a process that this user may not see", self.port),
        }
    }
}

impl From<Taken> for Failure {
    fn from(taken: Taken) -> Self {
        let advice = "stop what has the port, or see why its own former instance still has it; it was not started";
        Self::later(taken.to_string()).advise(advice)
    }
}

/// One socket that waits for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listening {
    at: IpAddr,
    port: u16,
    inode: u64,
}

/// The first of the ports that is taken, on any address that all or local callers reach it by. Blocks.
pub(crate) fn taken(ports: &[u16]) -> Result<Option<Taken>, Failure> {
    let mut listening = list("/proc/net/tcp")?;
    listening.extend(list("/proc/net/tcp6")?);
    listening.retain(|socket| in_the_way(socket.at));
    let found = ports.iter().find_map(|port| listening.iter().find(|socket| socket.port == *port));
    Ok(found.map(|socket| Taken { port: socket.port, by: owner(socket.inode) }))
}

fn in_the_way(at: IpAddr) -> bool {
    let at = at.to_canonical();
    at.is_unspecified() || at.is_loopback()
}

fn list(path: &str) -> Result<Vec<Listening>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().skip(1).filter_map(listening).collect()),
        // A kernel without the newer protocol has no list of it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(Failure::never(format!("whether ports are free is not known: `{path}`: {error}"))),
    }
}

/// One line: number, local address, remote address, state, queues, timer, retransmissions, user, time-out, inode.
fn listening(line: &str) -> Option<Listening> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    if *state != "0A" {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let words: Vec<[u8; 4]> = (0..address.len() / 8)
        .map(|n| Some(u32::from_str_radix(address.get(n * 8..n * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    let at = match words.as_slice() {
        [four] => Ipv4Addr::from(*four).into(),
        [_, _, _, _] => Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into(),
        _ => return None,
    };
    Some(Listening { at, port: u16::from_str_radix(port, 16).ok()?, inode: inode.parse().ok()? })
}

/// Who has a socket: `python3 (process 123)`. A server's workers share it; the one that was there first has the lowest number.
fn owner(inode: u64) -> Option<String> {
    let socket = format!("socket:[{inode}]");
    let names = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.file_name());
    let processes: BTreeSet<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    let process = processes.into_iter().find(|process| {
        let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|leads| leads.as_os_str() == socket.as_str()))
    })?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    Some(format!("{} (process {process})", name.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        let expected = Listening { at: Ipv4Addr::LOCALHOST.into(), port: 8080, inode: 4711 };
        assert_eq!(listening(line), cfg!(target_endian = "little").then_some(expected));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None, "a connection is nobody who listens");
        let six = line.replace("0100007F", "00000000000000000000000001000000");
        let at = listening(&six).map(|socket| socket.at);
        assert_eq!(at, cfg!(target_endian = "little").then_some(Ipv6Addr::LOCALHOST.into()));
        for damaged in ["", "sl local_address", &line.replace("1F90", "xyz"), &line.replace("0100007F", "01")] {
            assert_eq!(listening(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn addresses_that_a_start_meets_are_in_the_way() {
        for at in ["0.0.0.0", "127.0.0.1", "127.0.0.53", "::", "::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
            assert!(in_the_way(at.parse().unwrap()), "{at}");
        }
        for at in ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"] {
            assert!(!in_the_way(at.parse().unwrap()), "{at}");
        }
    }

    #[test]
    fn who_has_a_port_is_named() {
        for at in ["127.0.0.1:0", "0.0.0.0:0"] {
            let socket = TcpListener::bind(at).unwrap();
            let port = socket.local_addr().unwrap().port();
            let found = taken(&[port]).unwrap().unwrap().to_string();
            let process = format!("(process {})", std::process::id());
            assert!(found.starts_with(&format!("port {port} is in use by ")) && found.ends_with(&process), "{found}");
        }
        let unseen = Taken { port: 8080, by: None };
        assert_eq!(unseen.to_string(), "port 8080 is in use by a process that this user may not see");
    }
}
