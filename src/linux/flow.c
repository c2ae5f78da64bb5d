/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "flow.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bpf/load.h"
#include "core/packet.h"
#include "windivert_ext.h"

_Static_assert(sizeof(struct wd_flow) == 40, "no padding: it is compared as bytes");

int
wd_flows_need(struct wd_flows *flows, struct wd_error *err)
{
    if (flows->fd >= 0)
        return 0;
    return wd_bpf_map(BPF_MAP_TYPE_LRU_HASH, "wd_flows", sizeof(struct wd_flow), sizeof(uint64_t),
                      WINDIVERT_EXT_FLOWS_MAX, 0, &flows->fd, err);
}

void
wd_flows_close(struct wd_flows *flows)
{
    if (flows->fd >= 0)
        close(flows->fd);
    flows->fd = -1;
}

static void
swap_ends(struct wd_flow *flow)
{
    const struct wd_flow was = *flow;

    memcpy(flow->addr[0], was.addr[1], sizeof(was.addr[1]));
    memcpy(flow->addr[1], was.addr[0], sizeof(was.addr[0]));
    flow->port[0] = was.port[1];
    flow->port[1] = was.port[0];
}

static bool
is_sorted(const struct wd_flow *flow)
{
    for (int i = 0; i < 2; i++)
        if (flow->addr[0][i] != flow->addr[1][i])
            return flow->addr[0][i] < flow->addr[1][i];
    return flow->port[0] <= flow->port[1];
}

int
wd_flow_key(const void *data, size_t len, struct wd_flow *ret_flow, struct wd_error *err)
{
    struct wd_flow flow = {0};
    struct wd_packet packet;
    uint32_t v4[2];

    if (!wd_packet_parse(data, len, &packet))
        return wd_error_set(err, -EINVAL, NULL, "skip a flow: this is no IP packet");
    if (packet.fragment)
        return wd_error_set(err, -EINVAL, "use a packet that is whole", "skip a flow: a fragment belongs to none");
    if (packet.version == 6) {
        memcpy(flow.addr, packet.data + 8, sizeof(flow.addr));
    } else {
        memcpy(v4, packet.data + 12, sizeof(v4));
        flow.addr[0][1] = v4[0];
        flow.addr[1][1] = v4[1];
    }
    if (packet.l4 == WD_L4_TCP || packet.l4 == WD_L4_UDP)
        memcpy(flow.port, packet.data + packet.l4_off, sizeof(flow.port));
    flow.protocol = packet.protocol;
    flow.version = packet.version;
    if (!is_sorted(&flow))
        swap_ends(&flow);
    *ret_flow = flow;
    return 0;
}

int
wd_flows_skip(struct wd_flows *flows, const struct wd_flow *flow, struct wd_error *err)
{
    const uint64_t skipped = WD_FLOW_SKIPPED;
    int error = wd_bpf_map_set(flows->fd, flow, &skipped, BPF_NOEXIST);

    if (!error)
        flows->put++;
    else if (error == -EEXIST)
        error = wd_bpf_map_set(flows->fd, flow, &skipped, BPF_ANY);
    return error ? wd_error_set(err, error, NULL, "skip a flow: %s", strerror(-error)) : 0;
}
