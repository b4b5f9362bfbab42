/* The verbs of `faas`, in the order in which --help and the manual show them. */
#include "cli/verbs.h"

const struct cli_verb *const cli_verbs[] = {
    &cli_verb_up,           &cli_verb_new,        &cli_verb_deploy,
    &cli_verb_invoke,       &cli_verb_list,       &cli_verb_describe,
    &cli_verb_rm,           &cli_verb_logs,       &cli_verb_executions,
    &cli_verb_workers,      &cli_verb_dlq_list,   &cli_verb_dlq_show,
    &cli_verb_dlq_redrive,  &cli_verb_dlq_purge,  &cli_verb_tokens_create,
    &cli_verb_tokens_list,  &cli_verb_tokens_rm,  &cli_verb_bundle,
    &cli_verb_image_import, &cli_verb_image_list, &cli_verb_image_rm,
    &cli_verb_completion,   &cli_verb_man,        NULL,
};
