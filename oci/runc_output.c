/* Reads what an OCI runtime prints: states, lists and log lines. All of it is taken as hostile
 * input. */
#include "oci/runc.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <string.h>

/* Linux never gives out a higher one (PID_MAX_LIMIT). */
#define PID_MAX 4194304
/* A state has about ten members and as many annotations as its bundle. */
#define VALUES_PER_STATE 256

static const struct json_limits state_limits = {
    .max_bytes = 1024 * 1024, .max_depth = 16, .max_values = 8192};
static const struct json_limits list_limits = {.max_bytes = 32 * 1024 * 1024,
                                               .max_depth = 16,
                                               .max_values =
                                                   (size_t)OCI_LIST_MAX * VALUES_PER_STATE};
static const struct json_limits log_limits = {
    .max_bytes = 64 * 1024, .max_depth = 4, .max_values = 64};

bool oci_id_valid(const char *id)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.";
    size_t len = strlen(id);

    return len > 0 && len <= OCI_ID_MAX && strspn(id, letters) == len && id[0] != '.' &&
           id[0] != '-';
}

static bool is_blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!strchr(" \t\r\n", text[i]) || text[i] == '\0')
            return false;
    return true;
}

static enum oci_status parse_status(const char *text)
{
    static const struct {
        const char *name;
        enum oci_status status;
    } names[] = {
        {"creating", OCI_STATUS_CREATING}, {"created", OCI_STATUS_CREATED},
        {"running", OCI_STATUS_RUNNING},   {"paused", OCI_STATUS_PAUSED},
        {"stopped", OCI_STATUS_STOPPED},
    };

    for (size_t i = 0; text && i < ARRAY_LENGTH(names); i++)
        if (strcmp(names[i].name, text) == 0)
            return names[i].status;
    return OCI_STATUS_UNKNOWN;
}

static int read_state(const struct json *value, struct oci_state *ret, struct error *err)
{
    struct oci_state state = {0};
    size_t len = 0;
    const char *id = json_string(json_get(value, "id"), &len);
    const struct json *pid = json_get(value, "pid");

    if (!id || len != strlen(id) || !oci_id_valid(id))
        return error_set(err, ERROR_UNAVAILABLE, "a container state without a valid id");
    memcpy(state.id, id, len + 1);
    state.status = parse_status(json_get_string(value, "status"));
    int64_t number = json_int(pid, 0);
    if (pid && (!json_is_int(pid) || number < 0 || number > PID_MAX))
        return error_set(err, ERROR_UNAVAILABLE, "container %s has an impossible pid", state.id);
    state.pid = state.status == OCI_STATUS_STOPPED ? 0 : (pid_t)number;
    *ret = state;
    return 0;
}

int oci_parse_state(const char *text, size_t len, struct oci_state *ret, struct error *err)
{
    autojson *root = json_parse(text, len, &state_limits, err);

    if (!root)
        return error_wrap(err, "the OCI runtime's state");
    return read_state(root, ret, err);
}

int oci_parse_list(const char *text, size_t len, struct oci_state **ret, size_t *ret_count,
                   struct error *err)
{
    *ret = NULL;
    *ret_count = 0;
    if (is_blank(text, len))
        return 0;
    autojson *root = json_parse(text, len, &list_limits, err);
    if (!root)
        return error_wrap(err, "the OCI runtime's list");
    if (json_type(root) == JSON_NULL)
        return 0;
    size_t count = json_count(root);
    if (json_type(root) != JSON_ARRAY || count > OCI_LIST_MAX)
        return error_set(err, ERROR_UNAVAILABLE,
                         "the OCI runtime's list is not an array of at most %d containers",
                         OCI_LIST_MAX);
    if (count == 0)
        return 0;

    autofree struct oci_state *states = calloc(count, sizeof(*states));
    if (!states)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (size_t i = 0; i < count; i++)
        if (read_state(json_at(root, i), &states[i], err) < 0)
            return -1;
    *ret = steal_pointer(&states);
    *ret_count = count;
    return 0;
}

/* Copies as one line of printable text. */
static void copy_line(const char *text, size_t len, char *out, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < len && used + 1 < size; i++) {
        unsigned char byte = (unsigned char)text[i];
        out[used++] = byte < 0x20 || byte == 0x7f ? ' ' : (char)byte;
    }
    while (used > 0 && out[used - 1] == ' ')
        used--;
    out[used] = '\0';
}

enum line_kind { LINE_EMPTY, LINE_OTHER, LINE_ERROR };

/* *out is only written for a line of at least the kind `wanted`. */
static enum line_kind read_log_line(const char *line, size_t len, enum line_kind wanted, char *out,
                                    size_t size)
{
    if (is_blank(line, len))
        return LINE_EMPTY;
    autojson *root = json_parse(line, len, &log_limits, NULL);
    const char *level = json_get_string(root, "level");
    size_t message_len = len;
    const char *message = json_string(json_get(root, "msg"), &message_len);
    enum line_kind kind = level && (strcmp(level, "error") == 0 || strcmp(level, "fatal") == 0)
                              ? LINE_ERROR
                              : LINE_OTHER;

    if (kind >= wanted)
        copy_line(message ? message : line, message ? message_len : len, out, size);
    return kind;
}

void oci_parse_log(const char *text, size_t len, char *out, size_t size)
{
    enum line_kind best = LINE_EMPTY;

    out[0] = '\0';
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t line_len = newline ? (size_t)(newline - text) : len;
        enum line_kind kind =
            read_log_line(text, line_len, best > LINE_OTHER ? best : LINE_OTHER, out, size);
        if (kind > best)
            best = kind;
        if (!newline)
            break;
        len -= line_len + 1;
        text = newline + 1;
    }
}
