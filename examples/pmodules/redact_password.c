/* A pmodule that blanks the player's password: found by the symbol that the game exports and the layout in game.h. What
 * the field held is then sought in the whole report, copies on stacks among it.
 *
 *     cc -std=c99 -O2 -shared -fPIC -I../../include -o redact_password.so redact_password.c
 */
#include <stddef.h>

#include "cenotaph_pmodule.h"
#include "game.h"

static int32_t attach(const cenotaph_pmodule_host *host, void *user)
{
    uint64_t address = 0, size = 0;
    (void)user;
    if (host->symbol(host, cenotaph_pmodule_string(""), cenotaph_pmodule_string("player_account"), &address, &size)
        != CENOTAPH_PMODULE_OK) {
        return host->fail(host, cenotaph_pmodule_string("the program exports no player_account"));
    }
    /* Another build of the game: where the password is, nobody knows. It redacts, so the report will hold no memory. */
    if (size != sizeof(struct account)) {
        return host->fail(host, cenotaph_pmodule_string("player_account is of another size than in game.h"));
    }
    return host->blank_memory(
        host, address + offsetof(struct account, password), sizeof(((struct account *)0)->password));
}

static const cenotaph_pmodule table = {
    sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, CENOTAPH_PMODULE_LITERAL("redact-password"),
    /* Early, it redacts, and needs no frames. */
    -10, CENOTAPH_PMODULE_ON_ATTACH, 1, 0, NULL,
    NULL, attach, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t host_abi)
{
    return host_abi == CENOTAPH_PMODULE_ABI ? &table : NULL;
}
