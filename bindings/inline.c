/*
 * DPDK's data path is made of static inlines, which have no symbol to link. Each one we need gets a symbol here, and
 * each is called once per burst, not once per packet (but for a single allocation or a single free).
 */
#include "wrapper.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int pshim6_errno(void)
{
	return rte_errno;
}

unsigned int pshim6_lcore_id(void)
{
	return rte_lcore_id();
}

/* Not DPDK's either: how long the calling thread ran, which the kernel shows nowhere else without delay. */
uint64_t pshim6_thread_ns(void)
{
	struct timespec ran = { 0 };

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ran);
	return ran.tv_sec * 1000000000ull + ran.tv_nsec;
}

uint16_t pshim6_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t pshim6_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

struct rte_mbuf *pshim6_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int pshim6_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, packets, count);
}

void pshim6_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

unsigned int pshim6_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count)
{
	return rte_ring_sp_enqueue_burst(ring, (void *const *)packets, count, NULL);
}

unsigned int pshim6_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)packets, count, NULL);
}

/*
 * Not an inline of DPDK: its AF_PACKET driver says "up" for ever, so the kernel is asked. By ioctl and not through
 * /sys, which may show another network namespace than ours.
 */
int pshim6_interface_up(unsigned int index)
{
	struct ifreq request = { .ifr_ifindex = (int)index };
	int up = -1;
	int handle = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (handle < 0)
		return -1;
	if (ioctl(handle, SIOCGIFNAME, &request) == 0 && ioctl(handle, SIOCGIFFLAGS, &request) == 0)
		up = (request.ifr_flags & IFF_UP) && (request.ifr_flags & IFF_RUNNING);
	close(handle);
	return up;
}
