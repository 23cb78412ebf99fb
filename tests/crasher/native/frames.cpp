// Dies several calls deep, with texts that it was given on the stack, in the heap and on another thread's stack. For tests/scrub_core.rs.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

static volatile int sink;

struct Player {
    std::string mail;
    std::u16string wide;
    char card[32];
};

static int compare(const void *, const void *) {
    raise(SIGSEGV);
    return 0;
}

__attribute__((noinline)) static void die(const char *how, const Player *player, int depth) {
    char local[128];
    snprintf(local, sizeof local, "login %s, depth %d", player->mail.c_str(), depth);
    sink = local[0];
    if (depth > 0) {
        die(how, player, depth - 1);
        sink = sink + local[1];
        return;
    }
    if (!strcmp(how, "null")) *(volatile int *)nullptr = 1;
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "divide")) sink = 1 / (sink - local[0]);
    if (!strcmp(how, "trap")) __builtin_trap();
    if (!strcmp(how, "throw")) throw std::string("nobody catches this");
    if (!strcmp(how, "callback")) {
        int four[] = {3, 1, 2, 0};
        qsort(four, 4, sizeof four[0], compare);
    }
    sink = sink + local[2];
}

int main(int, char **argv) {
    std::vector<Player> players(3);
    for (auto &player : players) {
        player.mail = argv[2];
        player.wide.assign(player.mail.begin(), player.mail.end());
        snprintf(player.card, sizeof player.card, "%s", argv[3]);
    }
    std::thread waiting([&] {
        char text[96];
        snprintf(text, sizeof text, "waits for %s", players[1].mail.c_str());
        sink = text[0];
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    });
    die(argv[1], &players[0], 3);
}
