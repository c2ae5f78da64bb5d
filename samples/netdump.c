/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * netdump: prints the packets that match a filter, and leaves them alone.
 *
 *     netdump [FILTER] [PRIORITY]
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"
#include "windivert.h"
#include "windivert_ext.h"

#define LABEL 8    /* columns of the name of a header, to the left of its fields */
#define CELL 18    /* columns of a field, or a multiple */
#define LINE 72    /* columns of fields on a line */
#define SECOND 1e7 /* ticks of a Timestamp in a second */

struct totals {
    UINT64 packets, bytes, outbound, ipv6, tcp, udp, other;
};

struct headers {
    WINDIVERT_IPHDR *ip;
    WINDIVERT_IPV6HDR *ipv6;
    WINDIVERT_ICMPHDR *icmp;
    WINDIVERT_ICMPV6HDR *icmpv6;
    WINDIVERT_TCPHDR *tcp;
    WINDIVERT_UDPHDR *udp;
    UINT8 protocol;
    const UINT8 *data;
    UINT data_len;
};

static const char *bold = "", *cyan = "", *dim = "", *plain = "";
static int column, padding; /* of fields on the line so far; blanks before the next */

static void
choose_colours(void)
{
    const char *no_color = getenv("NO_COLOR");

    if (!isatty(STDOUT_FILENO) || (no_color && no_color[0]))
        return;
    bold = "\033[1m";
    cyan = "\033[36m";
    dim = "\033[2m";
    plain = "\033[0m";
}

/* Begins the fields of a header; end_fields ends their last line. */
static void
label(const char *name)
{
    printf("  %s%-*s%s", cyan, LABEL - 2, name, plain);
    column = padding = 0;
}

static void
end_fields(void)
{
    putchar('\n');
}

/* One field, "name=value", in as many cells as it takes, on the next line where it does not fit. */
static void __attribute__((format(printf, 2, 3))) field(const char *name, const char *format, ...)
{
    char value[64];
    va_list args;
    int taken, width;

    va_start(args, format);
    vsnprintf(value, sizeof(value), format, args);
    va_end(args);
    taken = (int)(strlen(name) + strlen(value) + 1);
    width = (taken / CELL + 1) * CELL;
    if (column && column + width > LINE) {
        printf("\n%*s", LABEL, "");
        column = padding = 0;
    }
    printf("%*s%s=%s", padding, "", name, value);
    padding = width - taken;
    column += width;
}

static void
field_ipv4(const char *name, UINT32 addr)
{
    char text[INET_ADDRSTRLEN] = "?";

    WinDivertHelperFormatIPv4Address(ntohl(addr), text, sizeof(text));
    field(name, "%s", text);
}

static void
field_ipv6(const char *name, const UINT32 *addr)
{
    char text[INET6_ADDRSTRLEN] = "?";
    UINT32 host[4];

    WinDivertHelperNtohIPv6Address(addr, host);
    WinDivertHelperFormatIPv6Address(host, text, sizeof(text));
    field(name, "%s", text);
}

static void
print_address(UINT64 number, const WINDIVERT_ADDRESS *addr, INT64 first, UINT len)
{
    printf("%s#%-6llu +%.7f s  %s%s%s%s  %u bytes%s\n", bold, (unsigned long long)number,
           (double)(addr->Timestamp - first) / SECOND, addr->Outbound ? "outbound" : "inbound",
           addr->Loopback ? "  loopback" : "", addr->Impostor ? "  impostor" : "", addr->Sniffed ? "  sniffed" : "",
           len, plain);
    label("addr");
    field("Timestamp", "%lld", (long long)addr->Timestamp);
    field("IfIdx", "%u", addr->Network.IfIdx);
    field("SubIfIdx", "%u", addr->Network.SubIfIdx);
    field("Layer", "%u", addr->Layer);
    field("Event", "%u", addr->Event);
    field("IPv6", "%u", addr->IPv6);
    field("IPChecksum", "%u", addr->IPChecksum);
    field("TCPChecksum", "%u", addr->TCPChecksum);
    field("UDPChecksum", "%u", addr->UDPChecksum);
    end_fields();
}

