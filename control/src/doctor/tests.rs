//! Made-up machines: one that is fit, and what is found when one thing after another is wrong with it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::tree::numbers;
use super::*;

const SITE: &str = r#"[box]
name = "a-box"
workers = 2
cores = [2, 3]
idle = "poll"
contexts_max = 1024

[eal]
memory_mb = 512
hugepages = "require"

[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"
key = "key.pem"

[store]
file = "leases"

[[port]]
name = "lan"
device = "net_af_packet0,iface=eth0"
addresses = ["fc00:a:0:1::1/64"]

[[port]]
name = "x"
device = "0000:3b:00.0"
addresses = ["2001:db8:aa::2/64"]
mtu = 1508

[[port]]
name = "y"
device = "net_af_packet1,iface=eth1"
addresses = ["2001:db8:ab::2/64"]
mtu = 1508

[[provider]]
name = "isp-x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "2001:db8:aa::1"

[[provider]]
name = "isp-y"
port = "y"
prefix = "2001:db8:a2:1::/64"
next_hop = "2001:db8:ab::1"
"#;

/// What a fit machine says of itself.
const FILES: &[(&str, &str)] = &[
    ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "256\n"),
    ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "300\n"),
    ("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable:    4000000 kB\n"),
    ("sys/kernel/iommu_groups/7/devices/0000:3b:00.0", ""),
    ("dev/vfio/7", ""),
    ("sys/bus/pci/devices/0000:3b:00.0/driver_override", "vfio-pci\n"),
    ("sys/bus/pci/devices/0000:3b:00.0/numa_node", "0\n"),
    ("sys/class/net/eth0/flags", "0x1003\n"),
    ("sys/class/net/eth0/carrier", "1\n"),
    ("sys/class/net/eth0/mtu", "1500\n"),
    ("sys/class/net/eth1/flags", "0x1003\n"),
    ("sys/class/net/eth1/mtu", "9000\n"),
    ("proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1\n"),
    ("proc/sys/net/ipv6/conf/eth1/disable_ipv6", "1\n"),
    ("proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
    (
        "proc/net/ipv6_route",
        "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
         20010db8000100000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     mgmt0\n",
    ),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/isolated", "2-3\n"),
    ("sys/devices/system/cpu/cpu2/node0/x", ""),
    ("sys/devices/system/cpu/cpu3/node0/x", ""),
    ("run/systemd/timesync/synchronized", ""),
];

struct Machine {
    root: PathBuf,
    site: String,
    account: Account,
}

