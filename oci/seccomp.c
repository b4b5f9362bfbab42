/* The system-call allow-list, as a table: groups of calls that are always allowed, calls allowed
 * for some arguments only, and calls that must fail with ENOSYS.
 *
 * What is not here is refused with EPERM. Left out on purpose, among others: the mount family,
 * unshare and setns, ptrace and process_vm_*, bpf, perf_event_open, io_uring_* and io_submit, the
 * keyring, kexec and modules, userfaultfd, open_by_handle_at and name_to_handle_at, pidfd_getfd,
 * kcmp, clock_settime, swapon, reboot, quotactl, fanotify, chroot, and the x32 and 32-bit calls. */
#include "oci/seccomp.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

struct call_group {
    const char *name;
    const char *reason;
    const char *calls; /* separated by spaces */
};

static const struct call_group allowed[] = {
    {"files", "open, read, write and close what the mount namespace shows",
     "access chdir close close_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 "
     "fchdir fcntl "
     "fdatasync flock fstat fstatfs fsync ftruncate getcwd getdents getdents64 lseek lstat "
     "newfstatat open openat "
     "openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat "
     "readv stat "
     "statfs statx sync sync_file_range syncfs truncate umask write writev"},
    {"file trees",
     "make, rename and remove entries; the kernel checks ownership, and only tmpfs is writable",
     "chmod chown fchmod fchmodat fchmodat2 fchown fchownat futimesat lchown link linkat mkdir "
     "mkdirat mknod mknodat "
     "rename renameat renameat2 rmdir symlink symlinkat unlink unlinkat utime utimensat utimes"},
    {"extended attributes", "ls, cp and tar ask for them",
     "fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr "
     "lremovexattr "
     "lsetxattr removexattr setxattr"},
    {"moving data", "pipes and copies inside the kernel",
     "copy_file_range pipe pipe2 sendfile splice tee vmsplice"},
    {"waiting for events", "event loops of libuv, asyncio and the Go runtime",
     "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
     "epoll_wait_old "
     "eventfd eventfd2 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll "
     "pselect6 select "
     "signalfd signalfd4"},
    {"memory", "allocators, just-in-time compilers, shared memory",
     "brk memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock "
     "munlockall munmap "
     "pkey_alloc pkey_free pkey_mprotect"},
    {"processes", "start programs, wait for them, and signal one's own",
     "execve execveat exit exit_group fork kill pidfd_open pidfd_send_signal vfork wait4 waitid"},
    {"threads", "thread libraries and their locks",
     "arch_prctl futex get_robust_list get_thread_area gettid membarrier rseq set_robust_list "
     "set_thread_area "
     "set_tid_address tgkill tkill"},
    {"signals", "handlers, masks and alternate stacks",
     "alarm pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo "
     "rt_sigreturn "
     "rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack"},
    {"identity", "ask who one is; changing it needs capabilities that nobody in a container has",
     "capget capset getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getresgid "
     "getresuid getsid getuid "
     "setfsgid setfsuid setgid setgroups setpgid setregid setresgid setresuid setreuid setsid "
     "setuid"},
    {"time", "read clocks, sleep, timers; never set a clock",
     "clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time "
     "timer_create "
     "timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime "
     "timerfd_settime times"},
    {"limits and facts", "read one's limits and the machine's facts",
     "getcpu getpriority getrandom getrlimit getrusage ioprio_get prctl setrlimit sysinfo uname"},
    {"scheduling", "read scheduling parameters of any process of the container, yield",
     "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam "
     "sched_getscheduler sched_rr_get_interval sched_yield"},
    {"sockets", "use sockets once made; which can be made is filtered below",
     "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg "
     "recvmsg sendmmsg sendmsg "
     "sendto setsockopt shutdown"},
    {"inter-process communication", "System V and POSIX objects of the private ipc namespace",
     "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv "
     "msgsnd semctl "
     "semget semop semtimedop shmat shmctl shmdt shmget"},
    {"sandboxing", "a program may restrict itself further",
     "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp"},
};

static const struct call_group no_such_call[] = {
    {"newer variants",
     "the C library falls back to the older call only on ENOSYS; their flags are in memory, which "
     "a filter "
     "cannot read",
     "clone3"},
    {"not offered", "programs probe for them and take ENOSYS as \"old kernel\"",
     "futex_waitv memfd_secret process_mrelease set_mempolicy_home_node"},
};

/* Matches when (argument & mask) == value. */
struct argument {
    unsigned index;
    uint64_t mask;
    uint64_t value;
};

/* Rules of one call are alternatives; the arguments of one rule must all match. */
struct filtered_call {
    const char *call;
    struct argument arguments[3];
    size_t argument_count;
};

