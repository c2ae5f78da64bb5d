/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
#include "ruleset.h"

#include <errno.h>
#include <inttypes.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "linux/inbound.h"
#include "linux/shift.h"

#ifndef NFT_TABLE_F_OWNER
#define NFT_TABLE_F_OWNER 0x2
#endif

#define CHAIN_PRIORITY_BASE (-1000000) /* the same in all versions: nft priority = this - WinDivert priority */
#define TABLE_NAMES 64                 /* tried before giving up */
#define BATCH_SIZE (256 * 1024)

struct wd_chain {
    struct wd_chain *next;
    enum wd_hook hook;
    int16_t priority;
    bool used;
    char name[32];
};

struct wd_ruleset {
    struct wd_ruleset *next;
    dev_t netns_dev;
    ino_t netns_ino;
    unsigned int refs;
    struct mnl_socket *nl; /* owns the table */
    uint32_t seq;
    int netns_fd;   /* the namespace */
    int inbound_fd; /* link of the program for inbound injection; -1: not needed yet */
    unsigned int chain_count;
    bool reassembles; /* IPv6 */
    enum wd_queue_by queue_by;
    char table[32];
    struct wd_chain *chains;
    struct wd_link *links;
    _Atomic uint32_t *shifts;
};

static pthread_mutex_t rulesets_lock = PTHREAD_MUTEX_INITIALIZER;
static struct wd_ruleset *rulesets;
static unsigned int tables_made;

static const char *const hook_name[] = {
    [WD_HOOK_LOCAL_OUT] = "out",
    [WD_HOOK_LOCAL_IN] = "in",
    [WD_HOOK_FORWARD] = "fwd",
    [WD_HOOK_PRE_ROUTING] = "pre",
};

uint32_t
wd_hook_num(enum wd_hook hook)
{
    static const uint32_t num[] = {
        [WD_HOOK_LOCAL_OUT] = NF_INET_LOCAL_OUT,
        [WD_HOOK_LOCAL_IN] = NF_INET_LOCAL_IN,
        [WD_HOOK_FORWARD] = NF_INET_FORWARD,
        [WD_HOOK_PRE_ROUTING] = NF_INET_PRE_ROUTING,
    };

    return num[hook];
}

int32_t
wd_hook_priority(int16_t priority)
{
    return CHAIN_PRIORITY_BASE - priority;
}

/* ---- One transaction ---------------------------------------------------- */

struct batch {
    struct wd_ruleset *rules;
    struct mnl_nlmsg_batch *mnl;
    char *memory;
    uint32_t first_seq;
    int error; /* the first one sticks */
};

static void
batch_begin(struct batch *batch, struct wd_ruleset *rules)
{
    *batch = (struct batch){.rules = rules, .first_seq = rules->seq + 1};
    batch->memory = malloc(2 * BATCH_SIZE);
    if (batch->memory)
        batch->mnl = mnl_nlmsg_batch_start(batch->memory, BATCH_SIZE);
    if (!batch->mnl) {
        batch->error = -ENOMEM;
        return;
    }
    nftnl_batch_begin(mnl_nlmsg_batch_current(batch->mnl), ++rules->seq);
    mnl_nlmsg_batch_next(batch->mnl);
}

static void
batch_fail(struct batch *batch, int error)
{
    if (!batch->error)
        batch->error = error;
}

static struct nlmsghdr *
batch_header(struct batch *batch, uint16_t type, uint16_t flags)
{
    return nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(batch->mnl), type, NFPROTO_INET, flags | NLM_F_ACK,
                                 ++batch->rules->seq);
}

static void
batch_next(struct batch *batch)
{
    if (!mnl_nlmsg_batch_next(batch->mnl))
        batch->error = -ENOSPC;
}

/*
 * Reads the answers of all messages up to last_seq; the first error is the
 * transaction's.  They are there when the batch has been sent, so a failure to
 * read is no reason to call the transaction failed, as long as none is missing.
 */
