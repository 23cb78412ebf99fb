// std::thread, whose pthread_create is called by a shared library.
#include <csignal>
#include <cstdio>
#include <thread>

int main()
{
    long size = -1;
    std::thread([&size] {
        stack_t found = {};
        if (sigaltstack(nullptr, &found) == 0 && (found.ss_flags & SS_DISABLE) == 0)
            size = static_cast<long>(found.ss_size);
    }).join();
    std::printf("%ld\n", size);
    return 0;
}
