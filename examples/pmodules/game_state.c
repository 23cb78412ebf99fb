/* A pmodule that notes what the game was doing: level, frame and the allocator's statistics, from a global.
 *
 *     cc -std=c99 -O2 -shared -fPIC -I../../include -o game_state.so game_state.c
 */
#include <inttypes.h>
#include <stdio.h>

#include "cenotaph_pmodule.h"
#include "game.h"

/* More than this in use makes reports that one wants to see together. */
#define MUCH (UINT64_C(4) << 20)

static int32_t set_integer(const cenotaph_pmodule_host *host, const char *key, uint64_t number)
{
    cenotaph_pmodule_value value = {CENOTAPH_PMODULE_INTEGER, 0, 0, 0.0, {NULL, 0}};
    value.integer = (int64_t)number;
    return host->set_attribute(host, cenotaph_pmodule_string(key), &value);
}

static int32_t attach(const cenotaph_pmodule_host *host, void *user)
{
    struct game_state state;
    uint64_t address = 0;
    char json[256];
    (void)user;
    if (host->symbol(host, cenotaph_pmodule_string(""), cenotaph_pmodule_string("current_game_state"), &address, NULL)
        != CENOTAPH_PMODULE_OK) {
        return host->fail(host, cenotaph_pmodule_string("the program exports no current_game_state"));
    }
    if (host->read(host, address, &state, sizeof state, NULL) != CENOTAPH_PMODULE_OK) {
        return host->fail(host, host->error(host));
    }
    if (state.version != GAME_STATE_VERSION) {
        return host->fail(host, cenotaph_pmodule_string("the game's state has another layout than in game.h"));
    }
    snprintf(json, sizeof json,
        "{\"level\":%" PRIu32 ",\"frame\":%" PRIu64 ",\"allocator\":{\"allocations\":%" PRIu64
        ",\"bytes_in_use\":%" PRIu64 ",\"bytes_at_most\":%" PRIu64 "}}",
        state.level, state.frame, state.allocator.allocations, state.allocator.bytes_in_use,
        state.allocator.bytes_at_most);
    if (set_integer(host, "game.level", state.level) != 0 || set_integer(host, "game.frame", state.frame) != 0
        || host->annotate(host, CENOTAPH_PMODULE_JSON, cenotaph_pmodule_string(json)) != 0) {
        return host->fail(host, host->error(host));
    }
    if (state.allocator.bytes_in_use > MUCH) {
        host->annotate(host, CENOTAPH_PMODULE_WARNING, cenotaph_pmodule_string("the game holds more than 4 MiB"));
        host->classify(host, cenotaph_pmodule_string("much-memory"));
    }
    return 0;
}

static const cenotaph_pmodule table = {
    sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, CENOTAPH_PMODULE_LITERAL("game-state"),
    0, CENOTAPH_PMODULE_ON_ATTACH, 0, 0, NULL,
    NULL, attach, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t host_abi)
{
    return host_abi == CENOTAPH_PMODULE_ABI ? &table : NULL;
}
