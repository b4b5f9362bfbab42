/* Freezing and reviving threads; see threads.h. */
#include "threads.h"
#include "number.h"

#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__GLIBC__)

#include <sched.h>
#include <ucontext.h>

#define THREADS_MAX 64
/* A thread that computes is asked again after a pause; at the start of an interpreter that is over soon. */
#define PAUSE_NS 1000000L
#define FREEZE_TRIES 1000
#define ANSWER_TRIES 10
/* glibc keeps this signal (SIGSETXID) unblocked in every thread. Its own handler is put back afterwards. */
#define SIGNAL_FREEZE 33
#define THREAD_STRUCT_BYTES 2048
/* What glibc gives to pthread_create()'s clone. */
#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |            \
     CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

enum answer { ANSWER_NONE, ANSWER_GOES_ON, ANSWER_FREEZES };

struct thread {
    pid_t tid;
    volatile int answer; /* of enum answer */
    volatile int alive;  /* the kernel clears it when the frozen thread is gone */
    void *stack;         /* its top, with the registers that thread_return() takes */
    char *self;          /* its thread pointer: struct pthread */
    void *robust_list;
    size_t robust_size;
};

/* The kernel's own, which sigaction() of the C library does not give for this signal. */
struct kernel_sigaction {
    void (*handler)(int, siginfo_t *, void *);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};
#define KERNEL_SA_RESTORER 0x04000000ul
#define KERNEL_MASK_BYTES 8

static struct thread threads[THREADS_MAX];
static size_t thread_count;
static volatile bool freezing; /* else the signal only asks for what the thread knows of its id */
static char *main_self;
static size_t tid_offset;
/* Where struct pthread may have the thread id, in words: those places that have held it in every thread. */
static bool holds_tid[THREAD_STRUCT_BYTES / sizeof(pid_t)];

/* Since glibc 2.35; NULL before. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));
#define RSEQ_SIGNATURE 0x53053053u
#define RSEQ_BYTES_MIN 32u
#define RSEQ_CPU_ID_OFFSET 4
#define RSEQ_CPU_ID_FAILED (-2)

void thread_handler(int signal, siginfo_t *info, void *context);
void thread_restorer(void);
long thread_clone(unsigned long flags, void *stack, void *parent_tid, void *child_tid, void *self);
void thread_take_signal(void *stack, const ucontext_t *context);
void thread_born_again(void);

/* The handler keeps what a function call must keep on the stack; a revived thread starts in the middle of thread_clone(),
 * on that stack, and leaves the handler by the same way. */
__asm__(".text\n"
        ".globl thread_handler, thread_restorer, thread_clone\n"
        ".hidden thread_handler, thread_restorer, thread_clone\n"
        ".type thread_handler,@function\n"
        "thread_handler:\n"
        "    push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n sub $8, %rsp\n"
        "    mov %rsp, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    call thread_take_signal\n"
        "thread_return:\n"
        "    add $8, %rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "    ret\n"
        ".type thread_restorer,@function\n"
        "thread_restorer:\n"
        "    mov $15, %eax\n" /* rt_sigreturn */
        "    syscall\n"
        ".type thread_clone,@function\n"
        "thread_clone:\n"
        "    mov %rcx, %r10\n"
        "    mov $56, %eax\n" /* clone */
        "    syscall\n"
        "    test %rax, %rax\n"
        "    jz 1f\n"
        "    ret\n"
        "1:  call thread_born_again\n"
        "    jmp thread_return\n");

static void futex_wait(volatile int *word, int value, const struct timespec *timeout)
{
    syscall(SYS_futex, word, FUTEX_WAIT, value, timeout, NULL, 0);
}

static char *thread_pointer(void)
{
    char *self;

    __asm__("mov %%fs:0, %0" : "=r"(self));
    return self;
}

static bool has_shadow_stack(void)
{
    uint64_t pointer = 0;

    __asm__ volatile("rdsspq %0" : "+r"(pointer)); /* does nothing where there is none */
    return pointer != 0;
}

/* ---- in the threads; nothing of the C library may be used that takes a lock ---- */

/* Whether the signal has interrupted a system call that waits. The kernel leaves such a thread before the call, which will be
 * made again, or after it with EINTR. */
static bool interrupted_a_wait(const ucontext_t *context)
{
    const uint8_t *next = (const uint8_t *)context->uc_mcontext.gregs[REG_RIP];
    long long result = context->uc_mcontext.gregs[REG_RAX];
    static const uint8_t call[] = {0x0f, 0x05};

    if (next[-2] == call[0] && next[-1] == call[1] && result == -EINTR)
        return true;
    return next[0] == call[0] && next[1] == call[1] && result == SYS_futex;
}

