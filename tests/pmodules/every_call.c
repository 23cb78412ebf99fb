/* Calls every function of the host in every event and fails with the first answer that is not as the header has it. */
#include "cenotaph_pmodule.h"

#include <stdio.h>

#define QUOTE_(line) #line
#define QUOTE(line) QUOTE_(line)
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            return host->fail(host, cenotaph_pmodule_string("line " QUOTE(__LINE__) ": " #condition));                 \
        }                                                                                                              \
    } while (0)
#define IS(literal, text) ((text).length == sizeof(literal) - 1 && memcmp((text).data, literal, (text).length) == 0)
#define FRESH(type, name)                                                                                              \
    type name;                                                                                                         \
    memset(&name, 0, sizeof name);                                                                                     \
    name.size = sizeof name

static int mark;

static cenotaph_pmodule_text text(const char *string) { return cenotaph_pmodule_string(string); }

/* What no event but those at which the process stands still allows. */
static int32_t may_not_look(const cenotaph_pmodule_host *host) {
    uint64_t value[2];
    FRESH(cenotaph_pmodule_module, module);
    FRESH(cenotaph_pmodule_map, map);
    FRESH(cenotaph_pmodule_crash, crash);
    CHECK(host->module(host, 0, &module) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->map(host, 0, &map) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->crash(host, &crash) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->read_register(host, 1, text("rax"), value) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->symbol(host, text(""), text("main"), value, NULL) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->symbolize(host, 0, NULL, 0, NULL, value) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->error(host).length > 0);
    return 0;
}

static int32_t may_not_see_notes(const cenotaph_pmodule_host *host) {
    FRESH(cenotaph_pmodule_reason, reason);
    FRESH(cenotaph_pmodule_attribute, attribute);
    FRESH(cenotaph_pmodule_breadcrumb, breadcrumb);
    CHECK(host->reason(host, &reason) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->attribute(host, 0, &attribute) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->breadcrumb(host, 0, &breadcrumb) == CENOTAPH_PMODULE_NOT_NOW);
    return 0;
}

static int32_t may_not_see_what_is_finished(const cenotaph_pmodule_host *host) {
    uint32_t detail;
    cenotaph_pmodule_text json;
    const uint8_t *bytes;
    size_t length;
    FRESH(cenotaph_pmodule_frame, frame);
    FRESH(cenotaph_pmodule_region, region);
    CHECK(host->frame(host, 0, 0, &frame) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->detail(host, &detail) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->report(host, &json) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->region(host, 0, &region) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->dump(host, &bytes, &length) == CENOTAPH_PMODULE_NOT_NOW);
    return 0;
}

static int32_t may_not_wish(const cenotaph_pmodule_host *host) {
    cenotaph_pmodule_value value = {CENOTAPH_PMODULE_BOOL, 0, 1, 0.0, {NULL, 0}};
    CHECK(host->annotate(host, CENOTAPH_PMODULE_COMMENT, text("x")) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->set_attribute(host, text("k"), &value) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->classify(host, text("x")) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->fingerprint(host, text("x")) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->add_memory(host, 1, 1) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->blank_argument(host, 1) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->blank_environment(host, text("x")) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->keep_stack(host, 1) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->lower_detail(host, CENOTAPH_PMODULE_POINTERS) == CENOTAPH_PMODULE_NOT_NOW);
    return 0;
}

static int32_t memory(const cenotaph_pmodule_host *host, uint64_t start) {
    unsigned char page[4096];
    char string[16];
    size_t done = 7;
    CHECK(host->read(host, start, page, sizeof page, &done) == 0 && done == sizeof page);
    CHECK(memcmp(page, "\177ELF", 4) == 0);
    CHECK(host->read(host, start, page, 4, NULL) == 0);
    CHECK(host->read(host, start, NULL, 0, NULL) == 0);
    CHECK(host->read(host, start, NULL, 1, &done) == CENOTAPH_PMODULE_NULL && done == 0);
    CHECK(host->read(host, 16, page, 4, &done) == CENOTAPH_PMODULE_NOT_FOUND && done == 0);
    CHECK(host->read(host, UINT64_MAX, page, 4, &done) == CENOTAPH_PMODULE_NOT_FOUND);
    /* From the identification's first letter to its first zero byte there are six bytes. */
    CHECK(host->read_string(host, start + 1, string, sizeof string, &done) == 0 && done == 6);
    CHECK(memcmp(string, "ELF\2\1\1", 7) == 0);
    CHECK(host->read_string(host, start + 1, string, 7, NULL) == 0);
    CHECK(host->read_string(host, start + 1, string, 6, &done) == CENOTAPH_PMODULE_SHORT && done == 5);
    CHECK(memcmp(string, "ELF\2\1", 6) == 0);
    CHECK(host->read_string(host, start + 1, string, 1, &done) == CENOTAPH_PMODULE_SHORT && string[0] == 0);
    CHECK(host->read_string(host, start + 1, string, 0, NULL) == CENOTAPH_PMODULE_NULL);
    CHECK(host->read_string(host, 16, string, sizeof string, &done) == CENOTAPH_PMODULE_NOT_FOUND && done == 0);
    return 0;
}

