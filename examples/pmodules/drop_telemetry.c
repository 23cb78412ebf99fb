/* A pmodule that leaves the stacks of a third-party library's threads out: of every thread that has a frame in it, but
 * for the one that crashed, whose stack is what the report is for.
 *
 *     cc -std=c99 -O2 -shared -fPIC -I../../include -o drop_telemetry.so drop_telemetry.c
 *
 * A library whose threads have names of their own is known without unwinding, which is quicker: with
 * CENOTAPH_PMODULE_ON_THREAD and `thread->name`. Core files do not hold the names.
 */
#include "cenotaph_pmodule.h"

static int32_t last;

static int32_t on_frame(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_frame *frame)
{
    (void)user;
    /* The frames of one thread come one after the other. */
    if (frame->crashed || frame->thread == last) {
        return 0;
    }
    last = frame->thread;
    return host->drop_stack(host, frame->thread);
}

static const cenotaph_pmodule_frame_filter filters[] = {
    {CENOTAPH_PMODULE_LITERAL("libtelemetry.so"), {NULL, 0}, 0, 0},
};

static const cenotaph_pmodule table = {
    sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, CENOTAPH_PMODULE_LITERAL("drop-telemetry"),
    0, CENOTAPH_PMODULE_ON_FRAME, 1, sizeof filters / sizeof filters[0], filters,
    NULL, NULL, NULL, on_frame, NULL, NULL, NULL, NULL, NULL
};

CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t host_abi)
{
    return host_abi == CENOTAPH_PMODULE_ABI ? &table : NULL;
}
