/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/* Messages of NFQUEUE, whole, cut and spoilt, in memory that ends where they end; slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <stdlib.h>
#include <string.h>

#include "linux/nfqueue.h"
#include "linux/slot.h"

static const uint8_t payload[21] = {0x45, 0, 0, 21};

/* A packet message with every attribute that is looked at; returns its length. */
static size_t
make_packet(uint8_t *buf)
{
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
    struct nfqnl_msg_packet_hdr hdr = {.packet_id = htonl(0xfffffffe), .hook = NF_INET_LOCAL_IN};
    struct nfqnl_msg_packet_hw hw = {.hw_addrlen = htons(6), .hw_addr = {1, 2, 3, 4, 5, 6}};

    nlh->nlmsg_type = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET;
    nfg->res_id = htons(7);
    mnl_attr_put(nlh, NFQA_PACKET_HDR, sizeof(hdr), &hdr);
    mnl_attr_put_u32(nlh, NFQA_MARK, htonl(1));
    mnl_attr_put_u32(nlh, NFQA_IFINDEX_INDEV, htonl(3));
    mnl_attr_put_u32(nlh, NFQA_SKB_INFO, htonl(NFQA_SKB_CSUMNOTREADY));
    mnl_attr_put(nlh, NFQA_HWADDR, sizeof(hw), &hw);
    mnl_attr_put_u32(nlh, NFQA_CAP_LEN, htonl(100));
    mnl_attr_put(nlh, NFQA_PAYLOAD, sizeof(payload), payload);
    return nlh->nlmsg_len;
}

/* Parses a copy of len bytes whose end, rounded up as messages are, is the end of its memory. */
static enum wd_nfq_msg
parse_copy(const uint8_t *msg, size_t len, struct wd_nfq_packet *packet, struct wd_nfq_ack *ack)
{
    uint8_t *copy = calloc(1, MNL_ALIGN(len) + (len == 0));
    enum wd_nfq_msg kind;

    memcpy(copy, msg, len);
    kind = wd_nfq_parse(copy, len, packet, ack);
    if (kind == WD_NFQ_PACKET) {
        assert_true(packet->payload >= copy && packet->payload + packet->cap_len <= copy + MNL_ALIGN(len));
        assert_true(packet->len >= packet->cap_len);
        assert_true(!packet->hw_source ||
                    (packet->hw_source >= copy && packet->hw_source + 6 <= copy + MNL_ALIGN(len)));
    }
    free(copy);
    return kind;
}

static void
whole_packet(void **state)
{
    _Alignas(8) uint8_t msg[512];
    size_t len = make_packet(msg);
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack;

    (void)state;
    assert_int_equal(wd_nfq_parse(msg, len, &packet, &ack), WD_NFQ_PACKET);
    assert_int_equal(packet.id, 0xfffffffe);
    assert_int_equal(packet.queue, 7);
    assert_int_equal(packet.hook, NF_INET_LOCAL_IN);
    assert_int_equal(packet.indev, 3);
    assert_int_equal(packet.len, 100);
    assert_int_equal(packet.cap_len, sizeof(payload));
    assert_true(packet.csum_not_ready && !packet.gso && packet.hw_source);
    assert_memory_equal(packet.payload, payload, sizeof(payload));
}

/* Fewer bytes than the header says: nothing.  A header that says so, too: what is there, or nothing. */
static void
cut_packet(void **state)
{
    _Alignas(8) uint8_t msg[512];
    struct nlmsghdr *nlh = (void *)msg;
    size_t len = make_packet(msg);
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack;

    (void)state;
    for (size_t cut = 0; cut < len; cut++) {
        nlh->nlmsg_len = (uint32_t)len;
        assert_int_equal(parse_copy(msg, cut, &packet, &ack), WD_NFQ_OTHER);
        nlh->nlmsg_len = (uint32_t)cut;
        assert_int_not_equal(parse_copy(msg, cut, &packet, &ack), WD_NFQ_ACK);
    }
}

