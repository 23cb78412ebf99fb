//! An application that names `cenotaph-monitor` as its helper: this very test program, which without one would be
//! refused, because its tests would run again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/crasher/tests/support/applications.rs"]
mod applications;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use applications::Watched;
use cenotaph::privacy::ConsentPolicy;
use cenotaph::report::{AttributeValue, Reason};
use cenotaph::{Config, Destination, Monitor, ReleaseAt};
use support::{build_source, directory, helper, reports, until};

/// The folder of the test that started this process as a victim.
const VICTIM: &str = "HELPER_TEST_VICTIM";

/// Appends a line to a file whenever this program's constructors run.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructed() {
        if let Some(folder) = std::env::var_os(VICTIM) {
            let line = format!("{}\n", std::process::id());
            let path = Path::new(&folder).join("constructed");
            let file = fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()));
        }
    }
    constructed
};

fn config(folder: &Path) -> Config {
    Config::new("victim", "1")
        .spool(folder.join("spool"))
        .log(folder.join("log"))
        .consent(ConsentPolicy::AskFirst)
        .release_at(ReleaseAt::Spooled)
        .deadline(Duration::from_secs(100))
}

/// Not a test of its own: what the tests below start.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let mut config = config(&folder).helper(helper());
    if folder.join("delivers").exists() {
        // Nobody answers at this port: what is looked at is who tries.
        let nobody = Destination::crashpad("https://127.0.0.1:9/submit").unwrap();
        config = config.consent(ConsentPolicy::NotRequired).destination(nobody).linger(Duration::ZERO);
    }
    let _guard = config.install().unwrap();
    cenotaph::set_attribute("level", "castle").unwrap();
    until("the monitor is there", || cenotaph::status().unwrap().monitor == Monitor::Ready);
    let monitor = monitors(&folder);
    fs::write(folder.join("cmdline"), monitor.0).unwrap();
    fs::write(folder.join("exe"), monitor.1).unwrap();
    std::process::abort();
}

/// Arguments and program of the process whose log this is: the one that holds the name "cenotaph" and our spool.
fn monitors(folder: &Path) -> (Vec<u8>, String) {
    let helper = fs::canonicalize(helper()).unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let exe = fs::read_link(entry.path().join("exe")).ok().filter(|exe| *exe == helper)?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let wanted = format!("{VICTIM}={}\0", folder.display());
        let ours = String::from_utf8_lossy(&environment).contains(&wanted);
        ours.then(|| (fs::read(entry.path().join("cmdline")).unwrap_or_default(), exe.display().to_string()))
    });
    all.last().unwrap_or_default()
}

fn run_victim(folder: &Path) -> Output {
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(own);
    let watched = Watched::on(command.args(["--exact", "victim"]).env(VICTIM, folder));
    let output = command.output().unwrap();
    watched.check(&folder.join("spool"));
    output
}

#[test]
fn a_crash_is_reported_and_nothing_of_the_application_runs_twice() {
    let folder = directory();
    let output = run_victim(folder.path());
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let reports = reports(&folder.path().join("spool"));
    assert_eq!(reports.len(), 1);
    assert!(
        matches!(reports[0].reason, Reason::Signal { number: libc::SIGABRT, .. }),
        "{:?}",
        reports[0].reason
    );
    assert_eq!(reports[0].attributes[0].value, AttributeValue::String("castle".into()));
    let constructed = fs::read_to_string(folder.path().join("constructed")).unwrap();
    assert_eq!(constructed.lines().count(), 1, "{constructed}");
    // A hardened process shows these to root alone.
    let cmdline = fs::read(folder.path().join("cmdline")).unwrap();
    if !cmdline.is_empty() {
        assert_eq!(String::from_utf8(cmdline).unwrap(), format!("{}\0", helper().display()));
    }
}

/// Its uploaders are the helper too: nothing of the application runs for them.
#[test]
fn deliveries_are_the_helpers() {
    let folder = directory();
    fs::write(folder.path().join("delivers"), "").unwrap();
    let output = run_victim(folder.path());
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    until("an uploader has tried", || log().contains("\"process\":\"uploader\""));
    assert!(log().contains("127.0.0.1"), "{}", log());
    let constructed = fs::read_to_string(folder.path().join("constructed")).unwrap();
    assert_eq!(constructed.lines().count(), 1, "{constructed}");
}

/// Without the helper the same program is refused, which shows that the test above tests something.
#[test]
fn without_it_a_test_program_is_refused() {
    let folder = directory();
    let error = config(folder.path()).install().unwrap_err().to_string();
    assert!(error.contains("test program") && error.contains(".helper()"), "{error}");
}

#[test]
fn helpers_and_plugins_that_are_refused() {
    let folder = directory();
    let copy = folder.path().join("monitor");
    fs::copy(helper(), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o757)).unwrap();
    let error = config(folder.path()).helper(&copy).install().unwrap_err();
    assert!(matches!(error, cenotaph::Error::MonitorUnavailable(_)));
    let error = error.to_string();
    assert!(error.contains(copy.to_str().unwrap()) && error.contains("run chmod go-w on it"), "{error}");
    fs::set_permissions(&copy, Permissions::from_mode(0o600)).unwrap();
    let error = config(folder.path()).helper(&copy).install().unwrap_err().to_string();
    assert!(error.contains("not executable; run chmod a+x"), "{error}");

    let plugin = build_source("int nothing;\n", &folder.path().join("plugin.so"));
    fs::set_permissions(&plugin, Permissions::from_mode(0o666)).unwrap();
    let error = config(folder.path()).helper(helper()).plugin(&plugin).install().unwrap_err();
    assert!(matches!(error, cenotaph::Error::InvalidConfig { field: "plugin", .. }));
    let error = error.to_string();
    assert!(error.contains(plugin.to_str().unwrap()) && error.contains("writable by others"), "{error}");
}

#[test]
fn says_what_it_is() {
    let run = |arguments: &[&str]| Command::new(helper()).args(arguments).output().unwrap();
    let version = run(&["--version"]);
    assert!(version.status.success() && version.stderr.is_empty());
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("cenotaph-monitor {}\n", env!("CARGO_PKG_VERSION"))
    );
    for arguments in [&[][..], &["--version", "x"], &["x"]] {
        let usage = run(arguments);
        assert_eq!(usage.status.code(), Some(2));
        assert!(
            usage.stdout.is_empty() && String::from_utf8(usage.stderr).unwrap().contains("Config::helper")
        );
    }
    // A leaked variable makes no monitor of it.
    let leaked =
        Command::new(helper()).env("CENOTAPH_ROLE", format!("monitor:{}", "00".repeat(16))).output().unwrap();
    assert_eq!(leaked.status.code(), Some(2));
}
