// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/*
 * The guest's side of the stand-in bus: the eight symbols hv_utils.ko needs,
 * one device of the VSS type, and its channel as a queue of packets.
 */
#include <linux/device.h>
#include <linux/interrupt.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uuid.h>
#include <linux/version.h>

#include "stub.h"

/* What hv_utils asks of the host's age; writable to play an old host. */
__u32 vmbus_proto_version = VERSION_WIN10_V5;
EXPORT_SYMBOL_GPL(vmbus_proto_version);
module_param_named(proto_version, vmbus_proto_version, uint, 0644);
MODULE_PARM_DESC(proto_version, "VMBus protocol version the host speaks");

static const struct { guid_t guid; } vss_type = { HV_VSS_GUID };

/* Serialises offer, rescind, suspend and resume: what the host does to us. */
static DEFINE_MUTEX(host_lock);
static struct hv_driver *driver;	/* the registered driver, if it does VSS */
static const struct hv_vmbus_device_id *driver_id;
static struct hv_device *device;	/* NULL while the service is switched off */
static bool suspended;

/* Guards the queue and whether the channel is open. */
static DEFINE_SPINLOCK(queue_lock);
static LIST_HEAD(to_guest);
static unsigned int to_guest_count;
static struct vmbus_channel *open_channel;

/*
 * What the bus shows in sysfs: each service the host offers, whether a driver
 * wants it or not. Beside backups a heartbeat, which nobody takes here.
 */
struct shown {
	struct device dev;
	const guid_t *class;
};

static const struct { guid_t guid; } heartbeat_type = { HV_HEART_BEAT_GUID };
static struct bus_type sysfs_bus = { .name = "vmbus" };
static struct shown *shown_vss;		/* guarded by host_lock */
static struct shown *shown_heartbeat;

static ssize_t class_id_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "{%pUl}\n",
			  container_of(dev, struct shown, dev)->class);
}
static DEVICE_ATTR_RO(class_id);

static struct attribute *shown_attributes[] = {
	&dev_attr_class_id.attr,
	NULL
};
static const struct attribute_group shown_group = { .attrs = shown_attributes };
static const struct attribute_group *shown_groups[] = { &shown_group, NULL };

static void shown_release(struct device *dev)
{
	kfree(container_of(dev, struct shown, dev));
}

static int show(struct shown **shown, const char *name, const guid_t *class)
{
	struct shown *new;
	int ret;

	if (*shown)
		return 0;
	new = kzalloc(sizeof(*new), GFP_KERNEL);
	if (!new)
		return -ENOMEM;
	new->class = class;
	new->dev.bus = &sysfs_bus;
	new->dev.groups = shown_groups;
	new->dev.release = shown_release;
	device_initialize(&new->dev);
	ret = dev_set_name(&new->dev, "%s", name);
	if (!ret)
		ret = device_add(&new->dev);
	if (ret) {
		put_device(&new->dev);
		return ret;
	}
	*shown = new;
	return 0;
}

static void hide(struct shown **shown)
{
	if (*shown)
		device_unregister(&(*shown)->dev);
	*shown = NULL;
}

/* The caller holds host_lock. */
static int show_locked(void)
{
	return show(&shown_vss, "2450ee40-33bf-4fbd-892e-9fb06e9214cf",
		    &vss_type.guid);
}

static void drop_all(struct list_head *packets)
{
	struct stub_packet *packet, *next;

	list_for_each_entry_safe(packet, next, packets, link) {
		list_del(&packet->link);
		kfree(packet);
	}
}

/* The interrupt of the channel: one call of the driver for each packet. */
static void channel_event(unsigned long data)
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

static bool speaks(const struct ic_version *theirs, int ours)
{
	return theirs->major == ours >> 16 && theirs->minor == (ours & 0xffff);
}

/* The first of our versions, best first, that the host offers too; or -1. */
static int agree(const int *ours, int count, const struct ic_version *theirs,
		 unsigned int their_count)
{
	unsigned int j;
	int i;

	for (i = 0; i < count; i++)
		for (j = 0; j < their_count; j++)
			if (speaks(&theirs[j], ours[i]))
				return ours[i];
	return -1;
}

/* Answers a negotiation in place: one frame and one message version, or none. */
bool vmbus_prep_negotiate_resp(struct icmsg_hdr *header, u8 *buf, u32 buflen,
			       const int *fw_version, int fw_count,
			       const int *srv_version, int srv_count,
			       int *agreed_fw, int *agreed_srv)
{
	struct icmsg_negotiate *offer = (void *)(buf + ICMSG_HDR);
	unsigned int frames, messages;
	int fw, srv;

	if (buflen < ICMSG_HDR + sizeof(*offer))
		return false;
	frames = offer->icframe_vercnt;
	messages = offer->icmsg_vercnt;
	if (!frames || !messages || frames > 100 || messages > 100 ||
	    buflen < ICMSG_NEGOTIATE_PKT_SIZE(frames, messages))
		return false;

	fw = agree(fw_version, fw_count, offer->icversion_data, frames);
	srv = agree(srv_version, srv_count, offer->icversion_data + frames, messages);
	header->icmsgsize = 0x10;
	if (fw < 0 || srv < 0) {
		offer->icframe_vercnt = 0;
		offer->icmsg_vercnt = 0;
		return false;
	}
	offer->icframe_vercnt = 1;
	offer->icmsg_vercnt = 1;
	offer->icversion_data[0].major = fw >> 16;
	offer->icversion_data[0].minor = fw & 0xffff;
	offer->icversion_data[1].major = srv >> 16;
	offer->icversion_data[1].minor = srv & 0xffff;
	if (agreed_fw)
		*agreed_fw = fw;
	if (agreed_srv)
		*agreed_srv = srv;
	return true;
}
EXPORT_SYMBOL_GPL(vmbus_prep_negotiate_resp);