static struct thread *own_entry(void)
{
    pid_t tid = (pid_t)syscall(SYS_gettid);

    for (size_t i = 0; i < thread_count; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    return NULL;
}

static void check_tid_places(const char *self, pid_t tid)
{
    pid_t value;

    for (size_t i = 0; i < sizeof(holds_tid) / sizeof(holds_tid[0]); i++) {
        memcpy(&value, self + i * sizeof(value), sizeof(value));
        if (value != tid)
            holds_tid[i] = false;
    }
}

static void answer(struct thread *thread, enum answer what)
{
    __atomic_store_n(&thread->answer, what, __ATOMIC_RELEASE);
    syscall(SYS_futex, &thread->answer, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Returns when the thread is to go on. */
void thread_take_signal(void *stack, const ucontext_t *context)
{
    int saved_errno = errno;
    struct thread *thread = own_entry();

    if (thread && !freezing) {
        check_tid_places(thread_pointer(), thread->tid);
    } else if (thread && interrupted_a_wait(context)) {
        thread->stack = stack;
        thread->self = thread_pointer();
        syscall(SYS_get_robust_list, 0, &thread->robust_list, &thread->robust_size);
        thread->alive = 1;
        /* In place of the word in struct pthread, which would tell the C library. */
        syscall(SYS_set_tid_address, &thread->alive);
        answer(thread, ANSWER_FREEZES);
        for (;;)
            syscall(SYS_exit, 0);
    }
    if (thread)
        answer(thread, ANSWER_GOES_ON);
    errno = saved_errno;
}

static void register_rseq(char *self)
{
    if (!&__rseq_size || !&__rseq_offset || __rseq_size == 0)
        return;
    char *area = self + __rseq_offset;
    unsigned int size = __rseq_size > RSEQ_BYTES_MIN ? __rseq_size : RSEQ_BYTES_MIN;
    int failed = RSEQ_CPU_ID_FAILED;

    if (syscall(SYS_rseq, area, size, 0, RSEQ_SIGNATURE) != 0)
        memcpy(area + RSEQ_CPU_ID_OFFSET, &failed, sizeof(failed));
}

/* What the kernel keeps for each thread, and has not for a new one. */
void thread_born_again(void)
{
    char *self = thread_pointer();
    int saved_errno = errno;

    for (size_t i = 0; i < thread_count; i++)
        if (threads[i].self == self)
            syscall(SYS_set_robust_list, threads[i].robust_list, threads[i].robust_size);
    register_rseq(self);
    errno = saved_errno;
}

/* ---- in the main thread ---- */

/* Ids of the other threads; -1 when they cannot be listed or are too many. */
static int list_threads(pid_t ids[THREADS_MAX])
{
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;

    while (dir && (entry = readdir(dir)) && count >= 0) {
        const char *name = entry->d_name;
        uint64_t id;

        if (!number_read(&name, 10, &id) || (pid_t)id == getpid())
            continue;
        if (count == THREADS_MAX)
            count = -1;
        else
            ids[count++] = (pid_t)id;
    }
    if (!dir)
        return -1;
    closedir(dir);
    return count;
}

static void pause_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
}

static bool was_frozen(pid_t tid)
{
    for (size_t i = 0; i < thread_count; i++)
        if (threads[i].tid == tid && threads[i].answer == ANSWER_FREEZES)
            return true;
    return false;
}

static int forget_last(int result)
{
    thread_count--;
    return result;
}

/* The thread's answer; it is an entry when it is frozen. -1: none. */
static int ask(pid_t tid)
{
    struct thread *thread = &threads[thread_count];
    struct timespec second = {.tv_sec = 1};

    if (thread_count == THREADS_MAX)
        return -1;
    *thread = (struct thread){.tid = tid};
    thread_count++;
    if (syscall(SYS_tgkill, getpid(), tid, SIGNAL_FREEZE) != 0)
        return forget_last(errno == ESRCH ? ANSWER_GOES_ON : -1);
    for (int try = 0; try < ANSWER_TRIES && thread->answer == ANSWER_NONE; try++)
        futex_wait(&thread->answer, ANSWER_NONE, &second);
    if (thread->answer == ANSWER_NONE)
        return forget_last(-1);
    if (thread->answer == ANSWER_GOES_ON)
        return forget_last(ANSWER_GOES_ON);
    while (thread->alive)
        futex_wait(&thread->alive, 1, &second);
    return ANSWER_FREEZES;
}

/* One round: each thread that is not frozen is sent the signal. The count of threads that there were; -1 with `message`. */
static int ask_all(char *message)
{
    pid_t ids[THREADS_MAX];
    int count = list_threads(ids);

    for (int i = 0; i < count; i++) {
        if (!was_frozen(ids[i]) && ask(ids[i]) < 0) {
            snprintf(message, ZYGOTE_MESSAGE_MAX, "thread %d does not answer", ids[i]);
            return -1;
        }
    }
    if (count < 0)
        snprintf(message, ZYGOTE_MESSAGE_MAX, "its threads cannot be listed, or are too many");
    return count;
}

/* glibc's headers do not tell where struct pthread has the thread id: it is the one place that fits for every thread. */
static int find_tid_offset(char *message)
{
    size_t found = 0, count = 0;

    memset(holds_tid, true, sizeof(holds_tid));
    check_tid_places(main_self, getpid());
    freezing = false;
    if (ask_all(message) < 0)
        return -1;
    for (size_t i = 0; i < sizeof(holds_tid) / sizeof(holds_tid[0]); i++) {
        if (!holds_tid[i])
            continue;
        found = i * sizeof(pid_t);
        count++;
    }
    tid_offset = found;
    if (count == 1)
        return 0;
    snprintf(message, ZYGOTE_MESSAGE_MAX, "this C library keeps thread ids elsewhere");
    return -1;
}

/* Until there is no thread but this. A thread that was made meanwhile is seen in the next round, as is one that the kernel
 * has not quite removed. */
static int freeze_all(char *message)
{
    freezing = true;
    for (int try = 0; try < FREEZE_TRIES; try++) {
        int count = ask_all(message);

        if (count <= 0)
            return count;
        pause_a_little();
    }
    snprintf(message, ZYGOTE_MESSAGE_MAX, "its threads do not come to rest");
    return -1;
}

static int set_handler(const struct kernel_sigaction *new_action,
                       struct kernel_sigaction *old_action)
{
    return (int)syscall(SYS_rt_sigaction, SIGNAL_FREEZE, new_action, old_action, KERNEL_MASK_BYTES);
}

static void set_mask(uint64_t mask, uint64_t *old_mask)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, old_mask, KERNEL_MASK_BYTES);
}

