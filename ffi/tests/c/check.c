/* What tests/c.rs runs: each command is a process of its own, ends with 0 if everything was as it should be, and says
 * on standard error what was not. Strict C99 plus sigaction(). */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cenotaph.h"

static int failures = 0;

static void expect_that(int holds, const char *what, int line)
{
    char why[256] = "";
    if (!holds) {
        cenotaph_last_error(why, sizeof why);
        fprintf(stderr, "check.c:%d: not so: %s (last error: %s)\n", line, what, why);
        failures++;
    }
}

#define EXPECT(condition) expect_that((condition), #condition, __LINE__)
#define OK(call) expect_that((call) == CENOTAPH_STATUS_OK, #call, __LINE__)
#define GIVES(status, call) expect_that((call) == CENOTAPH_STATUS_##status, #call " gives " #status, __LINE__)

static int last_error_has(const char *part)
{
    char why[512];
    size_t length = cenotaph_last_error(why, sizeof why);
    return length == strlen(why) && strstr(why, part) != NULL;
}

static cenotaph_options *settings(const char *spool)
{
    cenotaph_options *options = cenotaph_options_new("check", "1.2.3");
    EXPECT(options != NULL);
    OK(cenotaph_options_set_spool(options, spool));
    OK(cenotaph_options_set_consent_policy(options, CENOTAPH_CONSENT_POLICY_ASK_FIRST));
    /* The dying process waits for the commit, so that its parent finds the report. */
    OK(cenotaph_options_set_release_at(options, CENOTAPH_RELEASE_AT_SPOOLED));
    OK(cenotaph_options_set_deadline_ms(options, 120000));
    return options;
}

static void usage(const char *spool)
{
    char small[8], id[CENOTAPH_REPORT_ID_SIZE];
    const char *bad = "caf\xe9";
    cenotaph_consent state;
    cenotaph_options *options;

    EXPECT(strcmp(cenotaph_version(), CENOTAPH_VERSION_STRING) == 0);
    EXPECT(strcmp(cenotaph_status_message(CENOTAPH_STATUS_OK), "ok") == 0);
    EXPECT(strcmp(cenotaph_status_message(-1), "unknown status") == 0);
    EXPECT(cenotaph_last_error(NULL, 0) == 0);

    /* NULL and bad UTF-8 */
    EXPECT(cenotaph_options_new(NULL, "1") == NULL);
    EXPECT(last_error_has("`application` is NULL"));
    EXPECT(cenotaph_options_new("check", bad) == NULL);
    EXPECT(last_error_has("`version` is not UTF-8 from byte 3 on"));
    cenotaph_options_free(NULL);
    GIVES(NULL_ARGUMENT, cenotaph_options_set_spool(NULL, spool));
    GIVES(NULL_ARGUMENT, cenotaph_install(NULL));
    GIVES(NULL_ARGUMENT, cenotaph_set_attribute_string(NULL, "value"));
    GIVES(NULL_ARGUMENT, cenotaph_set_attribute_string("key", NULL));
    GIVES(NULL_ARGUMENT, cenotaph_set_attribute_string_n("key", 3, NULL, 1));
    GIVES(NULL_ARGUMENT, cenotaph_set_attribute_integer(NULL, 1));
    GIVES(NULL_ARGUMENT, cenotaph_set_attribute_float(NULL, 1.0));
    GIVES(NULL_ARGUMENT, cenotaph_set_attribute_bool(NULL, true));
    GIVES(NULL_ARGUMENT, cenotaph_remove_attribute(NULL));
    GIVES(NULL_ARGUMENT, cenotaph_add_breadcrumb(CENOTAPH_LEVEL_INFO, NULL, "message"));
    GIVES(NULL_ARGUMENT, cenotaph_register_secret(NULL));
    GIVES(NULL_ARGUMENT, cenotaph_capture(NULL, NULL, 0));
    GIVES(NULL_ARGUMENT, cenotaph_consent_state(NULL));
    GIVES(INVALID_UTF8, cenotaph_register_secret(bad));
    EXPECT(!last_error_has("caf"));
    GIVES(INVALID_UTF8, cenotaph_set_attribute_string_n("key", 3, bad, 4));

    /* Nothing is installed */
    GIVES(NOT_INSTALLED, cenotaph_set_attribute_string("key", "value"));
    EXPECT(last_error_has("cenotaph_install()"));
    EXPECT(cenotaph_last_error(small, sizeof small) > sizeof small && strcmp(small, "Cenotap") == 0);
    GIVES(NOT_INSTALLED, cenotaph_capture("why", id, sizeof id));
    GIVES(BUFFER_TOO_SMALL, cenotaph_capture("why", small, sizeof small));
    GIVES(NOT_INSTALLED, cenotaph_consent_state(&state));
    GIVES(NOT_INSTALLED, cenotaph_consent_grant(CENOTAPH_BASIS_PERSON));
    GIVES(NOT_INSTALLED, cenotaph_consent_withdraw(NULL));
    GIVES(INVALID_ARGUMENT, cenotaph_consent_grant(3));
    GIVES(INVALID_ARGUMENT, cenotaph_add_breadcrumb(4, "net", "message"));
    GIVES(NOT_INSTALLED, cenotaph_flush(1));
    GIVES(NOT_INSTALLED, cenotaph_shutdown());

    /* Settings that cannot be used */
    options = settings(spool);
    GIVES(INVALID_CONFIG, cenotaph_options_add_destination(options, "crashpad=http://example.org/"));
    EXPECT(last_error_has("https"));
    GIVES(INVALID_CONFIG, cenotaph_options_add_destination(options, "example.org"));
    GIVES(INVALID_ARGUMENT, cenotaph_options_set_audience(options, 7));
    GIVES(INVALID_ARGUMENT, cenotaph_options_set_identity_epoch(options, 0));
    OK(cenotaph_options_set_deadline_ms(options, 0));
    GIVES(INVALID_CONFIG, cenotaph_install(options)); /* and frees them */
    EXPECT(last_error_has("cenotaph_options_set_deadline_ms"));
    options = settings(spool);
    OK(cenotaph_options_set_spool(options, "/dev/null/spool"));
    GIVES(FILE, cenotaph_install(options));
    EXPECT(last_error_has("/dev/null"));
    cenotaph_options_free(settings(spool));
}

