/* The answer that a waiting client gets when its execution is final: the execution object, or the
 * raw result with status and headers that say how it went. */
#pragma once

#include "controller/executions.h"

/* Answers execution->request, which is NULL afterwards. */
void answer_execution(struct live_execution *execution);
