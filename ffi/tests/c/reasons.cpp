// Ends that C and C++ bring about themselves, each with a reason that the program could tell.
#define _FORTIFY_SOURCE 2
#include "cenotaph.h"

#undef NDEBUG
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

namespace {

struct Left { int left; };
struct Both : std::logic_error, Left {
    Both() : std::logic_error("two bases"), Left{1} {}
};
struct Virtual : virtual std::runtime_error {
    Virtual() : std::runtime_error("far away") {}
};
struct Bare {};

void own_terminate()
{
    std::abort();
}

// What the compiler cannot know, so that it leaves the check to run time.
volatile std::size_t length = 64;

void die(const std::string &how)
{
    if (how == "assert")
        assert(how == "never" && "written by alice@example.com");
    if (how == "fortify") {
        char small[8];
        char large[64] = {};
        memcpy(small, large, length);
        std::printf("%d\n", small[0]);
    }
    if (how == "runtime-error")
        throw std::runtime_error("the mail of alice@example.com is full");
    if (how == "both")
        throw Both();
    if (how == "virtual")
        throw Virtual();
    if (how == "bare")
        throw Bare();
    if (how == "text")
        throw "only text";
    if (how == "number")
        throw 42;
    if (how == "system-error")
        throw std::system_error(std::make_error_code(std::errc::no_such_file_or_directory), "load");
    if (how == "own-handler") {
        std::set_terminate(own_terminate);
        throw std::runtime_error("before the program's own handler");
    }
    if (how == "rethrown") {
        std::exception_ptr kept;
        try {
            throw std::runtime_error("kept and thrown again");
        } catch (...) {
            kept = std::current_exception();
        }
        std::rethrow_exception(kept);
    }
    if (how == "thread")
        std::thread([] { throw std::runtime_error("on another thread"); }).join();
    if (how == "terminate")
        std::terminate();
    if (how == "abort-while-handling") {
        try {
            throw std::runtime_error("handled");
        } catch (const std::exception &) {
            std::abort();
        }
    }
    if (how == "abort")
        std::abort();
    if (how == "invalid-free") {
        static char not_of_the_heap[64];
        char *volatile at = not_of_the_heap + 16;
        std::free(at);
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (cenotaph_monitor_entry() != CENOTAPH_STATUS_OK || argc != 3)
        return 3;
    cenotaph_options *options = cenotaph_options_new("reasons", "1");
    cenotaph_options_set_spool(options, argv[2]);
    cenotaph_options_set_consent_policy(options, CENOTAPH_CONSENT_POLICY_ASK_FIRST);
    cenotaph_options_set_release_at(options, CENOTAPH_RELEASE_AT_SPOOLED);
    cenotaph_options_set_deadline_ms(options, 120000);
    if (cenotaph_install(options) != CENOTAPH_STATUS_OK)
        return 4;
    die(argv[1]);
    return 5;
}
