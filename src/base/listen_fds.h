/* Listening sockets that the program was started with: sd_listen_fds(3) without the library. A service manager that keeps a socket
 * open across restarts passes it as descriptor 3 and up, and says so with LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES.
 *
 * Call once, before anything else opens descriptors or starts processes or threads: the variables are taken out of the environment. */
#pragma once

/* The TCP socket of that name, listening, close-on-exec and non-blocking, which is now the caller's; -1 when there is none. All
 * others that were passed are closed, with a warning. */
int listen_fds_take(const char *name);
