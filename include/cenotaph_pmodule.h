/*
 * cenotaph_pmodule.h: what a pmodule in a shared object and the program that loads it say to each other.
 *
 * A pmodule looks at a stopped process and says what the report about it should hold, and what it must not. It is a
 * shared object with one exported function, cenotaph_pmodule_entry(), which returns a table of callbacks. Each
 * callback gets a table of the host's functions. Written for C99 and C++98 or newer; needs no library.
 *
 *     #include "cenotaph_pmodule.h"
 *
 *     static int32_t attach(const cenotaph_pmodule_host *host, void *user) {
 *         (void)user;
 *         return host->annotate(host, CENOTAPH_PMODULE_COMMENT, cenotaph_pmodule_string("I was here"));
 *     }
 *
 *     static const cenotaph_pmodule table = {
 *         sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, CENOTAPH_PMODULE_LITERAL("example"),
 *         0, CENOTAPH_PMODULE_ON_ATTACH, 0, 0, NULL, NULL, attach, NULL, NULL, NULL, NULL, NULL, NULL, NULL
 *     };
 *
 *     CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t host_abi) {
 *         (void)host_abi;
 *         return &table;
 *     }
 *
 *     cc -shared -fPIC -O2 -o example.so example.c -Iinclude
 *
 * Where it runs. At the start of the monitor the object is loaded once in a process of its own, which ends within two
 * seconds, to learn what the table says. For each crash it is loaded afresh into another process of its own, which is
 * then confined: opening files and sockets fails with EACCES, starting threads with EPERM; starting processes, signals to
 * others and looking at others' memory end it. It has a deadline and a memory limit. Constructors of the object run before
 * that; they should do nothing. Libraries that the object needs are found as those of any program are, but for $ORIGIN. If a
 * pmodule crashes, hangs or returns a failure, all that it asked for is discarded and the report says so; if it
 * redacts, the report then holds no memory at all.
 *
 * Rules of the border. Everything is little: integers of fixed width, structures that begin with their size, texts
 * with explicit length. Nothing is handed over: what the host lends is valid until the callback returns unless
 * something shorter is said, and what the module lends is copied before the host's function returns. No exception may
 * cross. Host functions may be called only from within a callback and on its thread. Every pointer but `host`, which is not
 * looked at, may be NULL: the answer is then CENOTAPH_PMODULE_NULL, and nothing happens; where a result is optional NULL means
 * that it is not wanted. What is asked for is checked at once: a thread, memory or a register that is not there is refused,
 * is not in the list and spoils nothing, so a callback may go on. One that returns the status instead fails with it, and with error()'s words.
 *
 * Globals. symbol() finds what a binary exports in its dynamic symbol table. A shared library exports its globals unless it
 * is told not to; a program none unless it is told to. So link the program with
 *     cc ... -Wl,--export-dynamic-symbol=my_state
 * for each global that a pmodule looks for; `nm -D --defined-only PROGRAM` then lists it. -rdynamic exports everything: it
 * works too, and makes symbolize() slow.
 *
 * A new version of the object. What was loaded at the start of the monitor stays: a file that is renamed or deleted goes on
 * being used until the application starts again. One that is written over in place is another object by then: it is not
 * believed, and the report holds no memory.
 *
 * Trying it out. `cenotaph pmodule run example.so CORE` replays it over a core file, and shows what it prints; with --debug
 * under gdb. A module that crashes is named with its event and as example.so+0x1139, for `addr2line -f -e example.so 0x1139`.
 *
 * Versions. CENOTAPH_PMODULE_ABI changes only when an old module could misread a new host or the other way round; such
 * a pair is refused. Within one ABI, tables and structures only grow at their end, which their size tells: a module sets
 * `size` before it asks for a structure, the host writes no more than that and sets `size` to what it wrote.
 */
#ifndef CENOTAPH_PMODULE_H
#define CENOTAPH_PMODULE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The ABI that this header describes. */
#define CENOTAPH_PMODULE_ABI 1

/* In front of cenotaph_pmodule_entry(). */
#if defined(__cplusplus)
#define CENOTAPH_PMODULE_LINKAGE extern "C"
#else
#define CENOTAPH_PMODULE_LINKAGE
#endif
#if defined(__GNUC__)
#define CENOTAPH_PMODULE_EXPORT CENOTAPH_PMODULE_LINKAGE __attribute__((visibility("default")))
#else
#define CENOTAPH_PMODULE_EXPORT CENOTAPH_PMODULE_LINKAGE
#endif