static void
print_ip(const WINDIVERT_IPHDR *ip)
{
    label("IPv4");
    field("Version", "%u", ip->Version);
    field("HdrLength", "%u", ip->HdrLength);
    field("TOS", "0x%02x", ip->TOS);
    field("Length", "%u", ntohs(ip->Length));
    field("Id", "0x%04x", ntohs(ip->Id));
    field("Reserved", "%d", WINDIVERT_IPHDR_GET_RESERVED(ip));
    field("DF", "%d", WINDIVERT_IPHDR_GET_DF(ip));
    field("MF", "%d", WINDIVERT_IPHDR_GET_MF(ip));
    field("FragOff", "%u", ntohs(WINDIVERT_IPHDR_GET_FRAGOFF(ip)));
    field("TTL", "%u", ip->TTL);
    field("Protocol", "%u", ip->Protocol);
    field("Checksum", "0x%04x", ntohs(ip->Checksum));
    field_ipv4("SrcAddr", ip->SrcAddr);
    field_ipv4("DstAddr", ip->DstAddr);
    end_fields();
}

static void
print_ipv6(const WINDIVERT_IPV6HDR *ipv6)
{
    label("IPv6");
    field("Version", "%u", ipv6->Version);
    field("TrafficClass", "0x%02x", WINDIVERT_IPV6HDR_GET_TRAFFICCLASS(ipv6));
    field("FlowLabel", "0x%05x", (unsigned int)ipv6->FlowLabel0 << 16 | ntohs(ipv6->FlowLabel1));
    field("Length", "%u", ntohs(ipv6->Length));
    field("NextHdr", "%u", ipv6->NextHdr);
    field("HopLimit", "%u", ipv6->HopLimit);
    field_ipv6("SrcAddr", ipv6->SrcAddr);
    field_ipv6("DstAddr", ipv6->DstAddr);
    end_fields();
}

static void
print_icmp(const char *name, UINT8 type, UINT8 code, UINT16 be16_checksum, UINT32 be32_body)
{
    label(name);
    field("Type", "%u", type);
    field("Code", "%u", code);
    field("Checksum", "0x%04x", ntohs(be16_checksum));
    field("Body", "0x%08x", ntohl(be32_body));
    end_fields();
}

/* The names of the flags that are set: "SYN,ACK". */
static void
field_flags(const WINDIVERT_TCPHDR *tcp)
{
    const char *names[] = {tcp->Fin ? ",FIN" : "", tcp->Syn ? ",SYN" : "", tcp->Rst ? ",RST" : "",
                           tcp->Psh ? ",PSH" : "", tcp->Ack ? ",ACK" : "", tcp->Urg ? ",URG" : ""};
    char text[32] = "";

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        strcat(text, names[i]);
    field("Flags", "%s", text[0] ? text + 1 : "none");
}

static void
print_tcp(const WINDIVERT_TCPHDR *tcp)
{
    label("TCP");
    field("SrcPort", "%u", ntohs(tcp->SrcPort));
    field("DstPort", "%u", ntohs(tcp->DstPort));
    field("SeqNum", "%u", ntohl(tcp->SeqNum));
    field("AckNum", "%u", ntohl(tcp->AckNum));
    field("HdrLength", "%u", tcp->HdrLength);
    field_flags(tcp);
    field("Reserved1", "%u", tcp->Reserved1);
    field("Reserved2", "%u", tcp->Reserved2);
    field("Window", "%u", ntohs(tcp->Window));
    field("Checksum", "0x%04x", ntohs(tcp->Checksum));
    field("UrgPtr", "%u", ntohs(tcp->UrgPtr));
    end_fields();
}

static void
print_udp(const WINDIVERT_UDPHDR *udp)
{
    label("UDP");
    field("SrcPort", "%u", ntohs(udp->SrcPort));
    field("DstPort", "%u", ntohs(udp->DstPort));
    field("Length", "%u", ntohs(udp->Length));
    field("Checksum", "0x%04x", ntohs(udp->Checksum));
    end_fields();
}

/* 16 bytes a line: offset, hex, characters. */
static void
print_bytes(const UINT8 *data, UINT len)
{
    for (UINT at = 0; at < len; at += 16) {
        printf("  %s%04x%s  ", dim, at, plain);
        for (UINT i = at; i < at + 16; i++)
            i < len ? printf("%02x ", data[i]) : printf("   ");
        putchar(' ');
        for (UINT i = at; i < at + 16 && i < len; i++)
            putchar(data[i] < 0x80 && isprint(data[i]) ? data[i] : '.');
        putchar('\n');
    }
}

static void
parse(const void *packet, UINT len, struct headers *ret_headers)
{
    struct headers h = {0};
    void *data = NULL;

    WinDivertHelperParsePacket(packet, len, &h.ip, &h.ipv6, &h.protocol, &h.icmp, &h.icmpv6, &h.tcp, &h.udp, &data,
                               &h.data_len, NULL, NULL);
    h.data = data;
    *ret_headers = h;
}

