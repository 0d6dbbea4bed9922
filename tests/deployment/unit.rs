//! systemd's own judgement of the unit.

use std::fs;

use super::{LAST_WORDS, docker, judged, run, text};

const BINARY: &str = "/usr/local/bin/fhirtail";

/// How much a service could do that it need not, of 100 at worst.
#[test]
fn the_unit_is_hardened() {
    let unit = docker("systemd/fhirtail.service").display().to_string();
    let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager", &unit];
    run("systemd-analyze", &arguments, &docker(""));
}

/// What systemd finds wrong with a unit whose binary is there: what it does not understand it ignores.
fn complaints(unit: &str) -> Vec<String> {
    assert_eq!(unit.matches(BINARY).count(), 1);
    let scratch = tempfile::tempdir().expect("a folder");
    let file = scratch.path().join("fhirtail.service");
    fs::write(&file, unit.replace(BINARY, env!("CARGO_BIN_EXE_fhirtail"))).expect("written");
    let file = file.display().to_string();
    let (is_content, out, err) = judged("systemd-analyze", &["verify", &file], scratch.path());
    // Of other units of this machine it may speak too.
    let lines = out.lines().chain(err.lines()).filter(|line| line.contains("fhirtail.service"));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(is_content || !lines.is_empty(), "{out}{err}");
    lines
}

#[test]
fn the_unit_is_understood() {
    let unit = text("systemd/fhirtail.service");
    assert_eq!(complaints(&unit), [""; 0]);
    // What is offered as a comment is understood too.
    assert_eq!(complaints(&unit.replace("\n#Suppl", "\nSuppl")), [""; 0]);
    for (right, wrong) in [
        ("#SupplementaryGroups=", "SupplementaryGroup="),
        ("ProtectClock=yes", "ProtectClok=yes"),
        ("KillSignal=SIGTERM", "KillSignal=SIGTREM"),
        ("TimeoutStopSec=20", "TimeoutStopSec=20 secs or so"),
        ("fhirtail serve", "fhirtail-serve"),
    ] {
        assert_eq!(unit.matches(right).count(), 1, "{right}");
        let found = complaints(&unit.replace(right, wrong));
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
    }
}

/// Whoever is asked to go has the time that it takes.
#[test]
fn the_unit_lets_it_end() {
    let unit = text("systemd/fhirtail.service");
    let told = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let seconds: u64 = told.expect("a time").parse().expect("seconds");
    let help = run(env!("CARGO_BIN_EXE_fhirtail"), &["serve", "--help"], &docker(""));
    let (_, drain) = help.split_once("FHIRTAIL_DRAIN=").expect("a drain");
    let (_, drain) = drain.split_once("[default: ").expect("a default");
    let drain: u64 = drain.split(']').next().expect("its end").parse().expect("seconds");
    assert!(seconds >= drain + LAST_WORDS, "{seconds} s, with a drain of {drain}");
}