/* Every attribute with every length up to 80, also over the end of the message. */
static void
spoilt_attributes(void **state)
{
    _Alignas(8) uint8_t msg[512], spoilt[512];
    size_t len = make_packet(msg);
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack;

    (void)state;
    for (size_t at = 20; at < len;) {
        struct nlattr *attr = (void *)(msg + at);

        for (uint16_t size = 0; size < 80; size++) {
            memcpy(spoilt, msg, len);
            ((struct nlattr *)(void *)(spoilt + at))->nla_len = size;
            parse_copy(spoilt, len, &packet, &ack);
        }
        at += MNL_ALIGN(attr->nla_len);
    }
}

/* An attribute that is too short, at the very end, is not there. */
static void
short_attribute_last(void **state)
{
    static const uint16_t types[] = {NFQA_PACKET_HDR, NFQA_MARK,    NFQA_IFINDEX_INDEV, NFQA_IFINDEX_OUTDEV,
                                     NFQA_HWADDR,     NFQA_CAP_LEN, NFQA_SKB_INFO,      21 /* NFQA_PRIORITY */};
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack;

    (void)state;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        _Alignas(8) uint8_t msg[64];
        struct nlmsghdr *nlh = mnl_nlmsg_put_header(msg);

        mnl_nlmsg_put_extra_header(nlh, sizeof(struct nfgenmsg));
        nlh->nlmsg_type = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET;
        mnl_attr_put(nlh, types[i], 0, NULL);
        assert_int_equal(parse_copy(msg, nlh->nlmsg_len, &packet, &ack), WD_NFQ_META);
        assert_int_equal(packet.id | packet.hook | packet.len | packet.indev | packet.outdev, 0);
    }
}

static void
acknowledgements(void **state)
{
    _Alignas(8) uint8_t msg[64] = {0};
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(msg);
    struct nlmsgerr *error = mnl_nlmsg_put_extra_header(nlh, sizeof(*error));
    size_t len = nlh->nlmsg_len;
    struct wd_nfq_packet packet;
    struct wd_nfq_ack ack = {0};

    (void)state;
    nlh->nlmsg_type = NLMSG_ERROR;
    nlh->nlmsg_seq = 0xffffffff;
    error->error = -2;
    assert_int_equal(parse_copy(msg, len, &packet, &ack), WD_NFQ_ACK);
    assert_int_equal(ack.seq, 0xffffffff);
    assert_int_equal(ack.error, -2);
    for (size_t cut = sizeof(*nlh); cut < len; cut++) {
        nlh->nlmsg_len = (uint32_t)cut;
        assert_int_equal(parse_copy(msg, cut, &packet, &ack), WD_NFQ_OTHER);
    }
    nlh->nlmsg_len = (uint32_t)len;
    nlh->nlmsg_type = NLMSG_OVERRUN;
    assert_int_equal(parse_copy(msg, len, &packet, &ack), WD_NFQ_OTHER);
}

/* What is gathered is a row of netlink messages, with sequence numbers that go on over 2^32. */
static void
verdicts(void **state)
{
    struct wd_nfq nfq = {.num = 9, .split = 10, .seq = 0xfffffffe};
    static struct wd_nfq_batch batch;
    uint8_t bytes[1024];
    size_t len = 0;
    int left;

    (void)state;
    wd_nfq_batch_init(&batch);
    assert_int_equal(wd_nfq_batch_add(&nfq, &batch, 1, NF_ACCEPT, NULL, 0, false), 0xffffffff);
    assert_int_equal(wd_nfq_batch_add(&nfq, &batch, 2, NF_ACCEPT, payload, sizeof(payload), true), 0);
    assert_int_equal(wd_nfq_batch_repeat(&nfq, &batch, 3), 1);
    for (int i = 0; i < batch.iov_count; i++) {
        memcpy(bytes + len, batch.iov[i].iov_base, batch.iov[i].iov_len);
        len += batch.iov[i].iov_len;
    }
    assert_int_equal(len, batch.bytes);
    left = (int)len;
    for (struct nlmsghdr *nlh = (void *)bytes; left; nlh = mnl_nlmsg_next(nlh, &left)) {
        const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);

        assert_true(mnl_nlmsg_ok(nlh, left));
        assert_int_equal(ntohs(nfg->res_id), nlh->nlmsg_seq == 1 ? 10 : 9);
        assert_int_equal(!!(nlh->nlmsg_flags & NLM_F_ACK), nlh->nlmsg_seq == 0);
    }
}