static void
print_headers(const struct headers *h)
{
    if (h->ip)
        print_ip(h->ip);
    if (h->ipv6)
        print_ipv6(h->ipv6);
    if (h->icmp)
        print_icmp("ICMP", h->icmp->Type, h->icmp->Code, h->icmp->Checksum, h->icmp->Body);
    if (h->icmpv6)
        print_icmp("ICMPv6", h->icmpv6->Type, h->icmpv6->Code, h->icmpv6->Checksum, h->icmpv6->Body);
    if (h->tcp)
        print_tcp(h->tcp);
    if (h->udp)
        print_udp(h->udp);
}

static void
count(struct totals *totals, const struct headers *h, const WINDIVERT_ADDRESS *addr, UINT len)
{
    totals->packets++;
    totals->bytes += len;
    totals->outbound += addr->Outbound;
    totals->ipv6 += h->ipv6 != NULL;
    if (h->tcp)
        totals->tcp++;
    else if (h->udp)
        totals->udp++;
    else
        totals->other++;
}

/* Prints until the handle is shut down (true) or receiving fails. */
static bool
dump(HANDLE handle, struct totals *totals)
{
    static UINT8 packet[WINDIVERT_MTU_MAX];
    WINDIVERT_ADDRESS addr;
    struct headers headers;
    INT64 first = 0;
    UINT len;

    while (WinDivertRecv(handle, packet, sizeof(packet), &len, &addr)) {
        parse(packet, len, &headers);
        count(totals, &headers, &addr, len);
        if (totals->packets == 1)
            first = addr.Timestamp;
        print_address(totals->packets, &addr, first, len);
        print_headers(&headers);
        print_bytes(headers.data, headers.data_len);
        putchar('\n');
        fflush(stdout);
    }
    if (GetLastError() == ERROR_NO_DATA)
        return true;
    complain_last_error();
    return false;
}

static void
print_totals(HANDLE handle, const struct totals *t)
{
    WINDIVERT_EXT_STATS stats = {.Size = sizeof(stats)};

    printf("%llu packets, %llu bytes: %llu outbound, %llu inbound; %llu IPv4, %llu IPv6; %llu TCP, %llu UDP, %llu "
           "other\n",
           (unsigned long long)t->packets, (unsigned long long)t->bytes, (unsigned long long)t->outbound,
           (unsigned long long)(t->packets - t->outbound), (unsigned long long)(t->packets - t->ipv6),
           (unsigned long long)t->ipv6, (unsigned long long)t->tcp, (unsigned long long)t->udp,
           (unsigned long long)t->other);
    if (WinDivertExtGetStats(handle, &stats))
        printf("%llu matched and were not shown: the queue was full\n",
               (unsigned long long)(stats.DropLength + stats.DropSize + stats.DropTime + stats.DropBuffer));
}

static void
usage(FILE *to)
{
    fprintf(to, "usage: netdump [FILTER] [PRIORITY]\n"
                "Prints the packets to and from this machine that match FILTER; they go on untouched.\n"
                "\n"
                "  FILTER    in the WinDivert language, for instance \"tcp.DstPort == 80 or icmp\"; default: true\n"
                "  PRIORITY  from -30000 to 30000, higher sees a packet earlier; default: 0\n"
                "\n"
                "Ctrl-C prints totals and ends.\n");
}

int
main(int argc, char **argv)
{
    const char *filter = argc > 1 ? argv[1] : "true";
    struct totals totals = {0};
    long priority = 0;
    HANDLE handle;
    bool ok;

    tool_name = "netdump";
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        usage(stdout);
        return 0;
    }
    if (argc > 3) {
        usage(stderr);
        return 1;
    }
    if (argc > 2 &&
        !parse_number("priority", argv[2], WINDIVERT_PRIORITY_LOWEST, WINDIVERT_PRIORITY_HIGHEST, &priority))
        return 1;

    handle = open_network(filter, (INT16)priority, WINDIVERT_FLAG_SNIFF | WINDIVERT_FLAG_RECV_ONLY);
    if (handle == INVALID_HANDLE_VALUE || !stop_on_signal(handle))
        return 1;
    choose_colours();
    ok = dump(handle, &totals);
    print_totals(handle, &totals);
    WinDivertClose(handle);
    return ok ? 0 : 1;
}
