//! nchan, the peer: Debian's nginx with its publish/subscribe module, one worker, everything else
//! as it comes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    proc,
    seed::{Observation, Pace},
};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// How it is got where it is missing.
pub(crate) const HINT: &str =
    "nchan is not measured: it is had by 'apt-get install nginx-light libnginx-mod-nchan'";

/// Where subscribers go.
pub(crate) const SUBSCRIBE: &str = "/sub";

/// nginx, where it and its module are installed.
pub(crate) fn binary() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join("nginx")).find(|file| file.is_file());
    found.filter(|_| Path::new(MODULE).is_file())
}

/// Runs its arguments until stdin ends, as it does when this process goes, however it goes.
const UNTIL_STDIN_ENDS: &str = r#""$@" & nginx=$!; cat >/dev/null; kill $nginx; wait"#;

/// A running nginx with one channel.
pub(crate) struct Nchan {
    shell: Child,
    pub(crate) worker: u32,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Nchan {
    pub(crate) fn start(binary: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration(folder.path(), address))?;
        let shell = Command::new("sh")
            .args(["-c", UNTIL_STDIN_ENDS, "sh"])
            .arg(binary)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut nchan = Self { shell, worker: 0, address, _folder: folder };
        nchan.worker = nchan.wait_for_worker()?;
        Ok(nchan)
    }

    fn wait_for_worker(&self) -> Result<u32> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            let masters = proc::children(self.shell.id())?;
            let workers =
                masters.into_iter().flat_map(|pid| proc::children(pid).unwrap_or_default());
            if let Some(worker) = workers.collect::<Vec<_>>().first()
                && TcpStream::connect(self.address).is_ok()
            {
                return Ok(*worker);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nginx does not listen");
    }

    /// Publishes Observations over one connection, one after the other.
    ///
    /// # Errors
    /// nchan refuses one.
    pub(crate) fn publish(
        address: SocketAddr,
        seqs: impl Iterator<Item = u32>,
        rate: Option<f64>,
    ) -> Result<()> {
        let mut publisher = Publisher::connect(address)?;
        let pace = Pace::start(rate);
        for (sent, seq) in (0..).zip(seqs) {
            publisher.post(&Observation::made(seq, pace.wait(sent)).json())?;
        }
        Ok(())
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "load_module {MODULE};
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 60000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  server {{
    listen {address} backlog=4096;
    location = /pub {{
      nchan_publisher; nchan_channel_id bench;
      nchan_message_buffer_length 20000; nchan_message_timeout 10m;
    }}
    location = {SUBSCRIBE} {{
      nchan_subscriber eventsource; nchan_channel_id bench;
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"
    )
}

/// A connection that stays open from request to request.
struct Publisher {
    stream: BufReader<TcpStream>,
}

impl Publisher {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn post(&mut self, body: &str) -> Result<()> {
        let length = body.len();
        let request = format!(
            "POST /pub HTTP/1.1\r\nHost: nchan\r\nX-EventSource-Event: Observation\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 20"), "nchan answers: {line}");
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().context("a length")?;
            }
        }
        std::io::copy(&mut self.stream.by_ref().take(length), &mut std::io::sink())?;
        Ok(())
    }
}