impl Machine {
    fn fit(name: &str) -> Machine {
        let root = std::env::temp_dir().join(format!("pshim6-doctor-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("etc")).unwrap();
        let (uid, gid) = fs::metadata(&root).map(|it| (it.uid(), it.gid())).unwrap();
        let machine = Machine {
            root,
            site: SITE.into(),
            account: Account { name: "pshim6".into(), uid, group: "pshim6".into(), groups: vec![gid] },
        };
        FILES.iter().for_each(|(path, text)| machine.write(path, text));
        machine.link("sys/bus/pci/devices/0000:3b:00.0/driver", "../drivers/vfio-pci");
        machine.link("sys/bus/pci/devices/0000:3b:00.0/iommu_group", "../../kernel/iommu_groups/7");
        machine.write("etc/key.pem", "");
        machine.mode("etc/key.pem", 0o600);
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let _ = fs::remove_file(self.root.join(path));
        symlink(target, self.root.join(path)).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.root.join(path);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn config(&mut self, from: &str, to: &str) {
        assert!(self.site.contains(from), "{from}");
        self.site = self.site.replace(from, to);
    }

    fn examine(&self, running: bool) -> Vec<Finding> {
        let file: &Path = &self.root.join("etc/site.toml");
        let (site, _) = Site::parse(file, &self.site).unwrap();
        let (tree, daemon) = (&Tree::new(&self.root), &self.account);
        let features = &|name: &str| Tree::new(&self.root).text(&format!("features/{name}"));
        examine(&Patient { tree, config: file, site: &site, running, daemon, features })
    }

    /// What is not as it should be.
    fn complaints(&self) -> Vec<Finding> {
        self.examine(false).into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
    }

    /// Does what the complaints about the configuration say, but for what tells the daemon of it; then there are none.
    fn mended(&mut self) {
        let file = self.root.join("etc/site.toml");
        fs::write(&file, &self.site).unwrap();
        for complaint in self.complaints().iter().filter_map(|complaint| complaint.mend.as_ref()) {
            let (command, _) = complaint.split_once(" && ").unwrap();
            // Nothing else on the machine that runs the tests is touched.
            assert!(
                command.starts_with("sed -i '") && command.ends_with(&format!("' {}", file.display())),
                "{command}"
            );
            assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success());
        }
        self.site = fs::read_to_string(file).unwrap();
        assert_eq!(self.complaints(), []);
    }

    /// The only complaint: its topic, verdict, text and command.
    fn complaint(&self) -> (&'static str, Verdict, String, String) {
        let mut complaints = self.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        let Finding { topic, verdict, text, mend, look } = complaints.remove(0);
        (topic, verdict, text, mend.or(look).unwrap_or_default())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn a_fit_machine_has_no_complaints_and_everything_was_looked_at() {
    let machine = Machine::fit("fit");
    assert_eq!(machine.complaints(), []);
    let mut topics: Vec<&str> = machine.examine(false).iter().map(|finding| finding.topic).collect();
    topics.dedup();
    let expected =
        ["key", "store", "hugepages", "memory", "IOMMU", "NIC binding", "interface", "MTU", "kernel", "cores", "clock"];
    assert_eq!(topics, expected);
    assert_eq!(Report::of(machine.examine(false)).verdict, Verdict::Ok);
}

#[test]
fn a_machine_that_says_nothing_is_survived() {
    let machine = Machine::fit("empty");
    for name in ["sys", "proc", "dev", "run"] {
        machine.remove(name);
    }
    assert_eq!(Report::of(machine.examine(false)).verdict, Verdict::Fail);
}

#[test]
fn hugepages_are_counted_and_the_command_reserves_what_is_missing() {
    let mut machine = Machine::fit("pages");
    machine.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100");
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("hugepages", Verdict::Fail));
    assert!(text.starts_with("200 MB free, eal.memory_mb = 512"), "{text}");
    assert_eq!(mend, "echo 'vm.nr_hugepages = 456' > /etc/sysctl.d/60-pshim6.conf && sysctl --system");
    machine.write("usr/lib/sysctl.d/60-pshim6.conf", "# for packets\nvm.nr_hugepages = 456\n");
    assert_eq!(machine.complaint().3, "sysctl --system", "said, and not done yet");
    machine.write("etc/sysctl.d/60-pshim6.conf", "vm.nr_hugepages=100");
    assert_eq!(machine.complaint().3, mend);
    // A daemon that runs has taken them.
    assert!(machine.examine(true).iter().all(|finding| finding.verdict == Verdict::Ok));
    machine.write("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "1");
    assert_eq!(machine.complaints(), []);
    machine.remove("sys/kernel/mm/hugepages/hugepages-1048576kB");
    machine.config("\"require\"", "\"auto\"");
    assert_eq!(machine.complaint().1, Verdict::Warn);
    machine.config("\"auto\"", "\"never\"");
    assert_eq!(machine.complaints(), []);
}

#[test]
fn too_many_contexts_for_the_memory_are_a_warning() {
    let mut machine = Machine::fit("memory");
    machine.config("contexts_max = 1024", "contexts_max = 16777216");
    let (topic, verdict, ..) = machine.complaint();
    assert_eq!((topic, verdict), ("memory", Verdict::Warn));
    machine.mended();
}

#[test]
fn a_network_card_must_be_there_and_bound_for_programs() {
    let machine = Machine::fit("binding");
    let place = "sys/bus/pci/devices/0000:3b:00.0";
    machine.link(&format!("{place}/driver"), "../drivers/ixgbe");
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("NIC binding", Verdict::Fail));
    assert_eq!(text, "port x: 0000:3b:00.0 belongs to the kernel's driver ixgbe");
    assert_eq!(mend, "systemctl enable --now 'pshim6-vfio@0000:3b:00.0.service'");
    machine.link(&format!("{place}/driver"), "../drivers/mlx5_core");
    assert_eq!(machine.complaints(), []);
    machine.link(&format!("{place}/driver"), "../drivers/uio_pci_generic");
    assert_eq!(machine.complaint().1, Verdict::Warn);
    machine.link(&format!("{place}/driver"), "../drivers/vfio-pci");
    machine.write(&format!("{place}/driver_override"), "ixgbe\n");
    let (_, verdict, text, _) = machine.complaint();
    assert!(verdict == Verdict::Warn && text.contains("driver_override says ixgbe"), "{text}");
    machine.write(&format!("{place}/driver_override"), "(null)\n");
    assert_eq!(machine.complaints(), []);
    machine.remove(&format!("{place}/driver"));
    assert!(machine.complaint().2.ends_with("has no driver"));
    machine.remove(place);
    let (_, verdict, text, mend) = machine.complaint();
    assert_eq!((verdict, mend.as_str()), (Verdict::Fail, "lspci -Dnn | grep -i ethernet"), "{text}");
}

#[test]
fn an_iommu_group_is_for_the_box_alone() {
    let machine = Machine::fit("iommu");
    let other = "sys/bus/pci/devices/0000:3b:00.1";
    machine.write("sys/kernel/iommu_groups/7/devices/0000:3b:00.1", "");
    machine.write(&format!("{other}/class"), "0x020000\n");
    machine.link(&format!("{other}/driver"), "../drivers/ixgbe");
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("IOMMU", Verdict::Fail));
    assert_eq!(text, "port x: 0000:3b:00.0 shares IOMMU group 7 with 0000:3b:00.1, which ixgbe has");
    assert_eq!(mend, "echo 0000:3b:00.1 > /sys/bus/pci/devices/0000:3b:00.1/driver/unbind");
    machine.write(&format!("{other}/class"), "0x060400\n");
    assert_eq!(machine.complaints(), []);
    machine.remove("dev/vfio/7");
    assert_eq!(machine.complaint().3, "modprobe vfio-pci");
    machine.write("dev/vfio/7", "");
    machine.remove("sys/kernel/iommu_groups");
    assert_eq!(machine.complaint().1, Verdict::Fail);
    machine.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    assert_eq!(machine.complaint().1, Verdict::Warn);
}

#[test]
fn an_interface_is_there_up_and_wide_enough() {
    let machine = Machine::fit("interface");
    machine.write("sys/class/net/eth1/mtu", "1500");
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("interface", Verdict::Fail));
    assert_eq!(text, "port y: eth1 has MTU 1500, port.mtu is 1508");
    assert_eq!(mend, "ip link set eth1 mtu 1508");
    machine.write("sys/class/net/eth1/flags", "0x1002");
    assert_eq!(machine.complaint().3, "ip link set eth1 up");
    machine.write("sys/class/net/eth1/flags", "0x1003");
    machine.write("sys/class/net/eth1/carrier", "0");
    assert_eq!(machine.complaint().1, Verdict::Warn);
    machine.remove("sys/class/net/eth1");
    assert_eq!(machine.complaint().3, "ip -br link");
}

#[test]
fn an_interface_does_not_join_what_came_apart() {
    let machine = Machine::fit("features");
    let features = |gro, lro| {
        format!(
            "Features for eth0:\nrx-checksumming: on\ngeneric-receive-offload: {gro}\nlarge-receive-offload: {lro}\n"
        )
    };
    machine.write("features/eth0", &features("off", "off [fixed]"));
    machine.write("features/eth1", "no such device");
    assert_eq!(machine.complaints(), []);
    machine.write("features/eth0", &features("on", "off [fixed]"));
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("interface", Verdict::Fail));
    assert_eq!(text, "port lan: eth0 joins segments (gro): frames come that no link carries");
    assert_eq!(mend, "ethtool -K eth0 gro off");
    machine.write("features/eth0", &features("on", "on"));
    assert_eq!(machine.complaint().3, "ethtool -K eth0 gro off lro off");
}

