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
#include <linux/uuid.h>

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

/* A type of device: <linux/hyperv.h> names types by this member. */
struct stub_type {
	guid_t guid;
};

/* bus.c: what the host can do to the guest, and its one type of device. */
extern const struct stub_type stub_vss_type;
int stub_offer(void);
int stub_rescind(void);
int stub_suspend(void);
int stub_resume(void);

/* channel.c: a packet for the driver, and the interrupt that tells it so. */
int stub_deliver(struct stub_packet *packet);
void stub_channel_event(unsigned long data);

/* sysfs.c: what the bus shows. The caller of those for VSS serialises them. */
int stub_sysfs_init(void);
void stub_sysfs_exit(void);
int stub_show_vss(void);
void stub_hide_vss(void);
bool stub_shows_vss(void);

/* host.c: what the driver can do to the host, and both device nodes. */
int stub_host_init(void);
void stub_host_exit(void);
int stub_host_receive(const void *data, u32 len);

#endif
