//! `fhirtail health`: whether a server lives, for the health check of a container, whose image
//! has nothing else that could ask.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{
    Failure,
    http::{chain, client, refusal},
};

/// A server that takes longer is of no use to anybody.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which server: told by the variables by which it was told itself.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Where it listens; at 0.0.0.0 or [::] it is asked on this machine
    #[arg(long, env = "FHIRTAIL_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,

    /// Its certificate, if it has one: it is asked by TLS. Whose the certificate is, and whether it
    /// has ended, is not looked at
    #[arg(long, env = "FHIRTAIL_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
}

/// Asks `/livez`.
///
/// # Errors
/// It does not answer, or not with 200.
pub async fn run(args: HealthArgs) -> Result<ExitCode, Failure> {
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/livez", reachable(args.listen));
    // Nothing is told to who answers: it need not prove who it is.
    let client = client(|builder| {
        builder.timeout(PATIENCE).no_proxy().tls_danger_accept_invalid_certs(true)
    })?;
    let answer = client.get(&url).send().await;
    let answer = answer.map_err(|error| Failure::new(chain(&error)))?;
    match answer.status().is_success() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::new(format!("{url}: {}", refusal(answer).await))),
    }
}

/// Where who listens everywhere can be asked.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.7:9", "10.0.0.7:9"),
        ] {
            assert_eq!(reachable(listen.parse().expect("one")).to_string(), asked);
        }
    }
}
