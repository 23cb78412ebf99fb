/* Dies by SIGSEGV with a handler like Cenotaph's, which does what the argument says: what the detector must find. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *deed;
static void *volatile block;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    if (!strcmp(deed, "malloc")) block = malloc(16);
    if (!strcmp(deed, "free")) free(block);
    if (!strcmp(deed, "lock")) pthread_mutex_lock(&lock);
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigaction(signal, &standard, NULL);
}

int main(int count, char **arguments) {
    deed = count > 1 ? arguments[1] : "nothing";
    block = malloc(16);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, seen;
    if (strcmp(deed, "unmasked")) sigfillset(&action.sa_mask);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGSEGV, NULL, &seen);
    if (seen.sa_sigaction != on_signal) return 3;
    *(volatile int *)0x10 = 1;
    return 4;
}