int threads_freeze(char *message)
{
    struct kernel_sigaction action = {.handler = thread_handler,
                                      .flags = SA_SIGINFO | SA_RESTART | KERNEL_SA_RESTORER,
                                      .restorer = thread_restorer,
                                      .mask = ~(uint64_t)0};
    struct kernel_sigaction old_action;
    char ignored[ZYGOTE_MESSAGE_MAX];

    if (has_shadow_stack() || set_handler(&action, &old_action) != 0) {
        snprintf(message, ZYGOTE_MESSAGE_MAX, "the system does not allow it");
        return -1;
    }
    thread_count = 0;
    main_self = thread_pointer();
    /* A thread that has not answered may do so later: then the handler stays, and lets it go on. */
    if (find_tid_offset(message) != 0 || freeze_all(message) != 0) {
        threads_revive(ignored);
        return -1;
    }
    set_handler(&old_action, NULL);
    return 0;
}

pid_t threads_fork(void)
{
    void *tid = main_self + tid_offset;

    return (pid_t)syscall(SYS_clone, SIGCHLD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID, NULL,
                          NULL, tid, 0);
}

int threads_revive(char *message)
{
    uint64_t mask;
    int result = 0;

    set_mask(~(uint64_t)0, &mask); /* each gets its own back when it returns from the handler */
    for (size_t i = 0; i < thread_count && result == 0; i++) {
        void *tid = threads[i].self + tid_offset;
        long made = thread_clone(THREAD_FLAGS, threads[i].stack, tid, tid, threads[i].self);

        if (made < 0) {
            snprintf(message, ZYGOTE_MESSAGE_MAX, "a thread cannot be started: %s",
                     strerror((int)-made));
            result = -1;
        }
    }
    set_mask(mask, NULL);
    return result;
}

#else

int threads_freeze(char *message)
{
    snprintf(message, ZYGOTE_MESSAGE_MAX, "not made for this processor or C library");
    return -1;
}

pid_t threads_fork(void)
{
    errno = ENOSYS;
    return -1;
}

int threads_revive(char *message)
{
    snprintf(message, ZYGOTE_MESSAGE_MAX, "not made for this processor or C library");
    return -1;
}

#endif
