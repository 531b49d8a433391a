// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/*
 * The host's side of the stand-in bus, for user space:
 *   /dev/vmbus_host     a write is a packet to the guest, a read is the
 *                       driver's next packet to the host (poll works);
 *   /dev/vmbus_control  a write of probe, remove, suspend or resume does that
 *                       to the driver and returns when the driver has.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "stub.h"

static DEFINE_SPINLOCK(answers_lock);
static LIST_HEAD(answers);
static unsigned int answers_count;
static DECLARE_WAIT_QUEUE_HEAD(answers_wait);

int stub_host_receive(const void *data, u32 len)
{
	struct stub_packet *packet;
	unsigned long flags;
	int ret = 0;

	if (len > STUB_MAX_PACKET)
		return -EMSGSIZE;
	packet = kmalloc(sizeof(*packet) + len, GFP_ATOMIC);
	if (!packet)
		return -ENOMEM;
	packet->len = len;
	memcpy(packet->data, data, len);

	spin_lock_irqsave(&answers_lock, flags);
	if (answers_count < STUB_MAX_QUEUED) {
		list_add_tail(&packet->link, &answers);
		answers_count++;
		packet = NULL;
	} else {
		ret = -EAGAIN;
	}
	spin_unlock_irqrestore(&answers_lock, flags);
	kfree(packet);
	wake_up_interruptible(&answers_wait);
	return ret;
}


static struct stub_packet *next_answer(void)
{
	struct stub_packet *packet;
	unsigned long flags;

	spin_lock_irqsave(&answers_lock, flags);
	packet = list_first_entry_or_null(&answers, struct stub_packet, link);
	if (packet) {
		list_del(&packet->link);
		answers_count--;
	}
	spin_unlock_irqrestore(&answers_lock, flags);
	return packet;
}

static ssize_t host_read(struct file *file, char __user *buf, size_t size,
			 loff_t *pos)
{
	struct stub_packet *packet;
	ssize_t ret;

	while (!(packet = next_answer())) {
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(answers_wait, READ_ONCE(answers_count)))
			return -ERESTARTSYS;
	}
	ret = packet->len;
	if (size < packet->len)
		ret = -EMSGSIZE;
	else if (copy_to_user(buf, packet->data, packet->len))
		ret = -EFAULT;
	kfree(packet);
	return ret;
}

static ssize_t host_write(struct file *file, const char __user *buf, size_t size,
			  loff_t *pos)
{
	struct stub_packet *packet;
	size_t padded = ALIGN(size, 8);	/* the ring counts in units of eight */
	int ret;

	if (!size || padded > STUB_MAX_PACKET)
		return -EMSGSIZE;
	packet = kzalloc(sizeof(*packet) + padded, GFP_KERNEL);
	if (!packet)
		return -ENOMEM;
	packet->len = padded;
	ret = -EFAULT;
	if (!copy_from_user(packet->data, buf, size))
		ret = stub_deliver(packet);
	if (ret) {
		kfree(packet);
		return ret;
	}
	return size;
}

static __poll_t host_poll(struct file *file, poll_table *wait)
{
	poll_wait(file, &answers_wait, wait);
	return EPOLLOUT | EPOLLWRNORM |
	       (READ_ONCE(answers_count) ? EPOLLIN | EPOLLRDNORM : 0);
}

static ssize_t control_write(struct file *file, const char __user *buf,
			     size_t size, loff_t *pos)
{
	static const struct {
		const char *word;
		int (*action)(void);
	} actions[] = {
		{ "probe", stub_offer },
		{ "remove", stub_rescind },
		{ "suspend", stub_suspend },
		{ "resume", stub_resume },
	};
	char word[16] = { };
	size_t i;
	int ret;

	if (size >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buf, size))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(actions); i++) {
		if (!sysfs_streq(word, actions[i].word))
			continue;
		ret = actions[i].action();
		return ret ? ret : size;
	}
	return -EINVAL;
}

static const struct file_operations host_fops = {
	.owner = THIS_MODULE,
	.read = host_read,
	.write = host_write,
	.poll = host_poll,
};

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.write = control_write,
};

static struct miscdevice host_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmbus_host",
	.fops = &host_fops,
};

static struct miscdevice control_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmbus_control",
	.fops = &control_fops,
};

int stub_host_init(void)
{
	int ret = misc_register(&host_dev);

	if (ret)
		return ret;
	ret = misc_register(&control_dev);
	if (ret)
		misc_deregister(&host_dev);
	return ret;
}

void stub_host_exit(void)
{
	struct stub_packet *packet;

	misc_deregister(&control_dev);
	misc_deregister(&host_dev);
	while ((packet = next_answer()))
		kfree(packet);
}
