#ifndef CENOTAPH_H
#define CENOTAPH_H

/* Made by cbindgen from ffi/src; do not edit. To make it anew: CENOTAPH_REGENERATE=1 cargo test -p cenotaph-ffi --test header */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version of this header. cenotaph_version() is that of the library. */
#define CENOTAPH_VERSION_MAJOR 0
#define CENOTAPH_VERSION_MINOR 1
#define CENOTAPH_VERSION_PATCH 0
#define CENOTAPH_VERSION_NUMBER 1000
#define CENOTAPH_VERSION_STRING "0.1.0"

/* Define CENOTAPH_STATIC to link the static library on Windows. */
#if defined(_WIN32) && !defined(CENOTAPH_STATIC)
#define CENOTAPH_API __declspec(dllimport)
#elif defined(__GNUC__)
#define CENOTAPH_API __attribute__((visibility("default")))
#else
#define CENOTAPH_API
#endif

/**
 * Bytes of a report's id as text, with the NUL: a buffer for cenotaph_capture().
 */
#define CENOTAPH_REPORT_ID_SIZE 37

/**
 * What a call came to. 0 is success; a number keeps its meaning for ever, and later versions may add more.
 */
enum cenotaph_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It was done.
     */
    CENOTAPH_STATUS_OK = 0,
    /**
     * An argument is NULL that must not be.
     */
    CENOTAPH_STATUS_NULL_ARGUMENT = 1,
    /**
     * A text is not UTF-8.
     */
    CENOTAPH_STATUS_INVALID_UTF8 = 2,
    /**
     * A number has no meaning for that argument.
     */
    CENOTAPH_STATUS_INVALID_ARGUMENT = 3,
    /**
     * A buffer is too small for what should go into it.
     */
    CENOTAPH_STATUS_BUFFER_TOO_SMALL = 4,
    /**
     * A defect of Cenotaph, caught at the border. Nothing more was done; the application may go on.
     */
    CENOTAPH_STATUS_PANIC = 5,
    /**
     * A setting cannot be used.
     */
    CENOTAPH_STATUS_INVALID_CONFIG = 6,
    /**
     * A file or directory cannot be used.
     */
    CENOTAPH_STATUS_FILE = 7,
    /**
     * No monitor process can be started, or it has ended.
     */
    CENOTAPH_STATUS_MONITOR_UNAVAILABLE = 8,
    /**
     * Cenotaph is installed in this process already.
     */
    CENOTAPH_STATUS_ALREADY_INSTALLED = 9,
    /**
     * The call needs an installed Cenotaph.
     */
    CENOTAPH_STATUS_NOT_INSTALLED = 10,
    /**
     * The operating system refused.
     */
    CENOTAPH_STATUS_SYSTEM = 11,
    /**
     * Bytes from elsewhere are not what they claim to be.
     */
    CENOTAPH_STATUS_MALFORMED = 12,
    /**
     * A stored report cannot be opened.
     */
    CENOTAPH_STATUS_UNSEALED = 13,
    /**
     * Too many of something, or too long.
     */
    CENOTAPH_STATUS_LIMIT = 14,
    /**
     * Consent does not allow it.
     */
    CENOTAPH_STATUS_CONSENT_REFUSED = 15,
    /**
     * Nobody answered in time.
     */
    CENOTAPH_STATUS_TIMEOUT = 16,
    /**
     * A server could not be reached safely or did not accept.
     */
    CENOTAPH_STATUS_UPLOAD = 17,
    /**
     * A failure that this version of the interface has no number for.
     */
    CENOTAPH_STATUS_OTHER = 18,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_status cenotaph_status;
#else
typedef int32_t cenotaph_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the person said.
 */
enum cenotaph_consent
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Not asked yet, or the record is missing, damaged or not authentic.
     */
    CENOTAPH_CONSENT_UNKNOWN = 0,
    /**
     * Yes.
     */
    CENOTAPH_CONSENT_GRANTED = 1,
    /**
     * No.
     */
    CENOTAPH_CONSENT_DENIED = 2,
    /**
     * Yes once, no longer.
     */
    CENOTAPH_CONSENT_WITHDRAWN = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_consent cenotaph_consent;