static void free_device(struct hv_device *dev)
{
	tasklet_kill(&dev->channel->callback_event);
	kfree(dev->channel);
	kfree(dev);
}

/* Host: the service is there (again). The caller holds host_lock. */
static int offer_locked(void)
{
	struct hv_device *dev;
	int ret;

	if (device)
		return -EALREADY;
	ret = show_locked();
	if (ret)
		return ret;
	if (!driver)
		return 0;
	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	dev->channel = kzalloc(sizeof(*dev->channel), GFP_KERNEL);
	if (!dev->channel) {
		kfree(dev);
		return -ENOMEM;
	}
	guid_copy(&dev->dev_type, &vss_type.guid);
	dev->channel->device_obj = dev;
	tasklet_init(&dev->channel->callback_event, channel_event,
		     (unsigned long)dev->channel);
	ret = driver->probe(dev, driver_id);
	if (ret) {
		free_device(dev);
		return ret;
	}
	device = dev;
	return 0;
}

/* The driver has to do without its device. */
static void let_go_locked(void)
{
	if (!device)
		return;
	driver->remove(device);
	free_device(device);
	device = NULL;
}

/* Host: the service is gone. Sleeps until the driver has let go of it. */
static int rescind_locked(void)
{
	if (suspended)
		return -EBUSY;
	if (!device && !shown_vss)
		return -ENODEV;
	hide(&shown_vss);
	let_go_locked();
	return 0;
}

int stub_offer(void)
{
	int ret;

	mutex_lock(&host_lock);
	ret = offer_locked();
	mutex_unlock(&host_lock);
	return ret;
}

int stub_rescind(void)
{
	int ret;

	mutex_lock(&host_lock);
	ret = rescind_locked();
	mutex_unlock(&host_lock);
	return ret;
}

int stub_suspend(void)
{
	int ret = -ENODEV;

	mutex_lock(&host_lock);
	if (device && !suspended) {
		ret = driver->suspend(device);
		suspended = !ret;
	}
	mutex_unlock(&host_lock);
	return ret;
}

int stub_resume(void)
{
	int ret = -ENODEV;

	mutex_lock(&host_lock);
	if (device && suspended) {
		ret = driver->resume(device);
		suspended = ret;
	}
	mutex_unlock(&host_lock);
	return ret;
}

int __vmbus_driver_register(struct hv_driver *drv, struct module *owner,
			    const char *mod_name)
{
	const struct hv_vmbus_device_id *id;
	int ret;

	for (id = drv->id_table; id && !guid_is_null(&id->guid); id++)
		if (guid_equal(&id->guid, &vss_type.guid))
			break;
	if (!id || guid_is_null(&id->guid))
		return 0;

	mutex_lock(&host_lock);
	driver = drv;
	driver_id = id;
	ret = shown_vss ? offer_locked() : 0;
	mutex_unlock(&host_lock);
	if (ret)	/* as on the real bus, a failed probe is not fatal */
		pr_info("hv_vmbus: the driver declines the device: %d\n", ret);
	return 0;
}
EXPORT_SYMBOL_GPL(__vmbus_driver_register);

void vmbus_driver_unregister(struct hv_driver *drv)
{
	mutex_lock(&host_lock);
	if (driver == drv) {
		let_go_locked();
		driver = NULL;
		driver_id = NULL;
	}
	mutex_unlock(&host_lock);
}
EXPORT_SYMBOL_GPL(vmbus_driver_unregister);

static void hide_all(void)
{
	hide(&shown_vss);
	hide(&shown_heartbeat);
	bus_unregister(&sysfs_bus);
}

static int __init stub_init(void)
{
	int ret = bus_register(&sysfs_bus);

	if (ret)
		return ret;
	ret = show(&shown_heartbeat, "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0",
		   &heartbeat_type.guid);
	mutex_lock(&host_lock);
	if (!ret)
		ret = show_locked();
	mutex_unlock(&host_lock);
	if (!ret)
		ret = stub_host_init();
	if (ret)
		hide_all();
	return ret;
}

static void __exit stub_exit(void)
{
	stub_host_exit();
	hide_all();
}

module_init(stub_init);
module_exit(stub_exit);
MODULE_DESCRIPTION("Stand-in VMBus with one VSS device, for tests");
MODULE_LICENSE("Dual MIT/GPL");
