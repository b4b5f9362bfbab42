/* Threads that are frozen, and live on in a forked child. */
#include "alone.h"
#include "zygote/memory.h"
#include "zygote/threads.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define HELPERS 4

/* Answers questions, as the helpers of an interpreter do. */
struct helper {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int question, answer;
    pid_t tid;
};

static struct helper helpers[HELPERS];
static _Thread_local int own_number;
static char message[ZYGOTE_MESSAGE_MAX];

static void *help(void *data)
{
    struct helper *helper = data;

    own_number = (int)(helper - helpers) * 100;
    pthread_mutex_lock(&helper->mutex);
    while (helper->question >= 0) {
        helper->tid = (pid_t)syscall(SYS_gettid);
        helper->answer = own_number + helper->question;
        pthread_cond_broadcast(&helper->changed);
        pthread_cond_wait(&helper->changed, &helper->mutex);
    }
    pthread_mutex_unlock(&helper->mutex);
    return helper;
}

static void start_helpers(void)
{
    for (int i = 0; i < HELPERS; i++) {
        pthread_mutex_init(&helpers[i].mutex, NULL);
        pthread_cond_init(&helpers[i].changed, NULL);
        ALONE_CHECK(pthread_create(&helpers[i].thread, NULL, help, &helpers[i]) == 0);
    }
}

static void expect_answers(int question)
{
    for (int i = 0; i < HELPERS; i++) {
        struct helper *helper = &helpers[i];

        pthread_mutex_lock(&helper->mutex);
        helper->question = question;
        pthread_cond_broadcast(&helper->changed);
        while (helper->answer != i * 100 + question)
            pthread_cond_wait(&helper->changed, &helper->mutex);
        ALONE_CHECK(helper->tid != getpid());
        pthread_mutex_unlock(&helper->mutex);
    }
}

static void end_helpers(void)
{
    for (int i = 0; i < HELPERS; i++) {
        void *result = NULL;

        pthread_mutex_lock(&helpers[i].mutex);
        helpers[i].question = -1;
        pthread_cond_broadcast(&helpers[i].changed);
        pthread_mutex_unlock(&helpers[i].mutex);
        ALONE_CHECK(pthread_join(helpers[i].thread, &result) == 0 && result == &helpers[i]);
    }
}

static int count_threads(void)
{
    DIR *dir = opendir("/proc/self/task");
    int count = 0;

    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count;
}

/* The child's exit status: what `piece` checks there with all threads alive. */
static int in_child(void (*piece)(void))
{
    pid_t pid = threads_fork();

    if (pid == 0) {
        ALONE_CHECK(threads_revive(message) == 0);
        piece();
        _exit(0);
    }
    return pid < 0 ? -1 : alone_status(pid);
}

static bool supported(void)
{
#if defined(__x86_64__) && defined(__GLIBC__)
    return true;
#else
    return false;
#endif
}

#define REQUIRE_SUPPORT()                                                                          \
    do {                                                                                           \
        if (!supported())                                                                          \
            cr_skip_test("not made for this processor or C library");                              \
    } while (0)

static void ask_and_end(void)
{
    expect_answers(8);
    ALONE_CHECK(count_threads() == HELPERS + 1);
    end_helpers();
}

static void live_on(void)
{
    start_helpers();
    expect_answers(7);
    ALONE_CHECK(threads_freeze(message) == 0);
    ALONE_CHECK(count_threads() == 1);
    for (int i = 0; i < 3; i++)
        ALONE_CHECK(in_child(ask_and_end) == 0);
    ALONE_CHECK(threads_revive(message) == 0); /* and here, as if nothing had been */
    ask_and_end();
}

Test(zygote_threads, threads_live_on_in_each_child_and_in_the_zygote)
{
    REQUIRE_SUPPORT();
    cr_assert_eq(run_alone(live_on), 0);
}

static void *echo(void *data)
{
    return data;
}

static void start_another(void)
{
    pthread_t thread;

    for (int i = 0; i < 20; i++) {
        ALONE_CHECK(pthread_create(&thread, NULL, echo, NULL) == 0);
        ALONE_CHECK(pthread_join(thread, NULL) == 0);
    }
    /* glibc sends a signal of its own to every thread, and waits for all. */
    ALONE_CHECK(setgid(getgid()) == 0 && setuid(getuid()) == 0);
    for (int i = 0; i < HELPERS; i++)
        ALONE_CHECK(pthread_kill(helpers[i].thread, 0) == 0);
    ask_and_end();
}

