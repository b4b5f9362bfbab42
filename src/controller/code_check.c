/* Code that is handed in: see code_check.h. */
#include "controller/code_check.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FIELD "/code"
#define CANDIDATES_MAX 4
#define CANDIDATE_LEN 300

/* Files of which one must be there. */
struct candidates {
    char paths[CANDIDATES_MAX][CANDIDATE_LEN];
    size_t count;
};

static void add(struct candidates *to, const char *path, const char *suffix)
{
    snprintf(to->paths[to->count++], CANDIDATE_LEN, "%s%s", path, suffix);
}

/* "pkg.main.handler": the module is what stands before the last dot. */
static void add_module(struct candidates *to, const struct function_spec *spec)
{
    char module[CANDIDATE_LEN - 16];
    snprintf(module, sizeof(module), "%s", spec->handler ? spec->handler : "");
    char *dot = strrchr(module, '.');
    if (dot)
        *dot = '\0';
    if (spec->runtime == RUNTIME_NODEJS) {
        add(to, module, ".js");
        add(to, module, ".mjs");
        add(to, module, ".cjs");
        return;
    }
    for (char *at = module; *at; at++)
        if (*at == '.')
            *at = '/';
    add(to, module, ".py");
    add(to, module, "/__init__.py");
}

static void expected_files(struct candidates *to, const struct function_spec *spec)
{
    to->count = 0;
    if (spec->contract == CONTRACT_HANDLER) {
        add_module(to, spec);
        return;
    }
    switch (spec->runtime) {
    case RUNTIME_PYTHON:
        add(to, "main.py", "");
        break;
    case RUNTIME_NODEJS:
        add(to, "index.js", "");
        add(to, "index.mjs", "");
        break;
    case RUNTIME_GO:
        add(to, "main.go", "");
        break;
    default:
        add(to, "bootstrap", "");
        break;
    }
}

static bool regular_file(const char *folder, const char *path)
{
    struct stat status;
    autofree char *whole = string_printf("%s/%s", folder, path);
    return whole && lstat(whole, &status) == 0 && S_ISREG(status.st_mode);
}

static int check_entry(const struct function_spec *spec, const char *folder, struct error *err)
{
    struct candidates files;
    char list[CANDIDATES_MAX * CANDIDATE_LEN] = "";
    size_t len = 0;
    expected_files(&files, spec);
    for (size_t i = 0; i < files.count; i++) {
        if (regular_file(folder, files.paths[i]))
            return 0;
        len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i ? " or " : "",
                                files.paths[i]);
    }
    return error_set_field(
        err, ERROR_INVALID_REQUEST, FIELD,
        "the archive must have the file %s at its top: a %s function of contract "
        "%s starts there",
        list, function_runtime_name(spec->runtime), function_contract_name(spec->contract));
}

static int check_single_file(const struct function_spec *spec, const char *code, size_t len,
                             struct error *err)
{
    bool program = len >= 4 && memcmp(code, "\177ELF", 4) == 0;
    bool script = len >= 2 && memcmp(code, "#!", 2) == 0;
    if (spec->runtime == RUNTIME_NATIVE && !program && !script)
        return error_set_field(
            err, ERROR_INVALID_REQUEST, FIELD,
            "code of runtime native must be an ELF program, a script that begins "
            "with #!, or an archive (.zip, .tar, .tar.gz) with the file bootstrap");
    if (spec->runtime != RUNTIME_NATIVE && memchr(code, '\0', len))
        return error_set_field(err, ERROR_INVALID_REQUEST, FIELD,
                               "code is neither a %s source file (it has NUL bytes) nor an archive "
                               "that is understood (.zip, .tar, .tar.gz)",
                               function_runtime_name(spec->runtime));
    return 0;
}

static int in_field(struct error *err)
{
    if (err && !err->field[0])
        snprintf(err->field, sizeof(err->field), "%s", FIELD);
    return error_wrap(err, "code");
}

int code_check(const struct function_spec *spec, const void *code, size_t len, const char *scratch,
               const struct archive_limits *limits, struct error *err)
{
    char id[RANDOM_ID_LEN + 1];
    enum archive_kind kind = archive_detect(code, len);
    if (len == 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, FIELD, "code is empty");
    if (kind == ARCHIVE_KIND_FILE)
        return check_single_file(spec, code, len, err);
    if (kind == ARCHIVE_KIND_UNSUPPORTED)
        return error_set_field(err, ERROR_INVALID_REQUEST, FIELD,
                               "code is an archive of a kind that is not understood: make it .zip, "
                               ".tar or .tar.gz");
    random_id(id);
    autofree char *folder = string_printf("%s/%s", scratch, id);
    if (!folder)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (archive_extract(code, len, folder, limits, NULL, err) < 0)
        return in_field(err);
    int outcome = check_entry(spec, folder, err);
    remove_tree(folder, NULL);
    return outcome;
}
