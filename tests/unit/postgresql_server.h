/* A private PostgreSQL server for tests: a fresh cluster in a temporary folder, reached by a unix socket only, run as
 * nobody of note (it refuses root), gone with the test program however that ends. A password is needed to log in.
 *
 *     postgresql_start();            once a program, before all tests (which run in processes of their own)
 *     postgresql_use();              in each test, for that one
 *     postgresql_url("name", url)    a schema of its own in it
 *     postgresql_stop();
 *
 * Needs Debian's package postgresql (its programs are in /usr/lib/postgresql/VERSION/bin). */
#pragma once

#include "base/cleanup.h"
#include "base/file.h"

#include <criterion/criterion.h>
#include <glob.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define POSTGRESQL_PASSWORD "s3cret-p4ssword"

static struct {
    char folder[64], bin[256];
    pid_t pid;
} postgresql;

static void postgresql_find(void)
{
    glob_t found;
    cr_assert_eq(glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found), 0,
                 "PostgreSQL's server programs are not installed (Debian: postgresql)");
    snprintf(postgresql.bin, sizeof(postgresql.bin), "%s", found.gl_pathv[found.gl_pathc - 1]);
    *strrchr(postgresql.bin, '/') = '\0';
    globfree(&found);
}

/* In the child: the server's user, nothing of ours, an end when the tests end. */
static void postgresql_exec(const char *program, char *const arguments[])
{
    char path[512];
    const struct passwd *user = getpwnam("postgres");
    if (geteuid() == 0 && user && (setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0))
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    snprintf(path, sizeof(path), "%s/log", postgresql.folder);
    if (!freopen("/dev/null", "r", stdin) || !freopen(path, "a", stdout) ||
        dup2(STDOUT_FILENO, STDERR_FILENO) < 0 || chdir(postgresql.folder) < 0)
        _exit(126);
    snprintf(path, sizeof(path), "%s/%s", postgresql.bin, program);
    execv(path, arguments);
    _exit(127);
}

static void postgresql_initdb(void)
{
    char data[128], pwfile[128], password[] = "--pwfile=password";
    char *arguments[] = {(char[]){"initdb"},
                         (char[]){"-D"},
                         data,
                         (char[]){"-U"},
                         (char[]){"tester"},
                         (char[]){"--auth=scram-sha-256"},
                         password,
                         (char[]){"--no-sync"},
                         (char[]){"--encoding=UTF8"},
                         (char[]){"--locale=C.UTF-8"},
                         NULL};
    int status = -1;
    snprintf(data, sizeof(data), "%s/data", postgresql.folder);
    snprintf(pwfile, sizeof(pwfile), "%s/password", postgresql.folder);
    cr_assert_eq(write_file_atomic(pwfile, POSTGRESQL_PASSWORD "\n",
                                   strlen(POSTGRESQL_PASSWORD) + 1, 0644, false, NULL),
                 0);
    pid_t pid = fork();
    if (pid == 0)
        postgresql_exec("initdb", arguments);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "initdb failed: see %s/log", postgresql.folder);
}

/* Without a password: postgresql_url() has it. */
static PGconn *postgresql_connect(void)
{
    char where[256];
    snprintf(where, sizeof(where), "host=%s user=tester password=%s dbname=postgres",
             postgresql.folder, POSTGRESQL_PASSWORD);
    return PQconnectdb(where);
}

static void postgresql_launch(void)
{
    char data[128];
    char *arguments[] = {(char[]){"postgres"},
                         (char[]){"-D"},
                         data,
                         (char[]){"-k"},
                         postgresql.folder,
                         (char[]){"-c"},
                         (char[]){"listen_addresses="},
                         (char[]){"-c"},
                         (char[]){"fsync=off"},
                         (char[]){"-c"},
                         (char[]){"shared_buffers=16MB"},
                         (char[]){"-c"},
                         (char[]){"max_connections=20"},
                         NULL};
    snprintf(data, sizeof(data), "%s/data", postgresql.folder);
    postgresql.pid = fork();
    if (postgresql.pid == 0)
        postgresql_exec("postgres", arguments);
    for (int tries = 0;; tries++) {
        PGconn *connection = postgresql_connect();
        bool up = PQstatus(connection) == CONNECTION_OK;
        PQfinish(connection);
        if (up)
            return;
        cr_assert(waitpid(postgresql.pid, NULL, WNOHANG) == 0 && tries < 1000,
                  "the server does not start: see %s/log", postgresql.folder);
        usleep(20000); /* it tells its readiness in no other way */
    }
}

/* Its user may not be able to read the build folder, and owns this one. */
static void postgresql_start(void)
{
    const struct passwd *user = getpwnam("postgres");
    postgresql_find();
    strcpy(postgresql.folder, "/tmp/faas-test-postgresql-XXXXXX");
    cr_assert(mkdtemp(postgresql.folder));
    cr_assert(user && chown(postgresql.folder, user->pw_uid, user->pw_gid) == 0);
    postgresql_initdb();
    postgresql_launch();
}

/* Tests are new processes and know of the server by their environment. */
static void postgresql_publish(void)
{
    setenv("FAAS_TEST_POSTGRESQL", postgresql.folder, 1);
}

static void postgresql_use(void)
{
    snprintf(postgresql.folder, sizeof(postgresql.folder), "%s", getenv("FAAS_TEST_POSTGRESQL"));
}

static void postgresql_halt(int signal_number)
{
    kill(postgresql.pid, signal_number);
    waitpid(postgresql.pid, NULL, 0);
    postgresql.pid = 0;
}

static void postgresql_stop(void)
{
    if (postgresql.pid)
        postgresql_halt(SIGQUIT);
    remove_tree(postgresql.folder, NULL);
}

static void postgresql_run(const char *sql)
{
    PGconn *connection = postgresql_connect();
    PGresult *result = PQexec(connection, sql);
    cr_assert(PQresultStatus(result) == PGRES_COMMAND_OK ||
                  PQresultStatus(result) == PGRES_TUPLES_OK,
              "%s: %s", sql, PQerrorMessage(connection));
    PQclear(result);
    PQfinish(connection);
}

/* An empty schema; every session of the URL lives in it. */
static void postgresql_url(const char *schema, char *url, size_t size)
{
    char sql[256];
    snprintf(sql, sizeof(sql),
             "SET client_min_messages = error; DROP SCHEMA IF EXISTS %s CASCADE; CREATE SCHEMA %s",
             schema, schema);
    postgresql_run(sql);
    snprintf(url, size, "postgresql://tester:%s@/postgres?host=%s&options=-csearch_path%%3D%s",
             POSTGRESQL_PASSWORD, postgresql.folder, schema);
}
