/* A game that crashes in its 4711th frame: what the pmodules beside it are tried on. See the Makefile.
 *
 *     game                                 crashes, for a core file
 *     game SPOOL HELPER [PLUGIN.so]..      crashes and is reported (built with -DGAME_IS_REPORTED)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "game.h"

#ifdef GAME_IS_REPORTED
#include "cenotaph.h"
#endif

void telemetry_start(int threads);

struct account player_account = {"Robin", "tangerine lighthouse", 1};
struct game_state current_game_state = {GAME_STATE_VERSION, 12, 0, {0, 0, 0}};

static void *allocate(size_t size)
{
    current_game_state.allocator.allocations += 1;
    current_game_state.allocator.bytes_in_use += size;
    current_game_state.allocator.bytes_at_most = current_game_state.allocator.bytes_in_use;
    return malloc(size);
}

/* Copies what the player typed onto the stack, as programs do, and looks into it. */
static int log_in(const struct account *account, volatile int *place)
{
    volatile char typed[64];
    size_t i;
    for (i = 0; i < sizeof typed; ++i) {
        typed[i] = account->password[i];
    }
    *place = typed[0];
    return typed[1];
}

static int next_frame(void)
{
    /* Where no memory can be. */
    volatile int *place = current_game_state.frame == 4711 ? (volatile int *)(size_t)16 : allocate(1024);
    int typed = place != NULL ? log_in(&player_account, place) : 0;
    current_game_state.frame += 1;
    return typed;
}

#ifdef GAME_IS_REPORTED
static int install(int count, char **arguments)
{
    char why[512] = "";
    int i;
    cenotaph_options *options = cenotaph_options_new("game", "1.0");
    cenotaph_status status = cenotaph_options_set_spool(options, arguments[1]);
    cenotaph_options_set_consent_policy(options, CENOTAPH_CONSENT_POLICY_ASK_FIRST);
    cenotaph_options_set_release_at(options, CENOTAPH_RELEASE_AT_SPOOLED);
    /* Its main() does not begin with cenotaph_monitor_entry(): the monitor is another program. */
    if (status == CENOTAPH_STATUS_OK) {
        status = cenotaph_options_set_helper(options, arguments[2]);
    }
    for (i = 3; i < count && status == CENOTAPH_STATUS_OK; ++i) {
        status = cenotaph_options_add_plugin(options, arguments[i]);
    }
    if (status == CENOTAPH_STATUS_OK) {
        status = cenotaph_install(options);
    }
    if (status != CENOTAPH_STATUS_OK) {
        cenotaph_last_error(why, sizeof why);
        fprintf(stderr, "game: %s\n", why);
    }
    return status == CENOTAPH_STATUS_OK;
}
#endif

int main(int count, char **arguments)
{
#ifdef GAME_IS_REPORTED
    if (count < 3) {
        fprintf(stderr, "usage: game SPOOL HELPER [PLUGIN.so]..\n");
        return 2;
    }
    if (!install(count, arguments)) {
        return 1;
    }
#else
    (void)count;
    (void)arguments;
#endif
    telemetry_start(3);
    for (;;) {
        next_frame();
    }
}
