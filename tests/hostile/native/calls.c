/* System calls that no function needs, in sets; the payload names the set. Prints {"call": ["refused", "EPERM"], …}.
 *
 * Each is tried in a child, so that one that works (or kills) does not end the others. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT(text) ((long)(intptr_t)(text))
#define ROOM ((long)(intptr_t)room)
#define KEY_SPEC_SESSION_KEYRING (-3)

/* System calls of other architectures that the processor can make: numbers of 32-bit programs with this bit, of x32 with that of the kernel. */
#define ABI_32 (1L << 40)
#define ABI_X32 (1L << 30)

static char room[65536];
/* struct clone_args (clone(2)): flags first, exit_signal fifth. */
static unsigned long long clone_user[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};

struct call {
    const char *set, *name;
    long number, arguments[6];
};

static const struct call calls[] = {
    /* file systems */
    {"mounts", "mount tmpfs", SYS_mount, {TEXT("t"), TEXT("/tmp"), TEXT("tmpfs"), 0, 0}},
    {"mounts", "mount proc", SYS_mount, {TEXT("p"), TEXT("/tmp"), TEXT("proc"), 0, 0}},
    {"mounts", "mount sysfs", SYS_mount, {TEXT("s"), TEXT("/tmp"), TEXT("sysfs"), 0, 0}},
    {"mounts", "mount cgroup2", SYS_mount, {TEXT("c"), TEXT("/tmp"), TEXT("cgroup2"), 0, 0}},
    {"mounts", "bind /", SYS_mount, {TEXT("/"), TEXT("/tmp"), 0, MS_BIND | MS_REC, 0}},
    {"mounts", "remount / writable", SYS_mount, {0, TEXT("/"), 0, MS_REMOUNT | MS_BIND, 0}},
    {"mounts",
     "remount code writable",
     SYS_mount,
     {0, TEXT("/app/function"), 0, MS_REMOUNT | MS_BIND, 0}},
    {"mounts", "make / shared", SYS_mount, {0, TEXT("/"), 0, MS_SHARED | MS_REC, 0}},
    {"mounts", "umount /proc", SYS_umount2, {TEXT("/proc"), MNT_DETACH}},
    {"mounts", "umount a masked file", SYS_umount2, {TEXT("/proc/kcore"), MNT_DETACH}},
    {"mounts", "umount /app/function", SYS_umount2, {TEXT("/app/function"), MNT_DETACH}},
    {"mounts", "pivot_root", SYS_pivot_root, {TEXT("/tmp"), TEXT("/tmp")}},
    {"mounts", "chroot", SYS_chroot, {TEXT("/tmp")}},
#ifdef SYS_open_tree
    {"mounts", "open_tree", SYS_open_tree, {AT_FDCWD, TEXT("/"), 1}},
    {"mounts", "move_mount", SYS_move_mount, {AT_FDCWD, TEXT("/tmp"), AT_FDCWD, TEXT("/app"), 0}},
    {"mounts", "fsopen", SYS_fsopen, {TEXT("tmpfs"), 0}},
    {"mounts", "fsmount", SYS_fsmount, {0, 0, 0}},
    {"mounts", "fspick", SYS_fspick, {AT_FDCWD, TEXT("/"), 0}},
#endif
#ifdef SYS_mount_setattr
    {"mounts", "mount_setattr", SYS_mount_setattr, {AT_FDCWD, TEXT("/"), 0, ROOM, 32}},
#endif
    {"mounts", "open_by_handle_at", SYS_open_by_handle_at, {AT_FDCWD, ROOM, O_RDONLY}},
    {"mounts", "swapon", SYS_swapon, {TEXT("/tmp/x"), 0}},
    {"mounts", "quotactl", SYS_quotactl, {0, 0, 0, 0}},
    /* namespaces */
    {"namespaces", "unshare user", SYS_unshare, {CLONE_NEWUSER}},
    {"namespaces", "unshare mounts", SYS_unshare, {CLONE_NEWNS}},
    {"namespaces", "unshare network", SYS_unshare, {CLONE_NEWNET}},
    {"namespaces", "unshare user and all", SYS_unshare, {0x7e020000}},
    {"namespaces", "unshare cgroup", SYS_unshare, {0x02000000}},
    {"namespaces", "unshare time", SYS_unshare, {0x00000080}},
    {"namespaces", "clone user", SYS_clone, {CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0}},
    {"namespaces", "clone pid", SYS_clone, {CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0}},
#ifdef SYS_clone3
    {"namespaces", "clone3 user", SYS_clone3, {TEXT(clone_user), sizeof(clone_user)}},
#endif
    {"namespaces", "setns", SYS_setns, {3, 0}},
    /* code of one's own in the kernel, or another kernel */
    {"kernel-code", "bpf prog", SYS_bpf, {5, ROOM, 128}},
    {"kernel-code", "bpf map", SYS_bpf, {0, ROOM, 128}},
    {"kernel-code", "init_module", SYS_init_module, {ROOM, 64, TEXT("")}},
    {"kernel-code", "finit_module", SYS_finit_module, {0, TEXT(""), 0}},
    {"kernel-code", "delete_module", SYS_delete_module, {TEXT("veth"), 0}},
#ifdef SYS_kexec_load
    {"kernel-code", "kexec_load", SYS_kexec_load, {0, 0, 0, 0}},
#endif
#ifdef SYS_kexec_file_load
    {"kernel-code", "kexec_file_load", SYS_kexec_file_load, {0, 0, 0, 0, 0}},
#endif
#ifdef SYS_iopl
    {"kernel-code", "iopl", SYS_iopl, {3}},
    {"kernel-code", "ioperm", SYS_ioperm, {0x80, 1, 1}},
#endif
    /* interfaces with a long list of past defects */
    {"interfaces", "perf_event_open", SYS_perf_event_open, {ROOM, 0, -1, -1, 0}},
    {"interfaces", "userfaultfd", SYS_userfaultfd, {0}},
#ifdef SYS_io_uring_setup
    {"interfaces", "io_uring_setup", SYS_io_uring_setup, {8, ROOM}},
    {"interfaces", "io_uring_enter", SYS_io_uring_enter, {0, 1, 0, 0, 0, 0}},
    {"interfaces", "io_uring_register", SYS_io_uring_register, {0, 0, 0, 0}},
#endif
    {"interfaces", "fanotify_init", SYS_fanotify_init, {0, 0}},
    {"interfaces",
     "add_key",
     SYS_add_key,
     {TEXT("user"), TEXT("x"), TEXT("x"), 1, KEY_SPEC_SESSION_KEYRING}},
    {"interfaces", "request_key", SYS_request_key, {TEXT("user"), TEXT("x"), 0, 0}},
    {"interfaces", "keyctl", SYS_keyctl, {0, KEY_SPEC_SESSION_KEYRING, 1}},
    {"interfaces", "syslog", SYS_syslog, {3, ROOM, 1024}},
    {"interfaces", "acct", SYS_acct, {TEXT("/tmp/x")}},
#ifdef SYS_lookup_dcookie
    {"interfaces", "lookup_dcookie", SYS_lookup_dcookie, {1, ROOM, 100}},
#endif
    {"interfaces", "personality", SYS_personality, {0x0040000}},
    /* the machine's own settings */
    {"machine", "reboot", SYS_reboot, {0xfee1dead, 672274793, 0x89abcdef, 0}},
    {"machine", "sethostname", SYS_sethostname, {TEXT("x"), 1}},
    {"machine", "setdomainname", SYS_setdomainname, {TEXT("x"), 1}},
    {"machine", "settimeofday", SYS_settimeofday, {ROOM, 0}},
    {"machine", "clock_settime", SYS_clock_settime, {0, ROOM}},
    {"machine", "vhangup", SYS_vhangup, {0}},
    /* becoming somebody */
    {"privileges", "setuid", SYS_setuid, {0}},
    {"privileges", "setgid", SYS_setgid, {0}},
    {"privileges", "setresuid", SYS_setresuid, {0, 0, 0}},
    {"privileges", "setreuid", SYS_setreuid, {0, 0}},
    {"privileges", "setgroups", SYS_setgroups, {1, ROOM}},
    {"privileges", "chown to root", SYS_fchownat, {AT_FDCWD, TEXT("/tmp"), 0, 0, 0}},
    {"privileges", "mknod block", SYS_mknodat, {AT_FDCWD, TEXT("/tmp/b"), 0060666, 0xfe00}},
    {"privileges", "mknod mem", SYS_mknodat, {AT_FDCWD, TEXT("/tmp/m"), 0020666, 0x0101}},
    /* other processes: 1 is faas-init */
    {"others", "ptrace attach", SYS_ptrace, {16, 1, 0, 0}},
    {"others", "ptrace seize", SYS_ptrace, {0x4206, 1, 0, 0}},
    {"others", "ptrace traceme", SYS_ptrace, {0, 0, 0, 0}},
    {"others", "process_vm_readv", SYS_process_vm_readv, {1, ROOM, 1, ROOM, 1, 0}},
    {"others", "process_vm_writev", SYS_process_vm_writev, {1, ROOM, 1, ROOM, 1, 0}},
    {"others", "kcmp", SYS_kcmp, {1, 1, 0, 0, 0}},
    {"others", "prlimit", SYS_prlimit64, {1, 7, ROOM, 0}},
    {"others", "sched_setaffinity", SYS_sched_setaffinity, {1, 8, ROOM}},
    {"others", "setpriority of 1", SYS_setpriority, {0, 1, 19}},
    {"others", "setpriority of the user", SYS_setpriority, {2, 0, 19}},
    {"others", "ioprio_set", SYS_ioprio_set, {1, 1, 0x6000}},
#ifdef SYS_pidfd_getfd
    {"others", "pidfd_getfd", SYS_pidfd_getfd, {3, 0, 0}},
#endif
#ifdef SYS_process_madvise
    {"others", "process_madvise", SYS_process_madvise, {3, ROOM, 1, 21, 0}},
#endif
    {"others", "migrate_pages", SYS_migrate_pages, {1, 8, ROOM, ROOM}},
    {"others", "move_pages", SYS_move_pages, {1, 0, 0, 0, 0, 0}},
#ifdef __x86_64__
    {"other-abis", "32-bit getpid", ABI_32 | 20, {0}},
    {"other-abis", "32-bit unshare", ABI_32 | 310, {CLONE_NEWUSER}},
    {"other-abis", "x32 getpid", ABI_X32 | SYS_getpid, {0}},
    {"other-abis", "x32 unshare", ABI_X32 | SYS_unshare, {CLONE_NEWUSER}},
#endif
};