#[test]
fn what_root_writes_can_be_read_by_the_daemon() {
    let mut machine = Machine::fit("readable");
    machine.remove("etc/key.pem");
    machine.config("key = \"key.pem\"\n", "");
    machine.config("[store]\nfile = \"leases\"\n", "");
    machine.write("etc/hosts.json", "");
    machine.mode("etc/hosts.json", 0o640);
    // The daemon is somebody else, in the file's group.
    machine.account.uid += 1;
    assert_eq!(machine.complaints(), []);
    machine.mode("etc/hosts.json", 0o600);
    let file = machine.root.join("etc/hosts.json").display().to_string();
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict, text), ("configuration", Verdict::Fail, format!("{file}: pshim6 may not read it")));
    assert_eq!(mend, format!("chgrp pshim6 {file} && chmod g+r {file}"));
    machine.mode("etc/hosts.json", 0o644);
    machine.account.groups.clear();
    assert_eq!(machine.complaints(), []);
    machine.mode("etc", 0o750);
    let folder = machine.root.join("etc").display().to_string();
    assert_eq!(machine.complaint().3, format!("chgrp pshim6 {folder} && chmod g+rx {folder}"));
    // Root reads everything.
    machine.account.uid = 0;
    assert_eq!(machine.complaints(), []);
}

#[test]
fn providers_have_room_for_the_payload_header() {
    let mut machine = Machine::fit("mtu");
    machine.config("mtu = 1508", "mtu = 1500");
    assert_eq!(machine.complaints(), [], "hosts learn");
    machine.config("mtu = 1500", "mtu = 1400");
    let complaints = machine.complaints();
    assert!(complaints.len() == 2 && complaints.iter().all(|it| it.topic == "MTU" && it.verdict == Verdict::Warn));
    machine.mended();
    machine.config("mss_clamp = true", "mss_clamp = false");
    machine.mended();
    machine.config("mtu = 1400", "mtu = 1280");
    assert!(machine.complaints()[0].text.contains("cut into fragments"));
}