#else
typedef int32_t cenotaph_consent;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whom the application is made for.
 */
enum cenotaph_audience
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Adults, or nobody in particular. The default.
     */
    CENOTAPH_AUDIENCE_GENERAL = 0,
    /**
     * Children: no identifier, no breadcrumb text, detail "pointers" at most.
     */
    CENOTAPH_AUDIENCE_CHILD_DIRECTED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_audience cenotaph_audience;
#else
typedef int32_t cenotaph_audience;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * On what ground a grant stands.
 */
enum cenotaph_basis
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The person agreed.
     */
    CENOTAPH_BASIS_PERSON = 0,
    /**
     * A verified parent agreed.
     */
    CENOTAPH_BASIS_VERIFIED_PARENT = 1,
    /**
     * The operator's own devices or testers under contract.
     */
    CENOTAPH_BASIS_OPERATOR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_basis cenotaph_basis;
#else
typedef int32_t cenotaph_basis;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happens while the person has not been asked.
 */
enum cenotaph_consent_policy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing is kept: no dump, no file. The default.
     */
    CENOTAPH_CONSENT_POLICY_DROP_UNTIL_GRANTED = 0,
    /**
     * Reports are held sealed on the device and sent only after a grant.
     */
    CENOTAPH_CONSENT_POLICY_ASK_FIRST = 1,
    /**
     * The operator has another legal ground; only a denial or withdrawal stops reports.
     */
    CENOTAPH_CONSENT_POLICY_NOT_REQUIRED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_consent_policy cenotaph_consent_policy;
#else
typedef int32_t cenotaph_consent_policy;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much of the process a report shows, at most.
 */
enum cenotaph_detail
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Frames as module and offset, the reason, attributes. No memory.
     */
    CENOTAPH_DETAIL_STACK_TRACE = 0,
    /**
     * Stack words that point nowhere known are blanked, other memory is left out.
     */
    CENOTAPH_DETAIL_POINTERS = 1,
    /**
     * Memory with patterns and known values removed. The default.
     */
    CENOTAPH_DETAIL_MINIDUMP = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_detail cenotaph_detail;
#else
typedef int32_t cenotaph_detail;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How grave a breadcrumb is.
 */
enum cenotaph_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * For developers.
     */
    CENOTAPH_LEVEL_DEBUG = 0,
    /**
     * Ordinary events.
     */
    CENOTAPH_LEVEL_INFO = 1,
    /**
     * Something odd.
     */
    CENOTAPH_LEVEL_WARNING = 2,
    /**
     * Something failed.
     */
    CENOTAPH_LEVEL_ERROR = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_level cenotaph_level;
#else
typedef int32_t cenotaph_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * When a dying application may go on.
 */
enum cenotaph_release_at
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * As soon as its memory is read. The default.
     */
    CENOTAPH_RELEASE_AT_READ = 0,
    /**
     * When the report is committed to the spool: for services and sandboxes in which the monitor dies with the
     * application.
     */
    CENOTAPH_RELEASE_AT_SPOOLED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cenotaph_release_at cenotaph_release_at;
#else
typedef int32_t cenotaph_release_at;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The settings of an application, before it is installed. One thread at a time may use a handle.
 */
typedef struct cenotaph_options cenotaph_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes settings for an application by name (1 to 64 letters, digits, '-', '_', '.' or spaces) and version. Everything
 * else has the more private default.
 *
 * Returns NULL if a text is missing or is no UTF-8; cenotaph_last_error() says why. What the texts say is checked by
 * cenotaph_install(). A NULL may be passed on: every setter and cenotaph_install() then return CENOTAPH_STATUS_NULL_ARGUMENT.
 *
 * Ownership: the caller's, until cenotaph_install() or cenotaph_options_free(). Both texts are copied.
 * Threads: any. Signal handlers: no.
 *
 * # Safety
 * Both arguments are NULL or NUL-terminated.
 */
CENOTAPH_API
struct cenotaph_options *cenotaph_options_new(const char *application,
                                              const char *version);

/**
 * Frees settings that were not installed. NULL is fine.
 *
 * Ownership: the handle is gone. Threads: any, if no other thread uses the handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or came from cenotaph_options_new() and was neither freed nor installed.
 */