#define KILLED 255 /* in the place of an errno */

static const char *error_name(int number)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {{EPERM, "EPERM"},   {ENOSYS, "ENOSYS"}, {EACCES, "EACCES"}, {EINVAL, "EINVAL"},
                 {EFAULT, "EFAULT"}, {ENOENT, "ENOENT"}, {EBADF, "EBADF"},   {EROFS, "EROFS"},
                 {ESRCH, "ESRCH"},   {ENODEV, "ENODEV"}, {KILLED, "killed"}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].number == number)
            return names[i].name;
    return "another error";
}

#ifdef __x86_64__
static long call_32(long number, const long *a)
{
    long value;

    __asm__ volatile("int $0x80"
                     : "=a"(value)
                     : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2])
                     : "memory", "cc", "r8", "r9", "r10", "r11");
    if (value >= 0)
        return value;
    errno = (int)-value;
    return -1;
}
#else
static long call_32(long number, const long *a)
{
    (void)number, (void)a;
    errno = ENOSYS;
    return -1;
}
#endif

/* In the child: 0 when it worked, else the errno. */
static int try_call(const struct call *call)
{
    const long *a = call->arguments;
    long value = call->number & ABI_32 ? call_32(call->number & ~ABI_32, a)
                                       : syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);

    return value == -1 ? errno : 0;
}

static int attempt(const struct call *call)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        _exit(try_call(call));
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : KILLED;
}

int main(void)
{
    const char *payload = getenv("FUNCTION_PAYLOAD");
    const char *between = "{";

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        char quoted[64];
        snprintf(quoted, sizeof(quoted), "\"%s\"", calls[i].set);
        if (!payload || !strstr(payload, quoted))
            continue;
        int number = attempt(&calls[i]);
        printf("%s\"%s\": [\"%s\", \"%s\"]", between, calls[i].name, number ? "refused" : "done",
               error_name(number));
        between = ", ";
    }
    puts("}");
    return 0;
}