static int32_t symbols(const cenotaph_pmodule_host *host) {
    uint64_t address = 0, size = 0, offset = 9;
    char name[32];
    size_t length = 0;
    CHECK(host->symbol(host, text("libc.so"), text("nanosleep"), &address, &size) == 0 && address != 0 && size != 0);
    CHECK(host->symbol(host, text(""), text("nanosleep"), NULL, NULL) == 0);
    CHECK(host->symbol(host, text("ld-"), text("nanosleep"), NULL, NULL) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->symbol(host, text(""), text("no such symbol"), &address, NULL) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->symbol(host, text("libc.so"), text("getpid"), &address, NULL) == 0);
    CHECK(host->symbolize(host, address + 1, name, sizeof name, &length, &offset) == 0 && offset == 1);
    CHECK(length == strlen(name) && strstr(name, "getpid") != NULL);
    CHECK(host->symbolize(host, address, name, 3, &length, NULL) == CENOTAPH_PMODULE_SHORT && length > 3);
    CHECK(strlen(name) == 2);
    CHECK(host->symbolize(host, address, NULL, 3, NULL, NULL) == CENOTAPH_PMODULE_NULL);
    CHECK(host->symbolize(host, 16, name, sizeof name, NULL, NULL) == CENOTAPH_PMODULE_NOT_FOUND);
    return 0;
}

static int32_t wishes(const cenotaph_pmodule_host *host) {
    static char large[16385];
    cenotaph_pmodule_text odd = {"caf\351", 4};
    cenotaph_pmodule_text none = {NULL, 9};
    cenotaph_pmodule_value value = {CENOTAPH_PMODULE_BOOL, 0, 1, 0.0, {NULL, 0}};
    cenotaph_pmodule_text wide = {large, sizeof large};
    memset(large, 'x', sizeof large);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_COMMENT, text("a remark")) == 0);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_WARNING, text("")) == 0);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_CRITICAL, text("c")) == 0);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_JSON, text("{\"a\":1}")) == 0);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_JSON, text("{")) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->annotate(host, 9, text("x")) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_COMMENT, odd) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_COMMENT, wide) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_COMMENT, none) == CENOTAPH_PMODULE_NULL);
    CHECK(host->error(host).length > 0);
    CHECK(host->set_attribute(host, text("bool"), &value) == 0);
    value.kind = CENOTAPH_PMODULE_INTEGER;
    value.integer = -7;
    CHECK(host->set_attribute(host, text("integer"), &value) == 0);
    value.kind = CENOTAPH_PMODULE_NUMBER;
    value.number = 0.5;
    CHECK(host->set_attribute(host, text("number"), &value) == 0);
    value.kind = CENOTAPH_PMODULE_TEXT;
    value.text = text("words");
    CHECK(host->set_attribute(host, text("text"), &value) == 0);
    value.kind = 99;
    CHECK(host->set_attribute(host, text("odd"), &value) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->set_attribute(host, text("none"), NULL) == CENOTAPH_PMODULE_NULL);
    CHECK(host->classify(host, text("oom")) == 0);
    CHECK(host->classify(host, text("")) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->fingerprint(host, text("part")) == 0);
    CHECK(host->add_memory(host, 4096, 16) == 0);
    CHECK(host->add_memory(host, 4096, 0) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->add_memory(host, UINT64_MAX, 2) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->blank_argument(host, 1) == 0);
    CHECK(host->blank_environment(host, text("HOME")) == 0);
    CHECK(host->keep_stack(host, 5) == 0);
    CHECK(host->lower_detail(host, CENOTAPH_PMODULE_POINTERS) == 0);
    CHECK(host->lower_detail(host, 9) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->blank_memory(host, 256, 8) == 0);
    CHECK(host->blank_register(host, 5, text("xmm3")) == 0);
    CHECK(host->drop_stack(host, 6) == 0);
    CHECK(host->veto(host, text("test build")) == 0);
    return 0;
}

