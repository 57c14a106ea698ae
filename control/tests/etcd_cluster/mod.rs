//! A cluster of real `etcd` processes for a test, with certificates of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::config::Cluster;
use control::store::shared::etcd::{Client, Settings};

use crate::certificates::{Authority, Files};

/// Whether `etcd` is there; a test that needs it is not tried otherwise, unless tools are required.
pub(crate) fn is_there() -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os("PSHIM6_TOOLS").is_none(), "etcd cannot be started");
    eprintln!("not tried, for there is no etcd");
    false
}

struct Member {
    process: Option<Child>,
    ports: (u16, u16),
}

/// The cluster, and a folder for it that goes with it.
pub(crate) struct Etcd {
    pub(crate) folder: PathBuf,
    pub(crate) authority: Authority,
    pub(crate) client: Files,
    members: Vec<Member>,
    server: Files,
}

fn free_port() -> u16 {
    TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// Starts so many members and waits until they serve.
    pub(crate) fn start(name: &str, count: usize) -> Etcd {
        let folder = std::env::temp_dir().join(format!("pshim6-etcd-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new("cluster", None);
        authority.write(&folder, "ca.pem");
        let server = authority.issue(&folder, "server", (-3600, 86_400), &["::1"]);
        // Without a common name: the gateway takes no passwords from who has one.
        let client = authority.issue(&folder, "O=box", (-3600, 86_400), &[]);
        let members = (0..count).map(|_| Member { process: None, ports: (free_port(), free_port()) }).collect();
        let mut etcd = Etcd { folder, authority, client, members, server };
        (0..count).for_each(|at| etcd.start_member(at));
        etcd.wait();
        etcd
    }

    pub(crate) fn start_member(&mut self, at: usize) {
        let name = |at: usize| format!("m{at}");
        let peer = |member: &Member| format!("http://[::1]:{}", member.ports.1);
        let all: Vec<String> =
            self.members.iter().enumerate().map(|(at, member)| format!("{}={}", name(at), peer(member))).collect();
        let member = &self.members[at];
        let url = format!("https://[::1]:{}", member.ports.0);
        let log = std::fs::File::create(self.folder.join(format!("m{at}.log"))).unwrap();
        let process = Command::new("etcd")
            .args(["--name", &name(at), "--data-dir"])
            .arg(self.folder.join(format!("m{at}")))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer(member), "--initial-advertise-peer-urls", &peer(member)])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-token", "test"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync"])
            .args(["--client-cert-auth", "--trusted-ca-file"])
            .arg(self.folder.join("ca.pem"))
            .arg("--cert-file")
            .arg(&self.server.certificate)
            .arg("--key-file")
            .arg(&self.server.key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[at].process = Some(process);
    }

    /// Ends one at once.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Until most of them agree.
    pub(crate) fn wait(&self) {
        let mut client = self.connect();
        let until = Instant::now() + Duration::from_secs(60);
        while let Err(error) = client.newest() {
            assert!(Instant::now() < until, "{error}; see {}", self.folder.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn port(&self, at: usize) -> u16 {
        self.members[at].ports.0
    }

    /// As a configuration of a box says it.
    pub(crate) fn cluster(&self) -> Cluster {
        Cluster {
            endpoints: self.members.iter().map(|member| ("::1".to_owned(), member.ports.0)).collect(),
            prefix: "/pshim6/a/".into(),
            authority: self.folder.join("ca.pem"),
            certificate: self.client.certificate.clone(),
            key: self.client.key.clone(),
            user: None,
            share: Vec::new(),
            wrap_key: None,
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(Settings::load(&self.cluster()).unwrap()).unwrap()
    }

    /// `etcdctl`, as the operator of the cluster uses it.
    pub(crate) fn control(&self, arguments: &[&str]) {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("https://[::1]:{}", self.port(0)), "--cacert"])
            .arg(self.folder.join("ca.pem"))
            .arg("--cert")
            .arg(&self.client.certificate)
            .arg("--key")
            .arg(&self.client.key)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// From now on only who has a password is heard: `pshim6` with `battery-staple` may read and write below `/pshim6/a/`.
    pub(crate) fn want_passwords(&self) {
        for arguments in [
            &["user", "add", "root:correct-horse"][..],
            &["user", "grant-role", "root", "root"],
            &["user", "add", "pshim6:battery-staple"],
            &["role", "add", "site"],
            &["role", "grant-permission", "site", "--prefix=true", "readwrite", "/pshim6/a/"],
            &["user", "grant-role", "pshim6", "site"],
            &["auth", "enable"],
        ] {
            self.control(arguments);
        }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let file = self.folder.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    #[allow(dead_code, reason = "not every test reads it")]
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|at| self.kill(at));
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