/* A cenotaph_pmodule_text of a string literal, for initialisers. */
#define CENOTAPH_PMODULE_LITERAL(literal) { "" literal, sizeof(literal) - 1 }

#ifdef __cplusplus
extern "C" {
#endif

/* What a host function came to. */
enum cenotaph_pmodule_status {
    /* It was done. */
    CENOTAPH_PMODULE_OK = 0,
    /* A pointer is NULL that must not be. */
    CENOTAPH_PMODULE_NULL = 1,
    /* A value cannot be used, or a limit was exceeded: error() has words. */
    CENOTAPH_PMODULE_INVALID = 2,
    /* There is no such thing: the index is past the end, the memory cannot be read, nothing has that name. */
    CENOTAPH_PMODULE_NOT_FOUND = 3,
    /* Only a part: memory ends before, or the buffer does. What fits was written. */
    CENOTAPH_PMODULE_SHORT = 4,
    /* Not in this event, or not within an event at all. */
    CENOTAPH_PMODULE_NOT_NOW = 5,
    /* A defect of the host, caught at the border. */
    CENOTAPH_PMODULE_FAULT = 6,
    /* What fail() returns, for the callback to return. */
    CENOTAPH_PMODULE_FAILED = -1
};

/* The events, in the order in which they come: bits of cenotaph_pmodule.events. */
enum cenotaph_pmodule_event {
    /* The process stands still. */
    CENOTAPH_PMODULE_ON_ATTACH = 1,
    /* Each thread, the crashing one first. */
    CENOTAPH_PMODULE_ON_THREAD = 2,
    /* Each frame that a filter takes, innermost first. */
    CENOTAPH_PMODULE_ON_FRAME = 4,
    /* Each piece of memory that is to go into the dump. */
    CENOTAPH_PMODULE_ON_REGION = 8,
    /* What the application and earlier pmodules noted; once. */
    CENOTAPH_PMODULE_ON_ATTRIBUTES = 16,
    /* Last before the process goes on. */
    CENOTAPH_PMODULE_ON_DETACH = 32,
    /* The finished dump, scrubbed by everything else. May only blank. */
    CENOTAPH_PMODULE_ON_SCRUB = 64,
    /* The finished report as it would leave. May only veto. */
    CENOTAPH_PMODULE_ON_VERDICT = 128
};

/* How an annotation is to be read. */
enum cenotaph_pmodule_level {
    /* A remark. */
    CENOTAPH_PMODULE_COMMENT = 0,
    /* Something that is not as it should be. */
    CENOTAPH_PMODULE_WARNING = 1,
    /* Most likely the cause. */
    CENOTAPH_PMODULE_CRITICAL = 2,
    /* A JSON value for programs. */
    CENOTAPH_PMODULE_JSON = 3
};

/* How much of the process a report shows. */
enum cenotaph_pmodule_detail {
    /* Frames as module and offset. No memory. */
    CENOTAPH_PMODULE_STACK_TRACE = 0,
    /* Stack words that point nowhere known are blanked, other memory is left out. */
    CENOTAPH_PMODULE_POINTERS = 1,
    /* Memory, scrubbed. */
    CENOTAPH_PMODULE_MINIDUMP = 2
};

/* What a cenotaph_pmodule_value is. */
enum cenotaph_pmodule_kind {
    /* `integer` is 0 or not. */
    CENOTAPH_PMODULE_BOOL = 0,
    /* `integer`. */
    CENOTAPH_PMODULE_INTEGER = 1,
    /* `number`. */
    CENOTAPH_PMODULE_NUMBER = 2,
    /* `text`. */
    CENOTAPH_PMODULE_TEXT = 3
};

/* Why there is a report. */
enum cenotaph_pmodule_cause {
    /* A signal. */
    CENOTAPH_PMODULE_SIGNAL = 0,
    /* A Rust panic. */
    CENOTAPH_PMODULE_PANIC = 1,
    /* The application asked for it. */
    CENOTAPH_PMODULE_REQUESTED = 2,
    /* Something that this ABI has no number for. */
    CENOTAPH_PMODULE_OTHER = 3
};

/* Bits of cenotaph_pmodule_map.permissions. */
enum cenotaph_pmodule_permission {
    /* May be read. */
    CENOTAPH_PMODULE_READABLE = 1,
    /* May be written. */
    CENOTAPH_PMODULE_WRITABLE = 2,
    /* May be executed. */
    CENOTAPH_PMODULE_EXECUTABLE = 4,
    /* Not shared with other processes. */
    CENOTAPH_PMODULE_PRIVATE = 8
};

/* UTF-8 with its length in bytes. Not terminated: print it with "%.*s". NULL stands for the empty text. */
typedef struct cenotaph_pmodule_text {
    /* The first byte. */
    const char *data;
    /* How many there are. */
    size_t length;
} cenotaph_pmodule_text;

/* A value of an attribute. `kind` says which member counts. */
typedef struct cenotaph_pmodule_value {
    /* enum cenotaph_pmodule_kind. */
    uint32_t kind;
    /* 0. */
    uint32_t reserved;
    /* Of CENOTAPH_PMODULE_BOOL and CENOTAPH_PMODULE_INTEGER. */
    int64_t integer;
    /* Of CENOTAPH_PMODULE_NUMBER. */
    double number;
    /* Of CENOTAPH_PMODULE_TEXT. */
    cenotaph_pmodule_text text;
} cenotaph_pmodule_value;

/* Takes frames for which everything holds that is set. */
typedef struct cenotaph_pmodule_frame_filter {
    /* The module's file name ("libssl.so.3") starts with this. Empty: any. 256 bytes at most. */
    cenotaph_pmodule_text module;
    /* The exported symbol is this. Empty: any. 256 bytes at most. */
    cenotaph_pmodule_text symbol;
    /* Not 0: only frames of the thread that crashed. */
    uint32_t faulting;
    /* 0. */
    uint32_t reserved;
} cenotaph_pmodule_frame_filter;

/* A thread. The module sets `size` before it asks for one. */
typedef struct cenotaph_pmodule_thread {
    /* Bytes of this structure. */
    uint32_t size;
    /* Its id. */
    int32_t id;
    /* 1 for the thread that crashed or asked for the report. */
    uint32_t crashed;
    /* The signal that it was about to take, or 0. */
    int32_t signal;
    /* Its name; the kernel keeps 15 bytes. Empty in `scrub`. */
    cenotaph_pmodule_text name;
} cenotaph_pmodule_thread;

/* A frame of a thread. The module sets `size` before it asks for one. */
typedef struct cenotaph_pmodule_frame {
    /* Bytes of this structure. */
    uint32_t size;
    /* The thread's id. */
    int32_t thread;
    /* 1 if that thread crashed or asked for the report. */
    uint32_t crashed;
    /* 0 is the innermost. */
    uint32_t number;
    /* The program counter of the innermost frame, else the return address minus one. */
    uint64_t instruction;
    /* `instruction` minus the module's start; 0 without a module. */
    uint64_t offset;
    /* The module's file name; empty if it lies in none. */
    cenotaph_pmodule_text module;
    /* The symbol that a filter of this pmodule names and that the frame lies in; else empty: symbolize() has it. */
    cenotaph_pmodule_text symbol;
} cenotaph_pmodule_frame;

/* Memory that goes into the dump. The module sets `size` before it asks for one. */
typedef struct cenotaph_pmodule_region {
    /* Bytes of this structure. */
    uint32_t size;
    /* The thread whose stack it is, or 0. */
    int32_t stack_of;
    /* Its address in the process. */
    uint64_t address;
    /* What was read. */
    const uint8_t *bytes;
    /* How much. */
    size_t length;
} cenotaph_pmodule_region;

/* A binary in memory. The module sets `size` before it asks for one. */
typedef struct cenotaph_pmodule_module {
    /* Bytes of this structure. */
    uint32_t size;
    /* 1 if its file was deleted, was replaced, or never had a name. */
    uint32_t deleted;
    /* Its first address. */
    uint64_t start;
    /* The address behind it. */
    uint64_t end;
    /* Path of the file that is mapped. */
    cenotaph_pmodule_text path;
    /* The path with the binary's own name (DT_SONAME) in the place of the file's. */
    cenotaph_pmodule_text name;
    /* NT_GNU_BUILD_ID; NULL if it has none. */
    const uint8_t *build_id;
    /* Bytes of it. */
    size_t build_id_length;
} cenotaph_pmodule_module;

/* A mapping: a range of addresses that is mapped alike. The module sets `size` before it asks for one. */
typedef struct cenotaph_pmodule_map {
    /* Bytes of this structure. */
    uint32_t size;
    /* Bits of enum cenotaph_pmodule_permission. */
    uint32_t permissions;
    /* Its first address. */
    uint64_t start;
    /* The address behind it. */
    uint64_t end;
    /* Offset in the file. */
    uint64_t offset;
    /* Path, or a name in brackets; empty for anonymous memory. */
    cenotaph_pmodule_text name;
} cenotaph_pmodule_map;

/* The signal. The module sets `size` before it asks. */
typedef struct cenotaph_pmodule_crash {
    /* Bytes of this structure. */
    uint32_t size;
    /* si_signo. */
    int32_t signal;
    /* si_code. */
    int32_t code;
    /* The process. */
    int32_t process;
    /* The thread. */
    int32_t thread;
    /* 1 if `address` has a meaning: the kernel raised the signal for an instruction. */
    uint32_t has_address;
    /* si_addr. */
    uint64_t address;
} cenotaph_pmodule_crash;

/* Why there is a report. The module sets `size` before it asks. */
typedef struct cenotaph_pmodule_reason {
    /* Bytes of this structure. */
    uint32_t size;
    /* enum cenotaph_pmodule_cause. */
    uint32_t cause;
    /* Of a signal: si_signo. */
    int32_t signal;
    /* Of a signal: si_code. */
    int32_t code;
    /* The panic's message, or the application's words. In `attributes` not yet scrubbed. */
    cenotaph_pmodule_text message;
    /* Of a panic: `file:line:column`. */
    cenotaph_pmodule_text location;
} cenotaph_pmodule_reason;

/* What the application noted about itself. The module sets `size` before it asks for one. */
typedef struct cenotaph_pmodule_attribute {
    /* Bytes of this structure. */
    uint32_t size;
    /* 1 if a text was cut. */
    uint32_t truncated;
    /* Its name. */
    cenotaph_pmodule_text key;
    /* Its value. In `attributes` not yet scrubbed. */
    cenotaph_pmodule_value value;
} cenotaph_pmodule_attribute;

/* What happened before. The module sets `size` before it asks for one. */
typedef struct cenotaph_pmodule_breadcrumb {
    /* Bytes of this structure. */
    uint32_t size;
    /* 0 debug, 1 info, 2 warning, 3 error. */
    uint32_t level;
    /* Milliseconds since the Unix epoch. */
    uint64_t time_ms;
    /* The application's own grouping. */
    cenotaph_pmodule_text category;
    /* What happened. In `attributes` not yet scrubbed. */
    cenotaph_pmodule_text message;
} cenotaph_pmodule_breadcrumb;

typedef struct cenotaph_pmodule_host cenotaph_pmodule_host;

/*
 * What the host can do. The first argument of each function is the table itself. Each returns a value of enum
 * cenotaph_pmodule_status unless something else is said. "Looking" means the events attach, thread, frame, region and
 * detach, in which the process stands still.
 */
struct cenotaph_pmodule_host {
    /* Bytes of this structure. */
    uint32_t size;
    /* CENOTAPH_PMODULE_ABI of the host. */
    uint32_t abi;

    /* Says in words why the callback fails, of which 16384 bytes are read, and returns CENOTAPH_PMODULE_FAILED for it to return. Any event. */
    int32_t (*fail)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text why);
    /* Why the last host function in this callback did not return CENOTAPH_PMODULE_OK; valid until the next one. Any event. */
    cenotaph_pmodule_text (*error)(const cenotaph_pmodule_host *host);

    /* Reads memory of the process while looking, and of the dump in `scrub`: `length` bytes at `address`. Writes how many
       there were to `done`, which is optional. CENOTAPH_PMODULE_SHORT: some; CENOTAPH_PMODULE_NOT_FOUND: none. */
    int32_t (*read)(const cenotaph_pmodule_host *host, uint64_t address, void *buffer, size_t length, size_t *done);
    /* Reads bytes up to a zero byte, as `read` does, and terminates them; `size` counts the terminator. Writes their number
       without it to `length`, which is optional. CENOTAPH_PMODULE_SHORT: no zero byte came before the buffer or the memory ended. */
    int32_t (*read_string)(const cenotaph_pmodule_host *host, uint64_t address, char *buffer, size_t size, size_t *length);
    /* A register of a thread by the processor's name ("rax", "rip", "xmm0") while looking: the low 8 bytes, then the high
       8 bytes, which are 0 for all but xmm. CENOTAPH_PMODULE_NOT_FOUND also if the thread could not be stopped. */
    int32_t (*read_register)(const cenotaph_pmodule_host *host, int32_t thread, cenotaph_pmodule_text name, uint64_t value[2]);

    /* The thread with that number from 0 on, while looking and in `scrub`. */
    int32_t (*thread)(const cenotaph_pmodule_host *host, size_t index, cenotaph_pmodule_thread *thread);
    /* The module with that number while looking. 0 is the program. */
    int32_t (*module)(const cenotaph_pmodule_host *host, size_t index, cenotaph_pmodule_module *module);
    /* The mapping with that number while looking. */
    int32_t (*map)(const cenotaph_pmodule_host *host, size_t index, cenotaph_pmodule_map *map);

    /* Address and size of an exported symbol while looking; see "Globals" above. `module` is the start of a module's file name,
       or empty: the first module that exports it. Both results are optional. Size 0 is unknown. */
    int32_t (*symbol)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text module, cenotaph_pmodule_text name, uint64_t *address, uint64_t *size);
    /* The exported symbol that holds an address while looking: its name, terminated, and the distance from its start.
       `length` is the name's, without terminator, also if it did not fit. Both are optional. The first question about a
       module reads its whole symbol table. */
    int32_t (*symbolize)(const cenotaph_pmodule_host *host, uint64_t address, char *buffer, size_t size, size_t *length, uint64_t *offset);
    /* The signal, while looking. CENOTAPH_PMODULE_NOT_FOUND: the process did not crash. */
    int32_t (*crash)(const cenotaph_pmodule_host *host, cenotaph_pmodule_crash *crash);

    /* Why there is a report, in `attributes` and `verdict`. */
    int32_t (*reason)(const cenotaph_pmodule_host *host, cenotaph_pmodule_reason *reason);
    /* The attribute with that number, in `attributes` and `verdict`. */
    int32_t (*attribute)(const cenotaph_pmodule_host *host, size_t index, cenotaph_pmodule_attribute *attribute);
    /* The breadcrumb with that number, oldest first, in `attributes` and `verdict`. */
    int32_t (*breadcrumb)(const cenotaph_pmodule_host *host, size_t index, cenotaph_pmodule_breadcrumb *breadcrumb);

    /* A frame of the report in `verdict`: number of the thread, number of the frame. */
    int32_t (*frame)(const cenotaph_pmodule_host *host, size_t thread, size_t frame, cenotaph_pmodule_frame *out);
    /* How much the report shows in `verdict`: enum cenotaph_pmodule_detail. */
    int32_t (*detail)(const cenotaph_pmodule_host *host, uint32_t *detail);
    /* The whole report in `verdict`, as JSON. */
    int32_t (*report)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text *json);

    /* The piece of memory in the dump with that number, in `scrub`. */
    int32_t (*region)(const cenotaph_pmodule_host *host, size_t index, cenotaph_pmodule_region *region);
    /* The whole dump in `scrub`: its first byte and its length. */
    int32_t (*dump)(const cenotaph_pmodule_host *host, const uint8_t **bytes, size_t *length);

    /* The functions from here on ask for something. What is asked for in one crash is limited to 4096 wishes; a text to
       16384 bytes, a name to 256. All but the last four belong to the events before `scrub`. */

    /* Text for whoever reads the report; it is scrubbed. */
    int32_t (*annotate)(const cenotaph_pmodule_host *host, uint32_t level, cenotaph_pmodule_text text);
    /* Sets an attribute of the report; its value is scrubbed. */
    int32_t (*set_attribute)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text key, const cenotaph_pmodule_value *value);
    /* A word by which reports are sorted. */
    int32_t (*classify)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text word);
    /* Tells crashes apart that have the same frames: goes into the fingerprint's hash, not into the report. */
    int32_t (*fingerprint)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text component);
    /* Adds memory to the dump; it is scrubbed. 4 MiB in all. */
    int32_t (*add_memory)(const cenotaph_pmodule_host *host, uint64_t address, uint64_t length);
    /* Treats an argument of the program, by its number, as a secret wherever a copy of it is. There may be fewer: no mistake. */
    int32_t (*blank_argument)(const cenotaph_pmodule_host *host, size_t index);
    /* Treats an environment variable's value as a secret wherever a copy of it is. There may be none: no mistake. */
    int32_t (*blank_environment)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text name);
    /* Keeps a thread's stack where others are cut because the dump gets longer than 32 MiB. Of a stack over 128 KiB only the
       first and the last 64 KiB are read, of this one too. */
    int32_t (*keep_stack)(const cenotaph_pmodule_host *host, int32_t thread);
    /* Lowers the report's level of detail: enum cenotaph_pmodule_detail. */
    int32_t (*lower_detail)(const cenotaph_pmodule_host *host, uint32_t detail);

    /* Blanks memory in the dump, by address; also in `scrub`. Before that, what text it held is sought elsewhere too. */
    int32_t (*blank_memory)(const cenotaph_pmodule_host *host, uint64_t address, uint64_t length);
    /* Blanks a register of a thread in the dump: "rax" to "r15" but "rsp" and "rbp", which an unwinder needs, and "xmm0" to
       "xmm15"; also in `scrub`. */
    int32_t (*blank_register)(const cenotaph_pmodule_host *host, int32_t thread, cenotaph_pmodule_text name);
    /* Leaves a thread's stack out of the dump; in `scrub` blanks it. */
    int32_t (*drop_stack)(const cenotaph_pmodule_host *host, int32_t thread);
    /* The report is not to be made, or in `verdict` not to be stored. The reason is logged as it is: no personal data. Not in `scrub`. */
    int32_t (*veto)(const cenotaph_pmodule_host *host, cenotaph_pmodule_text reason);
};