static int32_t attach(const cenotaph_pmodule_host *host, void *user) {
    size_t threads = 0;
    uint64_t value[2];
    uint32_t cut[2];
    FRESH(cenotaph_pmodule_thread, thread);
    FRESH(cenotaph_pmodule_module, module);
    FRESH(cenotaph_pmodule_map, map);
    FRESH(cenotaph_pmodule_crash, crash);
    CHECK(user == &mark && host->size == sizeof *host && host->abi == CENOTAPH_PMODULE_ABI);
    while (host->thread(host, threads, &thread) == 0) {
        CHECK(thread.size == sizeof thread && thread.id > 0 && thread.name.length > 0);
        CHECK(host->read_register(host, thread.id, text("rip"), value) == 0 && value[0] != 0 && value[1] == 0);
        CHECK(host->read_register(host, thread.id, text("xmm15"), value) == 0);
        CHECK(host->read_register(host, thread.id, text("xmm16"), value) == CENOTAPH_PMODULE_NOT_FOUND);
        CHECK(host->read_register(host, thread.id, text("rip"), NULL) == CENOTAPH_PMODULE_NULL);
        ++threads;
    }
    CHECK(threads == 1 && thread.crashed == 1);
    CHECK(host->read_register(host, -1, text("rip"), value) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->thread(host, 1, &thread) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->thread(host, 0, NULL) == CENOTAPH_PMODULE_NULL);
    thread.size = 0;
    CHECK(host->thread(host, 0, &thread) == CENOTAPH_PMODULE_INVALID);
    /* A shorter structure of some earlier version, and a longer one of a later. */
    cut[0] = sizeof cut;
    cut[1] = 0;
    CHECK(host->thread(host, 0, (cenotaph_pmodule_thread *)(void *)cut) == 0 && cut[0] == sizeof cut && cut[1] != 0);
    thread.size = 4096;
    CHECK(host->thread(host, 0, &thread) == 0 && thread.size == sizeof thread);
    CHECK(host->module(host, 0, &module) == 0 && module.start < module.end && module.path.data[0] == '/');
    CHECK(module.deleted == 0 && module.build_id != NULL && module.build_id_length == 20);
    CHECK(host->module(host, 1000, &module) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->map(host, 0, &map) == 0 && map.start < map.end && (map.permissions & CENOTAPH_PMODULE_READABLE));
    CHECK(host->map(host, 100000, &map) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->crash(host, &crash) == CENOTAPH_PMODULE_NOT_FOUND);
    if (memory(host, module.start) != 0 || symbols(host) != 0 || wishes(host) != 0) {
        return CENOTAPH_PMODULE_FAILED;
    }
    if (may_not_see_notes(host) != 0 || may_not_see_what_is_finished(host) != 0) {
        return CENOTAPH_PMODULE_FAILED;
    }
    return 0;
}

static int32_t on_thread(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_thread *thread) {
    CHECK(user == &mark && thread->size == sizeof *thread && thread->crashed == 1 && IS("sleep", thread->name));
    return 0;
}

static int32_t on_frame(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_frame *frame) {
    CHECK(user == &mark && frame->size == sizeof *frame && frame->thread == 12 && frame->crashed == 1);
    CHECK(frame->number == 3 && frame->instruction == 0x1234 && frame->offset == 0x34);
    CHECK(IS("libx.so", frame->module) && frame->symbol.length == 0);
    return 0;
}

static int32_t on_region(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_region *region) {
    CHECK(user == &mark && region->size == sizeof *region && region->stack_of == 12 && region->address == 0x5000);
    CHECK(region->length == 4 && memcmp(region->bytes, "abcd", 4) == 0);
    return 0;
}

static int32_t notes(const cenotaph_pmodule_host *host) {
    FRESH(cenotaph_pmodule_reason, reason);
    FRESH(cenotaph_pmodule_attribute, attribute);
    FRESH(cenotaph_pmodule_breadcrumb, breadcrumb);
    CHECK(host->reason(host, &reason) == 0 && reason.cause == CENOTAPH_PMODULE_PANIC);
    CHECK(IS("boom", reason.message) && IS("main.rs:1:2", reason.location));
    CHECK(host->attribute(host, 0, &attribute) == 0 && IS("level", attribute.key));
    CHECK(attribute.value.kind == CENOTAPH_PMODULE_TEXT && IS("castle", attribute.value.text) && attribute.truncated);
    CHECK(host->attribute(host, 1, &attribute) == 0 && attribute.value.kind == CENOTAPH_PMODULE_INTEGER);
    CHECK(attribute.value.integer == -3 && !attribute.truncated);
    CHECK(host->attribute(host, 2, &attribute) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->breadcrumb(host, 0, &breadcrumb) == 0 && breadcrumb.level == 2 && breadcrumb.time_ms == 17);
    CHECK(IS("net", breadcrumb.category) && IS("slow", breadcrumb.message));
    CHECK(host->breadcrumb(host, 1, &breadcrumb) == CENOTAPH_PMODULE_NOT_FOUND);
    return 0;
}