CENOTAPH_API
void cenotaph_options_free(struct cenotaph_options *options);

/**
 * Adds a server that takes reports: "crashpad=URL" or "backtrace=URL" with an https URL. Each report goes to all of
 * them, 8 at most. Without any, reports stay in the spool.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `destination` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_add_destination(struct cenotaph_options *options,
                                                 const char *destination);

/**
 * Sets the directory where sealed reports wait. Default: $XDG_STATE_HOME/APPLICATION/cenotaph, or the same under
 * ~/.local/state. It is made when something has to be stored. The path is UTF-8.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `directory` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_spool(struct cenotaph_options *options,
                                           const char *directory);

/**
 * Trusts the certificate authorities of a PEM file besides the system's: for collectors on premise. May be called
 * more than once. The path is UTF-8.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `pem` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_add_certificate_authority(struct cenotaph_options *options,
                                                           const char *pem);

/**
 * Says whom the application is made for: a value of enum cenotaph_audience.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_audience(struct cenotaph_options *options,
                                              int32_t audience);

/**
 * Says what happens before the person was asked: a value of enum cenotaph_consent_policy.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_consent_policy(struct cenotaph_options *options,
                                                    int32_t policy);

/**
 * Says how much a report shows, at most: a value of enum cenotaph_detail.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_detail(struct cenotaph_options *options,
                                            int32_t detail);

/**
 * Sends no device identifier. Always so for child-directed applications.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API cenotaph_status cenotaph_options_set_identity_off(struct cenotaph_options *options);

/**
 * Sends an identifier that lasts for one start of the application; nothing is stored.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_identity_session(struct cenotaph_options *options);

/**
 * Sends an identifier that changes after so many days (1 or more). The default, with 30.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_identity_epoch(struct cenotaph_options *options,
                                                    uint32_t days);

/**
 * Names the deployment: "production" (the default), "beta". 64 bytes at most.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `environment` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_environment(struct cenotaph_options *options,
                                                 const char *environment);

/**
 * Separates the identifiers of customers that share one application. 64 bytes at most.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `tenant` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_tenant(struct cenotaph_options *options,
                                            const char *tenant);

/**
 * Says when a dying application may go on: a value of enum cenotaph_release_at.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_release_at(struct cenotaph_options *options,
                                                int32_t release_at);

/**
 * Limits how long a dying application waits for its monitor, in milliseconds: 1 to 120000. Default: 10000.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_deadline_ms(struct cenotaph_options *options,
                                                 uint32_t deadline_ms);

/**
 * Limits how long the monitor retries a delivery after the application has ended, in milliseconds. Default: 60000.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_linger_ms(struct cenotaph_options *options,
                                               uint32_t linger_ms);

/**
 * Names a file for a line per outcome; it never holds report contents. Default: none. The path is UTF-8.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `file` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_log(struct cenotaph_options *options,
                                         const char *file);

/**
 * Adds a value that must never leave the device: an account name, a licence key. 1024 bytes at most. See also
 * cenotaph_register_secret().
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `value` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_add_secret(struct cenotaph_options *options,
                                            const char *value);

/**
 * Adds rules for what else must never leave the device, in the form of a rules file (TOML, docs/rules.md):
 * `[[rule]]`, `name`, `pattern`, and what they may ask for besides. Each is checked at once.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `rules` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_add_rules(struct cenotaph_options *options,
                                           const char *rules);

/**
 * Adds the rules of a TOML file, which is read by cenotaph_install(). May be called more than once. The path is UTF-8.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `file` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_add_rules_file(struct cenotaph_options *options,
                                                const char *file);

/**
 * Names a program that becomes the monitor in the place of this one: cenotaph-monitor, for applications whose start must
 * not happen twice (constructors, single-instance locks, windows) or which load pmodules. cenotaph_monitor_entry() is not
 * needed then. cenotaph_install() refuses one that does not belong to root or this user, or that others may write to.
 * The path is UTF-8 and is made absolute.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `program` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_helper(struct cenotaph_options *options,
                                            const char *program);

/**
 * Adds a shared object with a pmodule (cenotaph_pmodule.h), which the helper loads: 16 at most. cenotaph_install() refuses one
 * that does not belong to root or this user, or that others may write to. The path is UTF-8 and is made absolute.
 *
 * Ownership: the text is copied. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live, `shared_object` NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_add_plugin(struct cenotaph_options *options,
                                            const char *shared_object);

/**
 * Says whether panics of Rust code in this process are reported. Default: true.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_panics(struct cenotaph_options *options,
                                            bool report);

/**
 * Becomes a monitor if this process was started as one, and does not return then. Call it first in main(), before
 * the application opens windows, takes locks or starts threads: Cenotaph's monitor is this program, started again.
 * Without this call cenotaph_install() does the same, and what main() does before runs in the monitor too.
 *
 * Returns CENOTAPH_STATUS_OK in the application itself.
 *
 * Ownership: nothing to own. Threads: only before others exist. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_monitor_entry(void);

/**
 * Starts the monitor, then installs the handlers for fatal signals. Takes some milliseconds; nothing here uses the network or
 * waits for the monitor, and no file is written. Only after a crash soon after the last start
 * (cenotaph_options_set_start_up_ms()) it waits for that report's delivery, 2 s at most. Call it early: it works once threads exist, if
 * cenotaph_monitor_entry() came first.
 *
 * On failure the application is as it was before and may go on without.
 *
 * Ownership: takes the options, also on failure; the handle is dead afterwards. Threads: any, one at a time per handle.
 * Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_install(struct cenotaph_options *options);

/**
 * Puts the earlier signal handlers back and lets the monitor finish on its own. Cenotaph may be installed again
 * afterwards. Waits for a cenotaph_flush() of another thread. In a forked child it does nothing.
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_shutdown(void);

/**
 * Waits until everything that can be delivered now has been delivered, or the time is over
 * (CENOTAPH_STATUS_TIMEOUT). Other calls that need the monitor wait meanwhile: cenotaph_capture(), changes of
 * consent, cenotaph_shutdown().
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_flush(uint32_t timeout_ms);

/**
 * Sets an attribute to a text: 128 attributes at most, a key of 1 to 64 bytes, a value of up to 1024 (longer ones
 * are cut at a character and marked). Takes no system call and does not allocate unless it fails.
 *
 * Ownership: both texts are copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * Both arguments are NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_set_attribute_string(const char *key,
                                              const char *value);

/**
 * As cenotaph_set_attribute_string(), with lengths in bytes. NULL with length 0 is the empty text.
 *
 * Ownership: both texts are copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * Each text is NULL or as long as its length says.
 */
