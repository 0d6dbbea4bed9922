//! A TCP proxy on 127.0.0.1 that does to connections what networks do, and that may stand before
//! many as a balancer.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What becomes of connections. Each has a number, in the order in which they came.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// Nothing passes, and nothing is said of it.
    hole: bool,
    /// How long whatever passes is held up.
    delay: Duration,
    /// Connections before this one are reset.
    cut: u64,
    /// Nothing passes on connections before this one, ever, though they stay open.
    forgotten: u64,
    /// How many there were.
    accepted: u64,
}

/// What was done to connections.
#[derive(Debug, Default)]
struct Deeds {
    /// How many there are.
    open: AtomicUsize,
    /// How often something came that was not passed on.
    held: AtomicUsize,
}

/// A proxy; it ends when dropped, and its connections with it.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    /// Connections go to these in turn, past those that take none.
    targets: Arc<Mutex<Vec<u16>>>,
    weather: Arc<watch::Sender<Weather>>,
    deeds: Arc<Deeds>,
    accepts: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Passes on what comes to a port of its own.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let targets = Arc::new(Mutex::new(vec![target]));
        let deeds = Arc::<Deeds>::default();
        let accepts =
            tokio::spawn(accept(listener, targets.clone(), weather.clone(), deeds.clone()));
        Self { port, targets, weather, deeds, accepts }
    }

    /// From now on new connections go to these in turn, past those that take none.
    pub fn send_to(&self, targets: Vec<u16>) {
        *self.targets.lock().expect("no panic while locked") = targets;
    }

    /// Whatever passes is held up for so long.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Resets all connections that there are. Returns how many that is.
    pub fn cut(&self) -> usize {
        let open = self.deeds.open.load(SeqCst);
        self.weather.send_modify(|weather| weather.cut = weather.accepted);
        open
    }

    /// How often something came that was not passed on, or is yet to be.
    pub fn held(&self) -> usize {
        self.deeds.held.load(SeqCst)
    }

    /// From now on nothing passes, on old connections and new ones.
    pub fn swallow(&self) {
        self.weather.send_modify(|weather| weather.hole = true);
    }

    /// What came meanwhile passes late; delays end.
    pub fn clear(&self) {
        self.weather.send_modify(|weather| (weather.hole, weather.delay) = Default::default());
    }

    /// New connections work; over those that there are nothing ever passes again, as where a
    /// firewall has lost its tables.
    pub fn forget(&self) {
        self.weather.send_modify(|weather| {
            weather.forgotten = weather.accepted;
            (weather.hole, weather.delay) = Default::default();
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
        self.weather.send_modify(|weather| weather.cut = u64::MAX);
    }
}

async fn accept(
    listener: TcpListener,
    targets: Arc<Mutex<Vec<u16>>>,
    weather: Arc<watch::Sender<Weather>>,
    deeds: Arc<Deeds>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let number = weather.borrow().accepted;
        weather.send_modify(|weather| weather.accepted += 1);
        let mut targets = targets.lock().expect("no panic while locked").clone();
        let first = usize::try_from(number).expect("a count") % targets.len().max(1);
        targets.rotate_left(first);
        let (weather, deeds) = (weather.subscribe(), deeds.clone());
        tokio::spawn(async move {
            deeds.open.fetch_add(1, SeqCst);
            connection(client, targets, number, weather, &deeds.held).await;
            deeds.open.fetch_sub(1, SeqCst);
        });
    }
}

async fn connection(
    mut client: TcpStream,
    targets: Vec<u16>,
    number: u64,
    mut weather: watch::Receiver<Weather>,
    held: &AtomicUsize,
) {
    // A client that drops a connection without a word must not find the proxy waiting for ever.
    let (up, down) = (weather.clone(), weather.clone());
    let passing = async {
        let Some(mut server) = reach(&targets).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            () = pass(&mut from_client, &mut to_server, number, up, held) => {}
            () = pass(&mut from_server, &mut to_client, number, down, held) => {}
        }
    };
    tokio::select! {
        () = passing => {}
        _ = weather.wait_for(|weather| number < weather.cut) => {}
    }
    // What ends here ends with a reset.
    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
}

/// The first of them that takes a connection.
async fn reach(targets: &[u16]) -> Option<TcpStream> {
    for target in targets {
        if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, *target)).await {
            return Some(server);
        }
    }
    None
}

/// Passes on what comes, until either end is over. That an end is over passes no more than bytes do.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    number: u64,
    mut weather: watch::Receiver<Weather>,
    held: &AtomicUsize,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        let delay = weather.borrow().delay;
        tokio::time::sleep(delay).await;
        let passes = |weather: &Weather| !weather.hole && number >= weather.forgotten;
        if !passes(&weather.borrow()) {
            held.fetch_add(1, SeqCst);
        }
        if weather.wait_for(passes).await.is_err() {
            return;
        }
        let Ok(count @ 1..) = read else { return };
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