/* Numbers are the kernel's ABI on both architectures; some are not in every C library's headers. */
#define CLONE_NEW_ANY 0x7e020000u /* CLONE_NEWNS|NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET */
#define LOW_32_BITS 0xffffffffu   /* the kernel ignores the rest, so a filter must too */
#define TYPE_BITS 0xfu            /* of socket()'s type, without SOCK_NONBLOCK and SOCK_CLOEXEC */
#define UNIX 1
#define INET 2
#define INET6 10
#define NETLINK 16
#define STREAM 1
#define DATAGRAM 2
#define RAW 3
#define SEQPACKET 5
#define TCP 6
#define UDP 17

#define SAME(index_, value_)                                                                       \
    {                                                                                              \
        (index_), LOW_32_BITS, (value_)                                                            \
    }
#define ONE_ARGUMENT(call_, index_, value_)                                                        \
    {                                                                                              \
        (call_), {SAME(index_, value_)}, 1                                                         \
    }
#define TWO_ARGUMENTS(call_, first_, second_)                                                      \
    {                                                                                              \
        (call_), {SAME(0, first_), SAME(1, second_)}, 2                                            \
    }
#define SOCKET(domain, type)                                                                       \
    {                                                                                              \
        "socket", {SAME(0, domain), {1, TYPE_BITS, (type)}}, 2                                     \
    }
#define SOCKET_OF(domain, type, protocol)                                                          \
    {                                                                                              \
        "socket", {SAME(0, domain), {1, TYPE_BITS, (type)}, SAME(2, protocol)}, 3                  \
    }
#define IOCTL(request) ONE_ARGUMENT("ioctl", 1, request)
#define ADVICE(advice) ONE_ARGUMENT("madvise", 2, advice)

struct filtered_group {
    const char *name;
    const char *reason;
    const struct filtered_call *rules;
    size_t rule_count;
};

static const struct filtered_call clone_rules[] = {
    {"clone", {{0, CLONE_NEW_ANY, 0}}, 1},
};

static const struct filtered_call socket_rules[] = {
    SOCKET(UNIX, STREAM),
    SOCKET(UNIX, DATAGRAM),
    SOCKET(UNIX, SEQPACKET),
    SOCKET_OF(INET, STREAM, 0),
    SOCKET_OF(INET, STREAM, TCP),
    SOCKET_OF(INET, DATAGRAM, 0),
    SOCKET_OF(INET, DATAGRAM, UDP),
    SOCKET_OF(INET6, STREAM, 0),
    SOCKET_OF(INET6, STREAM, TCP),
    SOCKET_OF(INET6, DATAGRAM, 0),
    SOCKET_OF(INET6, DATAGRAM, UDP),
    SOCKET_OF(NETLINK, RAW,
              0), /* NETLINK_ROUTE, below likewise: getaddrinfo, getifaddrs, Go's net.Interfaces */
    SOCKET_OF(NETLINK, DATAGRAM, 0),
    ONE_ARGUMENT("socketpair", 0, UNIX),
};

static const struct filtered_call ioctl_rules[] = {
    IOCTL(0x5401),     /* TCGETS: isatty() */
    IOCTL(0x5402),     /* TCSETS */
    IOCTL(0x5403),     /* TCSETSW */
    IOCTL(0x5404),     /* TCSETSF */
    IOCTL(0x802c542a), /* TCGETS2 */
    IOCTL(0x540f),     /* TIOCGPGRP */
    IOCTL(0x5410),     /* TIOCSPGRP */
    IOCTL(0x5411),     /* TIOCOUTQ, SIOCOUTQ */
    IOCTL(0x5413),     /* TIOCGWINSZ */
    IOCTL(0x541b),     /* FIONREAD */
    IOCTL(0x5421),     /* FIONBIO */
    IOCTL(0x5422),     /* TIOCNOTTY */
    IOCTL(0x5429),     /* TIOCGSID */
    IOCTL(0x5450),     /* FIONCLEX */
    IOCTL(0x5451),     /* FIOCLEX */
    IOCTL(0x5452),     /* FIOASYNC */
    IOCTL(0x80086601), /* FS_IOC_GETFLAGS */
    IOCTL(0x40049409), /* FICLONE: cp falls back when the file system cannot */
    IOCTL(0x8905),     /* SIOCATMARK */
    IOCTL(0x8910),     /* SIOCGIFNAME */
    IOCTL(0x8912),     /* SIOCGIFCONF */
    IOCTL(0x8913),     /* SIOCGIFFLAGS */
    IOCTL(0x8915),     /* SIOCGIFADDR */
    IOCTL(0x8919),     /* SIOCGIFBRDADDR */
    IOCTL(0x891b),     /* SIOCGIFNETMASK */
    IOCTL(0x8921),     /* SIOCGIFMTU */
    IOCTL(0x8927),     /* SIOCGIFHWADDR */
    IOCTL(0x8933),     /* SIOCGIFINDEX */
    IOCTL(0x8942),     /* SIOCGIFTXQLEN */
};

