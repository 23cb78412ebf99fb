// Dies several calls deep, by `WAY MAIL CARD [THREADS]`, with these texts on the stack, in the heap and on other threads' stacks. For
// tests/scrub_core.rs and tests/same_frames_native.rs.
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
    // One divided by something needs no division.
    volatile int zero = 0;
    if (!strcmp(how, "divide")) sink = 100 / zero;
    if (!strcmp(how, "trap")) __builtin_trap();
    if (!strcmp(how, "throw")) throw std::string("nobody catches this");
    if (!strcmp(how, "callback")) {
        int four[] = {3, 1, 2, 0};
        qsort(four, 4, sizeof four[0], compare);
    }
    sink = sink + local[2];
}

int main(int argc, char **argv) {
    std::vector<Player> players(3);
    for (auto &player : players) {
        player.mail = argv[2];
        player.wide.assign(player.mail.begin(), player.mail.end());
        snprintf(player.card, sizeof player.card, "%s", argv[3]);
    }
    std::vector<std::thread> waiting;
    for (int others = argc > 4 ? atoi(argv[4]) - 1 : 1; others > 0; others--)
        waiting.emplace_back([&] {
            char text[96];
            snprintf(text, sizeof text, "waits for %s", players[1].mail.c_str());
            sink = text[0];
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        });
    die(argv[1], &players[0], 3);
}
