/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/*
 * A stand-in for the VMBus driver: one device, one channel, and the host's
 * end of that channel in user space. It exists so that the distribution's own
 * hv_utils.ko runs, unchanged, where there is no Hyper-V.
 */
#ifndef HV_VMBUS_STUB_H
#define HV_VMBUS_STUB_H

#include <linux/hyperv.h>
#include <linux/list.h>
#include <linux/types.h>

/* Larger than anything a driver accepts, so that too large can be tested. */
#define STUB_MAX_PACKET 32768u
/* More packets than this in one direction and the sender is told so. */
#define STUB_MAX_QUEUED 64u

/* One packet on its way, in either direction. */
struct stub_packet {
	struct list_head link;
	u32 len;
	u8 data[];
};

/* bus.c: what the host can do to the guest. */
int stub_deliver(struct stub_packet *packet);
int stub_offer(void);
int stub_rescind(void);
int stub_suspend(void);
int stub_resume(void);

/* host.c: what the driver can do to the host, and both device nodes. */
int stub_host_init(void);
void stub_host_exit(void);
int stub_host_receive(const void *data, u32 len);

#endif
