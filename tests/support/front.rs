//! Real reverse proxies with the settings of `docker/`, in front of two servers of this machine.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::certificate;

/// A proxy, and what its settings become on this machine: other addresses, other folders, and
/// waits of 4 s instead of 60.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Below `docker/`, and where they go.
    files: &'static [(&'static str, &'static str)],
    /// Each stands there once. `{a}` and `{b}` are the replicas' ports, `{plain}` and `{tls}` its own.
    edits: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    /// The signal on which it ends at once, and all that it started with it.
    end: &'static str,
}

pub const NGINX: Kind = Kind {
    name: "nginx",
    files: &[("nginx.conf", "nginx.conf"), ("nginx-tls.conf", "tls/tls.conf")],
    edits: &[
        ("fhirtail-a:8080", "127.0.0.1:{a}"),
        ("fhirtail-b:8080", "127.0.0.1:{b}"),
        ("listen 8080", "listen 127.0.0.1:{plain}"),
        ("listen 8443", "listen 127.0.0.1:{tls}"),
        ("/etc/nginx/tls/tls.crt", "{folder}/tls.crt"),
        ("/etc/nginx/tls/tls.key", "{folder}/tls.key"),
        (
            "http {",
            "http { client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; \
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; \
             scgi_temp_path {folder}/scgi;",
        ),
        ("proxy_read_timeout 60s", "proxy_read_timeout 4s"),
        ("        send_timeout 60s", "        send_timeout 4s"),
    ],
    arguments: &[
        "-c",
        "{folder}/nginx.conf",
        "-p",
        "{folder}",
        "-e",
        "stderr",
        "-g",
        "daemon off; pid {folder}/pid; error_log stderr;",
    ],
    end: "-TERM",
};

pub const HAPROXY: Kind = Kind {
    name: "haproxy",
    files: &[("haproxy.cfg", "haproxy.cfg")],
    edits: &[
        ("fhirtail-a:8080", "127.0.0.1:{a}"),
        ("fhirtail-b:8080", "127.0.0.1:{b}"),
        ("bind :8080", "bind 127.0.0.1:{plain}"),
        ("bind :8443", "bind 127.0.0.1:{tls}"),
        ("/etc/haproxy/tls.pem", "{folder}/tls.pem"),
        // What any user may have open.
        ("maxconn 32000", "maxconn 450"),
        ("timeout client 60s", "timeout client 4s"),
        ("timeout server 60s", "timeout server 4s"),
    ],
    arguments: &["-db", "-f", "{folder}/haproxy.cfg"],
    end: "-KILL",
};

pub const CADDY: Kind = Kind {
    name: "caddy",
    files: &[("Caddyfile", "Caddyfile")],
    edits: &[
        ("fhirtail-a:8080", "127.0.0.1:{a}"),
        ("fhirtail-b:8080", "127.0.0.1:{b}"),
        (":8080 {", "http://:{plain} {\n\tbind 127.0.0.1"),
        (":8443 {", "https://:{tls} {\n\tbind 127.0.0.1"),
        ("/etc/caddy/tls.crt", "{folder}/tls.crt"),
        ("/etc/caddy/tls.key", "{folder}/tls.key"),
        ("unix//run/caddy/", "unix/{folder}/"),
    ],
    arguments: &["run", "--adapter", "caddyfile", "--config", "{folder}/Caddyfile"],
    end: "-KILL",
};

/// Runs its arguments until stdin ends, as it does when the test's process goes, however it goes.
const UNTIL_STDIN_ENDS: &str = r#""$@" & read -r _; kill "$END" $!; wait"#;

/// A running proxy.
/// The file that its standard output goes to.
const SAID: &str = "said";

#[derive(Debug)]
pub struct Front {
    child: Child,
    plain: u16,
    tls: u16,
    folder: TempDir,
}

impl Kind {
    /// Starts it in front of two servers. It may not listen yet.
    pub fn start(&self, replicas: [u16; 2]) -> Front {
        let folder = tempfile::tempdir().expect("a folder");
        let [plain, tls] = [free_port(), free_port()];
        let places = [
            ("{folder}", folder.path().display().to_string()),
            ("{plain}", plain.to_string()),
            ("{tls}", tls.to_string()),
            ("{a}", replicas[0].to_string()),
            ("{b}", replicas[1].to_string()),
        ];
        let here = |text: &str| {
            places.iter().fold(text.to_owned(), |text, (name, place)| text.replace(name, place))
        };
        issue(folder.path());
        let docker = crate::root().join("docker");
        let read = |(name, _): &(_, _)| fs::read_to_string(docker.join(name)).expect("settings");
        let mut files: Vec<_> = self.files.iter().map(read).collect();
        for (old, new) in self.edits {
            let found: usize = files.iter().map(|text| text.matches(old).count()).sum();
            assert_eq!(found, 1, "{}: {old}", self.name);
            files.iter_mut().for_each(|text| *text = text.replace(old, &here(new)));
        }
        for ((_, name), text) in self.files.iter().zip(files) {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, text).expect("written");
        }
        let program = debian(self.name);
        let mut command = Command::new("sh");
        command.args(["-c", UNTIL_STDIN_ENDS, "sh"]).arg(program.get_program());
        command.args(self.arguments.iter().map(|argument| here(argument)));
        for (name, value) in program.get_envs() {
            command.env(name, value.expect("a value"));
        }
        command.env("END", self.end).env("HOME", folder.path());
        command.env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        let shown = std::env::var_os("FHIRTAIL_SHOW_LOG").is_some();
        let log = fs::File::create(folder.path().join(SAID)).expect("a file");
        command.stdin(Stdio::piped()).stdout(log);
        command.stderr(if shown { Stdio::inherit() } else { Stdio::null() });
        Front { child: command.spawn().expect("a shell"), plain, tls, folder }
    }
}

impl Front {
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.plain)
    }

    /// Where it speaks TLS, and HTTP/2 in it; the certificate is nobody's.
    pub fn secure_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.tls)
    }
}

impl Front {
    /// What it has logged so far of what it was asked.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join(SAID)).expect("text")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A server of Debian's: on PATH, or where `tests/run` unpacked it.
pub fn debian(program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return Command::new(program);
    }
    let fetched = crate::root().join("target/debian");
    let root = std::env::var_os("FHIRTAIL_DEBIAN").map_or(fetched, PathBuf::from);
    let mut files =
        ["usr/bin", "usr/sbin"].map(|folder| root.join(folder).join(program)).into_iter();
    let file = files.find(|file| file.is_file());
    let file = file.unwrap_or_else(|| panic!("no {program}: run tests/run once, which gets it"));
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(file);
    command.env("LD_LIBRARY_PATH", root.join(libraries));
    command
}

pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    free.expect("a free port").port()
}

/// A certificate that nobody signed: `tls.crt`, `tls.key`, and both in `tls.pem`.
fn issue(folder: &Path) {
    certificate::write(folder);
    let both =
        ["tls.crt", "tls.key"].map(|name| fs::read_to_string(folder.join(name)).expect("text"));
    fs::write(folder.join("tls.pem"), both.concat()).expect("written");
}
