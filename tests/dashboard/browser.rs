//! A headless Chromium, driven by chromedriver over the WebDriver protocol (W3C).

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use support::{client, stream::PATIENCE};

/// What a page does before any script of its own: notes errors.
const WATCH: &str = "
    globalThis.faults = [];
    addEventListener('error', event => faults.push('error: ' + event.message));
    addEventListener('unhandledrejection', event => faults.push('rejected: ' + event.reason));
    addEventListener('securitypolicyviolation', event =>
        faults.push(event.violatedDirective + ': ' + event.blockedURI));
";

/// What of Chromium's trace is recorded: each task of each thread, and the threads' names. Nothing
/// that comes with each event of a stream, or the record is full before its end.
const TASKS: &str = "toplevel,__metadata";

/// A task of the page's main thread, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// From its start to its end: others that have the cores count too.
    pub(crate) wall: f64,
    /// For how long the thread ran.
    pub(crate) cpu: f64,
}

/// A browser with one window. It ends when dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    http: Client,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        Self::with(json!({}), false).await
    }

    /// One that takes any certificate.
    pub(crate) async fn trusting() -> Self {
        Self::with(json!({}), true).await
    }

    /// One that records its tasks: see [`tasks`](Self::tasks).
    pub(crate) async fn recording() -> Self {
        // Without word of each event of the stream, which would cost more than the page itself.
        let log = json!({"enableNetwork": false, "enablePage": false, "traceCategories": TASKS});
        Self::with(json!({"perfLoggingPrefs": log}), false).await
    }

    async fn with(mut options: Value, trusting: bool) -> Self {
        let named = std::env::var_os("CHROMEDRIVER").unwrap_or_else(|| "chromedriver".into());
        let mut driver = Command::new(named)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (Debian: chromium-driver; tests/run installs it)");
        let mut lines = BufReader::new(driver.stdout.take().expect("stdout")).lines();
        let port = loop {
            let line = lines.next().expect("a line that says the port").expect("text");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').parse().expect("a port");
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let mut browser = Self { driver, port, session: String::new(), http: client() };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1600,1000",
        ];
        options["args"] = json!(arguments);
        let mut wanted = json!({"goog:chromeOptions": options, "acceptInsecureCerts": trusting});
        if options.get("perfLoggingPrefs").is_some() {
            wanted["goog:loggingPrefs"] = json!({"performance": "ALL"});
        }
        let asked = json!({"capabilities": {"alwaysMatch": wanted}});
        let session = browser.call(Method::POST, "/session", &asked).await;
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        let watch = json!({"source": WATCH});
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", watch).await;
        browser
    }

    /// Opens a page, and waits until its scripts have run.
    pub(crate) async fn open(&self, url: &str) {
        self.command("/url", &json!({"url": url})).await;
    }

    /// What a script returns; a promise is waited for.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []})).await
    }

    /// What an expression on the page's model and stream gives: `page.model`, `page.stream`.
    pub(crate) async fn ask(&self, expression: &str) -> Value {
        self.run(&format!("return import('/dashboard/app.js').then(page => {expression})")).await
    }

    /// Waits until an expression on the page's model and stream is true. Returns how long that
    /// took.
    pub(crate) async fn until(&self, expression: &str) -> Duration {
        self.wait(&format!("import('/dashboard/app.js').then(page => {expression})")).await
    }

    /// The same for an expression on whatever page is open.
    pub(crate) async fn wait(&self, expression: &str) -> Duration {
        let start = Instant::now();
        while self.run(&format!("return {expression}")).await != Value::Bool(true) {
            if start.elapsed() > PATIENCE {
                let text = self.run("return document.body.innerText.slice(0, 1500)").await;
                panic!("never: {expression}\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }

    pub(crate) async fn until_live(&self) {
        self.until("page.stream.isLive").await;
    }

    /// What the page shows of an element.
    pub(crate) async fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').textContent")).await;
        text.as_str().expect("text").to_owned()
    }

    /// Presses a key, by its character (W3C WebDriver, "Keyboard actions").
    pub(crate) async fn press(&self, key: &str) {
        let strokes = ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": key}));
        let keys = json!({"type": "key", "id": "keys", "actions": strokes});
        self.command("/actions", &json!({"actions": [keys]})).await;
    }

    /// Moves the mouse to the middle of an element.
    pub(crate) async fn point(&self, id: &str) {
        let middle = format!(
            "const {{x, y, width, height}} = document.getElementById('{id}').getBoundingClientRect();
            return [x + width / 2, y + height / 2].map(Math.round)"
        );
        let middle = self.run(&middle).await;
        let moves = json!({"type": "pointerMove", "x": middle[0], "y": middle[1]});
        let mouse = json!({"type": "pointer", "id": "mouse", "actions": [moves]});
        self.command("/actions", &json!({"actions": [mouse]})).await;
    }

    /// The tasks of the page's main thread, in their order. This ends the record.
    pub(crate) async fn tasks(self) -> Vec<Task> {
        let log = self.command("/se/log", &json!({"type": "performance"})).await;
        let events = log.as_array().expect("a log").iter().map(|line| {
            let line = line["message"].as_str().expect("a message");
            let mut message: Value = serde_json::from_str(line).expect("JSON");
            message["message"]["params"].take()
        });
        let events: Vec<Value> = events.collect();
        let thread = |event: &Value| (event["pid"].as_u64(), event["tid"].as_u64());
        let is_main = |event: &&Value| event["args"]["name"] == "CrRendererMain";
        let main: HashSet<_> = events.iter().filter(is_main).map(thread).collect();
        let is_task = |event: &&Value| {
            event["name"] == "ThreadControllerImpl::RunTask" && main.contains(&thread(event))
        };
        // One that is under way has no times yet.
        let task = |event: &Value| {
            let ms = |name: &str| event[name].as_f64().map(|time| time / 1000.0);
            Some((ms("ts")?, Task { wall: ms("dur")?, cpu: ms("tdur")? }))
        };
        let mut tasks: Vec<_> = events.iter().filter(is_task).filter_map(task).collect();
        tasks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let tasks: Vec<_> = tasks.into_iter().map(|(_, task)| task).collect();
        assert!(tasks.len() > 100, "a page has tasks: {} of {}", tasks.len(), events.len());
        tasks
    }

    /// Nothing failed on the page, and nothing was against its policy.
    pub(crate) async fn assert_sound(&self) {
        assert_eq!(self.run("return globalThis.faults").await, json!([]));
    }

    /// A command of Chromium's own protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": command, "params": parameters})).await
    }

    pub(crate) async fn view(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 720,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// A picture, for who looks: written where `FHIRTAIL_SCREENSHOTS` says.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("FHIRTAIL_SCREENSHOTS").map(PathBuf::from) else {
            return;
        };
        self.run("return new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
            .await;
        let whole = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.devtools("Page.captureScreenshot", whole).await;
        let data = picture["data"].as_str().expect("base64");
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data);
        std::fs::create_dir_all(&folder).expect("the folder");
        std::fs::write(folder.join(format!("{name}.png")), bytes.expect("base64")).expect("a file");
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        self.call(Method::POST, &format!("/session/{}{path}", self.session), body).await
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = self.http.request(method, url).body(body.to_string()).send();
        let answer = request.await.expect("chromedriver answers");
        let text = answer.text().await.expect("text");
        let mut answer: Value = serde_json::from_str(&text).expect("JSON");
        let value = answer["value"].take();
        assert_eq!(value["error"], Value::Null, "{path}: {value}");
        value
    }

    /// Ends the session, so that chromedriver ends its browser.
    fn end_session(&self) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(
            socket,
            "DELETE /session/{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            self.session
        )?;
        // It answers when the browser has gone, and keeps the connection.
        socket.read(&mut [0; 1024]).map(drop)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.end_session();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
