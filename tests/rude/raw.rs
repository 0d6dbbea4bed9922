//! A client that says just what it is told to, byte by byte.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// How long a server may take to let go of whoever misbehaves.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A socket with little room for what it does not read.
pub(crate) async fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small one");
    socket.connect(server).await.expect("a connection")
}

/// Says all of it, unless the server goes first.
pub(crate) async fn say(socket: &mut TcpStream, bytes: &[u8]) -> bool {
    let said = timeout(PATIENCE, socket.write_all(bytes)).await;
    said.expect("the server takes it, or goes").is_ok()
}

/// Of how many connections the server has its end: nothing is read for that.
pub(crate) fn standing(sockets: &[TcpStream]) -> usize {
    let ends = Ends::now();
    sockets.iter().filter(|socket| ends.stands(socket)).count()
}

/// A connection's end, as the kernel lists it: its address, and the other's.
type End = [String; 2];

/// `None`: it was reset.
fn server_end(socket: &TcpStream) -> Option<End> {
    let hex = |address: std::io::Result<SocketAddr>| match address {
        Ok(SocketAddr::V4(v4)) => {
            Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()))
        }
        Ok(SocketAddr::V6(v6)) => panic!("{v6}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotConnected => None,
        Err(error) => panic!("{error}"),
    };
    Some([hex(socket.peer_addr())?, hex(socket.local_addr())?])
}

/// The ends that are open (`/proc/net/tcp`), and how many bytes of each no client has taken. The list
/// may be long: who asks again and again asks once for all.
pub(crate) struct Ends(HashMap<End, usize>);

impl Ends {
    pub(crate) fn now() -> Self {
        let all = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
        let ends = all.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let untaken = words[4].split_once(':').map(|(untaken, _)| untaken);
            let untaken = untaken.and_then(|hex| usize::from_str_radix(hex, 16).ok());
            // Established, or the client alone has closed.
            let is_open = ["01", "08"].contains(&words[3]);
            is_open.then(|| ([words[1].into(), words[2].into()], untaken.unwrap_or_default()))
        });
        Self(ends.collect())
    }

    fn untaken(&self, socket: &TcpStream) -> Option<usize> {
        self.0.get(&server_end(socket)?).copied()
    }

    /// Whether the server has its end of a connection.
    pub(crate) fn stands(&self, socket: &TcpStream) -> bool {
        self.untaken(socket).is_some()
    }

    /// Whether it holds as much for it as it may (256 KB), since the client takes no more.
    pub(crate) fn is_full(&self, socket: &TcpStream) -> bool {
        self.untaken(socket).is_some_and(|untaken| untaken >= 256 << 10)
    }
}

/// All that comes until the server lets go, which it does.
pub(crate) async fn hear(socket: &mut TcpStream) -> Vec<u8> {
    timeout(PATIENCE, heard(socket)).await.expect("the server lets go")
}

async fn heard(socket: &mut TcpStream) -> Vec<u8> {
    heard_until(socket, |_| false).await
}

/// What comes until it is enough, or the server lets go.
async fn heard_until(socket: &mut TcpStream, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut part = vec![0; 64 << 10];
    while !is_enough(&heard) {
        match socket.read(&mut part).await {
            Ok(count @ 1..) => heard.extend_from_slice(&part[..count]),
            _ => break,
        }
    }
    heard
}

/// Says it, and hears all that comes; the statuses of it. None of them is a failure.
pub(crate) async fn ask(server: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    ask_until(server, bytes, |_| false).await
}

/// Says it, and hears no more than the head of what comes; the status of it, which is no failure.
pub(crate) async fn ask_for_head(server: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    ask_until(server, bytes, |heard| heard.windows(4).any(|part| part == b"\r\n\r\n")).await
}

async fn ask_until(
    server: SocketAddr,
    bytes: &[u8],
    is_enough: impl Fn(&[u8]) -> bool,
) -> Vec<u16> {
    let mut socket = connect(server).await;
    say(&mut socket, bytes).await;
    let said = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let heard = timeout(PATIENCE, heard_until(&mut socket, is_enough)).await;
    let statuses =
        statuses(&heard.unwrap_or_else(|_| panic!("{said}: the server does not let go")));
    assert!(statuses.iter().all(|status| *status < 500), "{said}: {statuses:?}");
    statuses
}

/// The statuses of answers that came one after the other.
pub(crate) fn statuses(heard: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(heard);
    let answers = text.split("HTTP/1.1 ").skip(1);
    answers.map(|answer| answer[..3].parse().expect("a status")).collect()
}

/// A request of this head and body that asks for the connection's end.
pub(crate) fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/fhir+json\r\nContent-Length: {length}\r\n"),
    };
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n{body}").into()
}
