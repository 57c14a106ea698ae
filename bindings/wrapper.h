/*
 * What bindgen reads: the headers of DPDK we use, the shims for its static inlines (bodies in inline.c, beside the one system call DPDK does not
 * make for us), and the few
 * constants bindgen cannot evaluate because DPDK writes them with function-like macros.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

/* Hash on the IPv6 address pair, whatever follows it: both names of a flow stay on one queue. */
static const uint64_t PSHIM6_RSS_ADDRESSES =
	RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_IPV6_EX | RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER;
/* The same, and on ports where there are some. */
static const uint64_t PSHIM6_RSS_PORTS =
	RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP | RTE_ETH_RSS_NONFRAG_IPV6_SCTP;
/* The device tells by itself when its link changes. */
static const uint32_t PSHIM6_DEVICE_TELLS_LINK = RTE_ETH_DEV_INTR_LSC;
/* What says where the octets of an mbuf live; every other flag asks a NIC for something. */
static const uint64_t PSHIM6_MBUF_ATTACHMENT = RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT;
/* The octets are those of another mbuf. */
static const uint64_t PSHIM6_MBUF_CLONE = RTE_MBUF_F_INDIRECT;

/* Whether interface `index` of the kernel is up and sees its peer: 1, 0, or -1 when it cannot be asked. */
int pshim6_interface_up(unsigned int index);
int pshim6_errno(void);
unsigned int pshim6_lcore_id(void);
uint64_t pshim6_thread_ns(void);
uint16_t pshim6_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t pshim6_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
struct rte_mbuf *pshim6_mbuf_alloc(struct rte_mempool *pool);
int pshim6_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count);
void pshim6_mbuf_free(struct rte_mbuf *packet);
unsigned int pshim6_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count);
unsigned int pshim6_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count);