/*
 * A pmodule. The entry function returns one that is never freed. A callback returns 0, or something else if it failed:
 * fail() lends words to it. Callbacks may be NULL whose events are not wanted.
 */
typedef struct cenotaph_pmodule {
    /* Bytes of this structure. */
    uint32_t size;
    /* CENOTAPH_PMODULE_ABI. */
    uint32_t abi;
    /* Unique within the application: 1 to 64 lower-case letters, digits, '-', '_' or '.'. */
    cenotaph_pmodule_text name;
    /* Lower ones run first. */
    int32_t priority;
    /* Bits of enum cenotaph_pmodule_event: which events it wants. */
    uint32_t events;
    /* Not 0: it removes personal data. Should it fail in any way, the report steps down to a stack trace. Always so
       for those that want CENOTAPH_PMODULE_ON_SCRUB. */
    uint32_t redacts;
    /* How many filters there are, 64 at most. */
    uint32_t frame_filter_count;
    /* Which frames it wants: those that any of these takes. None: all. */
    const cenotaph_pmodule_frame_filter *frame_filters;
    /* Handed to each callback. May be NULL. */
    void *user;
    /* The events. */
    int32_t (*attach)(const cenotaph_pmodule_host *host, void *user);
    /* With the thread. */
    int32_t (*thread)(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_thread *thread);
    /* With the frame. */
    int32_t (*frame)(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_frame *frame);
    /* With the memory. */
    int32_t (*region)(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_region *region);
    /* attribute(), breadcrumb() and reason() have what was noted. */
    int32_t (*attributes)(const cenotaph_pmodule_host *host, void *user);
    /* The last look. */
    int32_t (*detach)(const cenotaph_pmodule_host *host, void *user);
    /* region(), dump(), thread() and read() have the dump. */
    int32_t (*scrub)(const cenotaph_pmodule_host *host, void *user);
    /* report(), frame(), detail() and those of `attributes` have the report. */
    int32_t (*verdict)(const cenotaph_pmodule_host *host, void *user);
} cenotaph_pmodule;

/*
 * The one function that a pmodule exports, marked CENOTAPH_PMODULE_EXPORT. `host_abi` is the host's CENOTAPH_PMODULE_ABI;
 * a module that cannot work with it returns NULL.
 */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t host_abi);

/* A text of a terminated string; NULL is the empty one. */
static inline cenotaph_pmodule_text cenotaph_pmodule_string(const char *string) {
    cenotaph_pmodule_text text;
    text.data = string;
    text.length = string != NULL ? strlen(string) : 0;
    return text;
}

#ifdef __cplusplus
}
#endif

#endif /* CENOTAPH_PMODULE_H */