static const struct filtered_call own_process_rules[] = {
    ONE_ARGUMENT("prlimit64", 0, 0),
    ONE_ARGUMENT("sched_setaffinity", 0, 0),
    ONE_ARGUMENT("sched_setattr", 0, 0),
    ONE_ARGUMENT("sched_setparam", 0, 0),
    ONE_ARGUMENT("sched_setscheduler", 0, 0),
    TWO_ARGUMENTS("setpriority", 0, 0), /* PRIO_PROCESS; PRIO_USER would mean PID 1 too */
    TWO_ARGUMENTS("setpriority", 1, 0), /* PRIO_PGRP */
    TWO_ARGUMENTS("ioprio_set", 1, 0),  /* IOPRIO_WHO_PROCESS */
    TWO_ARGUMENTS("ioprio_set", 2, 0),  /* IOPRIO_WHO_PGRP */
};

/* Both ways to take pages out of a file. Whoever touches those pages meanwhile waits for it, in the worker too, where they are of memory that it
 * shares with the instance; and it takes as long as the instance likes, by how often it has mapped them. */
static const struct filtered_call file_pages_rules[] = {
    {"fallocate", {{1, LOW_32_BITS & ~1u, 0}}, 1}, /* at most FALLOC_FL_KEEP_SIZE */
    ADVICE(0),                                     /* MADV_NORMAL */
    ADVICE(1),                                     /* MADV_RANDOM */
    ADVICE(2),                                     /* MADV_SEQUENTIAL */
    ADVICE(3),                                     /* MADV_WILLNEED */
    ADVICE(4),                                     /* MADV_DONTNEED */
    ADVICE(8),                                     /* MADV_FREE */
    ADVICE(10),                                    /* MADV_DONTFORK */
    ADVICE(11),                                    /* MADV_DOFORK */
    ADVICE(12),                                    /* MADV_MERGEABLE */
    ADVICE(13),                                    /* MADV_UNMERGEABLE */
    ADVICE(14),                                    /* MADV_HUGEPAGE */
    ADVICE(15),                                    /* MADV_NOHUGEPAGE */
    ADVICE(16),                                    /* MADV_DONTDUMP */
    ADVICE(17),                                    /* MADV_DODUMP */
    ADVICE(18),                                    /* MADV_WIPEONFORK */
    ADVICE(19),                                    /* MADV_KEEPONFORK */
    ADVICE(20),                                    /* MADV_COLD */
    ADVICE(21),                                    /* MADV_PAGEOUT */
    ADVICE(22),                                    /* MADV_POPULATE_READ */
    ADVICE(23),                                    /* MADV_POPULATE_WRITE */
    ADVICE(24),                                    /* MADV_DONTNEED_LOCKED */
    ADVICE(25),                                    /* MADV_COLLAPSE */
};

static const struct filtered_call personality_rules[] = {
    ONE_ARGUMENT("personality", 0, 0),         /* PER_LINUX */
    ONE_ARGUMENT("personality", 0, 0x8),       /* PER_LINUX32 */
    ONE_ARGUMENT("personality", 0, 0x20000),   /* UNAME26 */
    ONE_ARGUMENT("personality", 0, 0x20008),   /* UNAME26 | PER_LINUX32 */
    ONE_ARGUMENT("personality", 0, 0xffffffff) /* only asks */
};

#define GROUP(name_, reason_, rules_)                                                              \
    {                                                                                              \
        (name_), (reason_), (rules_), ARRAY_LENGTH(rules_)                                         \
    }

static const struct filtered_group filtered[] = {
    GROUP("new processes", "clone() without any of the flags that make a namespace", clone_rules),
    GROUP("new sockets",
          "local, TCP, UDP, and the routing table's netlink; no raw or packet sockets, no other "
          "protocol",
          socket_rules),
    GROUP(
        "device control",
        "terminals (no TIOCSTI), descriptor flags and interface facts; nothing else has a use here",
        ioctl_rules),
    GROUP("one's own limits", "of the calling process only, so that PID 1 is out of reach",
          own_process_rules),
    GROUP("pages", "reserve room, and advise on memory; nothing that takes pages out of a file",
          file_pages_rules),
    GROUP("personality", "the harmless ones; no READ_IMPLIES_EXEC, no ADDR_NO_RANDOMIZE",
          personality_rules),
};

