/* Who may call what: two bearer tokens, one for users and one for workers (named ones: tokens.h).
 *
 * The users' token is DATA_DIR/token and the workers' DATA_DIR/worker-token (or the setting
 * WORKER_TOKEN), both made at the first start, mode 0600. Only their hashes stay in memory. */
#pragma once

#include "base/http_server.h"
#include "base/text.h"

enum auth_role { AUTH_NOBODY, AUTH_USER, AUTH_WORKER };

struct auth {
    char user_hash[SHA256_HEX_LEN + 1];
    char worker_hash[SHA256_HEX_LEN + 1];
};

/* Blocking. `worker_token` "": from the file. */
int auth_load(struct auth *auth, const char *data_dir, const char *worker_token, struct error *err);
/* The same where several controllers share `store`: it holds the hashes of the tokens that all of them accept, written by
 * the first. A controller without a token file of its own accepts those and makes none; one with another token is
 * refused. */
struct store;
int auth_load_shared(struct auth *auth, const char *data_dir, const char *worker_token,
                     struct store *store, struct error *err);
/* The hash of the token in `header`, as below. */
int auth_hash(const char *header, char hash[SHA256_HEX_LEN + 1], struct error *err);
/* AUTH_NOBODY when it is neither of the two. */
enum auth_role auth_role_of(const struct auth *auth, const char *hash);
/* `header`: the value of Authorization, or NULL. ERROR_UNAUTHORIZED unless it holds one of the
 * tokens. */
int auth_role(const struct auth *auth, const char *header, enum auth_role *ret_role,
              struct error *err);
