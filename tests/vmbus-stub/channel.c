// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/* The channel of the stand-in bus: a queue of packets to the driver. */
#include <linux/interrupt.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "stub.h"

/* Guards the queue and whether the channel is open. */
static DEFINE_SPINLOCK(queue_lock);
static LIST_HEAD(to_guest);
static unsigned int to_guest_count;
static struct vmbus_channel *open_channel;

static void drop_all(struct list_head *packets)
{
	struct stub_packet *packet, *next;

	list_for_each_entry_safe(packet, next, packets, link) {
		list_del(&packet->link);
		kfree(packet);
	}
}

/* The interrupt of the channel: one call of the driver for each packet. */
void stub_channel_event(unsigned long data)
{
	struct vmbus_channel *channel = (struct vmbus_channel *)data;
	void (*callback)(void *context) = READ_ONCE(channel->onchannel_callback);
	unsigned int before, after;

	if (!callback)
		return;
	before = READ_ONCE(to_guest_count);
	callback(channel->channel_callback_context);
	after = READ_ONCE(to_guest_count);
	/* A driver that takes nothing is busy and polls when it is done. */
	if (after && after < before)
		tasklet_schedule(&channel->callback_event);
}

int stub_deliver(struct stub_packet *packet)
{
	unsigned long flags;
	int ret = -ENOTCONN;

	spin_lock_irqsave(&queue_lock, flags);
	if (open_channel && to_guest_count >= STUB_MAX_QUEUED) {
		ret = -EAGAIN;
	} else if (open_channel) {
		list_add_tail(&packet->link, &to_guest);
		to_guest_count++;
		tasklet_schedule(&open_channel->callback_event);
		ret = 0;
	}
	spin_unlock_irqrestore(&queue_lock, flags);
	return ret;
}

int vmbus_open(struct vmbus_channel *channel, u32 send_size, u32 recv_size,
	       void *userdata, u32 userdatalen,
	       void (*callback)(void *context), void *context)
{
	unsigned long flags;

	spin_lock_irqsave(&queue_lock, flags);
	channel->channel_callback_context = context;
	WRITE_ONCE(channel->onchannel_callback, callback);
	open_channel = channel;
	spin_unlock_irqrestore(&queue_lock, flags);
	return 0;
}
EXPORT_SYMBOL_GPL(vmbus_open);

void vmbus_close(struct vmbus_channel *channel)
{
	LIST_HEAD(stale);
	unsigned long flags;

	/* Waits for a running callback; none starts after this. */
	tasklet_disable(&channel->callback_event);
	spin_lock_irqsave(&queue_lock, flags);
	WRITE_ONCE(channel->onchannel_callback, NULL);
	open_channel = NULL;
	list_splice_init(&to_guest, &stale);
	to_guest_count = 0;
	spin_unlock_irqrestore(&queue_lock, flags);
	tasklet_enable(&channel->callback_event);
	drop_all(&stale);
}
EXPORT_SYMBOL_GPL(vmbus_close);

/*
 * The driver takes one packet. As on the real ring, lengths are multiples of
 * eight, and a packet above the channel's limit arrives cut off at the limit.
 */
int vmbus_recvpacket(struct vmbus_channel *channel, void *buffer, u32 bufferlen,
		     u32 *actual_len, u64 *requestid)
{
	struct stub_packet *packet;
	unsigned long flags;
	u32 len;
	int ret = 0;

	*actual_len = 0;
	*requestid = 0;
	spin_lock_irqsave(&queue_lock, flags);
	packet = list_first_entry_or_null(&to_guest, struct stub_packet, link);
	if (packet) {
		list_del(&packet->link);
		to_guest_count--;
	}
	spin_unlock_irqrestore(&queue_lock, flags);
	if (!packet)
		return 0;

	len = packet->len;
	if (channel->max_pkt_size)
		len = min(len, channel->max_pkt_size);
	*actual_len = len;
	*requestid = 1;
	if (len > bufferlen)
		ret = -ENOBUFS;
	else
		memcpy(buffer, packet->data, len);
	kfree(packet);
	return ret;
}
EXPORT_SYMBOL_GPL(vmbus_recvpacket);

int vmbus_sendpacket(struct vmbus_channel *channel, void *buffer, u32 len,
		     u64 requestid, enum vmbus_packet_type type, u32 flags)
{
	return stub_host_receive(buffer, len);
}
EXPORT_SYMBOL_GPL(vmbus_sendpacket);