static int
read_acks(struct mnl_socket *nl, uint32_t first_seq, uint32_t last_seq)
{
    char buf[16384] __attribute__((aligned(8)));
    unsigned int left = last_seq - first_seq + 1;
    int error = 0, failed = 0;

    while (left) {
        ssize_t got = recv(mnl_socket_get_fd(nl), buf, sizeof(buf), failed ? MSG_DONTWAIT : 0);
        int len = (int)got;

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && !failed) {
            failed = -errno;
            continue;
        }
        if (got < 0)
            return error ? error : failed;
        for (struct nlmsghdr *nlh = (void *)buf; mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len)) {
            const struct nlmsgerr *ack = mnl_nlmsg_get_payload(nlh);

            if (nlh->nlmsg_type != NLMSG_ERROR)
                continue;
            if (!error)
                error = ack->error;
            /* An error of the batch as a whole answers its first message alone. */
            if (nlh->nlmsg_seq == first_seq - 1 && ack->error)
                return ack->error;
            if (nlh->nlmsg_seq - first_seq <= last_seq - first_seq)
                left--;
        }
    }
    return error;
}

static int
batch_commit(struct batch *batch)
{
    struct wd_ruleset *rules = batch->rules;
    uint32_t last_seq = rules->seq;
    int error = batch->error;

    if (!error) {
        nftnl_batch_end(mnl_nlmsg_batch_current(batch->mnl), ++rules->seq);
        mnl_nlmsg_batch_next(batch->mnl);
        if (mnl_socket_sendto(rules->nl, mnl_nlmsg_batch_head(batch->mnl), mnl_nlmsg_batch_size(batch->mnl)) < 0)
            error = -errno;
    }
    if (!error)
        error = read_acks(rules->nl, batch->first_seq + 1, last_seq);
    if (batch->mnl)
        mnl_nlmsg_batch_stop(batch->mnl);
    free(batch->memory);
    return error;
}

/* ---- Table and chains --------------------------------------------------- */

static void
put_table(struct batch *batch)
{
    struct nftnl_table *table = nftnl_table_alloc();

    if (!table || nftnl_table_set_str(table, NFTNL_TABLE_NAME, batch->rules->table) < 0)
        batch_fail(batch, -ENOMEM);
    if (batch->error)
        goto out;
    nftnl_table_set_u32(table, NFTNL_TABLE_FLAGS, NFT_TABLE_F_OWNER);
    nftnl_table_nlmsg_build_payload(batch_header(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL), table);
    batch_next(batch);
out:
    if (table)
        nftnl_table_free(table); /* not NULL-safe */
}

/* base: its hook and priority; NULL: a chain at no hook */
static void
put_chain(struct batch *batch, const char *name, const struct wd_chain *base)
{
    struct nftnl_chain *nft = nftnl_chain_alloc();

    if (!nft || nftnl_chain_set_str(nft, NFTNL_CHAIN_TABLE, batch->rules->table) < 0 ||
        nftnl_chain_set_str(nft, NFTNL_CHAIN_NAME, name) < 0 ||
        (base && nftnl_chain_set_str(nft, NFTNL_CHAIN_TYPE, "filter") < 0))
        batch_fail(batch, -ENOMEM);
    if (batch->error)
        goto out;
    if (base) {
        nftnl_chain_set_u32(nft, NFTNL_CHAIN_HOOKNUM, wd_hook_num(base->hook));
        nftnl_chain_set_s32(nft, NFTNL_CHAIN_PRIO, wd_hook_priority(base->priority));
        nftnl_chain_set_u32(nft, NFTNL_CHAIN_POLICY, NF_ACCEPT);
    }
    nftnl_chain_nlmsg_build_payload(batch_header(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL), nft);
    batch_next(batch);
out:
    if (nft)
        nftnl_chain_free(nft); /* not NULL-safe */
}

/* ---- Rules -------------------------------------------------------------- */

/* Takes the rule; NULL: no memory for it. */
static void
put_rule(struct batch *batch, struct nftnl_rule *nft)
{
    if (!nft) {
        batch_fail(batch, -ENOMEM);
        return;
    }
    nftnl_rule_nlmsg_build_payload(batch_header(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND), nft);
    batch_next(batch);
    nftnl_rule_free(nft);
}

