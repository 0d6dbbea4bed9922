//! What can be set: one struct per concern, each value also from a `FHIRTAIL_…` variable.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use axum::http::HeaderValue;
use clap::Args;

use crate::{live::HubOptions, store::embedded::EmbeddedOptions};

/// The store where none is named.
pub const DEFAULT_STORE: &str = "./fhirtail-data";

/// Where the server listens, and who may come.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address and port; port 0 takes a free one
    #[arg(long, env = "FHIRTAIL_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,

    /// Listen on an address that others can reach, though nobody is asked who they are
    #[arg(long, env = "FHIRTAIL_INSECURE_PUBLIC")]
    pub insecure_public: bool,

    /// Origins whose pages may read from here, separated by commas; '*' is any
    #[arg(long, env = "FHIRTAIL_CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGIN")]
    pub cors_origins: Vec<HeaderValue>,
}

/// With what connections are encrypted, if they are.
#[derive(Debug, Clone, Args)]
pub struct TlsArgs {
    /// The server's certificate and those that lead to its root (PEM): all connections are TLS,
    /// with HTTP/2 for who speaks it. Read again when the files change
    #[arg(long, env = "FHIRTAIL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's key (PEM, not encrypted)
    #[arg(long, env = "FHIRTAIL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// Which store.
#[derive(Debug, Clone, Args)]
pub struct StoreName {
    /// A directory (embedded store), or mongodb://…/DATABASE (MongoDB)
    #[arg(
        long,
        env = "FHIRTAIL_STORE",
        default_value = DEFAULT_STORE,
        value_name = "STORE",
        hide_env_values = true
    )]
    pub store: String,
}

/// Where the resources are, and what is kept of them.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    #[allow(missing_docs, reason = "a text here would stand in for the command's own")]
    #[command(flatten)]
    pub name: StoreName,

    /// Embedded store: how long a snapshot may be read (seconds)
    #[arg(long, env = "FHIRTAIL_SNAPSHOT_LIFE", default_value = "300", value_name = "S",
          value_parser = some_seconds)]
    pub snapshot_life: Duration,

    /// Embedded store: how many bytes of changes are kept for who comes back
    #[arg(long, env = "FHIRTAIL_LOG_BYTES", default_value_t = 1 << 30, value_name = "BYTES",
          value_parser = at_least_one::<u64>)]
    pub log_bytes: u64,

    /// Embedded store: for how long changes are kept for who comes back (seconds)
    #[arg(long, env = "FHIRTAIL_LOG_AGE", default_value = "604800", value_name = "S",
          value_parser = some_seconds)]
    pub log_age: Duration,

    /// Embedded store: how many bytes of its file are kept in memory
    #[arg(long, env = "FHIRTAIL_CACHE_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub cache_bytes: usize,
}

impl StoreArgs {
    /// What of it an embedded store takes.
    #[must_use]
    pub fn embedded(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            snapshot_life: self.snapshot_life,
            log_bytes: self.log_bytes,
            log_age: self.log_age,
            cache_bytes: self.cache_bytes,
            ..EmbeddedOptions::default()
        }
    }
}

/// How streams behave.
#[derive(Debug, Clone, Args)]
pub struct StreamArgs {
    /// After how much silence a stream gets a comment, any other answer a blank line (seconds)
    #[arg(long, env = "FHIRTAIL_KEEP_ALIVE", default_value = "15", value_name = "S",
          value_parser = some_seconds)]
    pub keep_alive: Duration,

    /// How long a client of an ended stream is asked to wait (seconds)
    #[arg(long, env = "FHIRTAIL_RETRY", default_value = "3", value_name = "S",
          value_parser = seconds)]
    pub retry: Duration,

    /// Over how much time open streams end when the server stops (seconds)
    #[arg(long, env = "FHIRTAIL_DRAIN", default_value = "5", value_name = "S",
          value_parser = seconds)]
    pub drain: Duration,

    /// After how long a client that takes nothing is let go (seconds)
    #[arg(long, env = "FHIRTAIL_WRITE_DEADLINE", default_value = "30", value_name = "S",
          value_parser = some_seconds)]
    pub write_deadline: Duration,

    /// How long a client may take to ask: for the head of a request, and between two parts of
    /// its body (seconds)
    #[arg(long, env = "FHIRTAIL_READ_DEADLINE", default_value = "30", value_name = "S",
          value_parser = some_seconds)]
    pub read_deadline: Duration,

    /// The largest body that is read (bytes)
    #[arg(long, env = "FHIRTAIL_BODY_LIMIT", default_value_t = 32 << 20, value_name = "BYTES")]
    pub body_limit: usize,
}

