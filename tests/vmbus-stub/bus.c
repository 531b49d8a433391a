// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/*
 * The guest's side of the stand-in bus: one device of the VSS type, which the
 * host offers, takes back, suspends and resumes.
 */
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uuid.h>

#include "stub.h"

/* What hv_utils asks of the host's age; writable to play an old host. */
__u32 vmbus_proto_version = VERSION_WIN10_V5;
EXPORT_SYMBOL_GPL(vmbus_proto_version);
module_param_named(proto_version, vmbus_proto_version, uint, 0644);
MODULE_PARM_DESC(proto_version, "VMBus protocol version the host speaks");

const struct stub_type stub_vss_type = { HV_VSS_GUID };

/* Serialises offer, rescind, suspend and resume: what the host does to us. */
static DEFINE_MUTEX(host_lock);
static struct hv_driver *driver;	/* the registered driver, if it does VSS */
static const struct hv_vmbus_device_id *driver_id;
static struct hv_device *device;	/* NULL while the service is switched off */
static bool suspended;

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
	ret = stub_show_vss();
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
	guid_copy(&dev->dev_type, &stub_vss_type.guid);
	dev->channel->device_obj = dev;
	tasklet_init(&dev->channel->callback_event, stub_channel_event,
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
	if (!device && !stub_shows_vss())
		return -ENODEV;
	stub_hide_vss();
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
		if (guid_equal(&id->guid, &stub_vss_type.guid))
			break;
	if (!id || guid_is_null(&id->guid))
		return 0;

	mutex_lock(&host_lock);
	driver = drv;
	driver_id = id;
	ret = stub_shows_vss() ? offer_locked() : 0;
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

static int __init stub_init(void)
{
	int ret = stub_sysfs_init();

	if (ret)
		return ret;
	mutex_lock(&host_lock);
	ret = stub_show_vss();
	mutex_unlock(&host_lock);
	if (!ret)
		ret = stub_host_init();
	if (ret)
		stub_sysfs_exit();
	return ret;
}

static void __exit stub_exit(void)
{
	stub_host_exit();
	stub_sysfs_exit();
}

module_init(stub_init);
module_exit(stub_exit);
MODULE_DESCRIPTION("Stand-in VMBus with one VSS device, for tests");
MODULE_LICENSE("Dual MIT/GPL");