/* Deletes all rules of the chain. */
static void
put_flush(struct batch *batch, const struct wd_chain *chain)
{
    struct nftnl_rule *nft = nftnl_rule_alloc();

    /* A message without the name of a chain would delete the rules of all chains. */
    if (!nft || nftnl_rule_set_str(nft, NFTNL_RULE_TABLE, batch->rules->table) < 0 ||
        nftnl_rule_set_str(nft, NFTNL_RULE_CHAIN, chain->name) < 0)
        batch_fail(batch, -ENOMEM);
    if (batch->error)
        goto out;
    nftnl_rule_nlmsg_build_payload(batch_header(batch, NFT_MSG_DELRULE, 0), nft);
    batch_next(batch);
out:
    if (nft)
        nftnl_rule_free(nft);
}

/* ---- Rulesets of the process -------------------------------------------- */

static int
owner_socket(struct mnl_socket **ret_nl)
{
    int big = 1 << 20;
    struct mnl_socket *nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);

    if (!nl)
        return -errno;
    if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
        int error = -errno;

        mnl_socket_close(nl);
        return error;
    }
    setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
    *ret_nl = nl;
    return 0;
}

/* Every message, the answers to a failed one too, must be consumed before the next transaction. */
static void
drain(struct mnl_socket *nl)
{
    char buf[4096];

    while (recv(mnl_socket_get_fd(nl), buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
}

static void
close_netns(struct wd_ruleset *rules)
{
    if (rules->inbound_fd >= 0)
        close(rules->inbound_fd);
    if (rules->netns_fd >= 0)
        close(rules->netns_fd);
}

/*
 * A process of another pid namespace may have our pid, and a table of that
 * name in this network namespace: EPERM (as missing rights), so other names.
 */
static int
make_table(struct wd_ruleset *rules)
{
    int error = -EPERM;

    for (int i = 0; i < TABLE_NAMES && (error == -EPERM || error == -EEXIST); i++) {
        struct batch batch;

        snprintf(rules->table, sizeof(rules->table), "wd-%d-%u", getpid(), tables_made++);
        batch_begin(&batch, rules);
        if (!batch.error)
            put_table(&batch);
        error = batch_commit(&batch);
        if (error)
            drain(rules->nl);
    }
    return error;
}

/* That of the calling thread, by a socket in it: a container need not have /proc. */
static int
open_netns(int *ret_fd, struct stat *ret_netns)
{
    int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int fd = sock < 0 ? -1 : ioctl(sock, SIOCGSKNS);
    int error = fd < 0 || fstat(fd, ret_netns) < 0 ? -errno : 0;

    if (sock >= 0)
        close(sock);
    if (error && fd >= 0)
        close(fd);
    if (!error)
        *ret_fd = fd;
    return error;
}

/* Takes netns_fd, on an error as well. */
static int
ruleset_new(const struct stat *netns, int netns_fd, struct wd_ruleset **ret_rules)
{
    struct wd_ruleset *rules = calloc(1, sizeof(*rules));
    int error;

    if (!rules) {
        close(netns_fd);
        return -ENOMEM;
    }
    rules->netns_dev = netns->st_dev;
    rules->netns_ino = netns->st_ino;
    rules->shifts = wd_shift_counter(netns->st_ino);
    rules->seq = (uint32_t)time(NULL);
    rules->refs = 1;
    rules->inbound_fd = -1;
    rules->netns_fd = netns_fd;
    error = owner_socket(&rules->nl);
    if (!error) {
        error = make_table(rules);
        if (error)
            mnl_socket_close(rules->nl);
    }
    if (error) {
        close_netns(rules);
        free(rules);
        return error;
    }
    *ret_rules = rules;
    return 0;
}

static bool
is_of(const struct wd_ruleset *rules, const struct stat *netns)
{
    return rules->netns_dev == netns->st_dev && rules->netns_ino == netns->st_ino;
}

static struct wd_ruleset *
ruleset_find(const struct stat *netns)
{
    struct wd_ruleset *rules = rulesets;

    while (rules && !is_of(rules, netns))
        rules = rules->next;
    return rules;
}

int
wd_ruleset_get(struct wd_ruleset **ret_rules, struct wd_error *err)
{
    struct wd_ruleset *rules;
    struct stat netns;
    int netns_fd, error = open_netns(&netns_fd, &netns);

    if (error)
        return wd_error_set(err, error, error == -EPERM ? "run as root or with CAP_NET_ADMIN" : NULL,
                            "find the network namespace: %s", strerror(-error));
    pthread_mutex_lock(&rulesets_lock);
    rules = ruleset_find(&netns);
    if (rules) {
        rules->refs++;
        close(netns_fd);
    } else {
        error = ruleset_new(&netns, netns_fd, &rules);
        if (!error) {
            rules->next = rulesets;
            rulesets = rules;
        }
    }
    pthread_mutex_unlock(&rulesets_lock);
    if (error)
        return wd_error_set(err, error,
                            error == -EPERM ? "run as root or with CAP_NET_ADMIN in this network namespace"
                                            : "the kernel needs nf_tables with owned tables (Linux 5.12)",
                            "create an nftables table: %s", strerror(-error));
    *ret_rules = rules;
    return 0;
}

void
wd_ruleset_put(struct wd_ruleset *rules)
{
    struct wd_ruleset **link = &rulesets;

    if (!rules)
        return;
    pthread_mutex_lock(&rulesets_lock);
    if (--rules->refs == 0) {
        while (*link != rules)
            link = &(*link)->next;
        *link = rules->next;
    } else {
        rules = NULL;
    }
    pthread_mutex_unlock(&rulesets_lock);
    if (!rules)
        return;
    mnl_socket_close(rules->nl); /* the table goes with it */
    wd_links_free(&rules->links);
    close_netns(rules);
    while (rules->chains) {
        struct wd_chain *next = rules->chains->next;

        free(rules->chains);
        rules->chains = next;
    }
    free(rules);
}

void
wd_ruleset_forget_all(void)
{
    for (struct wd_ruleset *rules = rulesets; rules; rules = rules->next) {
        close(mnl_socket_get_fd(rules->nl));
        wd_links_close_fds(rules->links);
        close_netns(rules);
    }
    rulesets = NULL;
    pthread_mutex_init(&rulesets_lock, NULL);
}

struct errand {
    const struct wd_ruleset *rules;
    int (*fn)(void *arg);
    void *arg;
    int result;
};

int
wd_ruleset_enter(const struct wd_ruleset *rules)
{
    return setns(rules->netns_fd, CLONE_NEWNET) < 0 ? -errno : 0;
}

static void *
run_errand(void *arg)
{
    struct errand *errand = arg;

    errand->result = wd_ruleset_enter(errand->rules);
    if (!errand->result)
        errand->result = errand->fn(errand->arg);
    return NULL;
}

static bool
is_here(const struct wd_ruleset *rules)
{
    struct stat here;
    int fd;

    if (open_netns(&fd, &here) < 0)
        return false;
    close(fd);
    return is_of(rules, &here);
}

int
wd_ruleset_inside(struct wd_ruleset *rules, int (*fn)(void *arg), void *arg)
{
    struct errand errand = {.rules = rules, .fn = fn, .arg = arg};
    sigset_t all, old;
    pthread_t thread;
    int error;

    if (is_here(rules))
        return fn(arg);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&thread, NULL, run_errand, &errand);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return -error;
    pthread_join(thread, NULL);
    return errand.result;
}

int
wd_ruleset_enable_inbound(struct wd_ruleset *rules)
{
    int error = 0;

    pthread_mutex_lock(&rulesets_lock);
    if (rules->inbound_fd < 0)
        error = wd_inbound_attach(&rules->inbound_fd, NULL);
    pthread_mutex_unlock(&rulesets_lock);
    return error;
}

static int
reassemble_by(struct wd_ruleset *rules, enum wd_reassembly by)
{
    struct batch batch;
    int error;

    batch_begin(&batch, rules);
    if (!batch.error)
        put_chain(&batch, "reassembly", NULL);
    if (!batch.error)
        put_rule(&batch, wd_rule_build_reassembly(by, rules->table, "reassembly"));
    error = batch_commit(&batch);
    if (error)
        drain(rules->nl);
    return error;
}

int
wd_ruleset_reassemble(struct wd_ruleset *rules, struct wd_error *err)
{
    int error = 0;

    pthread_mutex_lock(&rulesets_lock);
    for (int by = 0; by < WD_REASSEMBLIES && !rules->reassembles; by++) {
        error = reassemble_by(rules, by);
        rules->reassembles = !error;
    }
    pthread_mutex_unlock(&rulesets_lock);
    if (!error)
        return 0;
    return wd_error_set(err, error, "the kernel needs nft_tproxy or nft_ct: modprobe nft_tproxy",
                        "IPv6 fragments will come singly: no reassembly: %s", strerror(-error));
}

/* ---- Chains of handles -------------------------------------------------- */

static struct wd_chain *
pool_find(const struct wd_ruleset *rules, enum wd_hook hook, int16_t priority)
{
    struct wd_chain *chain = rules->chains;

    while (chain && (chain->used || chain->hook != hook || chain->priority != priority))
        chain = chain->next;
    return chain;
}

static struct wd_chain *
chain_new(struct wd_ruleset *rules, enum wd_hook hook, int16_t priority)
{
    struct wd_chain *chain = calloc(1, sizeof(*chain));

    if (!chain)
        return NULL;
    chain->hook = hook;
    chain->priority = priority;
    snprintf(chain->name, sizeof(chain->name), "%s_%c%d_%u", hook_name[hook], priority < 0 ? 'm' : 'p', abs(priority),
             rules->chain_count++);
    return chain;
}

static bool
has_rules(const struct wd_rule *rule, size_t count, enum wd_hook hook)
{
    for (size_t i = 0; i < count; i++)
        if (rule[i].hook == hook)
            return true;
    return false;
}

/* The rules of one hook, in a chain of the handle's, of the pool's, or a new one, which is in *ret_new as well. */
static void
put_hook(struct batch *batch, enum wd_hook hook, int16_t priority, const struct wd_rule *rule, size_t count,
         struct wd_chain **chain, struct wd_chain **ret_new)
{
    if (*chain) {
        put_flush(batch, *chain);
    } else if (has_rules(rule, count, hook)) {
        *chain = pool_find(batch->rules, hook, priority);
        if (!*chain)
            *chain = *ret_new = chain_new(batch->rules, hook, priority);
        if (!*chain)
            batch->error = -ENOMEM;
        else if (*ret_new)
            put_chain(batch, (*chain)->name, *chain);
    }
    for (size_t i = 0; i < count && !batch->error; i++)
        if (rule[i].hook == hook)
            put_rule(batch, wd_rule_build(&rule[i], batch->rules->queue_by, batch->rules->table, (*chain)->name));
}

static void
adopt(struct wd_ruleset *rules, struct wd_places *places, struct wd_chain *const made[WD_HOOKS])
{
    for (size_t hook = 0; hook < WD_HOOKS; hook++) {
        if (places->chain[hook])
            places->chain[hook]->used = true;
        if (made[hook]) {
            made[hook]->next = rules->chains;
            rules->chains = made[hook];
        }
    }
}

const _Atomic uint32_t *
wd_ruleset_shifts(const struct wd_ruleset *rules)
{
    return rules->shifts;
}

static bool
any_chain(struct wd_chain *const chain[WD_HOOKS])
{
    for (size_t hook = 0; hook < WD_HOOKS; hook++)
        if (chain[hook])
            return true;
    return false;
}

/* Under the lock. */
static int
install_rules(struct wd_ruleset *rules, int16_t priority, const struct wd_rule *rule, size_t count,
              struct wd_places *places)
{
    struct wd_chain *made[WD_HOOKS] = {NULL};
    struct wd_places next = *places;
    struct batch batch;
    int error;

    if (!count && !any_chain(places->chain))
        return 0;
    batch_begin(&batch, rules);
    for (size_t hook = 0; hook < WD_HOOKS && !batch.error; hook++)
        put_hook(&batch, hook, priority, rule, count, &next.chain[hook], &made[hook]);
    if (any_chain(made))
        ++*rules->shifts;
    error = batch_commit(&batch);
    if (any_chain(made))
        ++*rules->shifts;
    if (!error) {
        adopt(rules, &next, made);
        *places = next;
        return 0;
    }
    drain(rules->nl);
    for (size_t hook = 0; hook < WD_HOOKS; hook++)
        free(made[hook]);
    return error;
}

/* At hooks that have none; *places has them on success. */
static int
get_links(struct wd_ruleset *rules, int16_t priority, const int prog_fd[WD_HOOKS], struct wd_places *places,
          struct wd_error *err)
{
    int error = 0;

    for (size_t hook = 0; hook < WD_HOOKS && !error; hook++)
        if (prog_fd[hook] >= 0 && !places->link[hook])
            error =
                wd_link_get(&rules->links, hook, priority, prog_fd[hook], rules->shifts, &places->link[hook], err);
    return error;
}

/* Gives those back that `keep` does not have. */
static void
put_links(struct wd_places *places, const struct wd_places *keep)
{
    for (size_t hook = 0; hook < WD_HOOKS; hook++) {
        if (places->link[hook] && !keep->link[hook]) {
            wd_link_put(places->link[hook]);
            places->link[hook] = NULL;
        }
    }
}

/* Those that were there before. */
static int
replace_links(const int prog_fd[WD_HOOKS], const struct wd_places *places, struct wd_error *err)
{
    size_t hook = 0;
    int error = 0;

    for (; hook < WD_HOOKS && !error; hook++)
        if (prog_fd[hook] >= 0 && places->link[hook])
            error = wd_link_replace(places->link[hook], prog_fd[hook], err);
    for (hook -= !!error; error && hook-- > 0;)
        if (prog_fd[hook] >= 0 && places->link[hook])
            wd_link_undo(places->link[hook]);
    return error;
}

/* Under the lock. */
static void
undo_links(const int prog_fd[WD_HOOKS], const struct wd_places *places)
{
    for (size_t hook = 0; hook < WD_HOOKS; hook++)
        if (prog_fd[hook] >= 0 && places->link[hook])
            wd_link_undo(places->link[hook]);
}

/* A kernel that lacks the target NFQUEUE may have the expression. */
static int
install_somehow(struct wd_ruleset *rules, int16_t priority, const struct wd_rule *rule, size_t count,
                struct wd_places *places)
{
    int error = install_rules(rules, priority, rule, count, places);

    if (error != -ENOENT || rules->queue_by != WD_QUEUE_BY_XTABLES)
        return error;
    rules->queue_by = WD_QUEUE_BY_NFT;
    error = install_rules(rules, priority, rule, count, places);
    if (error)
        rules->queue_by = WD_QUEUE_BY_XTABLES;
    return error;
}

int
wd_ruleset_install(struct wd_ruleset *rules, int16_t priority, const struct wd_rule *rule, size_t count,
                   const int prog_fd[WD_HOOKS], struct wd_places *places, struct wd_error *err)
{
    struct wd_places next = *places, wanted = {{NULL}, {NULL}};
    int error;

    pthread_mutex_lock(&rulesets_lock);
    error = get_links(rules, priority, prog_fd, &next, err);
    if (!error)
        error = replace_links(prog_fd, places, err);
    if (!error) {
        error = install_somehow(rules, priority, rule, count, &next);
        if (error)
            undo_links(prog_fd, places);
        if (error)
            wd_error_set(err, error,
                         "the kernel needs nft_compat, xt_bpf, and xt_NFQUEUE or nft_queue: modprobe them",
                         "install nftables rules: %s", strerror(-error));
    }
    for (size_t hook = 0; hook < WD_HOOKS; hook++)
        wanted.link[hook] = prog_fd[hook] >= 0 ? next.link[hook] : NULL;
    put_links(&next, error ? places : &wanted);
    if (!error)
        *places = next;
    pthread_mutex_unlock(&rulesets_lock);
    return error;
}

static int
remove_rules(struct wd_ruleset *rules, const struct wd_places *places)
{
    struct batch batch;
    int error;

    if (!any_chain(places->chain))
        return 0;
    batch_begin(&batch, rules);
    for (size_t hook = 0; hook < WD_HOOKS && !batch.error; hook++)
        if (places->chain[hook])
            put_flush(&batch, places->chain[hook]);
    error = batch_commit(&batch);
    if (error)
        drain(rules->nl);
    return error;
}

void
wd_ruleset_remove(struct wd_ruleset *rules, struct wd_places *places)
{
    int error;

    pthread_mutex_lock(&rulesets_lock);
    error = remove_rules(rules, places); /* then the chains stay out of the pool; the table's end takes them */
    for (size_t hook = 0; hook < WD_HOOKS; hook++) {
        if (places->chain[hook] && !error)
            places->chain[hook]->used = false;
        if (places->link[hook])
            wd_link_put(places->link[hook]);
    }
    pthread_mutex_unlock(&rulesets_lock);
    *places = (struct wd_places){0};
}
