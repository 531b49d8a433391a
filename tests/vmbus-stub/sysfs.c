// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/* What the bus shows in sysfs. */
#include <linux/device.h>
#include <linux/slab.h>
#include <linux/uuid.h>

#include "stub.h"

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
static struct shown *shown_vss;
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

int stub_show_vss(void)
{
	return show(&shown_vss, "2450ee40-33bf-4fbd-892e-9fb06e9214cf",
		    &stub_vss_type.guid);
}

void stub_hide_vss(void)
{
	hide(&shown_vss);
}

bool stub_shows_vss(void)
{
	return shown_vss;
}

int stub_sysfs_init(void)
{
	int ret = bus_register(&sysfs_bus);

	if (ret)
		return ret;
	ret = show(&shown_heartbeat, "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0",
		   &heartbeat_type.guid);
	if (ret)
		bus_unregister(&sysfs_bus);
	return ret;
}

void stub_sysfs_exit(void)
{
	hide(&shown_vss);
	hide(&shown_heartbeat);
	bus_unregister(&sysfs_bus);
}