static void write_names(struct json_writer *json, const char *calls)
{
    json_key(json, "names");
    json_array_begin(json);
    while (*calls) {
        size_t len = strcspn(calls, " ");
        json_write_string_len(json, calls, len);
        calls += len + strspn(calls + len, " ");
    }
    json_array_end(json);
}

static void write_group(struct json_writer *json, const struct call_group *group, int errno_ret)
{
    json_object_begin(json);
    write_names(json, group->calls);
    json_member_string(json, "action", errno_ret ? "SCMP_ACT_ERRNO" : "SCMP_ACT_ALLOW");
    if (errno_ret)
        json_member_int(json, "errnoRet", errno_ret);
    json_object_end(json);
}

static void write_argument(struct json_writer *json, const struct argument *argument)
{
    json_object_begin(json);
    json_member_int(json, "index", argument->index);
    json_member_int(json, "value", (int64_t)argument->mask);
    json_member_int(json, "valueTwo", (int64_t)argument->value);
    json_member_string(json, "op", "SCMP_CMP_MASKED_EQ");
    json_object_end(json);
}

static void write_filtered(struct json_writer *json, const struct filtered_call *rule)
{
    json_object_begin(json);
    write_names(json, rule->call);
    json_member_string(json, "action", "SCMP_ACT_ALLOW");
    json_key(json, "args");
    json_array_begin(json);
    for (size_t i = 0; i < rule->argument_count; i++)
        write_argument(json, &rule->arguments[i]);
    json_array_end(json);
    json_object_end(json);
}

void oci_seccomp_write(struct json_writer *json)
{
    json_object_begin(json);
    json_member_string(json, "defaultAction", "SCMP_ACT_ERRNO");
    json_member_int(json, "defaultErrnoRet", EPERM);
    json_key(json, "architectures");
    json_array_begin(json);
#if defined(__x86_64__)
    json_write_string(json, "SCMP_ARCH_X86_64");
#elif defined(__aarch64__)
    json_write_string(json, "SCMP_ARCH_AARCH64");
#else
#error "the seccomp policy knows x86_64 and aarch64 only"
#endif
    json_array_end(json);
    json_key(json, "syscalls");
    json_array_begin(json);
    for (size_t i = 0; i < ARRAY_LENGTH(allowed); i++)
        write_group(json, &allowed[i], 0);
    for (size_t i = 0; i < ARRAY_LENGTH(no_such_call); i++)
        write_group(json, &no_such_call[i], ENOSYS);
    for (size_t i = 0; i < ARRAY_LENGTH(filtered); i++)
        for (size_t j = 0; j < filtered[i].rule_count; j++)
            write_filtered(json, &filtered[i].rules[j]);
    json_array_end(json);
    json_object_end(json);
}

static int markdown_row(struct buffer *out, const char *name, const char *answer,
                        const char *reason, const char *calls, struct error *err)
{
    return buffer_printf(out, err, "| %s | %s | %s | %s |\n", name, answer, reason, calls);
}

static int markdown_filtered(struct buffer *out, const struct filtered_group *group,
                             struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer calls = BUFFER_INIT(4096);
    const char *last = "";

    for (size_t i = 0; i < group->rule_count; i++) {
        if (strcmp(last, group->rules[i].call) == 0)
            continue;
        if (buffer_printf(&calls, err, "%s%s", calls.len ? " " : "", group->rules[i].call) < 0)
            return -1;
        last = group->rules[i].call;
    }
    return markdown_row(out, group->name, "by argument", group->reason, calls.data, err);
}

int oci_seccomp_markdown(struct buffer *out, struct error *err)
{
    if (buffer_append_string(out, "| group | answer | reason | calls |\n|---|---|---|---|\n", err) <
        0)
        return -1;
    for (size_t i = 0; i < ARRAY_LENGTH(allowed); i++)
        if (markdown_row(out, allowed[i].name, "allowed", allowed[i].reason, allowed[i].calls,
                         err) < 0)
            return -1;
    for (size_t i = 0; i < ARRAY_LENGTH(filtered); i++)
        if (markdown_filtered(out, &filtered[i], err) < 0)
            return -1;
    for (size_t i = 0; i < ARRAY_LENGTH(no_such_call); i++)
        if (markdown_row(out, no_such_call[i].name, "ENOSYS", no_such_call[i].reason,
                         no_such_call[i].calls, err) < 0)
            return -1;
    return markdown_row(out, "everything else", "EPERM", "not needed to run a function", "", err);
}