static char failures_of[16];

/* A thread that beats, and one that is not watched. */
static void watch(void)
{
    bool safe = true;
    GIVES(NOT_INSTALLED, cenotaph_beat());
    OK(cenotaph_watch_thread(60000));
    OK(cenotaph_watch_thread(120000));
    OK(cenotaph_beat());
    OK(cenotaph_unwatch_thread());
    OK(cenotaph_unwatch_thread());
    GIVES(NOT_INSTALLED, cenotaph_beat());
    GIVES(NULL_ARGUMENT, cenotaph_safe_mode(NULL));
    OK(cenotaph_safe_mode(&safe));
    EXPECT(!safe);
}

/* A child of this program that shares its monitor and ends. */
static void share(const char *spool)
{
    int seat = -1, status = 0;
    pid_t child;
    cenotaph_options *options = settings(spool);
    GIVES(INVALID_ARGUMENT, cenotaph_options_share_monitor(options, -1));
    cenotaph_options_free(options);
    GIVES(NULL_ARGUMENT, cenotaph_share_monitor(NULL));
    OK(cenotaph_share_monitor(&seat));
    child = fork();
    if (child == 0) {
        options = settings(spool);
        OK(cenotaph_options_share_monitor(options, seat));
        OK(cenotaph_install(options));
        OK(cenotaph_capture("of a child", NULL, 0));
        OK(cenotaph_shutdown());
        _exit(failures);
    }
    close(seat);
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

static void note(void)
{
    OK(cenotaph_set_attribute_string("level", "castle"));
    OK(cenotaph_set_attribute_string_n("regionXX", 6, "northern marches", 8));
    OK(cenotaph_set_attribute_string_n("empty", 5, NULL, 0));
    OK(cenotaph_set_attribute_integer("score", -7));
    OK(cenotaph_set_attribute_float("fps", 59.5));
    OK(cenotaph_set_attribute_bool("online", true));
    OK(cenotaph_set_attribute_bool("gone", true));
    OK(cenotaph_remove_attribute("gone"));
    OK(cenotaph_add_breadcrumb(CENOTAPH_LEVEL_WARNING, "net", "slow"));
    OK(cenotaph_add_breadcrumb_n(CENOTAPH_LEVEL_DEBUG, "uix", 2, "opened the menu", 6));
    OK(cenotaph_register_secret("correct horse"));
    OK(cenotaph_register_secret_n("battery staple", 7));
    GIVES(LIMIT, cenotaph_set_attribute_bool("", true));
    GIVES(NULL_ARGUMENT, cenotaph_register_secret_range(NULL, 1));
    GIVES(LIMIT, cenotaph_register_secret_range(failures_of, 0));
    OK(cenotaph_register_secret_range(failures_of, sizeof failures_of));
    OK(cenotaph_unregister_secret_range(failures_of, sizeof failures_of));
}

static void start(const char *spool)
{
    cenotaph_consent state = CENOTAPH_CONSENT_DENIED;
    OK(cenotaph_install(settings(spool)));
    GIVES(ALREADY_INSTALLED, cenotaph_install(settings(spool)));
    OK(cenotaph_consent_state(&state));
    EXPECT(state == CENOTAPH_CONSENT_UNKNOWN);
    OK(cenotaph_consent_grant(CENOTAPH_BASIS_VERIFIED_PARENT));
    OK(cenotaph_consent_state(&state));
    EXPECT(state == CENOTAPH_CONSENT_GRANTED);
    OK(cenotaph_protect_thread());
    note();
    watch();
}

/* Prints the id of a report. */
static void capture(const char *spool)
{
    char id[CENOTAPH_REPORT_ID_SIZE] = "";
    start(spool);
    OK(cenotaph_capture("asked for", NULL, 0));
    OK(cenotaph_capture("asked for again", id, sizeof id));
    EXPECT(strlen(id) == CENOTAPH_REPORT_ID_SIZE - 1);
    puts(id);
    OK(cenotaph_flush(120000));
    OK(cenotaph_shutdown());
}

static void crash(const char *spool)
{
    int *volatile nowhere = NULL;
    start(spool);
    if (failures == 0)
        *nowhere = 1;
}

static volatile int depth_limit = -1;

/* Ends only in theory, and knows that the compiler does not know. */
static int recurse(volatile int *above)
{
    volatile int frame[256];
    frame[0] = *above + 1;
    frame[1] = 0;
    if (frame[0] != depth_limit)
        frame[1] = recurse(frame);
    return frame[0] + frame[1];
}

static void *overflow_here(void *unused)
{
    volatile int depth = 0;
    OK(cenotaph_protect_thread());
    if (failures == 0)
        recurse(&depth);
    return unused;
}

/* In a thread of C, which has no alternate signal stack of its own. */
static void overflow(const char *spool)
{
    pthread_t thread;
    start(spool);
    EXPECT(pthread_create(&thread, NULL, overflow_here, NULL) == 0);
    pthread_join(thread, NULL);
}

static void withdraw(const char *spool)
{
    size_t removed = 0;
    cenotaph_consent state = CENOTAPH_CONSENT_UNKNOWN;
    start(spool);
    OK(cenotaph_capture("held", NULL, 0));
    OK(cenotaph_consent_withdraw(&removed));
    EXPECT(removed == 1);
    OK(cenotaph_consent_state(&state));
    EXPECT(state == CENOTAPH_CONSENT_WITHDRAWN);
    GIVES(CONSENT_REFUSED, cenotaph_capture("refused", NULL, 0));
    EXPECT(last_error_has("cenotaph_consent_grant()"));
    OK(cenotaph_shutdown());
}

static void on_signal(int number)
{
    (void)number;
    _exit(42);
}

static int handler_is(void (*handler)(int))
{
    struct sigaction now;
    return sigaction(SIGSEGV, NULL, &now) == 0 && now.sa_handler == handler;
}

static void shutdown_restores(const char *spool)
{
    struct sigaction own;
    int round, status = 0;
    pid_t child;
    memset(&own, 0, sizeof own);
    own.sa_handler = on_signal;
    EXPECT(sigaction(SIGSEGV, &own, NULL) == 0);
    for (round = 0; round < 2; round++) {
        OK(cenotaph_install(settings(spool)));
        EXPECT(!handler_is(on_signal));
        OK(cenotaph_shutdown());
        EXPECT(handler_is(on_signal));
        GIVES(NOT_INSTALLED, cenotaph_shutdown());
        GIVES(NOT_INSTALLED, cenotaph_set_attribute_bool("key", true));
    }
    /* A forked child is no client, and its shutdown leaves its parent's installation alone. */
    OK(cenotaph_install(settings(spool)));
    share(spool);
    child = fork();
    if (child == 0) {
        GIVES(NOT_INSTALLED, cenotaph_set_attribute_bool("key", true));
        OK(cenotaph_shutdown());
        _exit(failures);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    OK(cenotaph_set_attribute_bool("key", true));
    EXPECT(!handler_is(on_signal));
    OK(cenotaph_shutdown());
    EXPECT(handler_is(on_signal));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const char *spool);
    } commands[] = {
        {"usage", usage},       {"capture", capture},   {"crash", crash},
        {"overflow", overflow}, {"withdraw", withdraw}, {"shutdown", shutdown_restores},
    };
    const char *command = argc == 3 ? argv[1] : getenv("CHECK_COMMAND");
    const char *spool = argc == 3 ? argv[2] : getenv("CHECK_SPOOL");
    size_t i;

    /* Runs that name their command in the environment leave the line out: cenotaph_install() does the same then. The
     * monitor gets the environment, but no arguments. */
    if (argc == 3 || command == NULL) {
        if (cenotaph_monitor_entry() != CENOTAPH_STATUS_OK)
            return 3;
    }
    for (i = 0; command != NULL && spool != NULL && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(command, commands[i].name) == 0) {
            commands[i].run(spool);
            return failures == 0 ? 0 : 1;
        }
    }
    fprintf(stderr, "usage: check usage|capture|crash|overflow|withdraw|shutdown SPOOL\n");
    return 2;
}