CENOTAPH_API
cenotaph_status cenotaph_set_attribute_string_n(const char *key,
                                                size_t key_length,
                                                const char *value,
                                                size_t value_length);

/**
 * Sets an attribute to an integer. Limits as for cenotaph_set_attribute_string().
 *
 * Ownership: the key is copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
CENOTAPH_API cenotaph_status cenotaph_set_attribute_integer(const char *key, int64_t value);

/**
 * Sets an attribute to a floating-point number. Limits as for cenotaph_set_attribute_string().
 *
 * Ownership: the key is copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
CENOTAPH_API cenotaph_status cenotaph_set_attribute_float(const char *key, double value);

/**
 * Sets an attribute to true or false. Limits as for cenotaph_set_attribute_string().
 *
 * Ownership: the key is copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
CENOTAPH_API cenotaph_status cenotaph_set_attribute_bool(const char *key, bool value);

/**
 * Removes an attribute, if it is there.
 *
 * Ownership: the key is only read. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
CENOTAPH_API cenotaph_status cenotaph_remove_attribute(const char *key);

/**
 * Adds a breadcrumb to the ring of the last 128: a value of enum cenotaph_level, a category of up to 32 bytes, a
 * message of up to 448 (longer ones are cut). In a child-directed application the message is not kept. Takes no system
 * call that blocks and does not allocate unless it fails.
 *
 * Ownership: both texts are copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * Both texts are NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_add_breadcrumb(int32_t level,
                                        const char *category,
                                        const char *message);

/**
 * As cenotaph_add_breadcrumb(), with lengths in bytes. NULL with length 0 is the empty text.
 *
 * Ownership: both texts are copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * Each text is NULL or as long as its length says.
 */
