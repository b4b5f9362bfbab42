/* Bearer tokens: see auth.h. */
#include "controller/auth.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define TOKEN_MAX 512
#define TOKEN_MIN 16

static int make_token(const char *path, char token[2 * RANDOM_ID_LEN + 1], struct error *err)
{
    char line[2 * RANDOM_ID_LEN + 2];
    random_id(token);
    random_id(token + RANDOM_ID_LEN);
    int len = snprintf(line, sizeof(line), "%s\n", token);
    return write_file_atomic(path, line, (size_t)len, 0600, true, err);
}

/* Others must not be able to read a token, whoever made the file. */
static int check_mode(const char *path, struct error *err)
{
    struct stat status;
    if (stat(path, &status) == 0 && (status.st_mode & 077) != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the token file %s can be read by others (mode %04o): chmod 600 it", path,
                         (unsigned)status.st_mode & 07777);
    return 0;
}

static int hash_token_file(const char *data_dir, const char *name, char hash[SHA256_HEX_LEN + 1],
                           struct error *err)
{
    autofree char *path = string_printf("%s/%s", data_dir, name);
    char made[2 * RANDOM_ID_LEN + 1];
    with_cleanup(buffer_deinit) struct buffer content = BUFFER_INIT(TOKEN_MAX);

    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (!path_exists(path)) {
        if (make_token(path, made, err) < 0)
            return -1;
        sha256_hex(made, strlen(made), hash);
        explicit_bzero(made, sizeof(made));
        return 0;
    }
    if (check_mode(path, err) < 0 || buffer_read_file(&content, path, err) < 0)
        return -1;
    size_t len = content.data ? strcspn(content.data, " \t\r\n") : 0;
    if (len < TOKEN_MIN)
        return error_set(
            err, ERROR_INVALID_REQUEST,
            "the token in %s must have %d characters or more, not %zu (remove the file "
            "and a new one is made)",
            path, TOKEN_MIN, len);
    sha256_hex(content.data, len, hash);
    explicit_bzero(content.data, content.len);
    return 0;
}

int auth_load(struct auth *auth, const char *data_dir, const char *worker_token, struct error *err)
{
    if (hash_token_file(data_dir, "token", auth->user_hash, err) < 0)
        return -1;
    if (!worker_token[0])
        return hash_token_file(data_dir, "worker-token", auth->worker_hash, err);
    sha256_hex(worker_token, strlen(worker_token), auth->worker_hash);
    return 0;
}

/* The hash that the store has; the one of this controller's token, when the store has none. */
static int agree(const char *data_dir, const char *name, const char *given, struct store *store,
                 char hash[SHA256_HEX_LEN + 1], struct error *err)
{
    autofree char *path = string_printf("%s/%s", data_dir, name);
    autofree char *setting = string_printf("%s.sha256", name);
    autofree char *known = NULL;
    if (!path || !setting)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (store_get_setting(store, setting, &known, err) < 0)
        return -1;
    if (known && !given[0] && !path_exists(path)) {
        snprintf(hash, SHA256_HEX_LEN + 1, "%s", known);
        return 0;
    }
    if (given[0])
        sha256_hex(given, strlen(given), hash);
    else if (hash_token_file(data_dir, name, hash, err) < 0)
        return -1;
    free(known);
    known = NULL;
    if (store_claim_setting(store, setting, hash, &known, err) < 0)
        return -1;
    if (known && strcmp(known, hash) == 0)
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST,
                     "the token in %s is not the one that the controllers on this database accept: "
                     "copy the file from another controller, or remove it%s",
                     path, given[0] ? " and set the right WORKER_TOKEN" : "");
}

int auth_load_shared(struct auth *auth, const char *data_dir, const char *worker_token,
                     struct store *store, struct error *err)
{
    if (agree(data_dir, "token", "", store, auth->user_hash, err) < 0)
        return -1;
    return agree(data_dir, "worker-token", worker_token, store, auth->worker_hash, err);
}

int auth_hash(const char *header, char hash[SHA256_HEX_LEN + 1], struct error *err)
{
    if (!header)
        return error_set(err, ERROR_UNAUTHORIZED,
                         "a token is needed: send the header Authorization: Bearer TOKEN");
    if (strncasecmp(header, "Bearer ", 7) != 0)
        return error_set(err, ERROR_UNAUTHORIZED,
                         "the Authorization header must be \"Bearer TOKEN\"");
    header += 7 + strspn(header + 7, " ");
    sha256_hex(header, strcspn(header, " "), hash);
    return 0;
}

enum auth_role auth_role_of(const struct auth *auth, const char *hash)
{
    if (equal_constant_time(hash, auth->user_hash, SHA256_HEX_LEN))
        return AUTH_USER;
    return equal_constant_time(hash, auth->worker_hash, SHA256_HEX_LEN) ? AUTH_WORKER : AUTH_NOBODY;
}

int auth_role(const struct auth *auth, const char *header, enum auth_role *ret_role,
              struct error *err)
{
    char hash[SHA256_HEX_LEN + 1];
    if (auth_hash(header, hash, err) < 0)
        return -1;
    enum auth_role role = auth_role_of(auth, hash);
    if (role == AUTH_NOBODY)
        return error_set(err, ERROR_UNAUTHORIZED,
                         "the token is not known here (the one of DATA_DIR/token is)");
    *ret_role = role;
    return 0;
}
