/* Threads of C, with and without libcenotaph_threads.a. */
#define _GNU_SOURCE
#include "cenotaph.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

static int has_stack(stack_t *found)
{
    EXPECT(sigaltstack(NULL, found) == 0);
    return (found->ss_flags & SS_DISABLE) == 0;
}

/* Deeper and deeper; what it adds is needed after the call, so that it is no loop. */
static int recurse(volatile int *depth)
{
    volatile int frame[64];
    frame[0] = *depth + 1;
    if (frame[0] > 0)
        frame[1] = recurse(frame);
    return frame[0] + frame[1];
}

static void *overflow_here(void *argument)
{
    volatile int depth = 0;
    if (argument != NULL && strcmp(argument, "protected") == 0)
        EXPECT(cenotaph_protect_thread() == CENOTAPH_STATUS_OK);
    recurse(&depth);
    return argument;
}

static void install(const char *spool)
{
    cenotaph_options *options = cenotaph_options_new("native", "1");
    EXPECT(options != NULL);
    EXPECT(cenotaph_options_set_spool(options, spool) == CENOTAPH_STATUS_OK);
    EXPECT(cenotaph_options_set_consent_policy(options, CENOTAPH_CONSENT_POLICY_ASK_FIRST) == CENOTAPH_STATUS_OK);
    EXPECT(cenotaph_options_set_deadline_ms(options, 120000) == CENOTAPH_STATUS_OK);
    EXPECT(cenotaph_options_set_release_at(options, CENOTAPH_RELEASE_AT_SPOOLED) == CENOTAPH_STATUS_OK);
    EXPECT(cenotaph_install(options) == CENOTAPH_STATUS_OK);
}

static void overflow(const char *spool, const char *how)
{
    pthread_t thread;
    install(spool);
    EXPECT(pthread_create(&thread, NULL, overflow_here, (void *)how) == 0);
    pthread_join(thread, NULL);
}

static void *look(void *argument)
{
    stack_t found;
    *(int *)argument = has_stack(&found) ? (int)found.ss_size : -1;
    return argument;
}

static int stack_of_a_thread(void)
{
    pthread_t thread;
    void *returned = NULL;
    int size = 0;
    EXPECT(pthread_create(&thread, NULL, look, &size) == 0);
    EXPECT(pthread_join(thread, &returned) == 0);
    EXPECT(returned == &size);
    return size;
}

static char own[65536];

/* As a runtime does that has alternate stacks of its own. */
static void *replace(void *unused)
{
    stack_t ours, found;
    memset(&ours, 0, sizeof ours);
    ours.ss_sp = own;
    ours.ss_size = sizeof own;
    EXPECT(sigaltstack(&ours, NULL) == 0);
    EXPECT(cenotaph_protect_thread() == CENOTAPH_STATUS_OK);
    EXPECT(has_stack(&found) && found.ss_sp == own);
    return unused;
}

static void *leave(void *unused)
{
    pthread_exit(unused);
}

static void *wait_for_cancellation(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void on_signal(int number)
{
    char here;
    (void)number;
    (void)here;
    pthread_exit(NULL);
}

/* Ends while it stands on the alternate stack. */
static void *leave_from_handler(void *unused)
{
    raise(SIGUSR1);
    return unused;
}

static long mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    long lines = 0;
    int c;
    EXPECT(maps != NULL);
    while ((c = fgetc(maps)) != EOF)
        lines += c == '\n';
    fclose(maps);
    return lines;
}

static void run_and_join(void *(*start)(void *), int cancel)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, start, NULL) == 0);
    if (cancel)
        EXPECT(pthread_cancel(thread) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
}

static void ends(void)
{
    struct sigaction action;
    long before;
    int i;
    EXPECT(stack_of_a_thread() >= 65536);
    run_and_join(leave, 0);
    run_and_join(wait_for_cancellation, 1);
    run_and_join(replace, 0);
    own[0] = own[sizeof own - 1] = 1;
    before = mappings();
    for (i = 0; i < 500; i++) {
        run_and_join(leave, 0);
        run_and_join(wait_for_cancellation, 1);
        run_and_join(replace, 0);
    }
    EXPECT(mappings() < before + 20);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0);
    run_and_join(leave_from_handler, 0);
    EXPECT(stack_of_a_thread() >= 65536);
}

/* No memory for anything but the thread's own stack, which is there already. */
static void shortage(void)
{
    pthread_attr_t attributes;
    struct rlimit none;
    pthread_t thread;
    int size = 0;
    void *stack = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(stack != MAP_FAILED);
    EXPECT(stack_of_a_thread() >= 65536);
    EXPECT(pthread_attr_init(&attributes) == 0);
    EXPECT(pthread_attr_setstack(&attributes, stack, 1 << 20) == 0);
    EXPECT(getrlimit(RLIMIT_AS, &none) == 0);
    none.rlim_cur = 1;
    EXPECT(setrlimit(RLIMIT_AS, &none) == 0);
    EXPECT(pthread_create(&thread, &attributes, look, &size) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(size == -1);
    /* An error of the C library's is the caller's: this one has no such stack in its cache. */
    EXPECT(pthread_attr_init(&attributes) == 0);
    EXPECT(pthread_attr_setstacksize(&attributes, 64 << 20) == 0);
    EXPECT(pthread_create(&thread, &attributes, look, &size) != 0);
}

/* The handler that was there before Cenotaph's: tells how much of the alternate stack was in use. */
static void tell_depth(int number)
{
    size_t untouched = 0;
    (void)number;
    while (untouched < sizeof own && own[untouched] == 0x5a)
        untouched++;
    printf("%zu\n", sizeof own - untouched);
    fflush(stdout);
    _exit(0);
}

static void depth(const char *spool)
{
    struct sigaction action;
    stack_t ours;
    memset(&action, 0, sizeof action);
    action.sa_handler = tell_depth;
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0);
    memset(own, 0x5a, sizeof own);
    memset(&ours, 0, sizeof ours);
    ours.ss_sp = own;
    ours.ss_size = sizeof own;
    EXPECT(sigaltstack(&ours, NULL) == 0);
    install(spool);
    raise(SIGSEGV);
}

/* PTHREAD_KEYS_MAX is reached before the first thread starts. */
static void no_keys(void)
{
    pthread_key_t key;
    while (pthread_key_create(&key, NULL) == 0)
        ;
    EXPECT(stack_of_a_thread() == -1);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (cenotaph_monitor_entry() != CENOTAPH_STATUS_OK)
        return 3;
    if (strcmp(what, "overflow") == 0 && argc > 2)
        overflow(argv[2], argc > 3 ? argv[3] : NULL);
    else if (strcmp(what, "ends") == 0)
        ends();
    else if (strcmp(what, "shortage") == 0)
        shortage();
    else if (strcmp(what, "no-keys") == 0)
        no_keys();
    else if (strcmp(what, "depth") == 0 && argc > 2)
        depth(argv[2]);
    else if (strcmp(what, "size") == 0)
        printf("%d\n", stack_of_a_thread());
    else
        return 2;
    return 0;
}
