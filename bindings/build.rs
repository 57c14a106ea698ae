//! Finds DPDK, compiles the shims for its static inlines and generates the raw declarations.
//!
//! Everything is made from the headers that are installed, so the layout of an mbuf is always that of the libraries we
//! run with. The two lists below are all that crosses the border.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, panic, process};

/// What a Debian machine needs for this crate.
const INSTALL: &str = "apt-get install -y libdpdk-dev libclang-dev pkg-config gcc";

/// The series this crate was written and tested with; others may differ in layout and in names.
const TESTED: &str = "22.11";

/// Functions of the shared libraries (and of libc: `mmap`, `munmap`, `sched_*`), and the shims of `inline.c`.
const FUNCTIONS: &[&str] = &[
    // EAL and devices
    "rte_eal_init",
    "rte_eal_get_runtime_dir",
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_strerror",
    "rte_version",
    // threads
    "rte_thread_register",
    "rte_thread_unregister",
    "sched_getaffinity",
    "sched_setaffinity",
    "mmap",
    "munmap",
    // memory
    "rte_pktmbuf_pool_create",
    "rte_mempool_avail_count",
    "rte_pktmbuf_free_bulk",
    "rte_ring_create",
    "rte_ring_free",
    // ports
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_configure",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_setup",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_promiscuous_enable",
    "rte_eth_allmulticast_enable",
    "rte_eth_macaddr_get",
    "rte_eth_link_get_nowait",
    "rte_eth_stats_get",
    "rte_eth_dev_conf_get",
    "rte_eth_dev_reset",
    "rte_eth_dev_callback_register",
    "rte_eth_dev_callback_unregister",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_rss_reta_query",
    "rte_eth_dev_rss_hash_conf_get",
    "rte_eth_dev_rss_hash_update",
    "pshim6_.*",
];

/// Constants.
const CONSTANTS: &[&str] = &[
    "PSHIM6_.*",
    "RING_F_S[PC]_(EN|DE)Q",
    "RTE_PKTMBUF_HEADROOM",
    "RTE_MAX_LCORE",
    "RTE_MEMPOOL_CACHE_MAX_SIZE",
    "RTE_ETHER_HDR_LEN",
    "RTE_ETHER_CRC_LEN",
    "RTE_ETH_RETA_GROUP_SIZE",
    "MAP_ANONYMOUS",
    "MAP_HUGETLB",
    "MAP_HUGE_SHIFT",
    "MAP_PRIVATE",
    "PROT_READ",
    "PROT_WRITE",
];

/// The libraries those functions live in. Drivers are plug-ins that the EAL loads by itself.
const LIBRARIES: &[&str] = &["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"];

fn main() {
    for file in ["build.rs", "wrapper.h", "inline.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let dpdk = match pkg_config::Config::new().cargo_metadata(false).probe("libdpdk") {
        Ok(dpdk) => dpdk,
        Err(error) => {
            eprintln!("{error}");
            refuse("DPDK is not installed, or pkg-config does not find libdpdk")
        }
    };
    if !dpdk.version.starts_with(TESTED) {
        println!("cargo::warning=DPDK {} is installed; this crate was tested with {TESTED} only", dpdk.version);
    }
    let flags = other_flags();
    compile_shims(&dpdk.include_paths, &flags);
    generate(&dpdk.include_paths, &flags);
    for path in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
}

/// The `-include` and `-march` flags, which the `pkg-config` crate leaves out and without which DPDK's headers do not
/// compile.
fn other_flags() -> Vec<String> {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    match Command::new(&tool).args(["--cflags-only-other", "libdpdk"]).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
        }
        Ok(output) => refuse(&format!("{tool} failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => refuse(&format!("{tool} cannot be run: {error}")),
    }
}

fn compile_shims(includes: &[PathBuf], flags: &[String]) {
    let mut build = cc::Build::new();
    // A burst through an unoptimised shim would be slow in debug builds too, so it is always optimised.
    build.file("inline.c").opt_level(3).includes(includes);
    for flag in flags {
        build.flag(flag);
    }
    if let Err(error) = build.try_compile("pshim6_inline") {
        refuse(&format!("the shims over DPDK's inline functions do not compile: {error}"));
    }
}

fn generate(includes: &[PathBuf], flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .clang_args(includes.iter().map(|path| format!("-I{}", path.display())))
        .rust_edition(bindgen::RustEdition::Edition2024)
        .blocklist_type("max_align_t")
        .derive_default(true)
        // Bit-fields in packed structs of the flow API cannot be borrowed, and nobody prints raw structs.
        .derive_debug(false)
        .wrap_unsafe_ops(true)
        .generate_comments(false);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    // bindgen loads libclang at run time and panics when there is none.
    let bindings = match panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate())) {
        Ok(Ok(bindings)) => bindings,
        Ok(Err(error)) => refuse(&format!("bindgen cannot read DPDK's headers: {error}")),
        Err(_) => refuse("bindgen cannot load libclang"),
    };
    let target = Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("dpdk.rs");
    if let Err(error) = fs::write(&target, bindings.to_string()) {
        refuse(&format!("{}: {error}", target.display()));
    }
}

/// Ends the build with what is wrong and what to do about it.
fn refuse(reason: &str) -> ! {
    println!("cargo::error=bindings: {}", reason.replace('\n', " "));
    println!("cargo::error=bindings: on Debian 12 run: {INSTALL}");
    println!("cargo::error=bindings: or build without real ports: leave out `--features dpdk`");
    process::exit(1)
}