/* The longest packet and the fullest batch stay within the arrays. */
static void
full_batch(void **state)
{
    struct wd_nfq nfq = {.num = 9};
    static struct wd_nfq_batch batch;
    static uint8_t longest[WD_NFQ_PAYLOAD_MAX];

    (void)state;
    for (size_t len = 1; len <= WD_NFQ_PAYLOAD_MAX; len += WD_NFQ_PAYLOAD_MAX - 1) {
        wd_nfq_batch_init(&batch);
        while (!wd_nfq_batch_full(&batch))
            wd_nfq_batch_add(&nfq, &batch, 1, NF_ACCEPT, longest, len, false);
        assert_true(batch.head_used <= sizeof(batch.head));
        assert_true((size_t)batch.iov_count <= sizeof(batch.iov) / sizeof(batch.iov[0]));
        assert_true(batch.count == WD_NFQ_VERDICTS || len > 1);
    }
}

/* Ids that share a bucket, and an id that comes again with another generation. */
static void
held_slots(void **state)
{
    struct wd_slot_pool pool = {0};
    static struct wd_held held;
    struct wd_slot *slot[4];

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        slot[i] = wd_slot_get(&pool);
        slot[i]->id = i < 3 ? i * WD_HELD_BUCKETS : 0;
        wd_held_add(&held, slot[i]);
    }
    assert_ptr_equal(wd_held_find(&held, 0, slot[0]->generation), slot[0]);
    assert_ptr_equal(wd_held_find(&held, 0, slot[3]->generation), slot[3]);
    wd_held_remove(&held, slot[1]);
    assert_null(wd_held_find(&held, WD_HELD_BUCKETS, slot[1]->generation));
    assert_ptr_equal(wd_held_find(&held, 2 * WD_HELD_BUCKETS, slot[2]->generation), slot[2]);
    assert_int_equal(held.list.count, 3);
    for (uint32_t i = 0; i < 4; i++) {
        if (i != 1)
            wd_held_remove(&held, slot[i]);
        wd_slot_put(&pool, slot[i]);
    }
    assert_true(!held.list.first && !held.list.last && held.list.count == 0);
    wd_slot_pool_trim(&pool);
}

/* Small, over the small room, to the greatest length, and small again. */
static void
stored_bytes(void **state)
{
    static const size_t sizes[] = {1, WD_SLOT_SMALL, WD_SLOT_SMALL + 1, WD_NFQ_MSG_MAX, 20};
    static uint8_t data[WD_NFQ_MSG_MAX];
    struct wd_slot_pool pool = {0};
    struct wd_slot *slot = wd_slot_get(&pool);

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        memset(data, (int)i + 1, sizes[i]);
        assert_true(wd_slot_store(&pool, slot, data, sizes[i]));
        assert_int_equal(slot->cap_len, sizes[i]);
        assert_memory_equal(slot->data, data, sizes[i]);
    }
    wd_slot_put(&pool, slot);
    wd_slot_pool_trim(&pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_packet),      cmocka_unit_test(cut_packet),
        cmocka_unit_test(spoilt_attributes), cmocka_unit_test(short_attribute_last),
        cmocka_unit_test(acknowledgements),  cmocka_unit_test(verdicts),
        cmocka_unit_test(full_batch),        cmocka_unit_test(held_slots),
        cmocka_unit_test(stored_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