CENOTAPH_API
cenotaph_status cenotaph_add_breadcrumb_n(int32_t level,
                                          const char *category,
                                          size_t category_length,
                                          const char *message,
                                          size_t message_length);

/**
 * Registers a value that must never leave the device, in any report from now on: 64 at most, of 1 to 256 bytes.
 *
 * Ownership: the text is copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `value` is NULL or NUL-terminated.
 */
CENOTAPH_API
cenotaph_status cenotaph_register_secret(const char *value);

/**
 * As cenotaph_register_secret(), with the length in bytes.
 *
 * Ownership: the text is copied. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `value` is NULL or as long as `length` says.
 */
CENOTAPH_API cenotaph_status cenotaph_register_secret_n(const char *value, size_t length);

/**
 * Makes a report of the process as it is and lives on. Returns when its memory is read (with
 * CENOTAPH_RELEASE_AT_SPOOLED, when the report is committed). The threads are stopped for a few milliseconds, so that
 * blocking calls such as epoll_wait() may return EINTR.
 *
 * Writes the report's id to `id`, NUL-terminated, if it is not NULL: `id_size` is CENOTAPH_REPORT_ID_SIZE or more, else
 * CENOTAPH_STATUS_BUFFER_TOO_SMALL comes back and there is no report. On failure `id` is left as it was.
 *
 * Ownership: the reason is copied, the buffer is the caller's. Threads: any, one after another. Signal handlers: no.
 *
 * # Safety
 * `reason` is NULL or NUL-terminated, `id` NULL or `id_size` bytes long.
 */
CENOTAPH_API
cenotaph_status cenotaph_capture(const char *reason,
                                 char *id,
                                 size_t id_size);

/**
 * Stores in `state` what the person said, as the record on disk has it.
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `state` is NULL or the caller's variable.
 */
CENOTAPH_API cenotaph_status cenotaph_consent_state(cenotaph_consent *state);

/**
 * Reports may be kept and sent from now on, those held so far included. `basis` is a value of enum cenotaph_basis. On
 * failure nothing has changed. Writes to disk.
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_consent_grant(int32_t basis);

/**
 * No reports. What was held is removed; stores in `removed`, if it is not NULL, how many reports that were. No report
 * is made from now on, even if this fails because a file cannot be written or removed.
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `removed` is NULL or the caller's variable.
 */
CENOTAPH_API
cenotaph_status cenotaph_consent_deny(size_t *removed);

/**
 * No reports any longer. What is in the spool is removed, the device identifier and the local key are destroyed; stores
 * in `removed`, if it is not NULL, how many reports were removed. No report is made from now on, even if this fails.
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `removed` is NULL or the caller's variable.
 */
CENOTAPH_API
cenotaph_status cenotaph_consent_withdraw(size_t *removed);

/**
 * Gives the calling thread an alternate signal stack if it has none, so that its stack overflow is reported too. The
 * thread that installs Cenotaph has one. Freed when the thread ends.
 *
 * Ownership: nothing to own. Threads: any, each for itself. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_protect_thread(void);

/**
 * Says in a few words what a status means; "unknown status" for numbers that are none.
 *
 * Ownership: static memory, never freed. Threads: any. Signal handlers: yes.
 */
CENOTAPH_API const char *cenotaph_status_message(int32_t status);

/**
 * Copies the text of this thread's last failure into `buffer`: the thing, the cause and the way out. It may name a file,
 * but holds no secret, no value of an attribute and no text of a breadcrumb. Cut at a character if the buffer is too
 * small, always NUL-terminated unless `buffer` is NULL or `size` 0. Success of a later call leaves it as it is.
 *
 * Returns the length of the whole text without the NUL, as snprintf() does; 0 if nothing failed in this thread.
 *
 * Ownership: the buffer is the caller's. Threads: any, each has its own text. Signal handlers: no.
 *
 * # Safety
 * `buffer` is NULL or `size` bytes long.
 */
CENOTAPH_API
size_t cenotaph_last_error(char *buffer,
                           size_t size);