#[test]
fn a_kernel_that_forwards_past_the_box_is_a_fault() {
    let machine = Machine::fit("kernel");
    machine.write("proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0");
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("kernel", Verdict::Warn), "one interface alone forwards to nowhere");
    assert_eq!(text, "speaks IPv6 on eth0 and answers what is for the box");
    let file = "/etc/sysctl.d/61-pshim6-ports.conf";
    assert_eq!(mend, format!("echo 'net/ipv6/conf/eth0/disable_ipv6 = 1' >> {file} && sysctl -q -p {file}"));
    machine.write("proc/sys/net/ipv6/conf/eth1/disable_ipv6", "0");
    let complaints = machine.complaints();
    assert!(complaints.len() == 2 && complaints.iter().all(|it| it.verdict == Verdict::Fail), "{complaints:?}");
    machine.write("proc/sys/net/ipv6/conf/all/forwarding", "0");
    assert!(machine.complaints().iter().all(|it| it.verdict == Verdict::Warn));
}

#[test]
fn a_route_of_the_kernels_over_a_port_is_named() {
    let machine = Machine::fit("route");
    let zeros = "00000000000000000000000000000000";
    let line =
        format!("20010db8000a00000000000000000000 30 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001 eth1\n");
    machine.write("proc/net/ipv6_route", &format!("nonsense\n{line}"));
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("kernel", Verdict::Warn));
    assert_eq!(text, "has a route to 2001:db8:a::/48 over eth1, which is the box's");
    assert_eq!(mend, "ip -6 route del 2001:db8:a::/48 dev eth1");
}

#[test]
fn cores_are_there_isolated_and_near() {
    let mut machine = Machine::fit("cores");
    machine.write("sys/devices/system/cpu/isolated", "3\n");
    let (topic, verdict, text, mend) = machine.complaint();
    assert_eq!((topic, verdict), ("cores", Verdict::Warn));
    assert!(text.starts_with("2 not isolated"), "{text}");
    assert!(mend.contains("isolcpus=2,3 nohz_full=2,3 rcu_nocbs=2,3"), "{mend}");
    machine.write("sys/devices/system/cpu/isolated", "2-3\n");
    machine.write("sys/bus/pci/devices/0000:3b:00.0/numa_node", "1\n");
    assert_eq!(machine.complaint().2, "port x is on memory node 1, no worker is");
    machine.write("sys/bus/pci/devices/0000:3b:00.0/numa_node", "-1\n");
    assert_eq!(machine.complaints(), []);
    machine.write("sys/devices/system/cpu/online", "0-2\n");
    machine.write("sys/devices/system/cpu/isolated", "1-2\n");
    assert_eq!(machine.complaints()[0].verdict, Verdict::Fail);
    machine.mended();
    machine.config("cores = [1, 2]\n", "");
    assert_eq!(machine.complaint().1, Verdict::Warn);
    machine.mended();
    machine.config("cores = [1, 2]\n", "");
    machine.write("sys/devices/system/cpu/online", "0-1\n");
    assert_eq!(machine.complaint().1, Verdict::Fail);
    machine.mended();
}

#[test]
fn keys_and_leases_are_the_daemons_alone() {
    let mut machine = Machine::fit("files");
    let key = machine.root.join("etc/key.pem").display().to_string();
    machine.mode("etc/key.pem", 0o640);
    assert_eq!(machine.complaint().3, format!("chmod 600 {key}"));
    machine.mode("etc/key.pem", 0o600);
    machine.account.uid += 1;
    let folder = machine.root.join("etc").display().to_string();
    let mends: Vec<_> = machine.complaints().into_iter().map(|it| it.mend.unwrap()).collect();
    assert_eq!(mends, [format!("chown pshim6 {key}"), format!("install -d -o pshim6 -m 700 {folder}")]);
    machine.account.uid -= 1;
    machine.write("etc/leases", "");
    machine.mode("etc/leases", 0o644);
    assert_eq!(machine.complaint().0, "store");
    machine.mode("etc/leases", 0o600);
    assert_eq!(machine.complaints(), []);
    machine.remove("etc/key.pem");
    let config = machine.root.join("etc/site.toml").display().to_string();
    assert_eq!(machine.complaint().3, format!("pshim6ctl --config {config} key make && chown pshim6 {key}"));
}

#[test]
fn a_clock_that_nobody_keeps_is_a_warning() {
    let machine = Machine::fit("clock");
    machine.remove("run/systemd");
    assert_eq!(machine.complaint().1, Verdict::Warn);
    machine.write("run/chrony/chronyd.pid", "1");
    assert_eq!(machine.complaints(), []);
}

#[test]
fn lists_of_the_kernels_are_read() {
    assert_eq!(numbers("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
    assert_eq!(numbers(""), [0; 0]);
    assert_eq!(numbers("x,3-,4"), [4]);
}