static int32_t attributes(const cenotaph_pmodule_host *host, void *user) {
    char byte;
    FRESH(cenotaph_pmodule_thread, thread);
    CHECK(user == &mark);
    CHECK(host->read(host, 0, &byte, 1, NULL) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->thread(host, 0, &thread) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->annotate(host, CENOTAPH_PMODULE_COMMENT, text("seen")) == 0);
    if (notes(host) != 0 || may_not_look(host) != 0 || may_not_see_what_is_finished(host) != 0) {
        return CENOTAPH_PMODULE_FAILED;
    }
    return 0;
}

static int32_t detach(const cenotaph_pmodule_host *host, void *user) {
    CHECK(user == &mark);
    /* Without words. */
    return 42;
}

static int32_t scrub(const cenotaph_pmodule_host *host, void *user) {
    char word[4];
    const uint8_t *bytes = NULL;
    size_t length = 0, index;
    uint32_t detail;
    FRESH(cenotaph_pmodule_region, region);
    FRESH(cenotaph_pmodule_thread, thread);
    FRESH(cenotaph_pmodule_frame, frame);
    CHECK(user == &mark);
    CHECK(host->dump(host, &bytes, &length) == 0 && length > 32 && memcmp(bytes, "MDMP", 4) == 0);
    CHECK(host->dump(host, NULL, &length) == CENOTAPH_PMODULE_NULL);
    CHECK(host->thread(host, 0, &thread) == 0 && thread.id == 12 && thread.crashed == 1 && thread.name.length == 0);
    for (index = 0; host->region(host, index, &region) == 0 && region.stack_of != 12; ++index) {
    }
    CHECK(region.stack_of == 12 && region.length >= 8);
    CHECK(host->read(host, region.address, word, sizeof word, NULL) == 0);
    CHECK(memcmp(region.bytes, word, sizeof word) == 0);
    CHECK(host->region(host, 1000, &region) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->blank_memory(host, region.address, 8) == 0);
    CHECK(host->blank_memory(host, region.address, 0) == CENOTAPH_PMODULE_INVALID);
    CHECK(host->blank_register(host, 12, text("rax")) == 0);
    CHECK(host->drop_stack(host, 12) == 0);
    CHECK(host->veto(host, text("x")) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->frame(host, 0, 0, &frame) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->detail(host, &detail) == CENOTAPH_PMODULE_NOT_NOW);
    if (may_not_wish(host) != 0 || may_not_look(host) != 0 || may_not_see_notes(host) != 0) {
        return CENOTAPH_PMODULE_FAILED;
    }
    return 0;
}

static int32_t verdict(const cenotaph_pmodule_host *host, void *user) {
    uint32_t detail = 9;
    cenotaph_pmodule_text json;
    FRESH(cenotaph_pmodule_frame, frame);
    CHECK(user == &mark);
    CHECK(host->detail(host, &detail) == 0 && detail == CENOTAPH_PMODULE_POINTERS);
    CHECK(host->report(host, &json) == 0 && json.length > 2 && json.data[0] == '{');
    CHECK(host->report(host, NULL) == CENOTAPH_PMODULE_NULL);
    CHECK(host->frame(host, 0, 0, &frame) == 0 && frame.thread == 12 && IS("libx.so", frame.module));
    CHECK(frame.instruction == 0x1234 && frame.offset == 0x34 && frame.number == 0 && frame.crashed == 1);
    CHECK(host->frame(host, 0, 1, &frame) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->frame(host, 1, 0, &frame) == CENOTAPH_PMODULE_NOT_FOUND);
    CHECK(host->blank_memory(host, 1, 1) == CENOTAPH_PMODULE_NOT_NOW);
    CHECK(host->drop_stack(host, 1) == CENOTAPH_PMODULE_NOT_NOW);
    if (notes(host) != 0 || may_not_wish(host) != 0 || may_not_look(host) != 0) {
        return CENOTAPH_PMODULE_FAILED;
    }
    CHECK(host->veto(host, text("seen enough")) == 0);
    return 0;
}

static const cenotaph_pmodule_frame_filter filters[] = {
    {CENOTAPH_PMODULE_LITERAL("libx"), {NULL, 0}, 1, 0},
    {{NULL, 0}, CENOTAPH_PMODULE_LITERAL("read"), 0, 0},
};

static const cenotaph_pmodule table = {
    sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, CENOTAPH_PMODULE_LITERAL("every-call"), -5, 255, 1, 2, filters,
    &mark, attach, on_thread, on_frame, on_region, attributes, detach, scrub, verdict,
};

CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t host_abi) {
    return host_abi == CENOTAPH_PMODULE_ABI ? &table : NULL;
}