/**
 * The version of the library in use; CENOTAPH_VERSION_STRING is that of the header.
 *
 * Ownership: static memory, never freed. Threads: any. Signal handlers: yes.
 */
CENOTAPH_API const char *cenotaph_version(void);

/**
 * Watches the calling thread until it ends or calls cenotaph_unwatch_thread(): if it does not call cenotaph_beat() for
 * `limit_ms` milliseconds, a report is made of the process as it is, with this thread's frames first, and the process lives
 * on. Once a hang: the next beat begins anew. At least 20 ms (a shorter limit counts as that); 32 threads at once
 * (CENOTAPH_STATUS_LIMIT). A second call changes the limit. While a thread is watched the monitor wakes up four times within
 * the limit, and never otherwise. Looking at the process stops its threads for some milliseconds: calls that wait may
 * return EINTR, as with cenotaph_capture().
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_watch_thread(uint32_t limit_ms);

/**
 * The calling thread, which is watched, is alive. Stores a word in memory: no system call, no allocation, no lock.
 * CENOTAPH_STATUS_NOT_INSTALLED for a thread that is not watched.
 *
 * Ownership: nothing to own. Threads: a watched one. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_beat(void);

/**
 * Ends the calling thread's watch, if there is one.
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 */
CENOTAPH_API cenotaph_status cenotaph_unwatch_thread(void);

/**
 * A crash within so many milliseconds after cenotaph_install() is one of the start: the next cenotaph_install() then waits up
 * to 2 s until what can be delivered is delivered. Default: 5000; 0 switches this and cenotaph_safe_mode() off.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_start_up_ms(struct cenotaph_options *options,
                                                 uint32_t window_ms);

/**
 * After more than so many crashes of the start in a row cenotaph_safe_mode() is true. Default: 3.
 *
 * Ownership: nothing to own. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_set_safe_mode_after(struct cenotaph_options *options,
                                                     uint32_t crashes);

/**
 * Writes to `safe` whether the last starts ended in a crash soon after, more often than
 * cenotaph_options_set_safe_mode_after() allows: the application may want to leave out what could be at fault.
 *
 * Ownership: the variable is the caller's. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `safe` is NULL or a variable.
 */
CENOTAPH_API
cenotaph_status cenotaph_safe_mode(bool *safe);

/**
 * Registers memory that must never leave the device: `length` bytes from `start` on, whatever is in them at the time of a
 * crash. 64 ranges at most. They read as zeros in dumps and to pmodules, and words in them are left out of minimal records;
 * copies of texts in them are removed like registered values, copies of anything else are not. The memory is not touched.
 *
 * Ownership: the memory stays the caller's; it may be freed at any time. Threads: any. Signal handlers: no.
 */
CENOTAPH_API
cenotaph_status cenotaph_register_secret_range(const void *start,
                                               size_t length);

/**
 * Takes back cenotaph_register_secret_range() with the same arguments.
 *
 * Ownership: nothing to own. Threads: any. Signal handlers: no.
 */
CENOTAPH_API cenotaph_status cenotaph_unregister_secret_range(const void *start, size_t length);

/**
 * Makes a descriptor by which other processes of this application share this process's monitor, and writes it to
 * `descriptor`. It is closed on exec: hand it on as a child's standard input, by dup2(), or over a socket. Any number of
 * processes may use it.
 *
 * Ownership: the descriptor is the caller's, to be closed. Threads: any. Signal handlers: no.
 *
 * # Safety
 * `descriptor` is NULL or a variable.
 */
CENOTAPH_API
cenotaph_status cenotaph_share_monitor(int *descriptor);

/**
 * Shares the monitor of another process of the same application, with the same settings and user: `descriptor` is one that
 * cenotaph_share_monitor() made there. Where that monitor does not take this process, or is gone, cenotaph_install() starts
 * one as usual; it waits up to a second for the answer.
 *
 * Ownership: takes the descriptor, unless it is refused. Threads: one at a time per handle. Signal handlers: no.
 *
 * # Safety
 * `options` is NULL or live; the descriptor is open and nobody else closes it.
 */
CENOTAPH_API
cenotaph_status cenotaph_options_share_monitor(struct cenotaph_options *options,
                                               int descriptor);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CENOTAPH_H */
