/* What the game keeps in its globals: the layout that game.c and the pmodules beside it share. The globals are exported
 * (link the program with -Wl,--export-dynamic-symbol=NAME), so that a pmodule finds them by name. */
#ifndef GAME_H
#define GAME_H

#include <stdint.h>

/* Who plays. */
struct account {
    char name[32];
    char password[64];
    uint32_t premium;
};

/* What goes on. `version` changes with the layout. */
struct game_state {
    uint32_t version;
    uint32_t level;
    uint64_t frame;
    struct {
        uint64_t allocations;
        uint64_t bytes_in_use;
        uint64_t bytes_at_most;
    } allocator;
};

#define GAME_STATE_VERSION 3

extern struct account player_account;
extern struct game_state current_game_state;

#endif
