/* What went wrong, in a form that can be shown to a user.
 *
 * Functions that can fail return int (0, or -1) and take a `struct error *err` as their last
 * argument. The caller owns the struct; it holds no pointers, so it needs no cleaning and may be
 * copied. A function writes it only on failure. On the way up each layer adds what it was doing
 * with error_wrap(). A failing user function is data (see model/execution.h), never a struct error.
 * `err` may be NULL where the caller does not care.
 *
 * Messages say what was wrong with which value and what would be right. */
#pragma once

#include <stddef.h>

enum error_code {
    ERROR_NONE = 0,
    ERROR_INVALID_REQUEST, /* the input is wrong; trying again will not help */
    ERROR_UNAUTHORIZED,    /* no valid token */
    ERROR_FORBIDDEN,       /* a valid token that may not do this */
    ERROR_NOT_FOUND,
    ERROR_CONFLICT,
    ERROR_NOT_READY,         /* exists, but cannot be used yet */
    ERROR_PAYLOAD_TOO_LARGE, /* over a limit on size */
    ERROR_THROTTLED,         /* over a limit on rate or queue length; later it may work */
    ERROR_NO_CAPACITY,       /* nobody who could do it now */
    ERROR_TIMED_OUT,         /* an operation of the platform's own passed its deadline */
    ERROR_UNAVAILABLE,       /* a peer, program or device that is needed cannot be used */
    ERROR_INTERNAL,          /* a defect of ours, or the machine's (no memory, no disk) */
    ERROR_CODE_COUNT
};

struct error {
    enum error_code code;
    int sys_errno;          /* errno behind it, or 0 */
    unsigned retry_after_s; /* of ERROR_THROTTLED: when it may work again; 0: not known */
    char field[128];        /* JSON pointer of the offending value ("/memory_mb"), or "" */
    char message[640];      /* one line, no trailing full stop */
};

/* One row per code: how each program shows it. */
struct error_code_info {
    const char *type; /* the contract's name: "invalid_request" */
    int http_status;
    int exit_status; /* of the command-line programs (docs/quick-reference.md); 1 is a failed function */
    int retryable; /* whether the same call may work later */
};

const struct error_code_info *error_code_info(enum error_code code);
/* The code whose type is `type`; ERROR_INTERNAL for an unknown one. */
enum error_code error_code_from_type(const char *type);

/* All four return -1, so that `return error_set(err, …);` reads as one step. A long message is cut,
 * never an error. */
int error_set(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int error_set_field(struct error *err, enum error_code code, const char *pointer,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Appends ": strerror(sys_errno)". */
int error_set_errno(struct error *err, enum error_code code, int sys_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Puts "context: " before the message that is there; code, errno and field stay. */
int error_wrap(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__
/* It sees one file at a time, and would follow the way on which a failure returned 0. */
static inline int error_always(int status)
{
    (void)status;
    return -1;
}
#define error_set(...) error_always(error_set(__VA_ARGS__))
#define error_set_field(...) error_always(error_set_field(__VA_ARGS__))
#define error_set_errno(...) error_always(error_set_errno(__VA_ARGS__))
#define error_wrap(...) error_always(error_wrap(__VA_ARGS__))
#endif