static void c_library(void)
{
    start_helpers();
    expect_answers(1);
    ALONE_CHECK(threads_freeze(message) == 0);
    ALONE_CHECK(in_child(start_another) == 0);
}

Test(zygote_threads, the_c_library_goes_on_with_its_threads)
{
    REQUIRE_SUPPORT();
    cr_assert_eq(run_alone(c_library), 0);
}

static sem_t wake;
static int event_fd, epoll_fd;
static atomic_int awake;

static void *wait_for_semaphore(void *unused)
{
    sigset_t mask;

    (void)unused;
    while (sem_wait(&wake) != 0)
        ;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (sigismember(&mask, SIGUSR1) && sigismember(&mask, SIGTERM))
        awake++;
    return NULL;
}

static void *wait_for_event(void *unused)
{
    struct epoll_event event = {.events = EPOLLIN};

    (void)unused;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event);
    while (epoll_wait(epoll_fd, &event, 1, -1) != 1)
        ;
    awake++;
    return NULL;
}

static pthread_t waiting[2];

static void wake_them(void)
{
    ALONE_CHECK(sem_post(&wake) == 0 && eventfd_write(event_fd, 1) == 0);
    for (int i = 0; i < 2; i++)
        ALONE_CHECK(pthread_join(waiting[i], NULL) == 0);
    ALONE_CHECK(awake == 2);
}

static void waits(void)
{
    sigset_t all, old;

    sem_init(&wake, 0, 0);
    event_fd = eventfd(0, EFD_NONBLOCK);
    epoll_fd = epoll_create1(0);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ALONE_CHECK(pthread_create(&waiting[0], NULL, wait_for_semaphore, NULL) == 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    ALONE_CHECK(pthread_create(&waiting[1], NULL, wait_for_event, NULL) == 0);
    ALONE_CHECK(threads_freeze(message) == 0);
    ALONE_CHECK(in_child(wake_them) == 0);
}

Test(zygote_threads, threads_that_block_signals_or_wait_for_events_live_on)
{
    REQUIRE_SUPPORT();
    cr_assert_eq(run_alone(waits), 0);
}

static atomic_int computed;
static atomic_bool enough;

static void *compute(void *unused)
{
    (void)unused;
    while (!enough)
        if (++computed > 30000000)
            break;
    return help(&helpers[0]);
}

static void answer_first(void)
{
    struct helper *helper = &helpers[0];

    ALONE_CHECK(computed > 30000000);
    pthread_mutex_lock(&helper->mutex);
    helper->question = 3;
    pthread_cond_broadcast(&helper->changed);
    while (helper->answer != 3)
        pthread_cond_wait(&helper->changed, &helper->mutex);
    pthread_mutex_unlock(&helper->mutex);
}

static void busy(void)
{
    pthread_mutex_init(&helpers[0].mutex, NULL);
    pthread_cond_init(&helpers[0].changed, NULL);
    ALONE_CHECK(pthread_create(&helpers[0].thread, NULL, compute, NULL) == 0);
    ALONE_CHECK(threads_freeze(message) == 0);
    ALONE_CHECK(in_child(answer_first) == 0);
}

Test(zygote_threads, a_thread_that_computes_is_waited_for)
{
    REQUIRE_SUPPORT();
    cr_assert_eq(run_alone(busy), 0);
}

static char *kept;

static bool is_mapped(const char *page)
{
    unsigned char resident;

    return mincore((void *)page, 4096, &resident) == 0;
}

static void memory_is_missing(void)
{
    ALONE_CHECK(!is_mapped(kept));
}

static void memory_is_there(void)
{
    ALONE_CHECK(is_mapped(kept) && kept[0] == 'x' && kept[4096 * 3] == 'y');
}

static void memory(void)
{
    kept = mmap(NULL, 4096 * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ALONE_CHECK(kept != MAP_FAILED && madvise(kept, 4096 * 4, MADV_DONTFORK) == 0);
    kept[0] = 'x';
    kept[4096 * 3] = 'y';
    start_helpers();
    ALONE_CHECK(threads_freeze(message) == 0);
    ALONE_CHECK(in_child(memory_is_missing) == 0);
    ALONE_CHECK(memory_share(message) == 0);
    ALONE_CHECK(in_child(memory_is_there) == 0);
}

Test(zygote_threads, a_child_has_the_memory_that_was_kept_from_forks)
{
    REQUIRE_SUPPORT();
    cr_assert_eq(run_alone(memory), 0);
}
