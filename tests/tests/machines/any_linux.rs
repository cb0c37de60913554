//! A tool is one file that runs on any Linux: here each runs in a root folder with nothing else to link, under the
//! `nsswitch.conf` of several distributions. The modules these name are there, and end whoever loads them, as the modules of
//! another C library would. Needs Linux, root and a C compiler.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use tempfile::TempDir;
use tests::peer::Peer;
use tests::{TOOLS, feed, program};

/// Lines of `nsswitch.conf` as distributions ship them; no file at all is Alpine's.
const SWITCHES: [&str; 6] = [
    "passwd: files\nhosts: files dns",
    "passwd: files systemd\nhosts: files myhostname dns",
    "passwd: files systemd sss\nhosts: files mdns4_minimal [NOTFOUND=return] dns mymachines",
    "passwd: sss files systemd\nhosts: files myhostname resolve [!UNAVAIL=return] dns",
    "passwd: systemd files\nhosts: mymachines resolve [!UNAVAIL=return] files myhostname dns",
    "",
];

/// Every module these lines name that a static program would have to load.
const MODULES: [&str; 6] = ["systemd", "sss", "myhostname", "mdns4_minimal", "resolve", "mymachines"];

/// A module like any other, but for what it does when it is loaded.
const MODULE: &str = "__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }";

/// A static program that looks a name up as the C library sees fit.
const UNPINNED: &str = "#include <netdb.h>\n#include <stddef.h>\n\
    int main(void) { struct addrinfo *found; return getaddrinfo(\"api\", NULL, NULL, &found); }";

/// A Helm that is new enough.
const HELM: &str = "#include <stdio.h>\nint main(void) { return puts(\"v3.14.0\") < 0; }";

/// The name servers' only name, found only if the search list is heard.
const FULL_NAME: &str = "api.shop.example";

#[test]
fn every_tool_finds_names_whatever_nsswitch_conf_says() {
    let root = root();
    let server = Peer::refusing("host").unwrap();
    let port = server.address.port();
    let names = name_server();
    fs::write(
        root.path().join("etc/resolv.conf"),
        format!("nameserver {names}\nsearch nowhere.example shop.example\n"),
    )
    .unwrap();
    for switch in SWITCHES {
        let file = root.path().join("etc/nsswitch.conf");
        if switch.is_empty() {
            fs::remove_file(file).unwrap()
        } else {
            fs::write(file, format!("{switch}\n")).unwrap()
        }
        if MODULES.iter().any(|module| switch.contains(module)) {
            let unpinned = feed(Command::new("chroot").arg(root.path()).arg("/unpinned"), b"").unwrap();
            assert!(unpinned.status.signal().is_some(), "the modules are not found: {unpinned:?}");
        }
        for host in ["listed.example", "api"] {
            for tool in TOOLS {
                let output = run(root.path(), tool, &format!("http://{host}:{port}"));
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{switch:?}: {tool}: {}: {stderr}", output.status);
                let asked: Vec<String> = server.asked();
                assert!(asked.contains(&format!("{host}:{port}")), "{switch:?}: {tool}: {asked:?}: {stderr}");
            }
        }
    }
}

/// Runs a tool in the root folder, without a home, so that it asks this URL first.
fn run(root: &Path, tool: &str, url: &str) -> Output {
    let kubeconfig = format!(
        "{{clusters: [{{name: c, cluster: {{server: '{url}'}}}}], contexts: [{{name: c, context: {{cluster: c}}}}], \
         current-context: c}}"
    );
    fs::write(root.join("kubeconfig"), kubeconfig).unwrap();
    let arguments = match tool {
        "appmesh-install" => "-n --delete --kubeconfig /kubeconfig",
        "color-probe" => "-n --timeout 1s",
        "ecr-push" => "app -n --cluster c1 --binary /ecr-push",
        "manifest-apply" => "app -n --kubeconfig /kubeconfig --file /manifest.yaml",
        "sg-open" => "-n --cluster c1 --from-cluster c2",
        _ => "-n --cluster c1",
    };
    let mut command = Command::new("chroot");
    command.arg(root).arg(format!("/{tool}")).args(arguments.split(' '));
    if tool == "color-probe" {
        command.arg(url);
    }
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("AWS_REGION", "us-west-2")
        .env("AWS_ENDPOINT_URL", url);
    command.env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
    feed(&mut command, b"").unwrap()
}

/// A root folder with the tools and what they read, and the modules wherever a C library looks for them.
fn root() -> TempDir {
    // Beside the tools, so that they can be linked.
    let root = tempfile::tempdir_in(program("").parent().unwrap()).unwrap();
    let path = |name: &str| root.path().join(name);
    for folder in ["dev", "etc", "lib", "usr", "usr/bin", "tmp"] {
        fs::create_dir(path(folder)).unwrap();
    }
    for (link, folder) in [("lib64", "lib"), ("usr/lib", "../lib"), ("usr/lib64", "../lib")] {
        symlink(folder, path(link)).unwrap();
    }
    for machine in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
        symlink(".", path("lib").join(machine)).unwrap();
    }
    compile(MODULE, &["-shared", "-nostdlib", "-fPIC"], &path("lib/module"));
    for module in MODULES {
        fs::hard_link(path("lib/module"), path(&format!("lib/libnss_{module}.so.2"))).unwrap();
    }
    compile(UNPINNED, &["-static", "-w"], &path("unpinned"));
    compile(HELM, &["-static"], &path("usr/bin/helm"));
    for tool in TOOLS {
        fs::hard_link(program(tool), path(tool)).unwrap();
    }
    fs::write(path("dev/null"), "").unwrap();
    fs::write(path("etc/hosts"), "127.0.0.1 listed.example\n").unwrap();
    fs::write(path("etc/nsswitch.conf"), "").unwrap();
    fs::write(path("manifest.yaml"), "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}").unwrap();
    root
}

fn compile(source: &str, flags: &[&str], to: &Path) {
    let mut cc = Command::new("cc");
    cc.args(flags).args(["-x", "c", "-", "-o"]).arg(to);
    let output = feed(&mut cc, source.as_bytes()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Answers on port 53 of an address of its own.
fn name_server() -> IpAddr {
    let mut addresses = (1..255).map(|last| Ipv4Addr::new(127, 53, 0, last));
    let socket = addresses.find_map(|address| UdpSocket::bind((address, 53)).ok()).expect("a free port 53");
    let address = socket.local_addr().unwrap().ip();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let _ = socket.send_to(&answer(&query[..length]), client);
        }
    });
    address
}

/// RFC 1035: the header, the question as it came, and for the one name's A record 127.0.0.1.
fn answer(query: &[u8]) -> Vec<u8> {
    let (mut labels, mut end) = (Vec::new(), 12);
    while query[end] != 0 {
        let label = &query[end + 1..=end + usize::from(query[end])];
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        end += 1 + label.len();
    }
    let question = &query[12..end + 5];
    let known = labels.join(".") == FULL_NAME;
    let is_a = question.ends_with(&[0, 1, 0, 1]);
    let answers = u8::from(known && is_a);
    let code = if known { 0 } else { 3 };
    let mut answer = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0], question].concat();
    if answers > 0 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}
