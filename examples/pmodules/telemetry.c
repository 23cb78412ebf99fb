/* Stands for a library of somebody else: its threads hold things that are none of the game's business.
 *
 *     cc -std=c99 -shared -fPIC -pthread -o libtelemetry.so telemetry.c
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void telemetry_start(int threads);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int ready;

static void *report_for_ever(void *number)
{
    char name[16];
    volatile char buffer[64];
    const char *text = "gathered by the vendor: walnut orchard";
    size_t i;
    for (i = 0; i <= strlen(text); ++i) {
        buffer[i] = text[i];
    }
    snprintf(name, sizeof name, "telemetry-%d", (int)(size_t)number);
    pthread_setname_np(pthread_self(), name);
    pthread_mutex_lock(&lock);
    ++ready;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    do {
        pause();
    } while (buffer[0] != 0);
    return NULL;
}

/* Returns when all threads wait. */
void telemetry_start(int threads)
{
    int i;
    for (i = 0; i < threads; ++i) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, report_for_ever, (void *)(size_t)i) != 0) {
            return;
        }
    }
    pthread_mutex_lock(&lock);
    while (ready < threads) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}
