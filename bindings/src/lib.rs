//! DPDK for P-SHIM6: the only room that knows DPDK.
