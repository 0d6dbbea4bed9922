//! The image, without an engine: its steps, its health check, and hadolint's rules.

use std::process::Command;

use support::{
    certificate::Issued,
    logged::{Logged, left_alone},
};

use super::{docker, run, text};

/// The image's own check of its health, as it stands there, on a server that is there and one that
/// is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_life_from_death() {
    let dockerfile = text("Dockerfile");
    let (_, after) = dockerfile.split_once("HEALTHCHECK").expect("a check");
    let (_, command) = after.split_once("CMD ").expect("a command");
    let command: Vec<String> =
        serde_json::from_str(command.lines().next().expect("a line")).expect("JSON");
    assert_eq!(command, ["fhirtail", "health"]);
    let issued = Issued::fresh();
    let tls = [("FHIRTAIL_TLS_CERT", issued.cert()), ("FHIRTAIL_TLS_KEY", issued.key())];
    for environment in [&[][..], &tls] {
        let bench = left_alone(0, 0).await;
        let with = |mut command: Command| {
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command
        };
        let binary = || with(Command::new(env!("CARGO_BIN_EXE_fhirtail")));
        let server = Logged::told(binary(), &bench.name, &[]);
        let listen = format!("0.0.0.0:{}", server.address().port());
        let check = || {
            let mut check = binary();
            let said = check.arg(&command[1]).env("FHIRTAIL_LISTEN", &listen).output();
            let said = said.expect("the binary");
            let text = String::from_utf8(said.stderr).expect("text");
            (said.status.code(), text.lines().count(), text)
        };
        assert_eq!(check(), (Some(0), 0, String::new()));
        drop(server);
        let (status, lines, text) = check();
        assert_eq!((status, lines), (Some(1), 1), "{text}");
    }
}

/// The image's steps, as plain commands; what cargo would build is what it built here.
#[test]
fn the_dockerfile_does_what_it_says() {
    let binary = env!("CARGO_BIN_EXE_fhirtail");
    println!("{}", run(&docker("try").display().to_string(), &["--with", binary], &docker("")));
    // The toolchain is one that can build it.
    let of = |file: &str, start: &str| {
        let text = text(file);
        let (_, after) = text.split_once(start).unwrap_or_else(|| panic!("{start}"));
        after.split(['"', '-']).next().expect("a version").to_owned()
    };
    let wanted = of("../Cargo.toml", "rust-version = \"");
    assert_eq!(of("Dockerfile", "FROM rust:"), wanted);
}

/// The instructions of the Dockerfile: word and rest, in one line each.
fn instructions() -> Vec<(String, String)> {
    let text = text("Dockerfile");
    let told = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let joined = told.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let split = |line: &str| {
        let (word, rest) = line.split_once(' ').expect("an instruction");
        (word.to_owned(), rest.to_owned())
    };
    joined.lines().map(split).collect()
}

/// hadolint's rules, as far as they speak of what stands there.
#[test]
fn the_dockerfile_keeps_the_rules() {
    const WORDS: [&str; 14] = [
        "FROM",
        "WORKDIR",
        "ARG",
        "COPY",
        "RUN",
        "USER",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
        "LABEL",
    ];
    let (mut stages, mut users, mut in_a_place) = (Vec::new(), Vec::new(), false);
    for (word, rest) in instructions() {
        // DL3020 (no ADD), DL4000 (no MAINTAINER), and no spelling mistake.
        assert!(WORDS.contains(&&*word), "{word} {rest}");
        let told = format!("{word} {rest}");
        match word.as_str() {
            "FROM" => {
                let mut words = rest.split_whitespace();
                let image = words.next().expect("an image");
                let (_, tag) = image.split_once(':').unwrap_or_else(|| panic!("DL3006: {told}"));
                assert_ne!(tag, "latest", "DL3007: {told}");
                let name = words.nth(1).unwrap_or(image).to_owned();
                assert!(!stages.contains(&name), "DL3024: {told}");
                stages.push(name);
                (in_a_place, users) = (false, Vec::new());
            }
            "WORKDIR" => {
                assert!(rest.starts_with('/'), "DL3000: {told}");
                in_a_place = true;
            }
            "COPY" => {
                let words: Vec<_> = rest.split_whitespace().collect();
                let (target, sources) = words.split_last().expect("a target");
                let from = words.iter().find_map(|word| word.strip_prefix("--from="));
                let known =
                    |from: &str| stages[..stages.len() - 1].iter().any(|stage| stage == from);
                assert!(from.is_none_or(known), "DL3022, DL3023: {told}");
                let sources = sources.iter().filter(|word| !word.starts_with("--")).count();
                assert!(sources == 1 || target.ends_with('/'), "DL3021: {told}");
                assert!(in_a_place || target.starts_with('/'), "DL3045: {told}");
            }
            "RUN" => {
                // DL3003, DL3004, DL4006 and those of apt, of which there is none.
                for no in ["cd ", "sudo ", " | ", "apt-get ", "apt ", "curl ", "wget ", "chmod 777"]
                {
                    assert!(
                        !format!(" {rest}").contains(&format!(" {}", no.trim_start())),
                        "{no}: {told}"
                    );
                }
            }
            "USER" => users.push(rest),
            "ENTRYPOINT" | "CMD" => {
                let list: Result<Vec<String>, _> = serde_json::from_str(&rest);
                assert!(list.is_ok(), "DL3025: {told}");
            }
            "EXPOSE" => {
                assert!(rest.parse::<u16>().is_ok_and(|port| port > 0), "DL3011: {told}");
            }
            _ => {}
        }
    }
    let once = |word: &str| instructions().iter().filter(|(told, _)| told == word).count() == 1;
    assert!(
        ["HEALTHCHECK", "ENTRYPOINT", "CMD"].iter().all(|word| once(word)),
        "DL3012, DL4003, DL4004"
    );
    let last = users.last().expect("DL3002: a user");
    assert!(!last.starts_with("root") && !last.starts_with('0'), "DL3002: {last}");
}
