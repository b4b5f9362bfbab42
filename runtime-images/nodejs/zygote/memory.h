/* Lets forked children have memory that a program keeps from them.
 *
 * V8 marks its heaps with MADV_DONTFORK, because what a Node.js process forks executes another program at once. A child of a
 * zygote needs them. Messages have room for ZYGOTE_MESSAGE_MAX bytes. */
#pragma once

/* Takes the mark from everything that is mapped now. 0; or -1 with `message`. */
int memory_share(char *message);