/// How many streams there may be where nobody says, and the limit of open files leaves room.
pub const USUAL_STREAMS: usize = 20_000;

/// How much at once.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitArgs {
    /// How many streams there may be at once, as far as the limit of open files leaves room
    #[arg(long, env = "FHIRTAIL_MAX_STREAMS", default_value_t = USUAL_STREAMS, value_name = "N")]
    pub max_streams: usize,

    /// How many of them to one address; without it, as many as there may be
    #[arg(long, env = "FHIRTAIL_MAX_STREAMS_PER_ADDRESS", value_name = "N")]
    pub max_streams_per_address: Option<usize>,

    /// How many histories are read at once; event streams wait for their turn
    #[arg(long, env = "FHIRTAIL_MAX_SCANS", default_value_t = 64, value_name = "N",
          value_parser = at_least_one::<usize>)]
    pub max_scans: usize,
}

/// The live part.
#[derive(Debug, Clone, Copy, Args)]
pub struct LiveArgs {
    /// How many bytes of changes the ring holds for clients that come back or lag
    #[arg(long, env = "FHIRTAIL_RING_BYTES", default_value_t = 32 << 20, value_name = "BYTES")]
    pub ring_bytes: usize,

    /// How far before its start the ring begins (seconds)
    #[arg(long, env = "FHIRTAIL_LOOK_BACK", default_value = "300", value_name = "S",
          value_parser = seconds)]
    pub look_back: Duration,

    /// How many readers of the change log (MongoDB: change streams) may be open at once: one for
    /// the ring, the others for clients behind it; never fewer than two
    #[arg(long, env = "FHIRTAIL_CATCH_UPS", default_value_t = 8, value_name = "N")]
    pub catch_ups: usize,
}

impl From<LiveArgs> for HubOptions {
    fn from(args: LiveArgs) -> Self {
        Self { ring_bytes: args.ring_bytes, look_back: args.look_back, readers: args.catch_ups }
    }
}

/// Everything that a server takes, whatever its store.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Where it listens.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// With what connections are encrypted, if they are.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// How streams behave.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// How much at once.
    #[command(flatten)]
    pub limit: LimitArgs,
    /// The live part.
    #[command(flatten)]
    pub live: LiveArgs,
}

/// Reads seconds, with a fraction if need be.
///
/// # Errors
/// Not a number, negative, or beyond what a clock can be asked to wait for.
pub fn seconds(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration > MOST {
        return Err("more than a hundred years".into());
    }
    Ok(duration)
}

/// Reads seconds of which there must be some: after no time at all something would be done
/// without end.
///
/// # Errors
/// Those of [`seconds`], or less than a hundredth.
pub fn some_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        duration if duration < Duration::from_millis(10) => Err("less than 0.01 s".into()),
        duration => Ok(duration),
    }
}

/// Reads a number of things without one of which nothing would ever go on.
///
/// # Errors
/// Not a number, or zero.
pub fn at_least_one<N>(text: &str) -> Result<N, String>
where
    N: FromStr<Err: Display> + Default + PartialEq,
{
    match text.parse() {
        Ok(number) if number == N::default() => Err("there must be one at least".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn seconds_are_what_a_clock_can_wait_for() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for text in ["", "x", "-1", "NaN", "inf", "1e18", "1e400"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(some_seconds("0").is_err() && some_seconds("0.01").is_ok());
    }

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        store: StoreArgs,
    }

    #[test]
    fn a_log_of_nothing_is_refused() {
        let read = |option, value| Cli::try_parse_from(["fhirtail", option, value]);
        for option in ["--log-bytes", "--log-age"] {
            let refused = read(option, "0").expect_err("refused").to_string();
            assert!(refused.contains(option), "{refused}");
            assert!(read(option, "1").is_ok());
        }
        let least = read("--log-bytes", "1").expect("read").store.embedded();
        assert_eq!(least.log_bytes, 1);
    }
}
