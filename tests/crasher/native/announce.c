/* Linked into programs of tests: where one would die it says with what registers, and waits to be dumped. What is said: thread, signal,
   code and address as 8 bytes each, then the general registers and the legacy floating-point state as signal frames have them. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

struct said {
    int64_t thread, signal, code, address;
    gregset_t registers;
    struct _libc_fpstate floating;
};

static void announce(int signal, siginfo_t *info, void *context)
{
    const mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
    struct said said = {syscall(SYS_gettid), signal, info->si_code, (intptr_t)info->si_addr, {0}, {0}};
    memcpy(said.registers, machine->gregs, sizeof said.registers);
    memcpy(&said.floating, machine->fpregs, sizeof said.floating);
    if (write(STDOUT_FILENO, &said, sizeof said) != sizeof said)
        _exit(1);
    for (;;)
        pause();
}

__attribute__((constructor)) static void prepare(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    struct sigaction action = {.sa_sigaction = announce, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaltstack(&stack, 0);
    for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++)
        sigaction(fatal[i], &action, 0);
}
