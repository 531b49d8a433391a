// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/* The versions that driver and host agree on. */
#include <linux/module.h>

#include "stub.h"

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
